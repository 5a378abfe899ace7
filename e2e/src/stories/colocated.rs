//! The usual small cluster: every director is a real server too, and any host connects to the address. What each sees is in
//! docs/colocated.md.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::{NAMESPACE, Story, Undo, other, real_servers};
use crate::await_condition::until;
use crate::guest::quote;
use crate::lab::{LIMIT, Lab};
use crate::traffic::{self, Spread};

const ADDRESS: &str = "172.16.2.243";
const INSIDE: &str = "192.168.2.243";
const HAND_OVERS: usize = 12;
/// Words on each connection between two of them, 50 ms apart at least: a holder of 2 s ago would still announce its addresses.
const WORDS: u64 = 40;
const SOURCE: &str = "192.168.2.242";
const ROUTER: &str = "virtualrouters.lvs.dev/colocated";

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "colocated_nat",
            tells: "NAT: two directors are real servers too; client, holder, standby and real server connect",
            run: |lab| with_servers(lab, nat),
        },
        Story {
            name: "colocated_direct",
            tells: "the same with DR, before and after a hand-over",
            run: |lab| with_servers(lab, direct),
        },
        Story {
            name: "colocated_tunnel",
            tells: "the same with TUN, before and after a hand-over",
            run: |lab| with_servers(lab, tunnel),
        },
        Story {
            name: "colocated_full_nat",
            tells: "the same with FullNAT, before and after a hand-over",
            run: |lab| with_servers(lab, full_nat),
        },
        Story {
            name: "colocated_hand_over",
            tells: "twelve busy connections outlive six hand-overs between two DR directors that are real servers too",
            run: |lab| with_servers(lab, busy),
        },
    ]
}

/// A web server on each director that answers with its name.
fn with_servers(lab: &Lab, tell: fn(&Lab) -> Result<()>) -> Result<()> {
    let processes = lab.guest.run(
        "for host in lb-a lb-b; do
             mkdir -p /run/colocated/$host && echo $host >/run/colocated/$host/index.html
             printf '%s\\n' \"server.document-root = \\\"/run/colocated/$host\\\"\" 'server.port = 80' \
                 'index-file.names = (\"index.html\")' >/run/colocated/$host.conf
             setsid ip netns exec $host lighttpd -D -f /run/colocated/$host.conf >/run/colocated/$host.log 2>&1 </dev/null &
             echo $!
         done
         for host in lb-a lb-b; do
             for attempt in $(seq 100); do ip netns exec $host ss -Hltn 'sport = :80' | grep -q . && continue 2; sleep 0.05; done
             exit 1
         done",
    )?;
    let told = tell(lab);
    let processes: Vec<&str> = processes.split_whitespace().collect();
    lab.guest.run(&format!(
        "kill {}; rm -rf /run/colocated",
        processes.join(" ")
    ))?;
    told
}

/// How the router and its service differ among the stories, as YAML.
struct Setting {
    /// Fields of the router.
    router: &'static str,
    port: u16,
    forwarding: &'static str,
    scheduler: &'static str,
}

const PLAIN: Setting = Setting {
    router: "",
    port: 80,
    forwarding: "{type: DR}",
    scheduler: "{name: rr}",
};

fn apply(lab: &Lab, setting: &Setting) -> Result<()> {
    let Setting {
        router,
        port,
        forwarding,
        scheduler,
    } = setting;
    let text = format!(
        "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {{name: colocated}}
spec:
  directors: [{{nodeName: lb-a}}, {{nodeName: lb-b}}]
  addressPools:
  - {{name: colocated, addresses: [{ADDRESS}]}}
  - {{name: sources, addresses: [{SOURCE}], purpose: SourceNAT}}
  additionalAddresses: [{{address: {INSIDE}}}]
  grants: [{{namespaces: {{from: All}}, addressPoolNames: [colocated, sources], realServerNodes: All}}]
  {router}
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: colocated}}
spec:
  virtualRouterName: colocated
  addresses: [{ADDRESS}]
  ports: [{{port: {port}}}]
  forwarding: {forwarding}
  scheduler: {scheduler}
  realServerSelector: {{}}
"
    );
    let objects = [text, real_servers(&ALL)].concat();
    lab.cluster.apply_text(NAMESPACE, &objects)?;
    await_ready(lab)
}

fn spread(lab: &Lab, host: &str) -> Result<Spread> {
    traffic::spread(&lab.guest, host, &format!("http://{ADDRESS}/"), 6)
}

fn each_of(names: &[&str]) -> Spread {
    let count = 6 / names.len();
    names
        .iter()
        .map(|name| ((*name).to_owned(), count))
        .collect()
}

/// Each in turn, but for connections of a host that are given to itself.
fn each_but(own: &str, failure: &str) -> Spread {
    let mut spread = each_of(&ALL);
    spread.remove(own);
    spread.insert(failure.to_owned(), 2);
    spread
}

/// What each host sees: who answers six connections.
fn seen(lab: &Lab, wanted: &[(&str, Spread)]) -> Result<()> {
    let mut differing = BTreeMap::new();
    for (host, wanted) in wanted {
        let seen = spread(lab, host)?;
        if seen != *wanted {
            differing.insert(*host, seen);
        }
    }
    ensure!(differing.is_empty(), "otherwise than told: {differing:?}");
    Ok(())
}

const ALL: [&str; 3] = ["lb-a", "lb-b", "web-1"];

fn nat(lab: &Lab) -> Result<()> {
    let forwarding = "{type: NAT}";
    apply(
        lab,
        &Setting {
            forwarding,
            ..PLAIN
        },
    )?;
    let holder = lab.await_serving(NAMESPACE, "colocated")?;
    let standby = other(&holder);
    seen(
        lab,
        &[
            ("client", each_of(&ALL)),
            ("web-2", each_of(&ALL)),
            (&holder, each_of(&ALL)),
            (standby, each_but(standby, "failed:7")),
            ("web-1", each_but("web-1", "failed:28")),
        ],
    )
}

/// What `sees` says each host sees while one director holds the address, and while the other does.
fn on_both(lab: &Lab, sees: impl Fn(&str, &str) -> Vec<(String, Spread)>) -> Result<()> {
    let first = lab.await_serving(NAMESPACE, "colocated")?;
    for holder in [first.as_str(), other(&first)] {
        if holder != first {
            hand_over(lab, holder)?;
        }
        let wanted = sees(holder, other(holder));
        let wanted: Vec<(&str, Spread)> = wanted
            .iter()
            .map(|(host, spread)| (host.as_str(), spread.clone()))
            .collect();
        seen(lab, &wanted).with_context(|| format!("{holder} holds the address"))?;
    }
    Ok(())
}

/// DR, and TUN: the virtual address is on every real server.
fn addressed(holder: &str, standby: &str) -> Vec<(String, Spread)> {
    let own_turn: Spread = [(holder.to_owned(), 2), ("failed:28".to_owned(), 4)].into();
    vec![
        ("client".to_owned(), each_of(&ALL)),
        ("web-2".to_owned(), each_of(&ALL)),
        (holder.to_owned(), own_turn),
        (standby.to_owned(), each_of(&[standby])),
        ("web-1".to_owned(), each_of(&["web-1"])),
    ]
}

fn direct(lab: &Lab) -> Result<()> {
    apply(lab, &PLAIN)?;
    on_both(lab, addressed)
}

fn tunnel(lab: &Lab) -> Result<()> {
    let forwarding = "{type: TUN, tunnel: {type: IPIP}}";
    apply(
        lab,
        &Setting {
            forwarding,
            ..PLAIN
        },
    )?;
    on_both(lab, addressed)
}

fn full_nat(lab: &Lab) -> Result<()> {
    let forwarding = "{type: FullNAT, fullNAT: {sourceAddressPoolName: sources}}";
    apply(
        lab,
        &Setting {
            forwarding,
            ..PLAIN
        },
    )?;
    on_both(lab, |holder, standby| {
        vec![
            ("client".to_owned(), each_of(&ALL)),
            ("web-2".to_owned(), each_of(&ALL)),
            (holder.to_owned(), each_of(&ALL)),
            (standby.to_owned(), each_but(standby, "failed:7")),
            ("web-1".to_owned(), each_of(&ALL)),
        ]
    })
}

/// Argument: an address. Twelve connections to its port 7 that say a byte, wait for it to come back, and say the next. A line
/// of how many came back on each ten times a second; a word about each that ends, and how many there are.
const TALK: &str = r#"
import os, socket, sys, threading, time
said = [0] * 12
def talk(number):
    try:
        connection = socket.create_connection((sys.argv[1], 7), timeout=20)
        while True:
            connection.send(b"x")
            if not connection.recv(1):
                raise OSError("closed")
            said[number] += 1
            time.sleep(0.05)
    except OSError as error:
        with open("ended", "a") as file:
            print(number, error, file=file)
for number in range(12):
    threading.Thread(target=talk, args=[number], daemon=True).start()
while True:
    with open("new", "w") as file:
        print(*said, file=file)
    os.rename("new", "said")
    time.sleep(0.1)
"#;

fn busy(lab: &Lab) -> Result<()> {
    let _talk = Undo {
        lab,
        script: "for pid in $(cat /run/talk/*.pid); do kill -KILL -- -$pid; done; rm -rf /run/talk"
            .to_owned(),
    };
    lab.guest.run(
        "mkdir /run/talk; cd /run/talk
         for host in lb-a lb-b web-1; do
             setsid ip netns exec $host socat TCP-LISTEN:7,fork,reuseaddr,backlog=128,nodelay PIPE >/dev/null 2>&1 </dev/null &
             echo $! >$host.pid
         done",
    )?;
    apply(
        lab,
        &Setting {
            router: "connectionSync: {type: Stateless}",
            port: 7,
            scheduler: "{name: mh, options: [mh-port]}",
            ..PLAIN
        },
    )?;
    let first = lab.await_serving(NAMESPACE, "colocated")?;
    lab.guest.on(
        "client",
        &format!(
            "cd /run/talk; setsid python3 -c {} {ADDRESS} >talk.log 2>&1 </dev/null & echo $! >/run/talk/talk.pid",
            quote(TALK)
        ),
    )?;
    await_talk(lab, WORDS)?;
    let begun = traffic::active_connections(&lab.guest, &first)?;
    ensure!(begun.len() == 3, "they are spread over {begun:?}");
    let mut holder = first.as_str();
    for turn in 1..=HAND_OVERS {
        holder = other(holder);
        hand_over(lab, holder)?;
        await_talk(lab, WORDS).with_context(|| format!("after hand-over {turn}, to {holder}"))?;
    }
    println!("    twelve busy connections over {begun:?} outlived {HAND_OVERS} hand-overs");
    Ok(())
}

/// Waits until each connection has said this much more. None may have ended.
fn await_talk(lab: &Lab, more: u64) -> Result<()> {
    let said = || -> Result<Vec<u64>> {
        let text = lab.guest.run("cat /run/talk/said 2>/dev/null || true")?;
        Ok(text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect())
    };
    let before = said()?;
    let ended = until(LIMIT, "every connection goes on", || {
        let ended = lab.guest.run("cat /run/talk/ended 2>/dev/null || true")?;
        let now = said()?;
        let all = now.len() == 12
            && now.iter().enumerate().all(|(number, said)| {
                *said >= before.get(number).copied().unwrap_or_default() + more
            });
        Ok(if all || !ended.is_empty() {
            Ok(ended)
        } else {
            Err((before.clone(), now))
        })
    })?;
    ensure!(ended.is_empty(), "connections ended:\n{ended}");
    Ok(())
}

fn await_ready(lab: &Lab) -> Result<()> {
    until(LIMIT, "every real server serves", || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsvs", "colocated"])?;
        let shown = object["status"]["summary"]["realServers"].clone();
        Ok(if shown == "3/3" { Ok(()) } else { Err(shown) })
    })
}

/// Gives the address to the other director, as an administrator does.
fn hand_over(lab: &Lab, to: &str) -> Result<()> {
    let annotation = format!("lvs.dev/hand-over-to={to}");
    lab.cluster
        .kubectl(&["annotate", "--overwrite", ROUTER, &annotation])?;
    until(LIMIT, &format!("{to} alone holds {ADDRESS}"), || {
        let holders = lab.holders(ADDRESS)?;
        Ok(if holders == [to] {
            Ok(())
        } else {
            Err(holders)
        })
    })
}
