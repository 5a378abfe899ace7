//! Connections that outlive a takeover: by the kernel's sync daemons, and without state.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, Story, other};
use crate::await_condition::{until, until_equal};
use crate::guest::Guest;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};

const ADDRESS: &str = "172.16.2.230";
/// Connections that must outlive the takeover.
const CONNECTIONS: usize = 12;

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "connections_survive_by_daemon",
            tells: "DR: twelve connections go on through a hand-over and back, by the kernel's sync daemons",
            run: by_daemon,
        },
        Story {
            name: "connections_survive_by_daemon_nat",
            tells: "NAT: twelve connections go on through a hand-over, inside gateway included",
            run: by_daemon_nat,
        },
        Story {
            name: "connections_survive_without_state",
            tells: "DR with mh: twelve connections go on at a director that has never seen them; equal tables, a scheduler that breaks it is told",
            run: without_state,
        },
        Story {
            name: "sync_daemon_put_right",
            tells: "a stopped sync daemon is started again, a foreign one is left alone, real servers of the other family exclude it",
            run: put_right,
        },
    ]
}

/// A router with this `connectionSync` and a service behind it.
fn apply(lab: &Lab, sync: &str, scheduler: &str, forwarding: &str) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &format!(
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {{name: lasting}}
spec:
  directors: [{{nodeName: lb-a}}, {{nodeName: lb-b}}]
  interfaces: [{{name: inside, devices: [eth7, in]}}]
  addressPools: [{{name: lasting, addresses: [{ADDRESS}]}}]
  additionalAddresses: [{{address: 192.168.2.240}}]
  grants: [{{namespaces: {{from: All}}, addressPoolNames: [lasting], realServerNodes: All}}]
  connectionSync: {sync}
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: lasting}}
spec:
  virtualRouterName: lasting
  addresses: [{ADDRESS}]
  ports: [{{port: 80}}]
  forwarding: {{type: {forwarding}}}
  scheduler: {scheduler}
  realServerSelector: {{matchLabels: {{app: lasting}}}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web-1, labels: {{app: lasting}}}}
spec: {{target: {{type: Node, node: {{name: web-1}}}}}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: web-3, labels: {{app: lasting}}}}
spec: {{target: {{type: Node, node: {{name: web-3}}}}}}
"
        ),
    )
}

const DAEMON: &str =
    "{type: Daemon, daemon: {interfaceName: inside, syncID: 51, maximumLength: 1400}}";

/// Connections side by side, each asked for one page a second for as long as it stands.
struct Lasting<'a> {
    guest: &'a Guest,
    folder: String,
}

impl<'a> Lasting<'a> {
    fn open(guest: &'a Guest) -> Result<Self> {
        let folder = guest
            .run("mktemp -d /run/lasting.XXXXXX")?
            .trim()
            .to_owned();
        guest.on(
            "client",
            &format!(
                // One line for each answer: whether it took a new connection, the status, and why it failed.
                "cd {folder}; for i in $(seq {CONNECTIONS}); do
                     setsid curl --silent --rate 60/m --max-time 20 -o /dev/null \
                         -w '%{{stderr}}%{{num_connects}} %{{http_code}} %{{errormsg}}\n' \
                         'http://{ADDRESS}/?[1-100000]' >/dev/null 2>$i </dev/null &
                     echo $! >>pids
                 done"
            ),
        )?;
        let lasting = Self { guest, folder };
        lasting.await_answers()?;
        Ok(lasting)
    }

    /// Answers on each connection so far. An error when one was opened anew, refused or is gone.
    fn answers(&self) -> Result<Vec<usize>> {
        let text = self.guest.run(&format!(
            "cd {}; for i in $(seq {CONNECTIONS}); do echo \"== $i\"; cat $i; done; \
             for pid in $(cat pids); do [ -d /proc/$pid ] || echo ended; done",
            self.folder
        ))?;
        let mut counts: Vec<usize> = Vec::new();
        for line in text.lines() {
            match (line.split_once(' '), counts.last_mut()) {
                (Some(("==", _)), _) => counts.push(0),
                (Some(("1", status)), Some(count)) if *count == 0 && status.trim() == "200" => {
                    *count = 1;
                }
                (Some(("0", status)), Some(count)) if *count > 0 && status.trim() == "200" => {
                    *count += 1;
                }
                _ => bail!("connection {} broke: {line:?}", counts.len()),
            }
        }
        Ok(counts)
    }

    /// Waits until each has answered twice more than it has now.
    fn await_answers(&self) -> Result<()> {
        let before = self.answers()?;
        let broken = std::cell::Cell::new(None);
        let answered = until(LIMIT, "every connection answers", || {
            let now = match self.answers() {
                Ok(now) => now,
                Err(error) => {
                    // No waiting mends it.
                    broken.set(Some(error));
                    return Ok(Ok(()));
                }
            };
            let going = before
                .iter()
                .zip(&now)
                .all(|(before, now)| *now >= before + 2);
            Ok(if going { Ok(()) } else { Err(now) })
        });
        match broken.take() {
            Some(error) => Err(error),
            None => answered,
        }
    }
}

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        let _ = self.guest.try_run(&format!(
            "cd {0} && kill -KILL $(cat pids) 2>/dev/null; rm -rf {0}",
            self.folder
        ));
    }
}

/// Client's ends of established connections to the address, in a director's kernel.
fn connections(lab: &Lab, director: &str) -> Result<BTreeSet<String>> {
    let table = lab.guest.on(director, "ipvsadm -Lnc")?;
    let virtual_socket = format!("{ADDRESS}:80");
    Ok(table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [_, _, "ESTABLISHED", client, service, _] if service == virtual_socket => {
                    Some(client.to_owned())
                }
                _ => None,
            }
        })
        .collect())
}

/// Sync daemons of a director as `ipvsadm -L --daemon` prints them.
fn daemons(lab: &Lab, director: &str) -> Result<Vec<String>> {
    let text = lab.guest.on(director, "ipvsadm -L --daemon")?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

fn await_daemon(lab: &Lab, director: &str, role: &str) -> Result<()> {
    let line = format!(
        "{role} sync daemon (mcast=in, syncid=51, maxlen=1400, group=224.0.0.81, port=8848, ttl=1)"
    );
    until_equal(
        LIMIT,
        &format!("{director} runs the {role} daemon"),
        &vec![line],
        || daemons(lab, director),
    )
}

/// Waits until a director would take over at once.
fn await_warm(lab: &Lab, director: &str) -> Result<()> {
    until_equal(
        LIMIT,
        &format!("{director} knows the connections"),
        &"0".to_owned(),
        || {
            Ok(lab
                .agent_metric(director, "lvs_agent_cold_routers")?
                .to_string())
        },
    )
}

/// Ends the holder's agent, as a rolling update does, and waits until the other director has the address.
fn hand_over(lab: &Lab, master: &str) -> Result<()> {
    let standby = other(master);
    lab.signal_agent(master, "TERM", true)?;
    let told = until(LIMIT, &format!("{standby} alone holds {ADDRESS}"), || {
        let holders = lab.holders(ADDRESS)?;
        Ok(if holders == [standby] {
            Ok(())
        } else {
            Err(holders)
        })
    });
    lab.release_agent(master)?;
    told
}

fn sysctls(lab: &Lab, director: &str, names: &[&str]) -> Result<Vec<String>> {
    let names: Vec<String> = names
        .iter()
        .map(|name| format!("net.ipv4.vs.{name}"))
        .collect();
    let text = lab
        .guest
        .on(director, &format!("sysctl -n {}", names.join(" ")))?;
    Ok(text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect())
}

fn by_daemon(lab: &Lab) -> Result<()> {
    apply(lab, DAEMON, "{name: rr}", "DR")?;
    let master = lab.await_serving(NAMESPACE, "lasting")?;
    let standby = other(&master);
    await_daemon(lab, &master, "master")?;
    await_daemon(lab, standby, "backup")?;
    let names = [
        "sync_threshold",
        "sync_refresh_period",
        "sync_retries",
        "backup_only",
    ];
    for director in [master.as_str(), standby] {
        let found = sysctls(lab, director, &names)?;
        ensure!(
            found == ["0 0", "10", "1", "0"],
            "sysctls of {director}: {found:?}"
        );
    }
    survive(lab, &master)?;
    // And back, to the agent that was restarted meanwhile and has listened since.
    let back = lab.await_holder(ADDRESS)?;
    ensure!(back == standby, "{back} holds the address");
    survive(lab, standby)
}

/// Twelve connections begin at `master` and go on at the other director; both run the daemon of their role afterwards.
fn survive(lab: &Lab, master: &str) -> Result<()> {
    let standby = other(master);
    await_warm(lab, standby)?;
    let lasting = Lasting::open(&lab.guest)?;
    let open = connections(lab, master)?;
    ensure!(open.len() >= CONNECTIONS, "{master} balances {open:?}");
    until(
        LIMIT,
        &format!("{standby} was sent every connection"),
        || {
            let known = connections(lab, standby)?;
            Ok(if open.is_subset(&known) {
                Ok(())
            } else {
                Err(known)
            })
        },
    )?;
    hand_over(lab, master)?;
    lasting.await_answers()?;
    let balanced = connections(lab, standby)?;
    ensure!(open.is_subset(&balanced), "{standby} balances {balanced:?}");
    await_daemon(lab, standby, "master")?;
    await_daemon(lab, master, "backup")?;
    lasting.await_answers()
}

fn by_daemon_nat(lab: &Lab) -> Result<()> {
    apply(lab, DAEMON, "{name: rr}", "NAT")?;
    let master = lab.await_serving(NAMESPACE, "lasting")?;
    survive(lab, &master)
}

/// The tables of both directors, as their plans report them.
fn tables(lab: &Lab) -> Result<Vec<String>> {
    let plans = lab.cluster.get(&["-n", OPERATOR_NAMESPACE, "nodeplans"])?;
    let plans = plans["items"].as_array().cloned().unwrap_or_default();
    let mut hashes: Vec<String> = plans
        .iter()
        .filter(|plan| plan["spec"]["source"]["name"] == "lasting")
        .filter_map(|plan| plan["status"]["tableHash"].as_str().map(str::to_owned))
        .collect();
    hashes.sort();
    Ok(hashes)
}

fn add_real_server(lab: &Lab, name: &str) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &format!(
            "
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {name}, labels: {{app: lasting}}}}
spec: {{target: {{type: Node, node: {{name: {name}}}}}}}
"
        ),
    )
}

fn without_state(lab: &Lab) -> Result<()> {
    apply(
        lab,
        "{type: Stateless}",
        "{name: mh, options: [mh-port]}",
        "DR",
    )?;
    lab.await_serving(NAMESPACE, "lasting")?;
    // Added between the two others: without care the kernel would list it elsewhere than a director that has just booted.
    add_real_server(lab, "web-2")?;
    let master = lab.await_serving(NAMESPACE, "lasting")?;
    let standby = other(&master);
    for director in [master.as_str(), standby] {
        let listed = until(LIMIT, &format!("three real servers on {director}"), || {
            let table = lab.guest.on(director, "ipvsadm -Ln --nosort")?;
            let listed: Vec<String> = table
                .lines()
                .filter_map(|line| line.trim().strip_prefix("-> 192.168.2."))
                .filter_map(|line| line.split(':').next().map(str::to_owned))
                .collect();
            Ok(if listed.len() == 3 {
                Ok(listed)
            } else {
                Err(listed)
            })
        })?;
        ensure!(listed == ["23", "22", "21"], "{director} lists {listed:?}");
        let found = sysctls(lab, director, &["sloppy_tcp", "sloppy_sctp"])?;
        ensure!(found == ["1", "1"], "sysctls of {director}: {found:?}");
        ensure!(
            daemons(lab, director)?.is_empty(),
            "{director} runs a sync daemon"
        );
    }
    until(LIMIT, "equal tables on both directors", || {
        let hashes = tables(lab)?;
        Ok(match &hashes[..] {
            [one, other] if one == other => Ok(()),
            _ => Err(hashes),
        })
    })?;
    let lasting = Lasting::open(&lab.guest)?;
    let open = connections(lab, &master)?;
    ensure!(open.len() >= CONNECTIONS, "{master} balances {open:?}");
    let unknown = connections(lab, standby)?;
    ensure!(unknown.is_empty(), "{standby} was told of {unknown:?}");
    hand_over(lab, &master)?;
    lasting.await_answers()?;
    let balanced = connections(lab, standby)?;
    ensure!(open.is_subset(&balanced), "{standby} balances {balanced:?}");
    drop(lasting);

    // A scheduler that goes by what a director remembers serves, and is told of.
    let change = json!({"spec": {"scheduler": {"name": "wlc", "options": null}}});
    lab.cluster
        .merge_patch(&["-n", NAMESPACE, "lvsvs", "lasting"], &change)?;
    let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "lasting"];
    let message = lab.await_reason(&words, "Programmed", "SchedulerNotStateless")?;
    ensure!(message.contains("use mh"), "{message}");
    // Each director has the new scheduler first.
    until(LIMIT, "Ready beside it", || {
        let object: Value = lab.cluster.get(&words)?;
        let conditions = object["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let ready = conditions.find(|condition| condition["type"] == "Ready");
        Ok(match ready {
            Some(ready) if ready["status"] == "True" => Ok(()),
            ready => Err(ready.cloned()),
        })
    })?;
    Ok(())
}

fn put_right(lab: &Lab) -> Result<()> {
    apply(lab, DAEMON, "{name: rr}", "DR")?;
    let master = lab.await_serving(NAMESPACE, "lasting")?;
    let standby = other(&master);
    await_daemon(lab, &master, "master")?;
    await_daemon(lab, standby, "backup")?;
    lab.guest.on(standby, "ipvsadm --stop-daemon backup")?;
    await_daemon(lab, standby, "backup")?;
    let repaired = lab.agent_metric(standby, "lvs_agent_drift_repaired_total")?;
    ensure!(repaired > 0.0, "the repair was not counted");

    // A tunnel to the other family: refused with its reason, the daemons stay.
    lab.cluster.apply_text(
        NAMESPACE,
        "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: mixed}
spec:
  directors: [{nodeName: lb-a}, {nodeName: lb-b}]
  addressPools: [{name: mixed, addresses: ['fd00:2::230']}]
  grants: [{namespaces: {from: All}, addressPoolNames: [mixed], realServerCIDRs: [192.168.2.0/24]}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: mixed}
spec:
  virtualRouterName: mixed
  addresses: ['fd00:2::230']
  ports: [{port: 80}]
  forwarding: {type: TUN}
  scheduler: {name: rr}
  realServerSelector: {matchLabels: {app: mixed}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: plain-1, labels: {app: mixed}}
spec: {target: {type: Addresses, addresses: [192.168.2.31]}}
",
    )?;
    let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "mixed"];
    let message = lab.await_reason(&words, "Programmed", "ConnectionSyncExcluded")?;
    ensure!(message.contains("192.168.2.31"), "{message}");
    await_daemon(lab, &master, "master")?;

    // Without the daemons it gets its real server; daemons are then what is excluded.
    let synchronize = |how: &Value| {
        let change = json!({"spec": {"connectionSync": how}});
        lab.cluster.merge_patch(&["lvsvr", "lasting"], &change)
    };
    let none = json!({"type": "None", "daemon": null});
    synchronize(&none)?;
    lab.await_true(&words, "Programmed")?;
    for director in ["lb-a", "lb-b"] {
        ensure!(
            daemons(lab, director)?.is_empty(),
            "{director} still runs a daemon"
        );
    }
    let daemon = json!({"interfaceName": "inside", "syncID": 51, "maximumLength": 1400});
    let again = json!({"type": "Daemon", "daemon": daemon});
    synchronize(&again)?;
    let router = ["virtualrouters.lvs.dev", "lasting"];
    let message = lab.await_reason(&router, "Programmed", "ConnectionSyncExcluded")?;
    ensure!(message.contains("fd00:2::230"), "{message}");
    lab.cluster
        .kubectl(&["-n", NAMESPACE, "delete", "lvsvs", "mixed", "--wait"])?;
    lab.await_true(&router, "Programmed")?;
    await_daemon(
        lab,
        "lb-a",
        if master == "lb-a" { "master" } else { "backup" },
    )?;

    // Somebody else's daemon is not ours to stop.
    synchronize(&none)?;
    until_equal(LIMIT, "no daemons", &Vec::<String>::new(), || {
        daemons(lab, standby)
    })?;
    lab.guest.on(
        standby,
        "ipvsadm --start-daemon backup --mcast-interface out --syncid 7",
    )?;
    let told = (|| {
        synchronize(&again)?;
        let message = lab.await_reason(&router, "Programmed", "ForeignObject")?;
        ensure!(message.contains("--stop-daemon"), "{message}");
        let found = daemons(lab, standby)?;
        ensure!(
            found
                .iter()
                .any(|line| line.contains("backup sync daemon (mcast=out, syncid=7")),
            "{found:?}"
        );
        Ok(())
    })();
    lab.guest.on(standby, "ipvsadm --stop-daemon backup")?;
    told
}
