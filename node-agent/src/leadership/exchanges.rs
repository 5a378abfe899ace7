//! The fence thread's side of heartbeats: one exchange per router, all on one wire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_core::election::{HeartbeatTiming, Identity, Tick};
use lvs_core::fence::Fence;
use lvs_core::heartbeat::{Exchange, Ignored, Message, Standing};
use tokio::sync::mpsc;

use super::driver::Control;
use super::heartbeat::{Keys, Wire};

/// How heartbeats get to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPath {
    /// Where it is reached.
    pub to: IpAddr,
    /// From where.
    pub from: Source,
}

/// From where heartbeats leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By whatever way the routes say.
    Routed,
    /// Through this device, from this address.
    Interface {
        /// Index of the device.
        index: u32,
        /// Address on it.
        address: IpAddr,
    },
    /// The plan names an interface that this node lacks, or on which it has no address: another way is none.
    Nowhere,
}

/// The heartbeats of one router, as its plan wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatPlan {
    /// Times.
    pub timing: HeartbeatTiming,
    /// The other directors and how they are reached.
    pub peers: BTreeMap<String, PeerPath>,
}

struct Router {
    exchange: Exchange,
    peers: BTreeMap<String, PeerPath>,
    standing: Option<Standing>,
    election: Option<mpsc::UnboundedSender<Control>>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatCounts {
    /// Heartbeats sent.
    pub sent: u64,
    /// Heartbeats that could not be sent.
    pub unsent: u64,
    /// Fresh heartbeats heard.
    pub heard: u64,
    /// Authentic ones that answered nothing, or nothing new.
    pub stale: u64,
    /// Authentic ones that were old, or from somebody who is no director.
    pub ignored: u64,
}

/// All exchanges of the node.
pub(super) struct Exchanges {
    me: Identity,
    wire: Option<Wire>,
    routers: BTreeMap<String, Router>,
    pub(super) counts: HeartbeatCounts,
}

impl Exchanges {
    pub(super) fn new(me: Identity, wire: Option<Wire>) -> Self {
        Self {
            me,
            wire,
            routers: BTreeMap::new(),
            counts: HeartbeatCounts::default(),
        }
    }

    /// The heartbeats of all routers.
    pub(super) fn configure(&mut self, plans: BTreeMap<String, HeartbeatPlan>) {
        self.routers.retain(|name, _| plans.contains_key(name));
        for (name, plan) in plans {
            let me = self.me.clone();
            let router = self.routers.entry(name.clone()).or_insert_with(|| Router {
                exchange: Exchange::new(&name, me, plan.timing),
                peers: BTreeMap::new(),
                standing: None,
                election: None,
            });
            let directors: BTreeSet<String> = plan.peers.keys().cloned().collect();
            router.exchange.configure(&directors, plan.timing);
            router.peers = plan.peers;
        }
    }

    /// Who is to be told what is heard.
    pub(super) fn attach(&mut self, router: &str, election: mpsc::UnboundedSender<Control>) {
        if let Some(router) = self.routers.get_mut(router) {
            router.election = Some(election);
        }
    }

    /// What the election wants said.
    pub(super) fn say(&mut self, router: &str, standing: Standing) {
        if let Some(router) = self.routers.get_mut(router) {
            router.standing = Some(standing);
        }
    }

    /// Tells a router's election what it must know at once.
    pub(super) fn tell(&self, router: &str, word: Control) {
        let election = self
            .routers
            .get(router)
            .and_then(|router| router.election.as_ref());
        if let Some(election) = election {
            // An election that has ended listens no more.
            let _ = election.send(word);
        }
    }

    pub(super) fn set_keys(&mut self, keys: Keys) {
        if let Some(wire) = &mut self.wire {
            wire.set_keys(keys);
        }
    }

    pub(super) fn received(&mut self, message: Message, now: Tick) {
        let Some(router) = self.routers.get_mut(&message.router) else {
            self.counts.ignored += 1;
            return;
        };
        match router.exchange.receive(message, now) {
            Ok(heard) => {
                if heard.fresh {
                    self.counts.heard += 1;
                } else {
                    self.counts.stale += 1;
                }
                if let Some(election) = &router.election {
                    // An election that has ended listens no more.
                    let _ = election.send(Control::Heard(heard));
                }
            }
            Err(Ignored::NotForUs | Ignored::Stranger | Ignored::Old) => self.counts.ignored += 1,
        }
    }

    pub(super) fn next_wake(&self) -> Option<Tick> {
        self.wire.as_ref()?;
        self.routers
            .values()
            .filter(|router| router.standing.is_some())
            .filter_map(|router| router.exchange.next_wake())
            .min()
    }

    /// Sends what is due: what the elections want said, with what the fence carries.
    pub(super) fn beat(&mut self, fence: &Fence, now: Tick) {
        let Some(wire) = &self.wire else {
            return;
        };
        for (name, router) in &mut self.routers {
            let Some(standing) = &router.standing else {
                continue;
            };
            let carriage = fence.carriage(name, now);
            for message in router.exchange.due(standing, carriage, now) {
                let Some(path) = router.peers.get(&message.to) else {
                    continue;
                };
                match wire.send(&message, *path) {
                    Ok(()) => self.counts.sent += 1,
                    Err(_) => self.counts.unsent += 1,
                }
            }
        }
    }
}
