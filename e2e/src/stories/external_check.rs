//! Real servers that a judge looks at: a script behind a web server says who may have clients.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::health_checks::await_state;
use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

const ADDRESS: &str = "172.16.2.249";
const SERVICE: [&str; 4] = ["-n", NAMESPACE, "virtualservices.lvs.dev", "web"];
/// A machine that is nobody's node.
const JUDGE: &str = "plain-1";

/// Says no of whom the file `no` names, and nothing that counts while there is a file `broken`.
const SCRIPT: &str = r#"#!/bin/sh
cd /run/judge || exit 1
echo "$QUERY_STRING" >>asked
status='200 OK'
while read -r address; do
    case "&$QUERY_STRING&" in
    *"&service=web&address=$address&port=80&"*) status='503 Service Unavailable' ;;
    esac
done <no
[ ! -e broken ] || status='500 Internal Server Error'
printf 'Status: %s\r\nContent-Type: text/plain\r\n\r\n' "$status"
"#;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "external_check",
        tells: "a judge's no takes one real server out and his yes brings it back; a judge who is broken, gone or not permitted changes nothing",
        run: external_check,
    }]
}

/// The judge, until it is dropped.
struct Judge<'a>(&'a Lab);

impl<'a> Judge<'a> {
    fn appoint(lab: &'a Lab) -> Result<Self> {
        lab.guest.on(
            JUDGE,
            &format!(
                "mkdir -p /run/judge/root/cgi-bin && cd /run/judge && : >no && : >asked\n\
                 cat >root/cgi-bin/judge <<'JUDGE'\n{SCRIPT}JUDGE\n\
                 chmod 755 root/cgi-bin/judge"
            ),
        )?;
        let judge = Self(lab);
        judge.begin()?;
        Ok(judge)
    }

    fn begin(&self) -> Result<()> {
        self.run(
            "setsid busybox httpd -f -p 8081 -h root >/dev/null 2>&1 </dev/null & echo $! >pid",
        )
    }

    fn end(&self) -> Result<()> {
        self.run("kill $(cat pid)")
    }

    fn run(&self, script: &str) -> Result<()> {
        let script = format!("cd /run/judge || exit\n{script}");
        self.0.guest.on(JUDGE, &script).map(drop)
    }
}

impl Drop for Judge<'_> {
    fn drop(&mut self) {
        let _ = self.run("{ kill $(cat pid); rm -rf /run/judge; } 2>/dev/null || true");
    }
}

fn await_spread(lab: &Lab, expected: &[(&str, usize)]) -> Result<()> {
    let expected: traffic::Spread = expected
        .iter()
        .map(|(host, count)| ((*host).into(), *count))
        .collect();
    until(LIMIT, &format!("{expected:?} answer"), || {
        let seen = traffic::spread(&lab.guest, "client", &format!("http://{ADDRESS}/"), 8)?;
        Ok(if seen == expected { Ok(()) } else { Err(seen) })
    })
}

fn external_check(lab: &Lab) -> Result<()> {
    let judge = Judge::appoint(lab)?;
    lab.cluster
        .apply_example(NAMESPACE, "external-check.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    await_spread(lab, &[("web-1", 4), ("web-2", 4)])?;

    // No, and yes again.
    judge.run("echo 192.168.2.21 >no")?;
    await_state(
        lab,
        "web-1",
        "Down",
        "judge 192.168.2.31:8081 says no: status 503",
    )?;
    await_spread(lab, &[("web-2", 8)])?;
    judge.run(": >no")?;
    await_state(lab, "web-1", "Up", "")?;
    await_spread(lab, &[("web-1", 4), ("web-2", 4)])?;

    // One who is broken says nothing, of whomever.
    judge.run("echo 192.168.2.21 >no")?;
    await_state(lab, "web-1", "Down", "says no")?;
    judge.run("touch broken; : >no; : >asked")?;
    await_asked(&judge)?;
    await_spread(lab, &[("web-2", 8)]).context("a broken judge brings nobody in")?;
    judge.run("rm broken")?;
    await_state(lab, "web-1", "Up", "")?;
    judge.run("touch broken; : >asked")?;
    await_asked(&judge)?;
    await_spread(lab, &[("web-1", 4), ("web-2", 4)]).context("nor takes anybody out")?;
    judge.run("rm broken")?;

    // Nor does one who is not there; the other checks go on.
    judge.end()?;
    await_spread(lab, &[("web-1", 4), ("web-2", 4)])?;
    lab.guest.on("web-2", "nft 'table ip closed { chain input { type filter hook input priority -200; tcp dport 80 reject with tcp reset; }; }'")?;
    let down = await_state(lab, "web-2", "Down", "connect");
    let spread = await_spread(lab, &[("web-1", 8)]);
    lab.guest.on("web-2", "nft delete table ip closed")?;
    down.and(spread)?;
    judge.begin()?;
    await_state(lab, "web-2", "Up", "")?;

    // Nobody is sent where nothing was granted; what works goes on.
    let elsewhere = json!([{"name": "judge", "type": "ExternalHTTP", "periodSeconds": 1,
        "externalHTTP": {"url": "http://192.168.2.254:80/"}}]);
    lab.cluster
        .merge_patch(&SERVICE, &json!({"spec": {"healthChecks": elsewhere}}))?;
    let message = lab.await_reason(&SERVICE, "ResolvedRefs", "TargetNotPermitted")?;
    ensure!(
        message.contains("192.168.2.254") && message.contains("externalCheckCIDRs"),
        "{message}"
    );
    await_spread(lab, &[("web-1", 4), ("web-2", 4)])
}

/// Waits until both real servers were asked about by both directors, twice.
fn await_asked(judge: &Judge<'_>) -> Result<()> {
    until(LIMIT, "the judge is asked about both", || {
        let asked = judge.0.guest.on(JUDGE, "sort /run/judge/asked | uniq -c")?;
        let counts: Vec<u32> = asked
            .lines()
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        let is_enough = counts.len() == 2 && counts.iter().all(|count| *count >= 4);
        Ok(if is_enough { Ok(()) } else { Err(asked) })
    })
}
