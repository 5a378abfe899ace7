//! S6: FullNAT on the stock kernel: real servers see an address of the director and need no way back.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story, other};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::traffic::{self, Held};

const ADDRESS: &str = "172.16.2.245";
const SOURCES: [&str; 2] = ["192.168.2.240", "192.168.2.241"];
const ROUTER: &str = "virtualrouters.lvs.dev/edge";
/// In another network, in that of the real servers, one of the real servers, and nodes: a far one and both directors.
const CLIENTS: [&str; 7] = [
    "client", "plain-2", "plain-1", "web-1", "far-1", "lb-a", "lb-b",
];

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "S6_full_nat",
            tells: "FullNAT from every network to real servers that know no way back; source addresses move with the address",
            run: full_nat,
        },
        Story {
            name: "S6_full_nat_ipv6",
            tells: "FullNAT over IPv6, and a real server of the same service by NAT, which sees its clients",
            run: full_nat_ipv6,
        },
        Story {
            name: "S6_full_nat_marks",
            tells: "FullNAT by firewall mark: UDP to a real DNS server and SCTP as one service",
            run: marks,
        },
    ]
}

fn full_nat(lab: &Lab) -> Result<()> {
    let routes = "ip rule show; ip route show table all";
    let routes_before = lab.guest.on("web-1", routes)?;
    lab.cluster.apply_example(NAMESPACE, "full-nat.yaml")?;
    let first = lab.await_serving(NAMESPACE, "shop")?;
    let second = other(&first);
    await_sources(lab, &first)?;
    let rules = lab.ipvs_rules(&first)?;
    ensure!(
        rules
            == [
                "-A -t 172.16.2.245:80 -s rr",
                "-a -t 172.16.2.245:80 -r 192.168.2.21:8080 -m -w 1",
                "-a -t 172.16.2.245:80 -r 192.168.2.31:82 -m -w 1",
            ],
        "rules on {first}: {rules:#?}"
    );
    ensure!(
        lab.guest.on("web-1", routes)? == routes_before,
        "a real server was given a way back"
    );
    reached_from_everywhere(lab)?;
    peers_are_sources(lab)?;

    // Somebody damages the table: it is written again.
    lab.guest
        .on(&first, "nft flush chain inet lvs-operator postrouting")?;
    until(LIMIT, "the table is whole again", || {
        let listed = lab.guest.on(&first, "nft list table inet lvs-operator")?;
        Ok(if listed.contains("goto sources-0") {
            Ok(())
        } else {
            Err(listed)
        })
    })?;
    reached_from_everywhere(lab)?;

    let annotation = format!("lvs.dev/hand-over-to={second}");
    lab.cluster.kubectl(&["annotate", ROUTER, &annotation])?;
    until(LIMIT, &format!("{second} alone holds {ADDRESS}"), || {
        let holders = lab.holders(ADDRESS)?;
        Ok(if holders == [second] {
            Ok(())
        } else {
            Err(holders)
        })
    })?;
    await_sources(lab, second)?;
    reached_from_everywhere(lab)?;
    peers_are_sources(lab)
}

/// One director, this one, holds every source address.
fn await_sources(lab: &Lab, director: &str) -> Result<()> {
    until(
        LIMIT,
        &format!("{director} alone holds the source addresses"),
        || {
            let mut holders = BTreeSet::new();
            for host in ["lb-a", "lb-b"] {
                let held = lab.guest.on(host, "ip -br address show dev in")?;
                for source in SOURCES {
                    if held.contains(&format!("{source}/")) {
                        holders.insert((host, source));
                    }
                }
            }
            let wanted: BTreeSet<_> = SOURCES.iter().map(|source| (director, *source)).collect();
            Ok(if holders == wanted {
                Ok(())
            } else {
                Err(holders)
            })
        },
    )
}

fn reached_from_everywhere(lab: &Lab) -> Result<()> {
    for host in CLIENTS {
        let spread = traffic::spread(&lab.guest, host, &format!("http://{ADDRESS}/"), 4)?;
        ensure!(
            spread == [("plain-1".into(), 2), ("web-1".into(), 2)].into(),
            "from {host}: {spread:?}"
        );
    }
    Ok(())
}

/// Both source addresses are used, and no client is seen by its own.
fn peers_are_sources(lab: &Lab) -> Result<()> {
    // With an even chance for each, 40 connections miss one of them once in 10^12 runs.
    let _held = [
        Held::open(&lab.guest, "client", ADDRESS, 80, 20)?,
        Held::open(&lab.guest, "plain-2", ADDRESS, 80, 20)?,
    ];
    let mut peers = peers(lab, "plain-1", 82)?;
    peers.extend(self::peers(lab, "web-1", 8080)?);
    ensure!(
        peers.iter().map(String::as_str).eq(SOURCES),
        "real servers see {peers:?}"
    );
    Ok(())
}

/// Who is connected to a port of a host.
fn peers(lab: &Lab, host: &str, port: u16) -> Result<BTreeSet<String>> {
    let output = lab.guest.on(
        host,
        &format!("ss -Htn state established 'sport = :{port}' | awk '{{print $4}}'"),
    )?;
    let peers = output.lines().filter_map(|peer| {
        let (address, _) = peer.rsplit_once(':')?;
        Some(address.trim_matches(['[', ']']).to_owned())
    });
    Ok(peers.collect())
}

fn full_nat_ipv6(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: edge-six}
spec:
  directors: [{nodeName: lb-b}]
  addressPools:
  - {name: six, addresses: ["fd00:2::645"]}
  - {name: snat, addresses: ["fd00:192::640-fd00:192::641"], purpose: SourceNAT}
  additionalAddresses: [{address: "fd00:192::600"}]
  grants: [{namespaces: {from: All}, addressPoolNames: [six, snat], realServerCIDRs: ["fd00:192::/64"], realServerNodes: All}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: six}
spec:
  virtualRouterName: edge-six
  addresses: ["fd00:2::645"]
  ports: [{port: 80, realServerPort: 8080}]
  forwarding: {type: FullNAT, fullNAT: {sourceAddressPoolName: snat}}
  scheduler: {name: rr}
  realServerSelector: {}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: plain-1}
spec: {target: {type: Addresses, addresses: ["fd00:192::31"]}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: web-2}
spec: {target: {type: Node, node: {name: web-2}}, forwarding: {type: NAT}}
"#,
    )?;
    let master = lab.await_serving(NAMESPACE, "six")?;
    ensure!(master == "lb-b", "master is {master}");
    let spread = traffic::spread(&lab.guest, "client", "http://[fd00:2::645]/", 10)?;
    ensure!(
        spread == [("plain-1".into(), 5), ("web-2".into(), 5)].into(),
        "rr gave {spread:?}"
    );
    let _held = Held::open(&lab.guest, "client", "fd00:2::645", 80, 80)?;
    let translated = peers(lab, "plain-1", 8080)?;
    let sources = ["fd00:192::640", "fd00:192::641"];
    ensure!(
        translated.iter().map(String::as_str).eq(sources),
        "the real server by FullNAT sees {translated:?}"
    );
    let clients = peers(lab, "web-2", 8080)?;
    ensure!(
        clients.iter().map(String::as_str).eq(["fd00:2::100"]),
        "the real server by NAT sees {clients:?}"
    );
    Ok(())
}

fn marks(lab: &Lab) -> Result<()> {
    lab.guest.run("modprobe sctp")?;
    lab.guest.on(
        "plain-1",
        "dnsmasq --no-resolv --no-hosts --port=53 --pid-file=/run/dns-full-nat.pid --conf-file=/dev/null \
         --txt-record=who.example,plain-1 --user=root
         setsid socat SCTP4-LISTEN:2905,reuseaddr,fork SYSTEM:'echo $SOCAT_PEERADDR' >/dev/null 2>&1 </dev/null & echo $! >/run/sctp-full-nat.pid",
    )?;
    let told = marks_told(lab);
    lab.guest
        .run("kill $(cat /run/dns-full-nat.pid) $(cat /run/sctp-full-nat.pid)")?;
    told
}

fn marks_told(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        r"
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: edge}
spec:
  directors: [{nodeName: lb-a}]
  addressPools:
  - {name: outside, addresses: [172.16.2.245]}
  - {name: snat, addresses: [192.168.2.240], purpose: SourceNAT}
  grants: [{namespaces: {from: All}, addressPoolNames: [outside, snat], realServerCIDRs: [192.168.2.0/24]}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: names}
spec:
  virtualRouterName: edge
  addresses: [172.16.2.245]
  grouping: FirewallMark
  ports:
  - {name: dns, protocol: UDP, port: 53}
  - {name: signalling, protocol: SCTP, port: 2900, endPort: 2910}
  forwarding: {type: FullNAT, fullNAT: {sourceAddressPoolName: snat}}
  realServerSelector: {}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: plain-1}
spec: {target: {type: Addresses, addresses: [192.168.2.31]}}
",
    )?;
    lab.await_serving(NAMESPACE, "names")?;
    for host in ["client", "plain-2"] {
        let answer = lab.guest.on(
            host,
            "dig +short +tries=1 +time=3 @172.16.2.245 who.example TXT",
        )?;
        ensure!(answer.trim() == "\"plain-1\"", "DNS from {host}: {answer}");
        let peer = lab
            .guest
            .on(host, "timeout 20 socat -u SCTP4:172.16.2.245:2905 -")?;
        ensure!(peer.trim() == SOURCES[0], "SCTP from {host}: {peer}");
    }
    Ok(())
}
