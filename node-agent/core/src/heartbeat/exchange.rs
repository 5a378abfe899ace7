//! The heartbeats of one router at one node: what is sent when, and which of what arrives is fresh.
//!
//! Every heartbeat echoes the newest one that its sender got from its receiver. One is *fresh* when it echoes a heartbeat
//! of ours that is not old: then it cannot be a replay, and it proves that both directions work. A peer that hears us no
//! more is therefore silent to us, too: in a partition of one direction both sides come to the same conclusion.
//!
//! An epoch is learnt from any authentic heartbeat that is not older than another: epochs only rise, so that of a replay
//! was true once and is no higher than the truth.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::election::{HeartbeatTiming, Identity, Tick};
use crate::heartbeat::message::{Carriage, Echo, Message, Standing};

/// Times of own heartbeats that are remembered: enough for the longest promise at the shortest interval.
const REMEMBERED: usize = 512;

/// A heartbeat that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who sent it.
    pub from: Identity,
    /// Its number.
    pub sequence: u64,
    /// Whether it answers a heartbeat of ours that is not old. One that is not fresh proves no life.
    pub fresh: bool,
    /// What the sender carries.
    pub carriage: Carriage,
    /// What it says; a promise in it is one to this node.
    pub standing: Standing,
    /// When our heartbeat was sent to which its promise answers; none without a promise.
    pub promised_at: Option<Tick>,
}

/// Why a heartbeat does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// It is for another router or node.
    NotForUs,
    /// Its sender is no other director of the router.
    Stranger,
    /// It is not newer than one that was heard before.
    Old,
}

#[derive(Clone, Debug)]
struct Link {
    incarnation: String,
    sequence: u64,
    heard_at: Tick,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    /// The incarnation that has proved itself fresh.
    proven: Option<Link>,
    /// One that has not yet: echoed once the proven one is silent, so that it can.
    unproven: Option<Link>,
}

/// One router's heartbeats.
#[derive(Clone, Debug)]
pub struct Exchange {
    router: String,
    me: Identity,
    timing: HeartbeatTiming,
    peers: BTreeMap<String, Peer>,
    sequence: u64,
    sent: VecDeque<Tick>,
    said: Option<(Standing, Carriage)>,
    next: Option<Tick>,
}

impl Exchange {
    /// Nothing was sent or heard yet. The first heartbeat is due once there is something to say.
    pub fn new(router: &str, me: Identity, timing: HeartbeatTiming) -> Self {
        Self {
            router: router.to_owned(),
            me,
            timing,
            peers: BTreeMap::new(),
            sequence: 0,
            sent: VecDeque::new(),
            said: None,
            next: None,
        }
    }

    /// The other directors, all of them, and the times.
    pub fn configure(&mut self, directors: &BTreeSet<String>, timing: HeartbeatTiming) {
        self.timing = timing;
        self.peers.retain(|node, _| directors.contains(node));
        for node in directors {
            if *node != self.me.node {
                self.peers.entry(node.clone()).or_default();
            }
        }
    }

    /// When the next heartbeats are due; none before there is anything to say.
    pub const fn next_wake(&self) -> Option<Tick> {
        self.next
    }

    /// The heartbeats to send at `now`, one per peer: when the interval is over, or when what is to be said has changed.
    pub fn due(&mut self, standing: &Standing, carriage: Carriage, now: Tick) -> Vec<Message> {
        let unchanged = self
            .said
            .as_ref()
            .is_some_and(|(said, carried)| said == standing && *carried == carriage);
        if unchanged && self.next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        self.said = Some((standing.clone(), carriage));
        self.next = Some(now + self.timing.interval());
        self.sequence += 1;
        self.sent.push_back(now);
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        let silence = self.timing.silence();
        let messages = self.peers.iter().map(|(node, peer)| {
            let proven = peer
                .proven
                .as_ref()
                .filter(|link| now.since(link.heard_at) < silence);
            let echoed = proven.or(peer.unproven.as_ref()).or(peer.proven.as_ref());
            Message {
                router: self.router.clone(),
                from: self.me.node.clone(),
                incarnation: self.me.incarnation.clone(),
                to: node.clone(),
                sequence: self.sequence,
                echo: echoed.map(|link| Echo {
                    incarnation: link.incarnation.clone(),
                    sequence: link.sequence,
                }),
                carriage,
                standing: standing.clone(),
            }
        });
        messages.collect()
    }

    /// Judges an authentic heartbeat.
    ///
    /// # Errors
    /// [`Ignored`] says why it does not count.
    pub fn receive(&mut self, message: Message, now: Tick) -> Result<Heard, Ignored> {
        if message.router != self.router || message.to != self.me.node {
            return Err(Ignored::NotForUs);
        }
        let answered_at = message.echo.as_ref().and_then(|echo| {
            (echo.incarnation == self.me.incarnation)
                .then(|| self.sent_at(echo.sequence))
                .flatten()
        });
        let promised_at = message
            .standing
            .promise
            .as_ref()
            .filter(|_| answered_at.is_some())
            .and_then(|promise| self.sent_at(promise.sequence));
        let fresh = answered_at.is_some_and(|at| now.since(at) <= self.timing.freshness());
        let peer = self.peers.get_mut(&message.from).ok_or(Ignored::Stranger)?;
        let link = Link {
            incarnation: message.incarnation.clone(),
            sequence: message.sequence,
            heard_at: now,
        };
        let older = |known: &Option<Link>| {
            known.as_ref().is_some_and(|known| {
                known.incarnation == link.incarnation && link.sequence <= known.sequence
            })
        };
        if older(&peer.proven) || older(&peer.unproven) {
            return Err(Ignored::Old);
        }
        let known = peer
            .proven
            .as_ref()
            .is_some_and(|proven| proven.incarnation == link.incarnation);
        if fresh {
            peer.proven = Some(link);
            peer.unproven = None;
        } else if known {
            // Alive, but it does not hear us: its number counts, its life does not.
            if let Some(proven) = &mut peer.proven {
                proven.sequence = link.sequence;
            }
        } else {
            peer.unproven = Some(link);
        }
        Ok(Heard {
            from: Identity {
                node: message.from,
                incarnation: message.incarnation,
            },
            sequence: message.sequence,
            fresh,
            carriage: message.carriage,
            standing: message.standing,
            promised_at: promised_at.filter(|_| fresh),
        })
    }

    fn sent_at(&self, sequence: u64) -> Option<Tick> {
        let back = self.sequence.checked_sub(sequence)?;
        let index = self
            .sent
            .len()
            .checked_sub(1)?
            .checked_sub(usize::try_from(back).ok()?)?;
        self.sent.get(index).copied()
    }
}
