//! Certificates of real servers on their way to the end: warned of while they are good, out when they are not.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::health_checks::{await_rules, edit, spread};
use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "certificate_expiry",
        tells: "a certificate that has days left is warned of in status, Event and metric while traffic flows; expired it takes its real server out, and the words say since when",
        run: certificate_expiry,
    }]
}

/// An authority, and what signs with it: `certificate HOST NOT_BEFORE NOT_AFTER`, as date(1) reads times, gives the host's TLS
/// server on port 8443 another certificate and starts it anew.
const SERVERS: &str = r#"set -eu
mkdir -p /run/certificates
cd /run/certificates
cat >ca.conf <<C
[ca]
default_ca = ours
[ours]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = policy
unique_subject = no
[policy]
commonName = supplied
C
: >index.txt
echo 01 >serial
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=authority -keyout authority.key -out authority.pem 2>/dev/null
echo 'subjectAltName = DNS:www.example.org' >extensions
cat >certificate <<'C'
set -eu
cd /run/certificates
at() { date -u -d "$1" +%Y%m%d%H%M%SZ; }
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=www.example.org -keyout $1.key -out $1.request 2>/dev/null
openssl ca -batch -config ca.conf -cert authority.pem -keyfile authority.key -extfile extensions -notext \
    -startdate "$(at "$2")" -enddate "$(at "$3")" -in $1.request -out $1.certificate 2>/dev/null
cat $1.key $1.certificate >$1.pem
printf '%s\n' 'server.modules = ("mod_openssl")' "server.document-root = \"/run/web/$1/root\"" 'server.port = 8443' \
    'index-file.names = ("index.html")' 'ssl.engine = "enable"' "ssl.pemfile = \"/run/certificates/$1.pem\"" >$1.conf
if [ -e $1.pid ]; then
    kill $(cat $1.pid)
    while ip netns exec $1 ss -Hltn 'sport = :8443' | grep -q .; do sleep 0.05; done
fi
setsid ip netns exec $1 lighttpd -D -f /run/certificates/$1.conf >$1.log 2>&1 </dev/null &
echo $! >$1.pid
C
"#;

/// The TLS servers of a story, until this is dropped.
struct Servers<'a>(&'a Lab);

impl<'a> Servers<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        lab.guest.run(SERVERS).context("making an authority")?;
        Ok(Self(lab))
    }

    fn certify(&self, host: &str, not_before: &str, not_after: &str) -> Result<()> {
        let words = format!("sh /run/certificates/certificate {host} '{not_before}' '{not_after}'");
        self.0.guest.run(&words).map(drop)
    }
}

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        let _ = self.0.guest.try_run(
            "for pid in /run/certificates/*.pid; do kill $(cat $pid); done; rm -rf /run/certificates",
        );
    }
}

/// The only port of a real server, when it has this state and message.
fn await_port(lab: &Lab, name: &str, state: &str, message: &str) -> Result<Value> {
    until(LIMIT, &format!("{name} is {state}: {message:?}"), || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsrs", name])?;
        let port = object["status"]["virtualServices"][0]["ports"][0].clone();
        let told = port["message"].as_str().unwrap_or_default();
        Ok(if port["state"] == state && told == message {
            Ok(port)
        } else {
            Err(port)
        })
    })
}

/// Notes of the Events of the certificate of a real server.
fn warnings(lab: &Lab, name: &str) -> Result<Vec<String>> {
    let selector = "reason=CertificateExpires";
    let words = [
        "-n",
        NAMESPACE,
        "events.events.k8s.io",
        "--field-selector",
        selector,
    ];
    let events = lab.cluster.get(&words)?;
    let items = events["items"].as_array().into_iter().flatten();
    let of_it =
        items.filter(|event| event["related"]["name"] == name && event["type"] == "Warning");
    Ok(of_it
        .filter_map(|event| event["note"].as_str().map(String::from))
        .collect())
}

fn certificate_expiry(lab: &Lab) -> Result<()> {
    let servers = Servers::start(lab)?;
    servers.certify("web-1", "-1 day", "+5 days")?;
    servers.certify("web-2", "-1 day", "+100 days")?;
    let authority = lab.guest.run("cat /run/certificates/authority.pem")?;
    let bundle = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "ca", "labels": {"lvs.dev/ca-bundle": "true"}}, "data": {"ca.crt": authority}});
    lab.cluster.apply_text(NAMESPACE, &bundle.to_string())?;
    lab.cluster.apply_example(NAMESPACE, "health-checks.yaml")?;
    let check = json!({"name": "page", "type": "HTTPS", "port": 8443, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 1,
        "http": {"path": "/index.html"},
        "tls": {"serverName": "www.example.org", "caConfigMapName": "ca", "expiryWarningDays": 14}});
    edit(lab, &json!({"healthChecks": [check.clone()]}))?;
    let master = lab.await_serving(NAMESPACE, "web")?;

    // Good for four days and some hours: warned of, and everything flows.
    let port = await_port(lab, "web-1", "Up", "certificate expires in 4 days")?;
    let end = port["certificateExpiryTime"].as_str().unwrap_or_default();
    ensure!(!end.is_empty(), "no certificateExpiryTime in {port}");
    let port = await_port(lab, "web-2", "Up", "")?;
    ensure!(
        port["certificateExpiryTime"].is_null(),
        "warned of too soon: {port}"
    );
    let both = ["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"];
    await_rules(lab, &master, &both)?;
    let seen = spread(lab, 30)?;
    let expected: traffic::Spread = [("web-1".into(), 20), ("web-2".into(), 10)].into();
    ensure!(seen == expected, "wrr 2:1 gave {seen:?}");
    let note = format!("web-1 (192.168.2.21:80): certificate is valid until {end}");
    let told = until(LIMIT, "an Event of the certificate", || {
        let told = warnings(lab, "web-1")?;
        Ok(if told.is_empty() { Err(()) } else { Ok(told) })
    })?;
    ensure!(told == [note.clone()], "{told:?}, expected {note}");
    ensure!(warnings(lab, "web-2")?.is_empty(), "an Event of web-2");
    let count = lab.agent_metric(&master, "lvs_agent_health_check_certificates_expiring")?;
    ensure!(
        (count - 1.0).abs() < 0.5,
        "{count} certificates are counted"
    );

    // Expired: out, and clients have the other one.
    servers.certify("web-1", "-10 days", "-50 hours")?;
    await_port(lab, "web-1", "Down", "certificate expired 2 days ago")?;
    await_rules(lab, &master, &both[1..])?;
    let seen = spread(lab, 10)?;
    ensure!(
        seen == [("web-2".into(), 10)].into(),
        "one is left: {seen:?}"
    );

    // Not valid yet is out, too.
    servers.certify("web-1", "+150 minutes", "+10 days")?;
    await_port(lab, "web-1", "Down", "certificate is valid only in 3 hours")?;

    // Who verifies nothing keeps it, and says so all the same.
    servers.certify("web-1", "-10 days", "-50 hours")?;
    let mut unverified = check;
    unverified["tls"] = json!({"verification": "None", "expiryWarningDays": 14});
    edit(lab, &json!({"healthChecks": [unverified]}))?;
    await_port(lab, "web-1", "Up", "certificate expired 2 days ago")?;
    await_rules(lab, &master, &both)?;
    let seen = spread(lab, 30)?;
    ensure!(seen == expected, "wrr 2:1 gave {seen:?}");
    ensure!(
        warnings(lab, "web-1")?
            .iter()
            .filter(|told| **told == note)
            .count()
            == 1,
        "the first certificate was told again"
    );
    Ok(())
}
