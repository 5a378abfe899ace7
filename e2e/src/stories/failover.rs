//! What happens to the holder of an address, under load, against the invariants of leadership: one holder per epoch, and
//! two carriers only as long as the kind of event allows. `make bench-failover` measures the same events.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::failover::etcd::SlowEtcd;
use crate::failover::events::{self, Event, Stage};
use crate::failover::leases::{LeaseHistory, check_one_holder_per_epoch};
use crate::failover::measurement::Figures;
use crate::failover::operator::{self, Echo, Setting};
use crate::failover::probe::Probe;
use crate::lab::{LIMIT, Lab};

/// The chart's own router.
const ROUTER: &str = "default";
/// Longest overlap of a voluntary handover.
pub(super) const HANDOVER: Duration = Duration::from_millis(500);
/// Longest overlap of an involuntary takeover: lifetime of the address and lateness of its collector.
pub(super) const TAKEOVER: Duration = Duration::from_millis(3250);
/// Longest overlap while the old holder is isolated.
const ISOLATION: Duration = Duration::from_secs(1);
/// When TCP sends the first segment of a connection again, in seconds after its first time.
const SEGMENT_AGAIN_SECONDS: [f64; 5] = [1.0, 3.0, 7.0, 15.0, 31.0];

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "failover_sigterm",
            tells: "SIGTERM of the holder's agent: one holder per epoch, two carriers for 0.5 s at most",
            run: |lab| tell(lab, "sigterm", HANDOVER).map(drop),
        },
        Story {
            name: "failover_hand_over",
            tells: "kubectl annotate virtualrouter lvs.dev/hand-over-to: the other director has it, two carriers for 0.5 s at most",
            run: |lab| tell(lab, "hand-over", HANDOVER).map(drop),
        },
        Story {
            name: "failover_cordon",
            tells: "kubectl cordon of the holder's node: it gives way, two carriers for 0.5 s at most",
            run: |lab| tell(lab, "cordon", HANDOVER).map(drop),
        },
        Story {
            name: "failover_node_dies",
            tells: "the holder's node dies: the other takes over, and curl sees the same outage",
            run: node_dies_under_curl,
        },
        Story {
            name: "failover_kill_9",
            tells: "kill -9 of the holder's agent, which stays away: its kernel drops the address",
            run: |lab| tell(lab, "kill-9", TAKEOVER).map(drop),
        },
        Story {
            name: "failover_sigstop",
            tells: "the holder's agent stands still for 30 s: it writes no address when it goes on",
            run: stopped,
        },
        Story {
            name: "failover_service_link_lost",
            tells: "the holder loses the link of its clients",
            run: |lab| tell(lab, "service-link-lost", HANDOVER).map(drop),
        },
        Story {
            name: "failover_old_master_returns",
            tells: "the old master's node returns: nothing moves, nothing is lost",
            run: |lab| undisturbed(lab, "old-master-returns"),
        },
        Story {
            name: "failover_partition_heals",
            tells: "the isolated old master is connected again: nothing moves, nothing is lost",
            run: |lab| undisturbed(lab, "partition-heals"),
        },
        Story {
            name: "failover_holder_loses_api",
            tells: "the holder alone is cut from the API server",
            run: |lab| tell(lab, "holder-loses-api", HANDOVER).map(drop),
        },
        Story {
            name: "failover_holder_isolated",
            tells: "the holder is cut from API server and peers, its clients reach it",
            run: |lab| tell(lab, "holder-isolated", ISOLATION).map(drop),
        },
        Story {
            name: "failover_peers_deaf",
            tells: "directors cannot hear each other, the API server is there: nothing moves",
            run: |lab| undisturbed(lab, "peers-deaf"),
        },
        Story {
            name: "failover_slow_etcd",
            tells: "every write of etcd takes 2 s: nothing moves, nothing is lost",
            run: |lab| undisturbed(lab, "slow-etcd"),
        },
        Story {
            name: "failover_api_killed",
            tells: "the API server is killed for 60 s, all nodes are fine: nothing moves, also when it returns",
            run: |lab| undisturbed(lab, "api-killed"),
        },
    ]
}

/// One round of an event at the router as it was installed, judged by the invariants.
fn tell(lab: &Lab, event: &str, both_at_most: Duration) -> Result<Figures> {
    tell_as(lab, Setting::AsInstalled, event, both_at_most)
}

/// The same at the router in some setting, which it keeps.
pub(super) fn tell_as(
    lab: &Lab,
    setting: Setting,
    event: &str,
    both_at_most: Duration,
) -> Result<Figures> {
    let event = events::all()
        .into_iter()
        .find(|one| one.name == event)
        .with_context(|| format!("an event {event}"))?;
    tell_event(lab, setting, &event, both_at_most)
}

/// One round of an event, judged by the invariants.
pub(super) fn tell_event(
    lab: &Lab,
    setting: Setting,
    event: &Event,
    both_at_most: Duration,
) -> Result<Figures> {
    let kubeconfig = lab.state.join("probe.kubeconfig");
    lab.cluster.guest_kubeconfig(&kubeconfig)?;
    let slow = event.name == "slow-etcd";
    let etcd = if slow {
        let relay = SlowEtcd::start(lab.cluster.etcd_port)?;
        lab.cluster.etcd_through(relay.port)?;
        Some(relay)
    } else {
        None
    };
    let told = (|| {
        let _echo = Echo::start(lab)?;
        let probe = Probe::start(lab)?;
        let subject = operator::subject(lab, NAMESPACE, setting)?;
        let history = LeaseHistory::begin(lab, ROUTER)?;
        let stage = Stage {
            lab,
            probe: &probe,
            etcd,
            kubeconfig: &kubeconfig,
        };
        let round = events::tell(&stage, &subject, event)?;
        // What comes back must be back before the next story.
        subject.await_calm(lab)?;
        check_one_holder_per_epoch(&history.end(), &round.lines)?;
        round.figures().context("no summary")
    })();
    if slow {
        // The relay ends with this process, the API server does not.
        lab.cluster.etcd_through(lab.cluster.etcd_port)?;
    }
    let figures = told?;
    let limit = i64::try_from(both_at_most.as_micros())?;
    ensure!(
        !figures.both.open && figures.both.microseconds <= limit,
        "both carried the address for more than {both_at_most:?}: {figures:#?}"
    );
    Ok(figures)
}

/// An event that must move nothing and lose nothing.
fn undisturbed(lab: &Lab, event: &str) -> Result<()> {
    let figures = tell(lab, event, Duration::ZERO)?;
    ensure!(
        figures.moves == 0 && figures.lost.is_empty() && figures.held_lost.is_empty(),
        "something was disturbed: {figures:#?}"
    );
    Ok(())
}

fn stopped(lab: &Lab) -> Result<()> {
    let figures = tell(lab, "sigstop", TAKEOVER)?;
    ensure!(
        figures.moves == 1 && figures.forbidden_writes == 0,
        "moves and writes of an agent that stood still: {figures:#?}"
    );
    Ok(())
}

/// Beside the program that measures, curl opens connections one after another and waits for each as long as it takes.
fn node_dies_under_curl(lab: &Lab) -> Result<()> {
    // The service is there before curl is.
    let _echo = Echo::start(lab)?;
    operator::subject(lab, NAMESPACE, Setting::AsInstalled)?;
    let folder = lab
        .guest
        .run("mktemp -d /run/curl.XXXXXX")?
        .trim()
        .to_owned();
    let process = lab.guest.on(
        "client",
        &format!(
            "setsid curl --silent --rate 20/s --max-time 60 -H 'Connection: close' -o /dev/null \
             -w '%{{stderr}}%{{exitcode}} %{{time_total}}\\n' 'http://172.16.2.200/?[1-100000]' 2>{folder}/log >/dev/null </dev/null & echo $!"
        ),
    )?;
    let told = tell(lab, "node-dies", TAKEOVER);
    // The connection that waited through the outage ends before curl does.
    let log = until(LIMIT, "curl goes on after the outage", || {
        let log = lab.guest.run(&format!("cat {folder}/log"))?;
        let last = log.lines().last().unwrap_or_default().to_owned();
        let quick = last
            .strip_prefix("0 ")
            .and_then(|time| time.parse::<f64>().ok())
            .is_some_and(|time| time < 0.5);
        Ok(if quick { Ok(log) } else { Err(last) })
    });
    lab.guest
        .run(&format!("kill {}; rm -rf {folder}", process.trim()))?;
    let (figures, log) = (told?, log?);
    let mut slowest = 0.0_f64;
    for line in log.lines() {
        let (status, time) = line.split_once(' ').context("a line of curl")?;
        ensure!(status == "0", "curl ended a connection with {line}");
        slowest = slowest.max(time.parse()?);
    }
    let gap = figures.gap_seconds();
    // The first connection of curl in the outage ends when its first segment, sent again, gets through.
    let longest = SEGMENT_AGAIN_SECONDS
        .into_iter()
        .find(|again| *again > gap)
        .unwrap_or(63.0);
    ensure!(
        slowest > gap - 0.1 && slowest < longest + 0.5,
        "the gap was {gap} s, but curl's slowest connection took {slowest} s"
    );
    Ok(())
}
