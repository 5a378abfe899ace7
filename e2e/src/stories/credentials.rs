//! Health checks that log in, or show a certificate, with a Secret of the operator's namespace.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::health_checks::await_port;
use super::{NAMESPACE, Story, Undo};
use crate::await_condition::until;
use crate::guest::Guest;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::traffic;

const HTTP: &str = "http://172.16.2.225:8081/";
/// Name of the Secret that the chart is told of (`e2e/machine/values.yaml`).
const SECRET: &str = "lvs-checks";
/// Servers with Basic authentication, and those that want a certificate.
const PORTS: [(&str, u16); 4] = [
    ("web-1", 8081),
    ("web-2", 8081),
    ("web-1", 8443),
    ("web-2", 8443),
];
const UP: (&str, &str) = ("Up", "");
/// Nobody says it but the servers, the Secret and the question.
const PASSWORD: &str = "correct-horse-battery";

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "checks_with_credentials",
        tells: "Basic, a client's certificate and Redis: wrong is down in words, a corrected Secret is up without a restart, and nothing is shown",
        run: checks_with_credentials,
    }]
}

/// Servers that let in monitor, an authority, and certificates, in a folder that guest and machine see.
fn servers(lab: &Lab) -> Result<Undo<'_>> {
    let undo = Undo {
        lab,
        script: "kill $(cat /run/credentials/*.pid); rm -rf /run/credentials /share/credentials"
            .to_owned(),
    };
    let key = "ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    lab.guest.run(&format!(
        "set -e; mkdir -p /run/credentials /share/credentials; cd /share/credentials
         for name in authority stranger; do
             openssl req -x509 -newkey {key} -days 2 -subj /CN=$name -keyout $name.key -out $name.crt
         done
         openssl req -newkey {key} -subj /CN=web.example -keyout server.key -out server.csr
         openssl req -newkey {key} -subj /CN=director -keyout director.key -out director.csr
         echo subjectAltName=DNS:web.example >extensions
         for name in server director; do
             openssl x509 -req -days 2 -in $name.csr -CA authority.crt -CAkey authority.key -CAcreateserial \\
                 -extfile extensions -out $name.crt
         done
         cat server.key server.crt >/run/credentials/server.pem
         cp authority.crt /run/credentials
         cd /run/credentials
         for host in web-1 web-2; do
             echo 'monitor:{PASSWORD}' >$host.users
             cat >$host.conf <<C
server.modules = (\"mod_access\", \"mod_auth\", \"mod_authn_file\", \"mod_openssl\")
server.document-root = \"/run/web/$host/root\"
server.port = 8443
index-file.names = (\"index.html\")
ssl.engine = \"enable\"
ssl.pemfile = \"/run/credentials/server.pem\"
ssl.verifyclient.activate = \"enable\"
ssl.verifyclient.enforce = \"enable\"
ssl.verifyclient.ca-file = \"/run/credentials/authority.crt\"
auth.backend = \"plain\"
auth.backend.plain.userfile = \"/run/credentials/$host.users\"
\\$SERVER[\"socket\"] == \"0.0.0.0:8081\" {{
    ssl.engine = \"disable\"
    auth.require = (\"/\" => (\"method\" => \"basic\", \"realm\" => \"web\", \"require\" => \"valid-user\"))
}}
C
             setsid ip netns exec $host lighttpd -D -f $host.conf >$host.log 2>&1 </dev/null &
             echo $! >$host.pid
         done
         setsid ip netns exec web-3 redis-server --bind 0.0.0.0 --port 6379 --save '' --dir /run/credentials \\
             --requirepass {PASSWORD} >redis.log 2>&1 </dev/null &
         echo $! >redis.pid"
    ))?;
    Ok(undo)
}

/// The Secret from now on: password of monitor and of the cache, and whose certificate is shown.
fn set_secret(lab: &Lab, password: &str, certificate: Option<&str>) -> Result<()> {
    let folder = lab.guest.share.join("credentials");
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {SECRET}, namespace: {OPERATOR_NAMESPACE}}}\nstringData:\n  \
         {NAMESPACE}.monitor.username: monitor\n  {NAMESPACE}.monitor.password: {password}\n  {NAMESPACE}.cache.password: {password}\n"
    );
    for field in ["crt", "key"] {
        if let Some(name) = certificate {
            let pem = std::fs::read_to_string(folder.join(format!("{name}.{field}")))?;
            let pem = pem.trim_end().replace('\n', "\n    ");
            let _ = write!(text, "  {NAMESPACE}.director.tls.{field}: |\n    {pem}\n");
        }
    }
    // What is not named anew must be gone.
    delete_secret(lab)?;
    lab.cluster.apply(&text)
}

fn delete_secret(lab: &Lab) -> Result<()> {
    let words = ["delete", "--ignore-not-found", "-n", OPERATOR_NAMESPACE];
    lab.cluster
        .kubectl(&[&words[..], &["secret", SECRET]].concat())
        .map(drop)
}

/// Processes of all agents, and how often one ended.
fn agents(lab: &Lab) -> Result<String> {
    let (first, second) = (lab.agent_work("lb-a")?, lab.agent_work("lb-b")?);
    lab.guest.run(&format!(
        "cat {first}/pid {second}/pid; cat {first}/exits {second}/exits 2>/dev/null | wc -l"
    ))
}

/// Questions that a director could not ask, so far.
fn not_asked(lab: &Lab, director: &str) -> Result<u64> {
    let script = "curl --silent --show-error --max-time 10 http://127.0.0.1:9650/metrics |
        sed -n 's/^lvs_agent_health_check_results_total{result=\"not_asked\"} //p'";
    let count = lab.guest.on(director, script)?;
    Ok(count.trim().parse().unwrap_or(0))
}

/// Who answers somebody who knows the password.
fn spread(lab: &Lab) -> Result<traffic::Spread> {
    let user = format!("--user monitor:{PASSWORD}");
    traffic::spread_with(&lab.guest, "client", HTTP, 6, &user)
}

/// What a client of the cache is answered.
fn cache(guest: &Guest) -> Result<String> {
    guest.on(
        "client",
        &format!("redis-cli --no-auth-warning -h 172.16.2.225 -a {PASSWORD} ping"),
    )
}

fn checks_with_credentials(lab: &Lab) -> Result<()> {
    let told = servers(lab).and_then(|_servers| told(lab));
    delete_secret(lab)?;
    let words = ["delete", "--ignore-not-found", "-n", NAMESPACE];
    lab.cluster
        .kubectl(&[&words[..], &["configmap", "authorities"]].concat())?;
    told
}

fn told(lab: &Lab) -> Result<()> {
    let authority = lab.guest.share.join("credentials/authority.crt");
    let file = format!("--from-file=ca.crt={}", authority.display());
    let words = ["-n", NAMESPACE, "create", "configmap", "authorities", &file];
    lab.cluster.kubectl(&words)?;
    let label = "lvs.dev/ca-bundle=true";
    let words = ["-n", NAMESPACE, "label", "configmap", "authorities", label];
    lab.cluster.kubectl(&words)?;
    set_secret(lab, "wrong", None)?;
    lab.cluster
        .apply_example(NAMESPACE, "health-check-credentials.yaml")?;
    let await_all = |page: (&str, &str), certificate: (&str, &str), cache: (&str, &str)| {
        for (real_server, port) in PORTS {
            let (state, words) = if port == 8443 { certificate } else { page };
            await_port(lab, real_server, port, state, words)?;
        }
        await_port(lab, "cache-1", 6379, cache.0, cache.1)
    };
    let refused = ("Down", "log-in refused: status 401");
    let refused_by_redis = ("Down", "log-in refused: WRONGPASS");
    let missing = format!(
        "not asked: no credentials director for namespace {NAMESPACE}: add key {NAMESPACE}.director.tls.crt to Secret {SECRET}"
    );
    await_all(refused, ("Down", &missing), refused_by_redis)
        .context("with a wrong password and without a certificate")?;
    let before = agents(lab)?;

    set_secret(lab, PASSWORD, Some("stranger"))?;
    await_all(UP, ("Down", "UnknownCA"), UP).context("with the certificate of a stranger")?;
    let both = [("web-1".into(), 3), ("web-2".into(), 3)].into();
    let seen = spread(lab)?;
    ensure!(seen == both, "with the right password: {seen:?}");
    let answer = cache(&lab.guest)?;
    ensure!(answer.trim() == "PONG", "the cache says {answer}");

    set_secret(lab, PASSWORD, Some("director"))?;
    await_all(UP, UP, UP).context("with the director's certificate")?;

    // A server with a password of its own goes alone.
    let users = |password: &str| {
        let script = format!("echo monitor:{password} >/run/credentials/web-2.users");
        lab.guest.run(&script)
    };
    users("another")?;
    await_port(lab, "web-2", 8081, "Down", refused.1)?;
    let seen = spread(lab)?;
    ensure!(
        seen == [("web-1".into(), 6)].into(),
        "one is left: {seen:?}"
    );
    await_port(lab, "web-2", 8443, "Up", "")?;
    users(PASSWORD)?;
    await_all(UP, UP, UP).context("with its old password")?;

    // Without the Secret nobody is asked, and nobody goes.
    delete_secret(lab)?;
    for director in ["lb-a", "lb-b"] {
        let first = not_asked(lab, director)?;
        until(LIMIT, "every check twice without the Secret", || {
            let now = not_asked(lab, director)?;
            Ok(if now >= first + 10 { Ok(()) } else { Err(now) })
        })?;
    }
    await_all(UP, UP, UP).context("without the Secret")?;
    let seen = spread(lab)?;
    ensure!(seen == both, "nobody was asked: {seen:?}");

    let after = agents(lab)?;
    ensure!(before == after, "agents restarted: {before} {after}");
    shows_nothing(lab)
}

/// What the directors and the API server say has the password nowhere, but for the Secret.
fn shows_nothing(lab: &Lab) -> Result<()> {
    for kind in [
        "virtualservices.lvs.dev",
        "realservers.lvs.dev",
        "nodeplans.lvs.dev",
        "events",
    ] {
        let all = lab.cluster.get(&["--all-namespaces", kind])?.to_string();
        ensure!(!all.contains(PASSWORD), "{kind} show the password");
    }
    for node in ["lb-a", "lb-b"] {
        let work = lab.agent_work(node)?;
        let lines = format!("grep -c '{PASSWORD}' {work}/log || true");
        let found = lab.guest.run(&lines)?;
        ensure!(
            found.trim() == "0",
            "the log on {node} shows the password {found} times"
        );
    }
    Ok(())
}
