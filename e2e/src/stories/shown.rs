//! `kubectl lvs` says of kernels what the kernel's own tools say: of a director with services of every kind, of its standby, and of
//! a node where somebody else keeps what the API cannot say.

mod plugin;
mod tables;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{NAMESPACE, Story, Undo, other};
use crate::await_condition::until;
use crate::guest::quote;
use crate::lab::{LIMIT, Lab};
use crate::traffic::Held;
use plugin::Plugin;
use tables::{Rows, Views, lies_between};

/// Node of the foreign table: its agent has no services of its own.
const FOREIGN: &str = "web-3";
/// Destinations of one foreign service, and further foreign services: more than one answer of the kernel holds.
const MANY: usize = 300;
/// Connections of a client: more than one page of /proc holds.
const CONNECTIONS: usize = 400;
/// More than 32 bits count.
const FLOOD_BYTES: u64 = 4_400_000_000;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "shown_as_ipvsadm_shows",
        tells: "kubectl lvs services, stats, rates, connections, timeouts and daemon are what ipvsadm shows: every kind of service, hundreds of connections, foreign rules, counters beyond 32 bits",
        run: shown,
    }]
}

const OBJECTS: &str = r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: shown}
spec:
  directors: [{nodeName: lb-a}, {nodeName: lb-b}]
  interfaces: [{name: inside, devices: [eth7, in]}]
  addressPools:
  - {name: outside, addresses: [172.16.2.230-172.16.2.239, "fd00:2::930-fd00:2::939"]}
  - {name: snat, addresses: [192.168.2.240], purpose: SourceNAT}
  grants: [{namespaces: {from: All}, addressPoolNames: [outside, snat], realServerNodes: All}]
  connectionSync: {type: Daemon, daemon: {interfaceName: inside, syncID: 211, maximumLength: 1300}}
  timeouts: {tcpSeconds: 1200, tcpFinSeconds: 90, udpSeconds: 400}
"#;

/// Name of a VirtualService, its addresses, and what is its own.
const SERVICES: [(&str, &str, &str); 9] = [
    (
        "web",
        "172.16.2.230, 'fd00:2::930'",
        "ports: [{port: 80}]
  forwarding: {type: DR}
  scheduler: {name: wrr}
  persistence: {timeoutSeconds: 500, ipv4PrefixLength: 24, ipv6PrefixLength: 64}",
    ),
    (
        "files",
        "172.16.2.231",
        "ports: [{port: 21}]
  forwarding: {type: DR}
  scheduler: {name: lc}
  persistence: {timeoutSeconds: 70}",
    ),
    (
        "names",
        "172.16.2.232",
        "ports: [{port: 53, protocol: UDP}]
  packetScheduling: OnePacket
  forwarding: {type: DR}
  scheduler: {name: rr}",
    ),
    (
        "calls",
        "172.16.2.232",
        "ports: [{port: 5060, protocol: UDP}]
  forwarding: {type: DR}
  scheduler: {name: rr}
  persistence: {timeoutSeconds: 60, engine: SIP}",
    ),
    (
        "signalling",
        "172.16.2.233",
        "ports: [{port: 2905, protocol: SCTP}]
  forwarding: {type: DR}
  scheduler: {name: sed}",
    ),
    (
        "marked",
        "172.16.2.234, 'fd00:2::934'",
        "ports: [{name: http, port: 80}, {name: https, port: 443}]
  grouping: FirewallMark
  forwarding: {type: DR}
  scheduler: {name: wlc}
  persistence: {timeoutSeconds: 300}",
    ),
    (
        "outside",
        "172.16.2.237",
        "ports: [{port: 80}]
  grouping: FirewallMark
  firewallMark: {marking: External, value: 4242}
  forwarding: {type: DR}
  scheduler: {name: rr}",
    ),
    (
        "translated",
        "172.16.2.235",
        "ports: [{port: 80, realServerPort: 8080}]
  forwarding: {type: FullNAT, fullNAT: {sourceAddressPoolName: snat}}
  scheduler: {name: mh, options: [mh-port]}",
    ),
    (
        "wrapped",
        "172.16.2.236",
        "ports: [{port: 80}]
  forwarding: {type: TUN, tunnel: {type: GUE, port: 6080, checksum: Checksum}}
  scheduler: {name: sh}",
    ),
];

fn apply(lab: &Lab) -> Result<()> {
    let mut text = OBJECTS.to_owned();
    for (name, addresses, own) in SERVICES {
        write!(
            text,
            "---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  virtualRouterName: shown
  addresses: [{addresses}]
  healthChecks: [{{name: none, type: None}}]
  realServerSelector: {{}}
  {own}
"
        )?;
    }
    text.push_str(
        "---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: first}
spec:
  target: {type: Node, node: {name: web-1}}
  weight: 3
  connectionThresholds: {upper: 5000, lower: 4000}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: second}
spec: {target: {type: Node, node: {name: web-2}}, connectionThresholds: {upper: 6000}}
",
    );
    lab.cluster.apply_text(NAMESPACE, &text)
}

/// What the API cannot say, and much of it.
fn foreign_rules() -> String {
    let mut rules = vec![
        "-A -t 172.16.9.1:0 -s sh -p 600 -M 255.255.240.0 -b sh-fallback,sh-port",
        "-A -t 172.16.9.2:80 -s rr -b flag-3",
        "-a -t 172.16.9.2:80 -r 192.168.2.21:80 -g -w 65535",
        "-a -t 172.16.9.2:80 -r 127.0.0.1:80 -m -w 0",
        "-A -u 172.16.9.2:5060 -s rr -p 60 --pe sip -o",
        "-A -t [fd00:9::1]:443 -s dh -p 31 -M 48",
        "-a -t [fd00:9::1]:443 -r [fd00:192::21]:8443 -m -w 7 -x 2000000000 -y 3",
        "-A -t 172.16.9.3:80 -s lblcr",
        "-a -t 172.16.9.3:80 -r 192.168.2.21:80 -i -w 1 --tun-type ipip -x 10",
        "-a -t 172.16.9.3:80 -r 192.168.2.22:80 -i -w 1 --tun-type gue --tun-port 6090 --tun-remcsum",
        "-a -t 172.16.9.3:80 -r 10.9.0.41:80 -i -w 1 --tun-type gre --tun-csum",
        // Packets of one family in those of the other.
        "-A -t [fd00:9::2]:80 -s rr",
        "-a -t [fd00:9::2]:80 -r 192.168.2.22:80 -i -w 2",
        "-A -f 4294967295 -s fo",
        "-a -f 4294967295 -r 192.168.2.21:0 -g -w 1",
        "-A -f 7 -6 -s ovf -p 40",
        "-a -f 7 -6 -r [fd00:192::21]:0 -g -w 1",
        "-A --sctp-service 172.16.9.4:2905 -s nq",
        "-a --sctp-service 172.16.9.4:2905 -r 192.168.2.21:2905 -m -w 1",
        "-A -t 172.16.9.5:80 -s wlc",
        // What floods it is on the node itself.
        "-A -t 172.16.9.6:7777 -s rr",
        "-a -t 172.16.9.6:7777 -r 192.168.2.23:7778 -m -w 1",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    for number in 0..MANY {
        let (high, low) = (number / 250, number % 250 + 1);
        rules.push(format!(
            "-a -t 172.16.9.5:80 -r 10.77.{high}.{low}:80 -m -w {number}"
        ));
        rules.push(format!("-A -t 10.78.{high}.{low}:80 -s rr"));
    }
    rules.join("\n") + "\n"
}

fn foreign(lab: &Lab) -> Result<Undo<'_>> {
    let on_host = |script: &str| format!("ip netns exec {FOREIGN} bash -c {}", quote(script));
    let undo = Undo {
        lab,
        script: format!(
            "{}; kill $(cat /run/shown.pid) 2>/dev/null; rm -f /run/shown.pid",
            on_host(
                "ipvsadm -C; ipvsadm --set 900 120 300
                 ipvsadm --stop-daemon master; ipvsadm --stop-daemon backup
                 ip address del 172.16.9.6/32 dev in"
            )
        ),
    };
    std::fs::write(lab.guest.share.join("foreign-rules"), foreign_rules())?;
    lab.guest.on(
        FOREIGN,
        "set -e
         ipvsadm -R </share/foreign-rules
         ipvsadm --set 1000 60 200
         ip address add 172.16.9.6/32 dev in
         setsid socat -u -b 1048576 TCP4-LISTEN:7778,fork OPEN:/dev/null >/dev/null 2>&1 </dev/null & echo $! >/run/shown.pid",
    )?;
    Ok(undo)
}

fn ipvsadm(lab: &Lab, node: &str, words: &str) -> Result<String> {
    lab.guest.on(node, &format!("ipvsadm -Ln {words}"))
}

/// Asks the plugin between two looks with the kernel's tools, until nothing changed meanwhile: what it told then, and what
/// they showed.
fn between<T: PartialEq>(
    what: &str,
    mut look: impl FnMut() -> Result<T>,
    mut told: impl FnMut() -> Result<String>,
) -> Result<(T, String)> {
    until(LIMIT, &format!("{what} at rest"), || {
        let before = look()?;
        let told = told()?;
        Ok(if look()? == before {
            Ok((before, told))
        } else {
            Err("it changes")
        })
    })
}

/// The first of the rows that are not the same.
fn same(what: &str, told: &Rows, shown: &Rows) -> Result<()> {
    let keys = told.keys().chain(shown.keys());
    let mut others = keys.filter(|key| told.get(*key) != shown.get(*key));
    match others.next() {
        None => Ok(()),
        Some(key) => anyhow::bail!(
            "{what}: {key:?}: the plugin says {:?}, ipvsadm {:?}",
            told.get(key),
            shown.get(key)
        ),
    }
}

/// Services, counters, rates, timeouts and daemons of a node are what ipvsadm shows; whose each of its services is.
fn compared(
    lab: &Lab,
    plugin: &Plugin,
    node: &str,
) -> Result<BTreeMap<(String, Option<String>), String>> {
    let views = || {
        let [rules, tunnels, thresholds, persistence] =
            ["", "--tun-info", "--thresholds", "--persistent-conn"]
                .map(|words| tables::of_ipvsadm(&ipvsadm(lab, node, words)?));
        let (rules, tunnels, thresholds, persistence) =
            (rules?, tunnels?, thresholds?, persistence?);
        Views {
            rules,
            tunnels,
            thresholds,
            persistence,
        }
        .together()
    };
    let services = || plugin.of(node, &["services"]);
    let (shown, told) = between(&format!("services of {node}"), views, services)?;
    let (rows, owners) = tables::services_of_plugin(&told)?;
    same(&format!("services of {node}"), &rows, &shown)?;
    let version = ipvsadm(lab, node, "")?;
    let version = version.lines().next().unwrap_or_default();
    let heading = told.lines().next().unwrap_or_default();
    let heading = heading.rsplit("IPVS ").next().unwrap_or_default();
    ensure!(
        version == format!("IP Virtual Server version {heading}"),
        "{node}: {version:?}, {heading:?}"
    );
    for (command, words) in [("stats", "--stats --exact"), ("rates", "--rate --exact")] {
        let look = || tables::of_ipvsadm(&ipvsadm(lab, node, words)?);
        let what = format!("{command} of {node}");
        let (shown, told) = between(&what, look, || plugin.of(node, &[command]))?;
        same(&what, &tables::numbers_of_plugin(&told)?, &shown)?;
    }
    println!("  {node}: {} services and destinations", rows.len());
    settings(lab, plugin, node)?;
    Ok(owners)
}

/// Timeouts and sync daemons.
fn settings(lab: &Lab, plugin: &Plugin, node: &str) -> Result<()> {
    let shown = ipvsadm(lab, node, "--timeout")?;
    let told = plugin.of(node, &["timeouts"])?;
    let row = told.lines().nth(1).unwrap_or_default();
    let numbers: Vec<&str> = row.split_whitespace().skip(1).take(3).collect();
    ensure!(
        shown.trim() == format!("Timeout (tcp tcpfin udp): {}", numbers.join(" ")),
        "timeouts of {node}: {shown}{told}"
    );
    let shown = ipvsadm(lab, node, "--daemon")?;
    let told = plugin.of(node, &["daemon"])?;
    let mut lines = Vec::new();
    for row in told.lines().filter(|row| row.starts_with(node)) {
        let words: Vec<&str> = row.split_whitespace().collect();
        let [_, role, device, sync_id, group, ttl, length, ..] = words.as_slice() else {
            anyhow::bail!("a daemon: {row:?}");
        };
        let (group, port) = group.rsplit_once(':').context("a port")?;
        let group = group.trim_matches(['[', ']']);
        lines.push(format!(
            "{role} sync daemon (mcast={device}, syncid={sync_id}, maxlen={length}, group={group}, port={port}, ttl={ttl})"
        ));
    }
    let shown: Vec<&str> = shown.lines().map(str::trim).collect();
    ensure!(lines == shown, "daemons of {node}: {lines:?}, {shown:?}");
    Ok(())
}

/// Connections of a node are those of ipvsadm; VirtualService and RealServer of each.
fn connections(lab: &Lab, plugin: &Plugin, node: &str) -> Result<BTreeMap<Vec<String>, String>> {
    until(LIMIT, &format!("connections of {node} at rest"), || {
        let look = || {
            tables::connections_of_ipvsadm(&ipvsadm(lab, node, "--connection --persistent-conn")?)
        };
        let before = look()?;
        let told = plugin.of(node, &["connections", "--limit", "10000"])?;
        let (told, owners) = tables::connections_of_plugin(&told)?;
        let after = look()?;
        Ok(if lies_between(&before, &told, &after) {
            Ok(owners)
        } else {
            let differ = |key: &&Vec<String>| before.get(*key) != told.get(*key);
            let first = before.keys().chain(told.keys()).find(differ);
            Err(first.map(|key| {
                (
                    key.clone(),
                    before.get(key).cloned(),
                    told.get(key).cloned(),
                )
            }))
        })
    })
}

fn shown(lab: &Lab) -> Result<()> {
    let plugin = Plugin::new(lab)?;
    lab.guest.run("modprobe sctp")?;
    apply(lab)?;
    let mut master = String::new();
    for (name, ..) in SERVICES {
        master = lab.await_serving(NAMESPACE, name)?;
    }
    let standby = other(&master);
    let _marked = mark(lab, &master)?;
    let _foreign = foreign(lab)?;
    for daemon in [
        "master --mcast-interface in --syncid 255 --sync-maxlen 1400 --mcast-group 224.0.0.90 --mcast-port 9999 --mcast-ttl 7",
        "backup --mcast-interface in --syncid 9 --mcast-group ff02::90 --mcast-port 9998",
    ] {
        // One family in the other and sync daemons exclude each other in a kernel: that rule is looked at before.
        if daemon.starts_with("master") {
            compared(lab, &plugin, FOREIGN)?;
            lab.guest.on(FOREIGN, "ipvsadm -D -t [fd00:9::2]:80")?;
        }
        lab.guest
            .on(FOREIGN, &format!("ipvsadm --start-daemon {daemon}"))?;
    }

    let held = [
        Held::open(&lab.guest, "client", "172.16.2.230", 80, CONNECTIONS / 2)?,
        Held::open(&lab.guest, "client", "fd00:2::930", 80, CONNECTIONS / 2)?,
        Held::open(&lab.guest, "client", "172.16.2.234", 80, 5)?,
        Held::open(&lab.guest, "client", "fd00:2::934", 80, 5)?,
        Held::open(&lab.guest, "client", "172.16.2.235", 80, 5)?,
        Held::open(&lab.guest, "client", "172.16.2.236", 80, 5)?,
        Held::open(&lab.guest, "client", "172.16.2.237", 80, 5)?,
    ];
    lab.guest.on("client", SENDS)?;
    let owners = compared(lab, &plugin, &master)?;
    named(&owners)?;
    let association = association(lab)?;
    until(LIMIT, "the association is there", || {
        let table = ipvsadm(lab, &master, "--connection")?;
        Ok(if table.contains("SCTP") {
            Ok(())
        } else {
            Err("not there")
        })
    })?;
    joined(&connections(lab, &plugin, &master)?)?;
    drop(association);
    pages(&plugin, &master)?;
    compared(lab, &plugin, standby)?;
    connections(lab, &plugin, standby)?;
    drop(held);

    let begun = std::time::Instant::now();
    lab.guest.on(
        FOREIGN,
        &format!("socat -u -b 1048576 OPEN:/dev/zero,readbytes={FLOOD_BYTES} TCP4:172.16.9.6:7777"),
    )?;
    println!("  flood: {:.1} s", begun.elapsed().as_secs_f64());
    let told = until(LIMIT, "the flood is counted", || {
        let told = plugin.values(FOREIGN, &["stats"])?;
        let services = told["services"].as_array().cloned().unwrap_or_default();
        let flooded = services.iter().find(|one| one["address"] == "172.16.9.6");
        let bytes = flooded.map_or(Value::Null, |one| one["counters"]["incomingBytes"].clone());
        Ok(if bytes.as_u64() > Some(FLOOD_BYTES) {
            Ok(told)
        } else {
            Err(bytes)
        })
    })?;
    ensure!(
        told["ownershipKnown"] == true && told.get("problems").is_none(),
        "{told}"
    );
    let owners = compared(lab, &plugin, FOREIGN)?;
    let of_services = owners
        .iter()
        .filter(|((_, destination), _)| destination.is_none());
    ensure!(
        of_services.clone().count() > MANY
            && of_services.clone().all(|(_, whose)| whose == "(foreign)"),
        "{FOREIGN}: {owners:?}"
    );
    connections(lab, &plugin, FOREIGN).map(drop)
}

/// An administrator's own rule for the service whose mark it is to set.
fn mark<'a>(lab: &'a Lab, director: &str) -> Result<Undo<'a>> {
    lab.guest.on(
        director,
        "nft -f - <<'N'
         table ip administrator { chain marks {
             type filter hook prerouting priority mangle
             ip daddr 172.16.2.237 tcp dport 80 meta mark set 4242
         }; }
N",
    )?;
    Ok(Undo {
        lab,
        script: format!("ip netns exec {director} nft delete table ip administrator"),
    })
}

/// Datagrams, calls of SIP, and a connection to a port of FTP where nobody listens.
const SENDS: &str = r#"
for number in 1 2 3 4 5 6; do
    echo query >/dev/udp/172.16.2.232/53
    printf 'OPTIONS sip:a@example.org SIP/2.0\r\nCall-ID: call-%s@example.org\r\n\r\n' "$number" | socat -u - UDP4:172.16.2.232:5060
done
timeout 3 bash -c 'exec 3<>/dev/tcp/172.16.2.231/21' 2>/dev/null
true
"#;

/// An association of SCTP, which IPVS forgets within seconds unless something is sent: every half second, until it is dropped.
fn association(lab: &Lab) -> Result<Undo<'_>> {
    let begin = |host: &str, command: &str| {
        let command = quote(command);
        let script = format!(
            "setsid bash -c {command} >/dev/null 2>&1 </dev/null & echo $! >>/run/shown-association"
        );
        lab.guest.on(host, &script)
    };
    let undo = Undo {
        lab,
        script: "for group in $(</run/shown-association); do kill -KILL -- -$group; done; rm -f /run/shown-association"
            .to_owned(),
    };
    for host in ["web-1", "web-2"] {
        begin(
            host,
            "exec socat -u SCTP4-LISTEN:2905,reuseaddr,fork OPEN:/dev/null",
        )?;
    }
    begin(
        "client",
        "while :; do while echo word; do sleep 0.5; done | socat -u - SCTP4:172.16.2.233:2905; sleep 0.2; done",
    )?;
    Ok(undo)
}

/// Each service is of its VirtualService, and each destination of its RealServer.
fn named(owners: &BTreeMap<(String, Option<String>), String>) -> Result<()> {
    for ((service, destination), whose) in owners {
        let is_right = match destination {
            None => SERVICES
                .iter()
                .any(|(name, ..)| *whose == format!("{NAMESPACE}/{name}")),
            Some(socket) if socket.contains("21:") || socket.contains("::21]") => whose == "first",
            Some(_) => whose == "second",
        };
        ensure!(is_right, "{service} {destination:?} is of {whose:?}");
    }
    let services = owners
        .keys()
        .filter(|(_, destination)| destination.is_none());
    // Two of them in both families.
    ensure!(services.count() == SERVICES.len() + 2, "{owners:?}");
    Ok(())
}

/// Every connection, and every template, is of the VirtualService that it belongs to.
fn joined(connections: &BTreeMap<Vec<String>, String>) -> Result<()> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (words, whose) in connections {
        let whose: Vec<&str> = whose.split(' ').collect();
        let [service, "first" | "second"] = whose.as_slice() else {
            anyhow::bail!("{words:?} is of {whose:?}");
        };
        let client = words.get(2).context("a client")?;
        let (all, templates) = counts.entry(service).or_default();
        *all += 1;
        *templates += usize::from(client.ends_with(":0"));
    }
    let wanted = [
        ("story/calls", 6, 6),
        ("story/files", 1, 1),
        ("story/marked", 10, 2),
        ("story/outside", 5, 0),
        ("story/signalling", 1, 0),
        ("story/translated", 5, 0),
        ("story/web", CONNECTIONS, 2),
        ("story/wrapped", 5, 0),
    ];
    for (service, connections, templates) in wanted {
        let (all, found) = counts.remove(service).unwrap_or_default();
        ensure!(
            found == templates && all >= connections,
            "{service} has {all} connections, {found} of them templates, not {connections} and {templates}"
        );
    }
    // A packet that is scheduled on its own leaves none.
    ensure!(counts.is_empty(), "connections of {counts:?} too");
    Ok(())
}

/// A list that is cut says so, and one of a VirtualService is whole.
fn pages(plugin: &Plugin, node: &str) -> Result<()> {
    let told = plugin.values(node, &["connections", "--limit", "250"])?;
    let count = |told: &Value| told["connections"].as_array().map_or(0, Vec::len);
    ensure!(
        told["isCut"] == true && count(&told) == 250,
        "{} connections, cut: {}",
        count(&told),
        told["isCut"]
    );
    let words = ["connections", "story/marked", "--limit", "12"];
    let told = plugin.values(node, &words)?;
    ensure!(
        told["isCut"] == false && count(&told) == 12,
        "of one by mark: {told}"
    );
    Ok(())
}
