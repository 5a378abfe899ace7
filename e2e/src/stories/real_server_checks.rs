//! Checks of one real server in the place of its VirtualService's: who is asked, where, and from where.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::health_checks::await_port;
use super::{NAMESPACE, Story, Undo};
use crate::await_condition::until_equal;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

const ADDRESS: &str = "172.16.2.249";
const ALL: [&str; 3] = ["web-1", "web-2", "web-3"];

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "real_server_checks",
        tells: "one is asked for another page at another port, from one address; one by another machine; each goes out alone when that fails",
        run: |lab| {
            let _servers = servers(lab)?;
            told(lab)
        },
    }]
}

/// web-2 has a page for checks on port 8081 that only 192.168.2.111 may see, which lb-a gets.
fn servers(lab: &Lab) -> Result<Undo<'_>> {
    let undo = Undo {
        lab,
        script: "kill $(cat /run/ready/pid); rm -rf /run/ready
            ip -n lb-a address del 192.168.2.111/24 dev in
            ip netns exec plain-1 nft delete table ip closed 2>/dev/null"
            .to_owned(),
    };
    lab.guest.run(
        "set -e; mkdir -p /run/ready/root; cd /run/ready; touch root/ready
         cat >conf <<C
server.modules = (\"mod_access\")
server.document-root = \"/run/ready/root\"
server.port = 8081
\\$HTTP[\"remoteip\"] != \"192.168.2.111\" { url.access-deny = (\"\") }
C
         ip -n lb-a address add 192.168.2.111/24 dev in
         setsid ip netns exec web-2 lighttpd -D -f conf >log 2>&1 </dev/null &
         echo $! >pid",
    )?;
    Ok(undo)
}

/// Who is in the director's kernel, and who answers a client: the same, each in turn.
fn await_serving(lab: &Lab, expected: &[&str]) -> Result<()> {
    let wanted: Vec<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let begin = format!("-a -t {ADDRESS}:80 -r 192.168.2.2");
    until_equal(LIMIT, "real servers in the kernel", &wanted, || {
        let rules = lab.ipvs_rules("lb-a")?;
        Ok(rules
            .iter()
            .filter_map(|rule| rule.strip_prefix(&begin)?.split(':').next())
            .map(|number| format!("web-{number}"))
            .collect())
    })?;
    let count = 6 / expected.len();
    let each = wanted.into_iter().map(|name| (name, count)).collect();
    let url = format!("http://{ADDRESS}/");
    let seen = traffic::spread(&lab.guest, "client", &url, 6)?;
    ensure!(seen == each, "clients reach {seen:?}, expected {each:?}");
    Ok(())
}

fn told(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "real-server-check.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    await_serving(lab, &ALL).context("all pass")?;

    lab.guest.run("rm /run/ready/root/ready")?;
    await_port(lab, "web-2", 80, "Down", "status 404")?;
    await_serving(lab, &["web-1", "web-3"]).context("web-2 is not ready")?;
    lab.guest.run("touch /run/ready/root/ready")?;
    await_serving(lab, &ALL).context("web-2 is ready again")?;

    lab.guest.on(
        "plain-1",
        "nft 'table ip closed { chain input { type filter hook input priority -200; tcp dport 8080 reject with tcp reset; }; }'",
    )?;
    await_port(lab, "web-3", 80, "Down", "connect refused")?;
    await_serving(lab, &["web-1", "web-2"]).context("the machine behind web-3 is down")?;
    lab.guest.on("plain-1", "nft delete table ip closed")?;
    await_serving(lab, &ALL).context("the machine behind web-3 is up again")?;

    // From any other address of the director the page is forbidden.
    let check = |source: Option<&str>| {
        let mut check = json!({"name": "page", "type": "HTTP", "periodSeconds": 2, "port": 8081, "http": {"path": "/ready"}});
        if let Some(source) = source {
            check["sourceAddress"] = source.into();
        }
        let words = ["-n", NAMESPACE, "realservers.lvs.dev", "web-2"];
        let change = json!({"spec": {"healthChecks": [check]}});
        lab.cluster.merge_patch(&words, &change)
    };
    check(None)?;
    await_port(lab, "web-2", 80, "Down", "status 403")?;
    await_serving(lab, &["web-1", "web-3"]).context("asked from another address")?;
    check(Some("192.168.2.111"))?;
    await_serving(lab, &ALL).context("asked from the right address again")?;

    // Without its own check it is asked as the others are.
    let words = ["-n", NAMESPACE, "realservers.lvs.dev", "web-2"];
    lab.guest.run("rm /run/ready/root/ready")?;
    await_port(lab, "web-2", 80, "Down", "status 404")?;
    let none = json!({"spec": {"healthChecks": null}});
    lab.cluster.merge_patch(&words, &none)?;
    await_port(lab, "web-2", 80, "Up", "")?;
    await_serving(lab, &ALL).context("asked as the others")
}
