//! Health checks and what follows from them: S4 word for word, S1's times, quorum and administrative state.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, Story, Undo, other};
use crate::await_condition::{until, until_equal};
use crate::failover::operator::{self, Setting};
use crate::lab::{LIMIT, Lab};
use crate::traffic;

pub(super) const ADDRESS: &str = "172.16.2.220";
const URL: &str = "http://172.16.2.220/";

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "S4_ldirectord",
            tells: "weights 2:1, request and expected text, fallback on the director, live edits, quiescent both ways",
            run: ldirectord,
        },
        Story {
            name: "S1_tcp_check_times",
            tells: "delay_loop 6, connect_timeout 3, retry 3 after 3 s: out when keepalived would take it out",
            run: tcp_check_times,
        },
        Story {
            name: "checks_survive_a_restart",
            tells: "an agent that restarts while the real servers are well changes nothing, and one that is down stays out",
            run: restart,
        },
        Story {
            name: "tracking_real_servers",
            tells: "a director that alone loses its real servers hands over to one that sees them",
            run: tracking_real_servers,
        },
        Story {
            name: "administrative_state",
            tells: "Draining keeps connections and takes no new ones, Disabled takes the real server out",
            run: administrative_state,
        },
    ]
}

/// A web server of the directors' own on port 80 that says it is sorry.
fn sorry_servers(lab: &Lab) -> Result<Undo<'_>> {
    let undo = Undo {
        lab,
        script: "for host in lb-a lb-b; do kill $(cat /run/sorry-$host.pid); rm -rf /run/sorry-$host*; done".to_owned(),
    };
    lab.guest.run(
        "for host in lb-a lb-b; do
             mkdir -p /run/sorry-$host
             echo sorry >/run/sorry-$host/index.html
             printf '%s\\n' \"server.document-root = \\\"/run/sorry-$host\\\"\" 'server.port = 80' \
                 'index-file.names = (\"index.html\")' >/run/sorry-$host.conf
             setsid ip netns exec $host lighttpd -D -f /run/sorry-$host.conf >/run/sorry-$host.log 2>&1 </dev/null &
             echo $! >/run/sorry-$host.pid
         done",
    )?;
    for host in ["lb-a", "lb-b"] {
        until_equal(LIMIT, &format!("a sorry server on {host}"), &true, || {
            let listening = lab.guest.on(host, "ss -Hltn 'sport = :80'")?;
            Ok(listening.contains("LISTEN"))
        })?;
    }
    Ok(undo)
}

/// What the web server of a host answers from now on; `None` = its name, as always.
fn set_page(lab: &Lab, host: &str, page: Option<&str>) -> Result<()> {
    let text = page.unwrap_or(host);
    lab.guest
        .run(&format!("echo '{text}' >/run/web/{host}/root/index.html"))?;
    Ok(())
}

/// Pages as they always are, when dropped.
fn pages(lab: &Lab) -> Undo<'_> {
    Undo {
        lab,
        script: "for host in web-1 web-2; do echo $host >/run/web/$host/root/index.html; done"
            .to_owned(),
    }
}

/// Waits for the destinations of the service in a director's kernel.
pub(super) fn await_rules(lab: &Lab, director: &str, expected: &[&str]) -> Result<()> {
    let wanted: Vec<String> = expected
        .iter()
        .map(|rule| format!("-a -t {ADDRESS}:80 -r {rule}"))
        .collect();
    until(LIMIT, &format!("{expected:?} on {director}"), || {
        let rules: Vec<String> = lab
            .ipvs_rules(director)?
            .into_iter()
            .filter(|rule| rule.starts_with("-a "))
            .collect();
        Ok(if rules == wanted { Ok(()) } else { Err(rules) })
    })
}

/// State and message of a real server's only port.
fn port_of(lab: &Lab, name: &str) -> Result<(String, String)> {
    let object = lab.cluster.get(&["-n", NAMESPACE, "lvsrs", name])?;
    let port = &object["status"]["virtualServices"][0]["ports"][0];
    let text = |field: &str| port[field].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("message")))
}

/// Waits until a real server's only port has this state, with these words in its message.
pub(super) fn await_state(lab: &Lab, name: &str, state: &str, message: &str) -> Result<()> {
    until(LIMIT, &format!("{name} is {state}: {message:?}"), || {
        let seen = port_of(lab, name)?;
        Ok(if seen.0 == state && seen.1.contains(message) {
            Ok(())
        } else {
            Err(seen)
        })
    })
}

/// Waits until a port of a real server has this state, with these words in its message.
pub(super) fn await_port(lab: &Lab, name: &str, port: u16, state: &str, words: &str) -> Result<()> {
    let what = format!("port {port} of {name} is {state}: {words:?}");
    until(LIMIT, &what, || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsrs", name])?;
        let services = object["status"]["virtualServices"].as_array();
        let found = services
            .into_iter()
            .flatten()
            .flat_map(|service| service["ports"].as_array().into_iter().flatten())
            .find(|row| row["port"] == port);
        let as_told = found.is_some_and(|row| {
            let message = row["message"].as_str().unwrap_or_default();
            row["state"] == state && message.contains(words)
        });
        Ok(if as_told { Ok(()) } else { Err(found.cloned()) })
    })
}

fn await_ready(lab: &Lab, ready: &str) -> Result<()> {
    until_equal(LIMIT, "READY of web", &ready.to_owned(), || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsvs", "web"])?;
        let shown = object["status"]["summary"]["realServers"].as_str();
        Ok(shown.unwrap_or_default().to_owned())
    })
}

pub(super) fn edit(lab: &Lab, spec: &Value) -> Result<()> {
    let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "web"];
    lab.cluster.merge_patch(&words, &json!({"spec": spec}))
}

pub(super) fn spread(lab: &Lab, count: usize) -> Result<traffic::Spread> {
    traffic::spread(&lab.guest, "client", URL, count)
}

fn ldirectord(lab: &Lab) -> Result<()> {
    let _sorry = sorry_servers(lab)?;
    let _pages = pages(lab);
    lab.cluster.apply_example(NAMESPACE, "health-checks.yaml")?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    await_ready(lab, "2/2")?;
    for director in ["lb-a", "lb-b"] {
        await_rules(
            lab,
            director,
            &["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"],
        )
        .context("both directors check")?;
    }
    let seen = spread(lab, 30)?;
    ensure!(
        seen == [("web-1".into(), 20), ("web-2".into(), 10)].into(),
        "wrr 2:1 gave {seen:?}"
    );

    // quiescent=no: what does not answer as expected is out, and says why.
    set_page(lab, "web-1", Some("maintenance"))?;
    await_rules(lab, &master, &["192.168.2.22:80 -g -w 1"])?;
    await_state(lab, "web-1", "Down", "web-[0-9]")?;
    await_ready(lab, "1/2")?;
    let seen = spread(lab, 10)?;
    ensure!(
        seen == [("web-2".into(), 10)].into(),
        "one is left: {seen:?}"
    );

    // fallback=127.0.0.1:80 gate
    set_page(lab, "web-2", Some("maintenance"))?;
    await_rules(lab, &master, &["127.0.0.1:80 -g -w 1"])?;
    await_ready(lab, "0/2")?;
    let seen = spread(lab, 10)?;
    ensure!(
        seen == [("sorry".into(), 10)].into(),
        "none is left: {seen:?}"
    );
    let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "web"];
    let object = lab.cluster.get(&words)?;
    ensure!(
        object.to_string().contains("the sorry server serves"),
        "Ready does not say who serves: {object}"
    );

    // Both come back, the fallback goes.
    set_page(lab, "web-1", None)?;
    set_page(lab, "web-2", None)?;
    await_rules(
        lab,
        &master,
        &["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"],
    )?;
    await_ready(lab, "2/2")?;

    // quiescent=yes, edited live (autoreload): weight 0, and no real server leaves the kernel.
    edit(lab, &json!({"onFailure": "Quiesce"}))?;
    set_page(lab, "web-1", Some("maintenance"))?;
    await_rules(
        lab,
        &master,
        &["192.168.2.21:80 -g -w 0", "192.168.2.22:80 -g -w 1"],
    )?;
    let seen = spread(lab, 10)?;
    ensure!(
        seen == [("web-2".into(), 10)].into(),
        "one is left: {seen:?}"
    );
    // What is expected is edited live, too: the page is right now.
    edit(
        lab,
        &json!({"healthChecks": [{"name": "page", "type": "HTTP", "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 1,
            "http": {"path": "/index.html", "body": {"type": "Text", "value": "maintenance"}}}]}),
    )?;
    await_rules(
        lab,
        &master,
        &["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 0"],
    )
}

/// TCP on a port of a host is answered by nobody until this is dropped: packets vanish.
fn silence<'a>(lab: &'a Lab, host: &str, port: u16) -> Result<Undo<'a>> {
    lab.guest.on(
        host,
        &format!(
            "nft -f - <<N\n\
             table ip silence {{\n\
             chain input {{ type filter hook input priority -200; tcp dport {port} drop; }}\n\
             }}\nN"
        ),
    )?;
    Ok(Undo {
        lab,
        script: format!("ip netns exec {host} nft delete table ip silence"),
    })
}

fn tcp_check_times(lab: &Lab) -> Result<()> {
    let check = json!([{"name": "tcp", "type": "TCP", "periodSeconds": 6, "timeoutSeconds": 3, "retryPeriodSeconds": 3, "failureThreshold": 4}]);
    lab.cluster.apply_example(NAMESPACE, "health-checks.yaml")?;
    edit(lab, &json!({"healthChecks": check}))?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    let both = ["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"];
    await_rules(lab, &master, &both)?;
    let silence = silence(lab, "web-1", 80)?;
    let begun = Instant::now();
    await_rules(lab, &master, &["192.168.2.22:80 -g -w 1"])?;
    let took = begun.elapsed();
    await_state(lab, "web-1", "Down", "connect timed out after 3 s")?;
    // Four failures three seconds apart, the last of which takes three seconds; the first begins at once or 6 s later.
    let (least, most) = (Duration::from_secs(12), Duration::from_secs(6 + 9 + 3 + 2));
    ensure!(
        (least..most).contains(&took),
        "out after {took:?}, expected {least:?} to {most:?}"
    );
    drop(silence);
    await_rules(lab, &master, &both)
}

fn restart(lab: &Lab) -> Result<()> {
    let _pages = pages(lab);
    lab.cluster.apply_example(NAMESPACE, "health-checks.yaml")?;
    edit(lab, &json!({"sorryServer": null}))?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    await_ready(lab, "2/2")?;
    set_page(lab, "web-2", Some("maintenance"))?;
    let rules = ["192.168.2.21:80 -g -w 2"];
    await_rules(lab, &master, &rules)?;
    for director in ["lb-a", "lb-b"] {
        lab.signal_agent(director, "KILL", false)?;
    }
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        let seen: Vec<String> = lab
            .ipvs_rules(&master)?
            .into_iter()
            .filter(|rule| rule.starts_with("-a "))
            .collect();
        ensure!(
            seen == [format!("-a -t {ADDRESS}:80 -r {}", rules[0])],
            "after a restart: {seen:?}"
        );
    }
    set_page(lab, "web-2", None)?;
    await_rules(
        lab,
        &master,
        &["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"],
    )
}

fn tracking_real_servers(lab: &Lab) -> Result<()> {
    let track = |tracking: &Value| operator::change(lab, &json!({"tracking": tracking}));
    let told = (|| {
        lab.cluster.apply_example(NAMESPACE, "health-checks.yaml")?;
        let master = lab.await_serving(NAMESPACE, "web")?;
        await_ready(lab, "2/2")?;
        let both = ["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"];
        await_rules(lab, other(&master), &both)?;
        track(&json!({"realServers": {"minimumReady": 1, "priorityDelta": 0}}))?;
        lab.guest.on(
            &master,
            "nft -f - <<N\n\
             table ip silence {\n\
             chain output { type filter hook output priority -200; ip daddr { 192.168.2.21, 192.168.2.22 } drop; }\n\
             }\nN",
        )?;
        let _undo = Undo {
            lab,
            script: format!("ip netns exec {master} nft delete table ip silence"),
        };
        until_equal(
            LIMIT,
            "holder of the address",
            &other(&master).to_owned(),
            || Ok(lab.holders(ADDRESS)?.join(" ")),
        )?;
        let seen = spread(lab, 9)?;
        ensure!(
            seen == [("web-1".into(), 6), ("web-2".into(), 3)].into(),
            "the new holder sees both: {seen:?}"
        );
        let router = lab.cluster.get(&["lvsvr", "default"])?;
        ensure!(
            router["status"]["candidates"]
                .to_string()
                .contains("0 of 1 real servers"),
            "the router does not say why: {}",
            router["status"]["candidates"]
        );
        Ok(())
    })();
    track(&Value::Null)?;
    operator::set_up(lab, Setting::AsInstalled)?;
    told
}

fn administrative_state(lab: &Lab) -> Result<()> {
    lab.cluster.apply_example(NAMESPACE, "health-checks.yaml")?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    await_ready(lab, "2/2")?;
    let state = |state: &str| {
        let words = ["-n", NAMESPACE, "lvsrs", "web-1"];
        let patch = json!({"spec": {"administrativeState": state}});
        lab.cluster.merge_patch(&words, &patch)
    };
    let held = traffic::Held::open(&lab.guest, "client", ADDRESS, 80, 6)?;
    state("Draining")?;
    await_rules(
        lab,
        &master,
        &["192.168.2.21:80 -g -w 0", "192.168.2.22:80 -g -w 1"],
    )?;
    await_state(lab, "web-1", "Draining", "")?;
    let active = traffic::active_connections(&lab.guest, &master)?;
    ensure!(
        active.get("192.168.2.21:80").copied() == Some(4),
        "its connections go on while it drains: {active:?}"
    );
    let seen = spread(lab, 10)?;
    ensure!(
        seen == [("web-2".into(), 10)].into(),
        "no new ones: {seen:?}"
    );
    state("Disabled")?;
    await_rules(lab, &master, &["192.168.2.22:80 -g -w 1"])?;
    await_state(lab, "web-1", "Disabled", "")?;
    drop(held);
    state("Enabled")?;
    await_rules(
        lab,
        &master,
        &["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"],
    )
}
