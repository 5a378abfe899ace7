//! What happens to a subject while clients talk to it. One function per event: it strikes, and returns when what
//! follows can be seen. [`tell`] does the rest: calm before, traffic meanwhile, everything mended afterwards.

pub mod tracked;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::etcd::SlowEtcd;
use super::measurement::{Round, carriers};
use super::operator::ROUTER;
use super::probe::{Probe, Watch};
use super::record::{Line, Microseconds, Order, Writer};
use super::subject::{Subject, strike};
use super::table::Aim;
use crate::lab::Lab;

/// A new connection begins this often.
const RHYTHM_MILLISECONDS: u64 = 10;
const HELD: usize = 40;
const HELD_BEFORE_MILLISECONDS: u64 = 5_000;
const WRITE_RHYTHM_MILLISECONDS: u64 = 250;
/// A move that has not come by now does not come.
const MOVE_LIMIT: Duration = Duration::from_secs(16);
/// The old director has lost the address by now: longer than V + g of leadership.md.
const OVERLAP_LIMIT: Duration = Duration::from_secs(4);
/// What else may follow: further moves, late losses.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How long a state in which nothing should happen is watched.
const PATIENCE: Duration = Duration::from_secs(8);
const STOPPED: Duration = Duration::from_secs(30);
const API_AWAY: Duration = Duration::from_mins(1);
const SLOW_WRITES: Duration = Duration::from_secs(30);
const SLOW_WRITE: Duration = Duration::from_secs(2);

/// Everything a measurement needs.
pub struct Stage<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// The program in the guest.
    pub probe: &'a Probe<'a>,
    /// Between API server and etcd, where an event needs it ([`slow_etcd`]).
    pub etcd: Option<SlowEtcd>,
    /// A kubeconfig that works in the guest.
    pub kubeconfig: &'a Path,
}

/// One event at one subject.
pub struct Scene<'a> {
    stage: &'a Stage<'a>,
    subject: &'a Subject,
    watch: &'a Watch,
    /// Index of the director that carries the address.
    holder: usize,
}

/// When the event began, and from when on the old director must not write the address.
pub struct Struck {
    at: Microseconds,
    silent_from: Option<Microseconds>,
}

impl From<Microseconds> for Struck {
    fn from(at: Microseconds) -> Self {
        Self {
            at,
            silent_from: None,
        }
    }
}

/// To whom it can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// Everybody.
    All,
    /// Those who lead by the API server.
    UsersOfTheApi,
}

/// Makes a state from the present carrier's index; returns the index of the carrier then.
pub type Before = fn(&Stage<'_>, &Subject, usize) -> Result<usize>;

/// An event.
pub struct Event {
    /// Word to choose it by.
    pub name: &'static str,
    /// What happens, for the table.
    pub title: &'static str,
    /// To whom it can happen.
    pub among: Among,
    /// What comes before the traffic; returns who carries the address then.
    pub before: Option<Before>,
    /// The event.
    pub run: fn(&Scene<'_>) -> Result<Struck>,
    /// What must be reached.
    pub aim: Aim,
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Event> {
    let none = Aim::default();
    vec![
        Event {
            name: "nothing",
            title: "nothing (what the machine itself costs)",
            among: Among::All,
            before: None,
            run: nothing,
            aim: none,
        },
        Event {
            name: "sigterm",
            title: "SIGTERM of the holder's process",
            among: Among::All,
            before: None,
            run: sigterm,
            aim: Aim {
                gap_seconds: Some(0.1),
                both_seconds: Some(0.5),
                lost: Some(1),
                all_held: true,
                ..none
            },
        },
        Event {
            name: "hand-over",
            title: "kubectl annotate: hand over",
            among: Among::UsersOfTheApi,
            before: None,
            run: handed_over,
            aim: Aim {
                gap_seconds: Some(0.1),
                both_seconds: Some(0.5),
                lost: Some(1),
                all_held: true,
                moves: Some(1),
                ..none
            },
        },
        Event {
            name: "cordon",
            title: "kubectl cordon of the holder's node",
            among: Among::UsersOfTheApi,
            before: None,
            run: cordoned,
            aim: Aim {
                gap_seconds: Some(0.1),
                both_seconds: Some(0.5),
                lost: Some(1),
                all_held: true,
                moves: Some(1),
                ..none
            },
        },
        Event {
            name: "node-dies",
            title: "holder's node dies",
            among: Among::All,
            before: None,
            run: node_dies,
            aim: Aim {
                gap_seconds: Some(1.0),
                ..none
            },
        },
        Event {
            name: "kill-9",
            title: "kill -9 of the holder's process, stays away",
            among: Among::All,
            before: None,
            run: process_killed,
            aim: Aim {
                gap_seconds: Some(0.1),
                both_seconds: Some(3.25),
                ..none
            },
        },
        Event {
            name: "sigstop",
            title: "SIGSTOP 30 s of the holder's process, CONT",
            among: Among::All,
            before: None,
            run: process_stopped,
            aim: Aim {
                gap_seconds: Some(0.1),
                both_seconds: Some(3.25),
                no_forbidden_write: true,
                ..none
            },
        },
        Event {
            name: "service-link-lost",
            title: "service link lost, control path alive",
            among: Among::All,
            before: None,
            run: service_link_lost,
            aim: Aim {
                gap_seconds: Some(0.5),
                ..none
            },
        },
        Event {
            name: "old-master-returns",
            title: "old master's node returns",
            among: Among::All,
            before: Some(dead_node),
            run: comes_back,
            aim: Aim {
                gap_seconds: Some(0.05),
                lost: Some(0),
                all_held: true,
                ..none
            },
        },
        Event {
            name: "partition-heals",
            title: "partition heals",
            among: Among::All,
            before: Some(partition),
            run: comes_back,
            aim: Aim {
                gap_seconds: Some(0.05),
                lost: Some(0),
                all_held: true,
                ..none
            },
        },
        Event {
            name: "api-killed",
            title: "API server killed 60 s, and returns",
            among: Among::UsersOfTheApi,
            before: None,
            run: api_server_killed,
            aim: Aim {
                gap_seconds: Some(0.05),
                lost: Some(0),
                all_held: true,
                moves: Some(0),
                ..none
            },
        },
        Event {
            name: "holder-loses-api",
            title: "holder alone cut from the API",
            among: Among::UsersOfTheApi,
            before: None,
            run: holder_loses_api,
            aim: Aim {
                gap_seconds: Some(0.1),
                moves: Some(1),
                ..none
            },
        },
        Event {
            name: "holder-isolated",
            title: "holder cut from API and peers, not from clients",
            among: Among::UsersOfTheApi,
            before: None,
            run: holder_isolated,
            aim: Aim {
                one_owner_seconds: Some(1.5),
                both_seconds: Some(1.0),
                moves: Some(1),
                ..none
            },
        },
        Event {
            name: "peers-deaf",
            title: "peers cannot hear each other",
            among: Among::All,
            before: None,
            run: peers_deaf,
            aim: Aim {
                gap_seconds: Some(0.05),
                lost: Some(0),
                all_held: true,
                moves: Some(0),
                ..none
            },
        },
        Event {
            name: "slow-etcd",
            title: "every etcd write takes 2 s",
            among: Among::UsersOfTheApi,
            before: None,
            run: slow_etcd,
            aim: Aim {
                gap_seconds: Some(0.05),
                lost: Some(0),
                all_held: true,
                moves: Some(0),
                ..none
            },
        },
    ]
}

/// One round of an event at a subject. Whatever happens, everything is mended when this returns.
pub fn tell(stage: &Stage<'_>, subject: &Subject, event: &Event) -> Result<Round> {
    let told = play(stage, subject, event);
    let mended = stage.lab.guest.run(&subject.mend());
    if let Some(etcd) = &stage.etcd {
        etcd.delay_writes(Duration::ZERO);
    }
    let round = told?;
    mended.context("mending")?;
    Ok(round)
}

fn play(stage: &Stage<'_>, subject: &Subject, event: &Event) -> Result<Round> {
    let mut holder = subject.await_calm(stage.lab).context("before the event")?;
    if let Some(before) = event.before {
        holder = before(stage, subject, holder).context("leading up to the event")?;
    }
    let hosts = subject
        .directors
        .each_ref()
        .map(|director| director.host.clone());
    let order = Order {
        client: "client".to_owned(),
        source_device: Some("out".to_owned()),
        web: SocketAddr::new(subject.address, 80),
        echo: SocketAddr::new(subject.address, 7),
        rhythm_milliseconds: RHYTHM_MILLISECONDS,
        held: HELD,
        held_before_milliseconds: HELD_BEFORE_MILLISECONDS,
        address: subject.address,
        carriers: hosts.to_vec(),
        // From the director that is not the object of the event; keepalived writes nothing.
        writer: subject.api_segment.map(|_| Writer {
            host: hosts[other(holder)].clone(),
            kubeconfig: stage.kubeconfig.display().to_string(),
            rhythm_milliseconds: WRITE_RHYTHM_MILLISECONDS,
        }),
    };
    let _quiet = stage.lab.without_probes();
    let _still = subject.still(stage.lab)?;
    let watch = stage.probe.begin(&order)?;
    watch.await_steady()?;
    let struck = (event.run)(&Scene {
        stage,
        subject,
        watch: &watch,
        holder,
    })?;
    Ok(Round {
        old: hosts[holder].clone(),
        struck: struck.at,
        silent_from: struck.silent_from,
        lines: watch.end()?,
        rhythm: i64::try_from(RHYTHM_MILLISECONDS)? * 1000,
        held: HELD,
    })
}

fn other(director: usize) -> usize {
    1 - director
}

impl Scene<'_> {
    fn strike(&self, script: &str) -> Result<Microseconds> {
        strike(self.stage.lab, script)
    }

    /// Watches for a while.
    fn watch_for(&self, time: Duration) -> Result<()> {
        self.watch.await_lines(time, |_| None::<()>).map(drop)
    }

    /// Waits until the other director carries the address and the old one does not, or until that does not come.
    fn await_move(&self) -> Result<()> {
        let host = |director: usize| self.subject.directors[director].host.as_str();
        let (old, new) = (host(self.holder), host(other(self.holder)));
        let carries = |lines: &[Line], host: &str| carriers(lines).iter().any(|one| one == host);
        let moved = self
            .watch
            .await_lines(MOVE_LIMIT, |lines| carries(lines, new).then_some(()))?;
        if moved.is_some() {
            self.watch
                .await_lines(OVERLAP_LIMIT, |lines| (!carries(lines, old)).then_some(()))?;
        }
        self.watch_for(AFTERMATH)
    }
}

/// Nothing happens: no figure can be better than this.
pub fn nothing(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike("")?;
    scene.watch_for(PATIENCE)?;
    Ok(at.into())
}

/// The holder's process is asked to end. An agent starts again at once, as in a rolling update; keepalived stays away,
/// as its return is an event of its own (`old-master-returns`).
pub fn sigterm(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike(&scene.subject.terminate(scene.holder))?;
    scene.await_move()?;
    Ok(at.into())
}

/// People ask for the other director.
pub fn handed_over(scene: &Scene<'_>) -> Result<Struck> {
    let cluster = &scene.stage.lab.cluster;
    let wanted = &scene.subject.directors[other(scene.holder)].host;
    let at = scene.strike("")?;
    let annotation = format!("lvs.dev/hand-over-to={wanted}");
    cluster.kubectl(&["annotate", ROUTER, &annotation])?;
    let moved = scene.await_move();
    cluster.kubectl(&["annotate", ROUTER, "lvs.dev/hand-over-to-"])?;
    moved?;
    Ok(at.into())
}

/// The holder's node is about to be drained.
pub fn cordoned(scene: &Scene<'_>) -> Result<Struck> {
    let cluster = &scene.stage.lab.cluster;
    let node = &scene.subject.directors[scene.holder].host;
    let at = scene.strike("")?;
    cluster.kubectl(&["cordon", node])?;
    let moved = scene.await_move();
    cluster.kubectl(&["uncordon", node])?;
    moved?;
    Ok(at.into())
}

/// All links of the holder's node are cut, and its process is killed.
pub fn node_dies(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike(&death(scene.subject, scene.holder))?;
    scene.await_move()?;
    Ok(at.into())
}

fn death(subject: &Subject, director: usize) -> String {
    subject.unplug(director, subject.segments) + &subject.signal(director, "KILL", true)
}

/// The holder's process is killed and stays away; its kernel lives.
pub fn process_killed(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike(&scene.subject.signal(scene.holder, "KILL", true))?;
    scene.await_move()?;
    Ok(at.into())
}

/// The holder's process stands still for 30 s, then goes on. From then on it must not write the address.
pub fn process_stopped(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike(&scene.subject.signal(scene.holder, "STOP", false))?;
    scene.watch_for(STOPPED)?;
    let silent_from = scene.strike(&scene.subject.signal(scene.holder, "CONT", false))?;
    scene.watch_for(OVERLAP_LIMIT)?;
    Ok(Struck {
        at,
        silent_from: Some(silent_from),
    })
}

/// The holder's interface of the service loses its carrier; the ways to peers, API server and real servers live.
pub fn service_link_lost(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike(&scene.subject.unplug(scene.holder, &["out"]))?;
    scene.await_move()?;
    Ok(at.into())
}

fn dead_node(stage: &Stage<'_>, subject: &Subject, holder: usize) -> Result<usize> {
    strike(stage.lab, &death(subject, holder))?;
    subject.await_carrier(stage.lab, other(holder))?;
    if subject.api_segment.is_some() {
        // What a dead agent left runs out by itself; only then is the calm before the return.
        subject.await_not_carrying(stage.lab, holder)?;
    }
    Ok(other(holder))
}

/// The holder is cut from everybody but its clients, so that the other director takes over.
fn partition(stage: &Stage<'_>, subject: &Subject, holder: usize) -> Result<usize> {
    strike(stage.lab, &isolation(subject, holder))?;
    subject.await_carrier(stage.lab, other(holder))?;
    Ok(other(holder))
}

fn isolation(subject: &Subject, director: usize) -> String {
    let mut script = subject.deafen(director);
    if let Some(segment) = subject.api_segment {
        script += &subject.unplug(director, &[segment]);
    }
    script
}

/// What was cut is connected again, and what was killed starts.
pub fn comes_back(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike(&scene.subject.mend())?;
    scene.watch_for(PATIENCE)?;
    Ok(at.into())
}

/// The API server is killed, is away for 60 s, and comes back.
pub fn api_server_killed(scene: &Scene<'_>) -> Result<Struck> {
    let cluster = &scene.stage.lab.cluster;
    let at = scene.strike("")?;
    cluster.kill("apiserver")?;
    let watched = scene.watch_for(API_AWAY);
    cluster.start("apiserver")?;
    watched?;
    scene.watch_for(PATIENCE)?;
    Ok(at.into())
}

/// The holder alone does not reach the API server; peers, clients and real servers it does.
pub fn holder_loses_api(scene: &Scene<'_>) -> Result<Struck> {
    let segment = scene
        .subject
        .api_segment
        .context("the way to the API server")?;
    let at = scene.strike(&scene.subject.unplug(scene.holder, &[segment]))?;
    scene.await_move()?;
    Ok(at.into())
}

/// The holder reaches neither peers nor API server; clients and real servers it does.
pub fn holder_isolated(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike(&isolation(scene.subject, scene.holder))?;
    scene.await_move()?;
    Ok(at.into())
}

/// No director hears another one; everybody reaches the API server.
pub fn peers_deaf(scene: &Scene<'_>) -> Result<Struck> {
    let at = scene.strike(&scene.subject.deafen(scene.holder))?;
    scene.watch_for(PATIENCE)?;
    Ok(at.into())
}

/// Every write reaches etcd 2 s late, for 30 s.
pub fn slow_etcd(scene: &Scene<'_>) -> Result<Struck> {
    let etcd = scene
        .stage
        .etcd
        .as_ref()
        .context("the relay between API server and etcd")?;
    let at = scene.strike("")?;
    etcd.delay_writes(SLOW_WRITE);
    let watched = scene.watch_for(SLOW_WRITES);
    etcd.delay_writes(Duration::ZERO);
    watched?;
    scene.watch_for(AFTERMATH)?;
    Ok(at.into())
}
