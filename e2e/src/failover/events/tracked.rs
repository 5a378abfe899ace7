//! What a router tracks speaks against the holder, and then no more. Not in the table of the bench: keepalived has neither
//! endpoints nor Nodes.

use anyhow::Result;

use super::{AFTERMATH, Among, Event, Scene, Struck};
use crate::await_condition::until;
use crate::failover::operator::ROUTER;
use crate::failover::table::Aim;
use crate::lab::LIMIT;

/// A condition that nobody else sets.
pub const CONDITION: &str = "example.com/UplinkReady";
/// Where each director's endpoint is, and what it serves: a file of this folder, by the host's name.
pub const ENDPOINT: &str = "http://127.0.0.1:9101/ok";
/// See [`ENDPOINT`].
pub const ENDPOINT_FOLDER: &str = "/run/endpoint";

fn event(name: &'static str, title: &'static str, run: fn(&Scene<'_>) -> Result<Struck>) -> Event {
    Event {
        name,
        title,
        among: Among::UsersOfTheApi,
        before: None,
        run,
        aim: Aim {
            gap_seconds: Some(0.1),
            both_seconds: Some(0.5),
            lost: Some(1),
            moves: Some(1),
            ..Aim::default()
        },
    }
}

/// The holder's endpoint fails, then succeeds again.
pub fn endpoint() -> Event {
    event("endpoint", "the holder's endpoint fails", endpoint_fails)
}

/// The holder's Node gets a condition, then loses it.
pub fn node_condition() -> Event {
    event(
        "node-condition",
        "the holder's Node gets a condition",
        node_condition_is_false,
    )
}

fn endpoint_fails(scene: &Scene<'_>) -> Result<Struck> {
    let host = &scene.subject.directors[scene.holder].host;
    let file = format!("{ENDPOINT_FOLDER}/{host}/ok");
    let at = scene.strike(&format!("rm {file}"))?;
    let followed = scene.await_move().and_then(|()| {
        let words = format!("tracked endpoint {ENDPOINT}: status 404, expected 200-299");
        await_candidate(scene, "Fault", Some("EndpointFailed"), &words)
    });
    scene.stage.lab.guest.run(&format!("echo ok >{file}"))?;
    followed?;
    await_candidate(scene, "Backup", None, "")?;
    scene.watch_for(AFTERMATH)?;
    Ok(at.into())
}

fn node_condition_is_false(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike("")?;
    set(scene, r#""status": "False", "reason": "Story""#)?;
    let followed = scene.await_move().and_then(|()| {
        let words = format!("condition {CONDITION} of the node is False");
        await_candidate(scene, "Backup", Some("NodeCondition"), &words)
    });
    set(scene, r#""status": "True", "reason": "Story""#)?;
    let followed = followed.and_then(|()| {
        await_candidate(scene, "Backup", None, "")?;
        scene.watch_for(AFTERMATH)
    });
    set(scene, r#""$patch": "delete""#)?;
    followed?;
    Ok(at.into())
}

/// Changes the condition of the holder's Node.
fn set(scene: &Scene<'_>, words: &str) -> Result<()> {
    let node = &scene.subject.directors[scene.holder].host;
    let patch = format!(r#"{{"status": {{"conditions": [{{"type": "{CONDITION}", {words}}}]}}}}"#);
    let cluster = &scene.stage.lab.cluster;
    cluster.kubectl(&["patch", "node", node, "--subresource=status", "-p", &patch])?;
    Ok(())
}

/// Waits until the router's status says this of the director that held.
fn await_candidate(
    scene: &Scene<'_>,
    state: &str,
    reason: Option<&str>,
    message: &str,
) -> Result<()> {
    let host = &scene.subject.directors[scene.holder].host;
    let what = format!("{host} is {state} {reason:?} in the status of the router");
    until(LIMIT, &what, || {
        let router = scene.stage.lab.cluster.get(&[ROUTER])?;
        let candidates = router["status"]["candidates"].clone();
        let found = candidates.as_array().is_some_and(|list| {
            list.iter().any(|candidate| {
                candidate["nodeName"] == host.as_str()
                    && candidate["state"] == state
                    && candidate["reason"].as_str() == reason
                    && candidate["message"]
                        .as_str()
                        .unwrap_or_default()
                        .contains(message)
            })
        });
        Ok(if found { Ok(()) } else { Err(candidates) })
    })
}
