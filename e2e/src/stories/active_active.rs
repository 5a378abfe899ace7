//! Two routers over the same directors with crossed priorities: both work, and each stands in for the other.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::failover::leases::{LeaseHistory, check_one_holder_per_epoch};
use crate::failover::measurement::{Figures, Round, carriers};
use crate::failover::operator::{self, Echo};
use crate::failover::probe::{Probe, Watch};
use crate::failover::record::{Line, Order};
use crate::failover::subject::{Director, Subject, strike};
use crate::lab::{LIMIT, Lab};

/// A router, its address, and the index of its preferred director.
const SIDES: [(&str, &str, usize); 2] = [("left", "172.16.2.243", 0), ("right", "172.16.2.244", 1)];
const DIRECTORS: [&str; 2] = ["lb-a", "lb-b"];
/// Long-lived connections through each address.
const HELD: usize = 20;
const RHYTHM_MILLISECONDS: u64 = 20;
/// What may come late: losses, further moves.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Well below the 10.5 s after which a Lease expires.
const DEATH_GAP: Duration = Duration::from_secs(5);
/// A first segment that is lost is sent again after a second.
const RETURN_GAP: Duration = Duration::from_secs(1);
/// Longest overlap after a death (V + g), and of a handover, as docs/leadership.md has them.
const TAKEOVER: Duration = Duration::from_millis(3250);
const HANDOVER: Duration = Duration::from_millis(500);

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "active_active",
        tells: "two routers, crossed priorities, preemption: each address on its own director; one dies and returns: both on the other, then spread again",
        run: active_active,
    }]
}

fn apply(lab: &Lab) -> Result<()> {
    let mut text = String::new();
    for (name, address, preferred) in SIDES {
        let priorities = [200, 100].map(|priority| {
            if preferred == 0 {
                priority
            } else {
                300 - priority
            }
        });
        let _ = write!(
            text,
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {{name: {name}}}
spec:
  directors: [{{nodeName: {}, priority: {}}}, {{nodeName: {}, priority: {}}}]
  preemption: {{mode: Enabled}}
  connectionSync: {{type: Stateless}}
  addressPools: [{{name: {name}, addresses: [{address}]}}]
  grants: [{{namespaces: {{from: All}}, addressPoolNames: [{name}], realServerNodes: All}}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  virtualRouterName: {name}
  addresses: [{address}]
  ports: [{{name: http, port: 80}}, {{name: echo, port: 7}}]
  forwarding: {{type: DR}}
  scheduler: {{name: mh, options: [mh-port]}}
  realServerSelector: {{matchLabels: {{app: both}}}}
---",
            DIRECTORS[0], priorities[0], DIRECTORS[1], priorities[1],
        );
    }
    for web in ["web-1", "web-2"] {
        let _ = write!(
            text,
            "
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {web}, labels: {{app: both}}}}
spec: {{target: {{type: Node, node: {{name: {web}}}}}}}
---"
        );
    }
    lab.cluster.apply_text(NAMESPACE, &text)
}

struct Stage<'a> {
    lab: &'a Lab,
    probes: [Probe<'a>; 2],
    subjects: [Subject; 2],
}

fn active_active(lab: &Lab) -> Result<()> {
    let _echo = Echo::start(lab)?;
    apply(lab)?;
    for (name, ..) in SIDES {
        lab.await_serving(NAMESPACE, name)?;
    }
    let directors = |host: &str| -> Result<Director> {
        let work = lab.agent_work(host)?;
        Ok(Director {
            host: host.to_owned(),
            work,
        })
    };
    let directors = [directors(DIRECTORS[0])?, directors(DIRECTORS[1])?];
    let bystanders = operator::agents(lab, &["web-1", "web-2", "web-3", "far-1"])?;
    let subject = |(name, address, preferred): (&str, &str, usize)| -> Result<Subject> {
        Ok(Subject {
            name: name.to_owned(),
            address: address.parse()?,
            directors: directors.clone(),
            segments: &["out", "in", "mgmt"],
            api_segment: Some("mgmt"),
            peers_match: "udp dport 8112",
            preempts: Some(preferred),
            restarts: true,
            bystanders: bystanders.clone(),
            able: operator::ABLE.to_owned(),
        })
    };
    let stage = Stage {
        lab,
        probes: [Probe::start(lab)?, Probe::start(lab)?],
        subjects: [subject(SIDES[0])?, subject(SIDES[1])?],
    };
    await_spread(&stage)?;
    let histories = [
        LeaseHistory::begin(lab, SIDES[0].0)?,
        LeaseHistory::begin(lab, SIDES[1].0)?,
    ];
    let told = death_and_return(&stage);
    let mended = lab.guest.run(&stage.subjects[0].mend());
    let rounds = told?;
    mended.context("mending")?;
    for (index, history) in histories.into_iter().enumerate() {
        let lines: Vec<Line> = rounds
            .iter()
            .flat_map(|round| round[index].lines.clone())
            .collect();
        check_one_holder_per_epoch(&history.end(), &lines)?;
    }
    Ok(())
}

/// Waits until each address is on its own director, and the status of each router says so.
fn await_spread(stage: &Stage<'_>) -> Result<()> {
    for (subject, (.., preferred)) in stage.subjects.iter().zip(SIDES) {
        subject.await_calm(stage.lab)?;
        await_master(stage.lab, &subject.name, DIRECTORS[preferred])?;
    }
    Ok(())
}

fn await_master(lab: &Lab, router: &str, node: &str) -> Result<()> {
    until(LIMIT, &format!("{router} names {node} as master"), || {
        let object = lab.cluster.get(&["virtualrouters.lvs.dev", router])?;
        let master = object["status"]["master"].clone();
        Ok(if master["nodeName"] == node {
            Ok(())
        } else {
            Err(master)
        })
    })
}

/// The right one's director dies and returns; the left one is not disturbed by either.
fn death_and_return(stage: &Stage<'_>) -> Result<[[Round; 2]; 2]> {
    let dying = &stage.subjects[1];
    let script = dying.unplug(1, dying.segments) + &dying.signal(1, "KILL", true);
    let death = watched(stage, &script, [0, 1], [0, 0])?;
    let [left, right] = figures(&death)?;
    undisturbed(&left).context("the other router, when a director died")?;
    bounded(&right, DEATH_GAP, TAKEOVER).context("the router whose director died")?;
    println!(
        "    {} died: gap {:.2} s",
        DIRECTORS[1],
        right.gap_seconds()
    );
    for (name, ..) in SIDES {
        await_master(stage.lab, name, DIRECTORS[0])?;
    }

    let back = watched(stage, &dying.mend(), [0, 0], [0, 1])?;
    let [left, right] = figures(&back)?;
    undisturbed(&left).context("the other router, when the director returned")?;
    bounded(&right, RETURN_GAP, HANDOVER).context("the router whose director returned")?;
    let lost: usize = right.lost.values().sum();
    ensure!(
        right.moves == 1 && lost <= 1,
        "a handover back to the preferred director: {right:#?}"
    );
    println!(
        "    {} returned: gap {:.2} s, {lost} lost",
        DIRECTORS[1],
        right.gap_seconds()
    );
    await_spread(stage)?;
    Ok([death, back])
}

/// Strikes while clients talk to both addresses, and waits until each is where it must be then. Indexes are of directors.
fn watched(
    stage: &Stage<'_>,
    script: &str,
    before: [usize; 2],
    after: [usize; 2],
) -> Result<[Round; 2]> {
    let lab = stage.lab;
    let _quiet = lab.without_probes();
    let _still = stage.subjects[0].still(lab)?;
    let begin = |index: usize| stage.probes[index].begin(&order(&stage.subjects[index]));
    let watches = [begin(0)?, begin(1)?];
    for watch in &watches {
        watch.await_steady()?;
    }
    let struck = strike(lab, script)?;
    for (watch, director) in watches.iter().zip(after) {
        let wanted = DIRECTORS[director];
        let there =
            watch.await_lines(LIMIT, |lines| (carriers(lines) == [wanted]).then_some(()))?;
        ensure!(
            there.is_some(),
            "waited {} s for {wanted} alone to carry the address",
            LIMIT.as_secs()
        );
    }
    watches[0].await_lines(AFTERMATH, |_| None::<()>)?;
    let end = |watch: Watch, old: usize| -> Result<Round> {
        Ok(Round {
            old: DIRECTORS[old].to_owned(),
            struck,
            silent_from: None,
            lines: watch.end()?,
            rhythm: i64::try_from(RHYTHM_MILLISECONDS)? * 1000,
            held: HELD,
        })
    };
    let [left, right] = watches;
    Ok([end(left, before[0])?, end(right, before[1])?])
}

fn order(subject: &Subject) -> Order {
    Order {
        client: "client".to_owned(),
        source_device: Some("out".to_owned()),
        web: (subject.address, 80).into(),
        echo: (subject.address, 7).into(),
        rhythm_milliseconds: RHYTHM_MILLISECONDS,
        held: HELD,
        held_before_milliseconds: 5_000,
        address: subject.address,
        carriers: DIRECTORS.map(str::to_owned).to_vec(),
        writer: None,
    }
}

fn figures(rounds: &[Round; 2]) -> Result<[Figures; 2]> {
    let of = |round: &Round| round.figures().context("no summary");
    Ok([of(&rounds[0])?, of(&rounds[1])?])
}

fn undisturbed(figures: &Figures) -> Result<()> {
    ensure!(
        figures.moves == 0 && figures.lost.is_empty() && figures.held_lost.is_empty(),
        "something was disturbed: {figures:#?}"
    );
    Ok(())
}

/// No longer outage and no longer overlap than that, and every long-lived connection goes on.
fn bounded(figures: &Figures, gap: Duration, both: Duration) -> Result<()> {
    let microseconds = |limit: Duration| i64::try_from(limit.as_micros());
    ensure!(
        !figures.gap.open && figures.gap.microseconds <= microseconds(gap)?,
        "an outage longer than {gap:?}: {figures:#?}"
    );
    ensure!(
        !figures.both.open && figures.both.microseconds <= microseconds(both)?,
        "two carried the address for more than {both:?}: {figures:#?}"
    );
    ensure!(
        figures.held_lost.is_empty() && figures.held_alive == HELD,
        "long-lived connections ended: {figures:#?}"
    );
    Ok(())
}
