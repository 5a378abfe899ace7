//! Which way heartbeats and the agents' requests go: over the interface that the router names, and to an API endpoint that
//! answers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::failover::operator;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::traffic::{self, Load};

const URL: &str = "http://172.16.2.200/";
const LEASE: &str = "lvs-router-default";
const DIRECTORS: [&str; 2] = ["lb-a", "lb-b"];
/// Every cluster node.
const NODES: [&str; 6] = ["lb-a", "lb-b", "web-1", "web-2", "web-3", "far-1"];
/// The API server as the agents reach it without a setting of their own.
const FIRST: &str = "10.0.2.2";
/// A second address of it, which its certificate carries, too.
const SECOND: &str = "10.96.0.1";
/// A third one, which the certificate does not carry.
const UNNAMED: &str = "10.111.0.1";
const PORT: u16 = 6443;
/// From one renewal of the Lease to the next while nothing stands in the way.
const RENEWAL: Duration = Duration::from_secs(2);
/// By how much longer the one may take that meets an endpoint which died: less than the 2.2 s after which a write counts as
/// failed.
const DETOUR: Duration = Duration::from_millis(1_800);

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "heartbeats_over_an_interface",
            tells: "detection.interfaceName: heartbeats leave by that device from its own address; the InternalIPs' network is cut for them, nothing moves",
            run: over_an_interface,
        },
        Story {
            name: "heartbeats_over_ipv6",
            tells: "detection.interfaceName names a device that has IPv6 alone: heartbeats go there, and nothing moves when the way of the node addresses is cut",
            run: over_ipv6,
        },
        Story {
            name: "api_endpoints",
            tells: "several API endpoints: one without the right name is passed over, one that is black-holed or closed is left within a second",
            run: endpoints,
        },
    ]
}

fn serve(lab: &Lab) -> Result<String> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.await_serving(NAMESPACE, "web")
}

fn over_an_interface(lab: &Lab) -> Result<()> {
    let outside = Way {
        device: "out",
        family: "ip",
        prefix: "172.16.2.",
    };
    let told = (|| {
        // The route to the peer's outside address leads over the inside: whoever follows routes goes the wrong way.
        for (host, peer) in [("lb-a", 12), ("lb-b", 11)] {
            let route = format!("ip route add 172.16.2.{peer}/32 via 192.168.2.{peer} dev in");
            lab.guest.on(host, &route)?;
        }
        beating(lab, &outside)?;
        for plan in router_plans(lab)? {
            let reported = &plan["status"]["heartbeat"]["addresses"];
            ensure!(
                reported.as_array().is_some_and(|list| list.len() == 2)
                    && !reported.to_string().contains("200"),
                "the device's own address of each family: {reported}"
            );
        }
        Ok(())
    })();
    mend(
        lab,
        "ip route del 172.16.2.11/32 via 192.168.2.11; ip route del 172.16.2.12/32 via 192.168.2.12",
    )?;
    told
}

fn over_ipv6(lab: &Lab) -> Result<()> {
    let between = Way {
        device: "between",
        family: "ip6",
        prefix: "fd00:66::",
    };
    let told = (|| {
        for (host, own) in [("lb-a", 11), ("lb-b", 12)] {
            let device = format!(
                "ip link add link in name between type macvlan mode bridge
                 ip address add fd00:66::{own}/64 dev between nodad
                 ip link set between up"
            );
            lab.guest.on(host, &device)?;
        }
        beating(lab, &between)
    })();
    mend(lab, "ip link del between")?;
    told
}

/// Takes away what a story of heartbeats made on the directors, and the router's interface for them.
fn mend(lab: &Lab, more: &str) -> Result<()> {
    operator::change(lab, &json!({"interfaces": null, "detection": null}))?;
    for host in DIRECTORS {
        let script = format!("{{ nft delete table inet story; {more}; true; }} 2>/dev/null");
        lab.guest.on(host, &script)?;
    }
    Ok(())
}

/// Where heartbeats are to go.
struct Way {
    device: &'static str,
    /// As nftables calls it.
    family: &'static str,
    /// What precedes 11 and 12 in the directors' addresses there.
    prefix: &'static str,
}

fn beating(lab: &Lab, way: &Way) -> Result<()> {
    let Way {
        device,
        family,
        prefix,
    } = way;
    let holder = serve(lab)?;
    for (host, own, peer) in [("lb-a", 11, 12), ("lb-b", 12, 11)] {
        // Counts every heartbeat that leaves, by device and by source.
        let rules = format!(
            "nft -f - <<'N'
             table inet story {{
                 counter right {{}}
                 counter wrong {{}}
                 chain output {{
                     type filter hook output priority 0
                     oifname {device} {family} saddr {prefix}{own} {family} daddr {prefix}{peer} udp dport 8112 counter name right accept
                     udp dport 8112 counter name wrong
                 }}
             }}
N"
        );
        lab.guest.on(host, &rules)?;
    }
    let change = json!({"interfaces": [{"name": "beats", "devices": ["none0", device]}],
                        "detection": {"interfaceName": "beats"}});
    operator::change(lab, &change)?;
    // Each agent reports its own address, not the virtual one beside it, and each learns the other's.
    let wanted = json!([{"nodeName": "lb-a", "address": format!("{prefix}11")},
                        {"nodeName": "lb-b", "address": format!("{prefix}12")}]);
    until(LIMIT, "both plans have both addresses there", || {
        let plans = router_plans(lab)?;
        let peers: Vec<_> = plans
            .iter()
            .map(|plan| plan["spec"]["director"]["leadership"]["heartbeat"]["peers"].clone())
            .collect();
        let good = peers.len() == DIRECTORS.len() && peers.iter().all(|peers| *peers == wanted);
        Ok(if good { Ok(()) } else { Err(peers) })
    })?;
    let before = lease(lab)?;
    let load = Load::start(&lab.guest, "client", URL)?;
    until(LIMIT, "heartbeats go there and no other way", || {
        let counts = counters(lab)?;
        // Reading resets them, so late ones of the old way are gone at the second look.
        let good = counts
            .iter()
            .all(|[right, wrong]| *right > 0 && *wrong == 0);
        Ok(if good { Ok(()) } else { Err(counts) })
    })?;
    // The old way is cut for them, and nothing comes of it.
    for host in DIRECTORS {
        let cut = "nft add chain inet story input '{ type filter hook input priority 0; }' && \
                   nft add rule inet story input iifname in udp dport 8112 drop";
        lab.guest.on(host, cut)?;
    }
    let heard = heard(lab)?;
    until(
        LIMIT,
        "a hundred more heartbeats were heard by each",
        || {
            let now = self::heard(lab)?;
            let good = heard
                .iter()
                .zip(&now)
                .all(|(before, now)| now - before > 100.0);
            Ok(if good { Ok(()) } else { Err(now) })
        },
    )?;
    let result = load.stop()?;
    ensure!(result.failed.is_empty() && result.done > 0, "{result:?}");
    ensure!(lease(lab)?.who == before.who, "nothing moved off {holder}");
    let counts = counters(lab)?;
    ensure!(
        counts
            .iter()
            .all(|[right, wrong]| *right > 100 && *wrong == 0),
        "packets of the right and of the wrong way: {counts:?}"
    );
    // Nobody is told of lost heartbeats.
    let router = lab.cluster.get(&["virtualrouters.lvs.dev", "default"])?;
    let candidates = &router["status"]["candidates"];
    ensure!(
        candidates
            .as_array()
            .is_some_and(|list| list.iter().all(|one| one["reason"].is_null())),
        "{candidates}"
    );
    Ok(())
}

/// Plans of the default router.
fn router_plans(lab: &Lab) -> Result<Vec<serde_json::Value>> {
    let plans = lab.cluster.get(&["-n", OPERATOR_NAMESPACE, "nodeplans"])?;
    let of_router = |plan: &&serde_json::Value| {
        plan["spec"]["source"]["kind"] == "VirtualRouter"
            && plan["spec"]["source"]["name"] == "default"
    };
    let mut found: Vec<serde_json::Value> = plans["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(of_router)
        .cloned()
        .collect();
    found.sort_by_key(|plan| plan["spec"]["nodeName"].to_string());
    Ok(found)
}

/// Packets of the right and of the wrong way since the last look, by director.
fn counters(lab: &Lab) -> Result<Vec<[u64; 2]>> {
    let count = |host: &str| -> Result<[u64; 2]> {
        let text = lab
            .guest
            .on(host, "nft -j reset counters table inet story")?;
        let listed: serde_json::Value = serde_json::from_str(&text)?;
        let packets = |name: &str| {
            let mut items = listed["nftables"].as_array().into_iter().flatten();
            items
                .find(|item| item["counter"]["name"] == name)
                .and_then(|item| item["counter"]["packets"].as_u64())
        };
        Ok([
            packets("right").context("counter right")?,
            packets("wrong").context("counter wrong")?,
        ])
    };
    DIRECTORS.into_iter().map(count).collect()
}

fn heard(lab: &Lab) -> Result<Vec<f64>> {
    let metric = "lvs_agent_heartbeats_heard_total";
    DIRECTORS
        .into_iter()
        .map(|host| lab.agent_metric(host, metric))
        .collect()
}

/// The default router's Lease.
#[derive(Debug)]
struct Lease {
    /// Holder's identity and epoch.
    who: (String, u64),
    /// As written.
    renewed: String,
}

fn lease(lab: &Lab) -> Result<Lease> {
    let lease = lab
        .cluster
        .get(&["-n", OPERATOR_NAMESPACE, "lease", LEASE])?;
    let spec = &lease["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let epoch = spec["leaseTransitions"].as_u64().unwrap_or_default();
    Ok(Lease {
        who: (text("holderIdentity"), epoch),
        renewed: text("renewTime"),
    })
}

fn endpoints(lab: &Lab) -> Result<()> {
    let mut told = reached_at_two(lab);
    // Whatever came of it: as the chart has it, and only then the way to the second address is taken away.
    if let Err(error) = upgrade(lab, &[]) {
        told = told.and(Err(error));
    }
    lab.guest.run("nft delete table ip story")?;
    for host in NODES {
        let mend = format!("ip route del {SECOND}/32; nft delete table inet story; true");
        lab.guest.on(host, &format!("{{ {mend}; }} 2>/dev/null"))?;
    }
    told
}

fn reached_at_two(lab: &Lab) -> Result<()> {
    let port = lab.cluster.port;
    lab.guest.run(&format!(
        "nft -f - <<'N'
         table ip story {{
             chain prerouting {{
                 type nat hook prerouting priority dstnat
                 ip daddr {{ {SECOND}, {UNNAMED} }} tcp dport {PORT} dnat to {FIRST}:{port}
             }}
         }}
N"
    ))?;
    for host in NODES {
        lab.guest.on(
            host,
            &format!("ip route add {SECOND}/32 via {UNNAMED} dev mgmt"),
        )?;
    }
    let endpoint = |address: &str, port: u16| format!("https://{address}:{port}");
    upgrade(
        lab,
        &[
            endpoint(UNNAMED, PORT),
            endpoint(FIRST, port),
            endpoint(SECOND, PORT),
        ],
    )?;
    serve(lab)?;
    for host in DIRECTORS {
        await_connected(lab, host, FIRST)?;
        ensure!(
            connected(lab, host)? == BTreeSet::from([FIRST.to_owned()]),
            "{host}: the first endpoint has a certificate of other names, the third is not needed"
        );
    }
    let before = lease(lab)?;
    let holder = before
        .who
        .0
        .split('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let load = Load::start(&lab.guest, "client", URL)?;
    // Its packets go nowhere and nobody says so.
    cut(lab, &holder, FIRST, "drop")?;
    await_connected(lab, &holder, SECOND)?;
    // The other way round: a port that is closed, to connections that are there as well.
    lab.guest.on(&holder, "nft delete table inet story")?;
    cut(
        lab,
        &holder,
        SECOND,
        "meta l4proto tcp reject with tcp reset",
    )?;
    await_connected(lab, &holder, FIRST)?;
    let result = load.stop()?;
    ensure!(result.failed.is_empty() && result.done > 0, "{result:?}");
    let after = lease(lab)?;
    ensure!(after.who == before.who, "{before:?} and then {after:?}");
    ensure!(
        traffic::get(&lab.guest, "client", URL).is_ok(),
        "it is served still"
    );
    Ok(())
}

/// Installs the chart again with these endpoints, and waits until every agent runs with them.
fn upgrade(lab: &Lab, endpoints: &[String]) -> Result<()> {
    let list = format!("agent.apiServer.endpoints={{{}}}", endpoints.join(","));
    let settings: &[&str] = if endpoints.is_empty() { &[] } else { &[&list] };
    super::upgrade(lab, settings)
}

/// From now on what a host sends to an API endpoint meets this verdict. Renewals of the Lease must go on meanwhile.
fn cut(lab: &Lab, host: &str, address: &str, verdict: &str) -> Result<()> {
    let table = format!(
        "nft -f - <<'N'
         table inet story {{
             chain output {{
                 type filter hook output priority 0
                 ip daddr {address} tcp dport {{ {PORT}, {port} }} {verdict}
             }}
         }}
N",
        port = lab.cluster.port
    );
    let mut renewed = lease(lab)?;
    lab.guest.on(host, &table)?;
    let mut since = Instant::now();
    // Four renewals: the first of them meets the cut.
    for _ in 0..4 {
        let next = until(LIMIT, "the Lease is renewed", || {
            let seen = lease(lab)?;
            Ok(if seen.renewed == renewed.renewed {
                Err(seen)
            } else {
                Ok(seen)
            })
        })?;
        ensure!(
            since.elapsed() < RENEWAL + DETOUR,
            "{:?} from {renewed:?} to {next:?} after {address} was cut by {verdict}",
            since.elapsed()
        );
        since = Instant::now();
        renewed = next;
    }
    Ok(())
}

/// Addresses of API endpoints to which a host has connections.
fn connected(lab: &Lab, host: &str) -> Result<BTreeSet<String>> {
    let port = lab.cluster.port;
    let output = lab.guest.on(
        host,
        &format!("ss -Htn state established '( dport = :{PORT} or dport = :{port} )'"),
    )?;
    let peers = output.lines().filter_map(|line| {
        let peer = line.split_whitespace().nth(3)?;
        let (address, _) = peer.rsplit_once(':')?;
        Some(address.trim_matches(['[', ']']).to_owned())
    });
    Ok(peers.collect())
}

fn await_connected(lab: &Lab, host: &str, address: &str) -> Result<()> {
    until(LIMIT, &format!("{host} is connected to {address}"), || {
        let found = connected(lab, host)?;
        Ok(if found.contains(address) {
            Ok(())
        } else {
            Err(found)
        })
    })
}
