//! What people see of leadership: Events with facts, the columns of `kubectl get virtualrouters`, conditions, metrics.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::failover::operator::{self, Echo, ROUTER, Setting};
use crate::failover::subject::Subject;
use crate::lab::{LIMIT, Lab};

/// Objects without a namespace have their Events here.
const EVENTS_NAMESPACE: &str = "default";
/// How soon a lost heartbeat is in the router's status: k·i, a challenge, its answer, two statuses.
const SOON: Duration = Duration::from_secs(10);

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "seen_handover",
            tells: "a hand-over by annotation and a SIGTERM: Events say who, to whom, in which epoch and why; kubectl get shows it",
            run: handover,
        },
        Story {
            name: "seen_takeover",
            tells: "the holder's agent is killed: BecameMaster says how long it was silent, metrics how long each phase took; back again it says Fenced",
            run: takeover,
        },
        Story {
            name: "seen_heartbeat_lost",
            tells: "directors cannot hear each other: HeartbeatsHeard is False and names who does not hear whom, until they do",
            run: heartbeat_lost,
        },
    ]
}

/// How often a reason was told of the router, and the first note of it; of one director, where one is given.
fn told(lab: &Lab, reason: &str, director: Option<&str>) -> Result<(u64, String)> {
    let events = lab.cluster.get(&[
        "events.events.k8s.io",
        "-n",
        EVENTS_NAMESPACE,
        "--field-selector",
        &format!("reason={reason}"),
    ])?;
    let mut count = 0;
    let mut note = String::new();
    for event in events["items"].as_array().into_iter().flatten() {
        let is_of_router = event["regarding"]["kind"] == "VirtualRouter";
        if !is_of_router || director.is_some_and(|name| event["related"]["name"] != name) {
            continue;
        }
        count += event["series"]["count"].as_u64().unwrap_or(1);
        if note.is_empty() {
            event["note"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut note);
        }
    }
    Ok((count, note))
}

/// An Event that is expected: how often it was there before.
struct Expected<'a> {
    lab: &'a Lab,
    reason: &'static str,
    director: Option<String>,
    before: u64,
}

impl<'a> Expected<'a> {
    fn new(lab: &'a Lab, reason: &'static str, director: Option<&str>) -> Result<Self> {
        Ok(Self {
            lab,
            reason,
            director: director.map(str::to_owned),
            before: told(lab, reason, director)?.0,
        })
    }

    /// Waits until it was told once more, with this note unless it repeats one that the recorder counts up.
    fn once_more(&self, note: &str) -> Result<()> {
        let what = format!("an Event {} of {:?}: {note}", self.reason, self.director);
        let (count, first) = until(LIMIT, &what, || {
            let (count, first) = told(self.lab, self.reason, self.director.as_deref())?;
            Ok(if count > self.before {
                Ok((count, first))
            } else {
                Err((count, first))
            })
        })?;
        ensure!(
            count == self.before + 1,
            "{} was told {} times instead of once: {first}",
            self.reason,
            count - self.before
        );
        ensure!(
            self.before > 0 || first.contains(note),
            "the note of {} is {first:?}, not {note:?}",
            self.reason
        );
        Ok(())
    }
}

/// The router's status once a director holds it under a new epoch.
fn await_master(lab: &Lab, node: &str, epoch: i64) -> Result<Value> {
    until(LIMIT, &format!("{node} is master of epoch {epoch}"), || {
        let status = lab.cluster.get(&[ROUTER])?["status"].take();
        let master = &status["master"];
        Ok(if master["nodeName"] == node && master["epoch"] == epoch {
            Ok(status)
        } else {
            Err(master.to_string())
        })
    })
}

fn epoch(lab: &Lab) -> Result<i64> {
    lab.cluster.get(&[ROUTER])?["status"]["master"]["epoch"]
        .as_i64()
        .context("an epoch")
}

/// Waits until the last transition of a director is this one; its message.
fn await_transition(lab: &Lab, node: &str, reason: &str, epoch: i64) -> Result<String> {
    until(
        LIMIT,
        &format!("{reason} of {node} in epoch {epoch}"),
        || {
            let status = lab.cluster.get(&[ROUTER])?["status"].take();
            let candidates = status["candidates"].as_array();
            let candidate = candidates
                .into_iter()
                .flatten()
                .find(|candidate| candidate["nodeName"] == node);
            let last = candidate.map_or(Value::Null, |found| found["lastTransition"].clone());
            Ok(if last["reason"] == reason && last["epoch"] == epoch {
                Ok(last["message"].as_str().unwrap_or_default().to_owned())
            } else {
                Err(last.to_string())
            })
        },
    )
}

/// The columns of the router, by name.
fn columns(lab: &Lab) -> Result<Vec<(String, String)>> {
    let table = lab.cluster.kubectl(&["get", ROUTER])?;
    let mut lines = table.lines();
    let mut words = || -> Vec<String> {
        let line = lines.next().unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    };
    let (names, values) = (words(), words());
    ensure!(names.len() == values.len(), "a table with gaps:\n{table}");
    Ok(names.into_iter().zip(values).collect())
}

fn handover(lab: &Lab) -> Result<()> {
    let _echo = Echo::start(lab)?;
    let subject = operator::subject(lab, NAMESPACE, Setting::AsInstalled)?;
    let first = subject.await_calm(lab)?;
    let [one, other] = [first, 1 - first].map(|index| subject.directors[index].host.clone());
    let begun = epoch(lab)?;

    let given = Expected::new(lab, "HandedOver", Some(&one))?;
    let taken = Expected::new(lab, "BecameMaster", Some(&other))?;
    let annotation = format!("lvs.dev/hand-over-to={other}");
    lab.cluster.kubectl(&["annotate", ROUTER, &annotation])?;
    let moved = await_master(lab, &other, begun + 1);
    lab.cluster
        .kubectl(&["annotate", ROUTER, "lvs.dev/hand-over-to-"])?;
    moved?;
    let why = "annotation lvs.dev/hand-over-to asks for it";
    let message = await_transition(lab, &one, "HandedOver", begun + 1)?;
    ensure!(message == why, "it was handed over since {message:?}");
    let epoch = begun + 1;
    given.once_more(&format!(
        "{one} handed over to {other} in epoch {epoch}: {why}"
    ))?;
    taken.once_more(&format!("{other} took over from {one} in epoch {epoch}: "))?;
    subject.await_calm(lab)?;
    lab.await_true(&[ROUTER], "Ready")?;

    let expected = [
        ("NAME", "default".to_owned()),
        ("MASTER", other.clone()),
        ("EPOCH", epoch.to_string()),
        ("CANDIDATES", "2/2".to_owned()),
        ("READY", "True".to_owned()),
    ];
    let found = until(LIMIT, "the columns of the router", || {
        let found = columns(lab)?;
        let shows = |(name, value): &(&str, String)| {
            let mut columns = found.iter();
            columns.any(|(found, shown)| found == name && shown == value)
        };
        Ok(if expected.iter().all(shows) {
            Ok(found)
        } else {
            Err(found)
        })
    })?;
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(
        names
            == [
                "NAME",
                "MASTER",
                "SINCE",
                "EPOCH",
                "CANDIDATES",
                "READY",
                "AGE"
            ],
        "columns {names:?}"
    );
    let status = lab.cluster.get(&[ROUTER])?["status"].take();
    for candidate in status["candidates"].as_array().context("candidates")? {
        let is_master = candidate["nodeName"] == other;
        ensure!(
            candidate["priority"].is_number()
                && candidate["effectivePriority"].is_number()
                && candidate["state"] == if is_master { "Master" } else { "Backup" },
            "a candidate: {candidate}"
        );
    }

    // Its agent is asked to end: the last word of the old process, and the first of the new holder.
    let given = Expected::new(lab, "HandedOver", Some(&other))?;
    let taken = Expected::new(lab, "BecameMaster", Some(&one))?;
    lab.guest.run(&subject.terminate(1 - first))?;
    await_master(lab, &one, epoch + 1)?;
    let message = await_transition(lab, &other, "HandedOver", epoch + 1)?;
    ensure!(
        message == "its agent ends",
        "it was handed over since {message:?}"
    );
    let epoch = epoch + 1;
    given.once_more(&format!(
        "{other} handed over to {one} in epoch {epoch}: its agent ends"
    ))?;
    taken.once_more(&format!("{one} took over from {other} in epoch {epoch}: "))?;
    subject.await_calm(lab)?;
    phases_sum_up(lab, &one, "offered")
}

/// The phases of the takeovers of a node are the whole.
fn phases_sum_up(lab: &Lab, node: &str, cause: &str) -> Result<()> {
    until(LIMIT, &format!("a takeover of {node}, {cause}"), || {
        let metric = |name: &str| lab.agent_metric(node, name);
        let count = metric(&format!(
            "lvs_agent_takeover_seconds_count{{cause=\"{cause}\"}}"
        ))?;
        let whole = metric(&format!(
            "lvs_agent_takeover_seconds_sum{{cause=\"{cause}\"}}"
        ))?;
        let mut parts = 0.0;
        for phase in ["detection", "challenge", "write", "apply", "announce"] {
            let labels = format!("{{cause=\"{cause}\",phase=\"{phase}\"}}");
            parts += metric(&format!("lvs_agent_takeover_phase_seconds_sum{labels}"))?;
        }
        Ok(
            if count >= 1.0 && whole > 0.0 && (whole - parts).abs() < 1e-6 {
                Ok(())
            } else {
                Err((count, whole, parts))
            },
        )
    })
}

/// Everything is mended when it is dropped.
struct Mended<'a> {
    lab: &'a Lab,
    subject: &'a Subject,
}

impl Drop for Mended<'_> {
    fn drop(&mut self) {
        let _ = self.lab.guest.try_run(&self.subject.mend());
    }
}

fn takeover(lab: &Lab) -> Result<()> {
    let _echo = Echo::start(lab)?;
    let subject = operator::subject(lab, NAMESPACE, Setting::AsInstalled)?;
    let first = subject.await_calm(lab)?;
    let [one, other] = [first, 1 - first].map(|index| subject.directors[index].host.clone());
    let begun = epoch(lab)?;
    let taken = Expected::new(lab, "BecameMaster", Some(&other))?;
    let fenced = Expected::new(lab, "Fenced", Some(&one))?;
    let mended = Mended {
        lab,
        subject: &subject,
    };
    lab.guest.run(&subject.signal(first, "KILL", true))?;
    await_master(lab, &other, begun + 1)?;
    let message = await_transition(lab, &other, "BecameMaster", begun + 1)?;
    ensure!(
        message.starts_with("no heartbeat for ") && message.contains("no answer to a challenge"),
        "it was taken over since {message:?}"
    );
    taken.once_more(&format!(
        "{other} took over from {one} in epoch {}: {message}",
        begun + 1
    ))?;
    phases_sum_up(lab, &other, "unanswered")?;
    drop(mended);
    await_transition(lab, &one, "Fenced", begun)?;
    fenced.once_more(&format!(
        "{one} gave up the addresses of epoch {begun}: {other} holds epoch {}",
        begun + 1
    ))?;
    subject.await_calm(lab).map(drop)
}

fn heartbeat_lost(lab: &Lab) -> Result<()> {
    let _echo = Echo::start(lab)?;
    let subject = operator::subject(lab, NAMESPACE, Setting::AsInstalled)?;
    let first = subject.await_calm(lab)?;
    let [holder, deaf] = [first, 1 - first].map(|index| subject.directors[index].host.clone());
    lab.await_true(&[ROUTER], "HeartbeatsHeard")?;
    let begun = epoch(lab)?;
    let lost = Expected::new(lab, "HeartbeatLost", None)?;
    let heard = Expected::new(lab, "HeartbeatsHeard", None)?;
    let mended = Mended {
        lab,
        subject: &subject,
    };
    let cut = Instant::now();
    lab.guest.run(&subject.deafen(first))?;
    let message = lab.await_reason(&[ROUTER], "HeartbeatsHeard", "HeartbeatLost")?;
    ensure!(
        cut.elapsed() < SOON,
        "it was seen only after {:?}",
        cut.elapsed()
    );
    let words = format!("{deaf} does not hear {holder}");
    ensure!(message.contains(&words), "the message: {message}");
    lab.await_condition(&[ROUTER], "Ready", "True", "HeartbeatLost")?;
    let status = lab.cluster.get(&[ROUTER])?["status"].take();
    let candidates = status["candidates"].as_array().context("candidates")?;
    let candidate = |node: &str| {
        let mut candidates = candidates.iter();
        candidates.find(|candidate| candidate["nodeName"] == node)
    };
    let reason = |node: &str| candidate(node).map(|candidate| candidate["reason"].clone());
    ensure!(
        reason(&deaf) == Some("HeartbeatLost".into()) && reason(&holder) == Some(Value::Null),
        "candidates: {candidates:?}"
    );
    let metric = "lvs_agent_router_heartbeat_lost{router=\"default\"}";
    until(LIMIT, "the metric of the deaf director", || {
        let value = lab.agent_metric(&deaf, metric)?;
        Ok(if (value - 1.0).abs() < 1e-9 {
            Ok(())
        } else {
            Err(value)
        })
    })?;
    lost.once_more(&words)?;
    drop(mended);
    lab.await_true(&[ROUTER], "HeartbeatsHeard")?;
    lab.await_condition(&[ROUTER], "Ready", "True", "Ready")?;
    heard.once_more("no director misses heartbeats")?;
    ensure!(
        told(lab, "HeartbeatLost", None)?.0 == lost.before + 1,
        "it flaps"
    );
    let status = lab.cluster.get(&[ROUTER])?["status"].take();
    ensure!(
        status["master"]["nodeName"] == holder && status["master"]["epoch"] == begun,
        "something moved: {}",
        status["master"]
    );
    Ok(())
}
