//! S1: addresses on several interfaces move as one, or not at all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{NAMESPACE, Story, other};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::traffic::Load;

/// Address for clients, and its device.
const OUTSIDE: (&str, &str) = ("172.16.2.250", "out");
/// Gateway of the real servers, and its device.
const INSIDE: (&str, &str) = ("192.168.2.250", "in");
const URL: &str = "http://172.16.2.250/";
/// Well below the 10.5 s after which a Lease expires: only a holder that yields is as fast.
const YIELD_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "S1_sync_group",
        tells: "NAT with an inside gateway: the holder's cable is pulled, both addresses move as one; a director with a fault gets none",
        run: sync_group,
    }]
}

fn sync_group(lab: &Lab) -> Result<()> {
    // The real servers are the administrator's: their gateway is set by hand, as in the article.
    for host in ["plain-1", "plain-2"] {
        lab.guest
            .on(host, "ip route replace default via 192.168.2.250")?;
    }
    let told = cables(lab);
    for host in ["plain-1", "plain-2"] {
        lab.guest
            .on(host, "ip route replace default via 192.168.2.254 dev in")?;
    }
    for director in ["lb-a", "lb-b"] {
        for segment in ["out", "in", "mgmt"] {
            plug(lab, director, segment)?;
        }
    }
    told
}

fn cables(lab: &Lab) -> Result<()> {
    lab.cluster.apply_example(NAMESPACE, "sync-group.yaml")?;
    let first = lab.await_serving(NAMESPACE, "web")?;
    let second = other(&first);
    await_both(lab, &first, LIMIT)?;
    await_candidate(lab, second, "Backup", None)?;

    let load = Load::start(&lab.guest, "client", URL)?;
    // The service link goes, the way to the API stays.
    pull(lab, &first, "out")?;
    await_both(lab, second, YIELD_LIMIT)?;
    await_candidate(lab, &first, "Fault", Some("LinkDown"))?;
    // No preemption: with its link back it is a candidate, no more.
    plug(lab, &first, "out")?;
    await_candidate(lab, &first, "Backup", None)?;
    await_both(lab, second, LIMIT)?;
    // The other side of the other director.
    pull(lab, second, "in")?;
    await_both(lab, &first, YIELD_LIMIT)?;
    await_candidate(lab, second, "Fault", Some("LinkDown"))?;
    let result = load.stop()?;
    // Nobody synchronises connections here: the long one ends with its director.
    let failed: Vec<&String> = result
        .failed
        .iter()
        .filter(|line| !line.contains("the long download"))
        .collect();
    ensure!(
        failed.is_empty() && result.done > 0,
        "new connections while both moved twice: {result:?}"
    );

    // A director with half of the links takes nothing, though the holder offers everything.
    pull(lab, &first, "out")?;
    until(LIMIT, "the holder offers the Lease", || {
        let lease = lab
            .cluster
            .get(&["-n", OPERATOR_NAMESPACE, "lease", "lvs-router-edge"])?;
        let offered = lease["metadata"]["annotations"]["lvs.dev/offered"].is_string();
        Ok(if offered {
            Ok(())
        } else {
            Err(lease["metadata"].clone())
        })
    })?;
    await_candidate(lab, &first, "Master", Some("LinkDown"))?;
    ensure!(
        held(lab, second)? == [false, false],
        "{second} has no inside link and holds something"
    );
    plug(lab, second, "in")?;
    await_both(lab, second, YIELD_LIMIT)?;
    plug(lab, &first, "out")?;
    await_candidate(lab, &first, "Backup", None)?;
    priorities(lab, &first)
}

/// A tracked interface with a delta costs priority, not candidacy.
fn priorities(lab: &Lab, backup: &str) -> Result<()> {
    await_priorities(lab, [100, 80])?;
    let change = json!({"spec": {
        "interfaces": [{"name": "outside", "devices": ["out"]}, {"name": "inside", "devices": ["in"]}, {"name": "spare", "devices": ["spare0"]}],
        "tracking": {"interfaces": [{"interfaceName": "spare", "priorityDelta": -50}]}}});
    lab.cluster
        .merge_patch(&["virtualrouters.lvs.dev", "edge"], &change)?;
    await_priorities(lab, [50, 30])?;
    await_candidate(lab, backup, "Backup", Some("LinkDown"))?;
    lab.guest.on(
        "lb-a",
        "ip link add spare0 type dummy && ip link set spare0 up",
    )?;
    let told = await_priorities(lab, [100, 30]);
    lab.guest.on("lb-a", "ip link delete spare0")?;
    told
}

/// Waits until the status shows these effective priorities of lb-a and lb-b.
fn await_priorities(lab: &Lab, wanted: [u64; 2]) -> Result<()> {
    until(LIMIT, &format!("effective priorities {wanted:?}"), || {
        let router = lab.cluster.get(&["virtualrouters.lvs.dev", "edge"])?;
        let candidates = &router["status"]["candidates"];
        let found = [0, 1].map(|index| candidates[index]["effectivePriority"].as_u64());
        Ok(if found == wanted.map(Some) {
            Ok(())
        } else {
            Err(candidates.clone())
        })
    })
}

fn pull(lab: &Lab, director: &str, segment: &str) -> Result<()> {
    lab.guest
        .run(&format!("ip link set {director}-{segment} down"))
        .map(drop)
}

fn plug(lab: &Lab, director: &str, segment: &str) -> Result<()> {
    lab.guest
        .run(&format!("ip link set {director}-{segment} up"))
        .map(drop)
}

/// Whether a director has the outside and the inside address.
fn held(lab: &Lab, director: &str) -> Result<[bool; 2]> {
    let output = lab.guest.on(director, "ip -br address show")?;
    Ok([OUTSIDE, INSIDE].map(|(address, device)| {
        output.lines().any(|line| {
            line.starts_with(&format!("{device}@")) && line.contains(&format!(" {address}/32"))
        })
    }))
}

/// Waits until one director has both addresses and the other none.
fn await_both(lab: &Lab, director: &str, limit: Duration) -> Result<()> {
    let other = other(director);
    until(
        limit,
        &format!("both addresses on {director} alone"),
        || {
            let found = (held(lab, director)?, held(lab, other)?);
            Ok(if found == ([true, true], [false, false]) {
                Ok(())
            } else {
                Err(found)
            })
        },
    )
    .context("addresses move as one")
}

/// Waits until the router's status shows a director with this state and reason.
fn await_candidate(lab: &Lab, director: &str, state: &str, reason: Option<&str>) -> Result<()> {
    let what = format!("{director} is {state} {reason:?} in the status of edge");
    until(LIMIT, &what, || {
        let router = lab.cluster.get(&["virtualrouters.lvs.dev", "edge"])?;
        let candidates = router["status"]["candidates"].clone();
        let found = candidates.as_array().is_some_and(|list| {
            list.iter().any(|candidate| {
                candidate["nodeName"] == director
                    && candidate["state"] == state
                    && candidate["reason"].as_str() == reason
            })
        });
        Ok(if found { Ok(()) } else { Err(candidates) })
    })
}
