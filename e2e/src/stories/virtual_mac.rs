//! S10: the virtual MAC of VRRP.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{NAMESPACE, Story, other};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::traffic::{self, Load, Spread};

/// Addresses and what the client's neighbour table must say of them: VRID 51.
const ADDRESSES: [(&str, &str); 2] = [
    ("172.16.2.240", "00:00:5e:00:01:33"),
    ("fd00:2::240", "00:00:5e:00:02:33"),
];
const URLS: [&str; 2] = ["http://172.16.2.240/", "http://[fd00:2::240]/"];

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "S10_virtual_mac",
        tells: "clients know the addresses by the virtual MAC, before and after a takeover; each MAC answers for its own; off and on again under load",
        run: virtual_mac,
    }]
}

fn virtual_mac(lab: &Lab) -> Result<()> {
    lab.cluster.apply_example(NAMESPACE, "virtual-mac.yaml")?;
    let first = lab.await_serving(NAMESPACE, "web")?;
    let second = other(&first);
    await_carried(lab, &first)?;
    known_by_virtual_mac(lab)?;
    each_answers_for_its_own(lab, &first)?;

    // A takeover: the neighbours keep what they know.
    let load = Load::start(&lab.guest, "client", URLS[0])?;
    lab.guest.run(&format!("ip link set {first}-out down"))?;
    let moved = await_carried(lab, second);
    lab.guest.run(&format!("ip link set {first}-out up"))?;
    moved?;
    known_by_virtual_mac(lab)?;
    each_answers_for_its_own(lab, second)?;
    let result = load.stop()?;
    // Nobody synchronises connections here: the long one ends with its director.
    let failed: Vec<&String> = result
        .failed
        .iter()
        .filter(|line| !line.contains("the long download"))
        .collect();
    ensure!(
        failed.is_empty() && result.done > 0,
        "new connections during a takeover: {result:?}"
    );

    // Off and on again, on the holder: the long one goes on too.
    let load = Load::start(&lab.guest, "client", URLS[0])?;
    for (word, carries) in [("Disabled", false), ("Enabled", true)] {
        let change = json!({"spec": {"virtualMAC": word}});
        lab.cluster
            .merge_patch(&["virtualrouters.lvs.dev", "edge"], &change)?;
        if carries {
            await_carried(lab, second)?;
            known_by_virtual_mac(lab)?;
        } else {
            until(LIMIT, "no device with a virtual MAC is left", || {
                let left = devices(lab, "lb-a")? + &devices(lab, "lb-b")?;
                Ok(if left.is_empty() { Ok(()) } else { Err(left) })
            })?;
        }
    }
    let result = load.stop()?;
    ensure!(
        result.failed.is_empty() && result.done > 0,
        "while the virtual MAC went and came: {result:?}"
    );
    same_id_twice(lab)
}

/// The younger of two routers with one VRID is told so, and works without.
fn same_id_twice(lab: &Lab) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: younger}
spec:
  directors: [{nodeName: lb-a}]
  virtualRouterID: 51
  virtualMAC: Enabled
  addressPools: [{name: younger, addresses: [172.16.2.241]}]
  grants: [{namespaces: {from: All}, addressPoolNames: [younger], realServerNodes: All}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: younger}
spec:
  virtualRouterName: younger
  addresses: [172.16.2.241]
  ports: [{port: 80}]
  forwarding: {type: DR}
  scheduler: {name: rr}
  realServerSelector: {matchLabels: {app: web}}
",
    )?;
    let words = ["virtualrouters.lvs.dev", "younger"];
    let message = lab.await_reason(&words, "Accepted", "VirtualRouterIDInUse")?;
    ensure!(
        message.contains("edge") && message.contains("51"),
        "the message names neither edge nor 51: {message}"
    );
    lab.await_serving(NAMESPACE, "younger")?;
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.241/", 4)?;
    ensure!(
        spread == both_twice(),
        "through the younger router: {spread:?}"
    );
    let own = hardware_address(lab, "lb-a", "out")?;
    let neighbour = neighbour(lab, "172.16.2.241")?;
    ensure!(
        neighbour == own,
        "172.16.2.241 is known by {neighbour}, lb-a's own is {own}"
    );
    Ok(())
}

fn both_twice() -> Spread {
    [("web-1".into(), 2), ("web-2".into(), 2)].into()
}

fn hardware_address(lab: &Lab, host: &str, device: &str) -> Result<String> {
    let text = lab
        .guest
        .on(host, &format!("cat /sys/class/net/{device}/address"))?;
    Ok(text.trim().to_owned())
}

/// Devices with a virtual MAC on a host, as `ip -br link` shows them.
fn devices(lab: &Lab, host: &str) -> Result<String> {
    lab.guest
        .on(host, "ip -br link show type macvlan")
        .map(|text| text.trim().to_owned())
}

/// Waits until the devices of one director are up with both addresses, and those of the other down and without.
fn await_carried(lab: &Lab, director: &str) -> Result<()> {
    let other = other(director);
    until(
        LIMIT,
        &format!("both addresses on {director}'s virtual MACs"),
        || {
            let carried = |host: &str| -> Result<Vec<String>> {
                let shown = lab.guest.on(host, "ip -br address show type macvlan")?;
                Ok(ADDRESSES
                    .iter()
                    .filter(|(address, _)| shown.contains(&format!(" {address}/")))
                    .map(|(address, _)| (*address).to_owned())
                    .collect())
            };
            let (here, there) = (carried(director)?, carried(other)?);
            let up = |text: &str| text.lines().filter(|line| line.contains(",UP")).count();
            let links = (devices(lab, director)?, devices(lab, other)?);
            let good = here.len() == 2
                && there.is_empty()
                && up(&links.0) == 2
                && up(&links.1) == 0
                && links.1.lines().count() == 2;
            Ok(if good {
                Ok(())
            } else {
                Err((here, there, links))
            })
        },
    )
}

/// What the client knows a neighbour by.
fn neighbour(lab: &Lab, address: &str) -> Result<String> {
    let shown = lab
        .guest
        .on("client", &format!("ip neighbour show {address} dev out"))?;
    let mut words = shown.split_whitespace();
    let found = words
        .find(|word| *word == "lladdr")
        .and_then(|_| words.next());
    Ok(found.unwrap_or_default().to_owned())
}

fn known_by_virtual_mac(lab: &Lab) -> Result<()> {
    for (url, (address, expected)) in URLS.iter().zip(ADDRESSES) {
        // Others may be served meanwhile: that both answer counts, not in which turn.
        let spread = traffic::spread(&lab.guest, "client", url, 6)?;
        let both: Vec<&str> = spread.keys().map(String::as_str).collect();
        ensure!(both == ["web-1", "web-2"], "{url}: {spread:?}");
        let found = neighbour(lab, address)?;
        ensure!(
            found == expected,
            "{address} is known by {found:?}, not {expected}"
        );
    }
    Ok(())
}

/// Of all devices on the link exactly one answers for each address, and with its own MAC.
fn each_answers_for_its_own(lab: &Lab, director: &str) -> Result<()> {
    let node = if director == "lb-a" {
        "172.16.2.11"
    } else {
        "172.16.2.12"
    };
    let own = hardware_address(lab, director, "out")?;
    for (address, expected) in [(ADDRESSES[0].0, ADDRESSES[0].1), (node, own.as_str())] {
        let answers = lab.guest.on(
            "client",
            &format!("arping -b -c 3 -w 5 -I out {address}; true"),
        )?;
        let macs: Vec<&str> = answers
            .lines()
            .filter(|line| line.contains("reply from"))
            .filter_map(|line| line.split(['[', ']']).nth(1))
            .collect();
        ensure!(
            !macs.is_empty() && macs.iter().all(|mac| mac.eq_ignore_ascii_case(expected)),
            "{address} is answered for by {macs:?}, not {expected}: {answers}"
        );
    }
    Ok(())
}
