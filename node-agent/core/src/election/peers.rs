//! What a candidate has heard from the other directors.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::election::config::Config;
use crate::election::tick::Tick;
use crate::heartbeat::{Carriage, Heard, Standing};

/// One director as its heartbeats show it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// When its newest fresh heartbeat came.
    pub(super) heard_at: Tick,
    /// What it said then.
    pub(super) standing: Standing,
    /// What it carried then.
    carriage: Carriage,
    /// When this node sent the heartbeat that its latest promise answers.
    pub(super) promised_at: Option<Tick>,
    /// Since when it has been ready without a break, with this priority.
    pub(super) ready_since: Option<Tick>,
    /// Since when it has offered the epoch that it holds.
    pub(super) offers_since: Option<Tick>,
}

impl Peer {
    /// Whether it carries nothing.
    pub(super) fn is_clear(&self) -> bool {
        self.carriage == Carriage::Nothing
    }
}

/// All that were ever heard freshly.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<String, Peer>,
}

impl Peers {
    /// Notes a fresh heartbeat.
    pub(super) fn hear(&mut self, heard: Heard, silence: Duration, now: Tick) {
        let before = self.peers.get(&heard.from.node);
        let ready_since = heard.standing.ready.then(|| {
            before
                .filter(|before| {
                    before.standing.priority == heard.standing.priority
                        && now.since(before.heard_at) < silence
                })
                .and_then(|before| before.ready_since)
                .unwrap_or(now)
        });
        let offers_since = heard.standing.offers.then(|| {
            before
                .filter(|before| before.standing.epoch == heard.standing.epoch)
                .and_then(|before| before.offers_since)
                .unwrap_or(now)
        });
        let promised_at = heard
            .promised_at
            .max(before.and_then(|before| before.promised_at));
        let peer = Peer {
            heard_at: now,
            standing: heard.standing,
            carriage: heard.carriage,
            promised_at,
            ready_since,
            offers_since,
        };
        self.peers.insert(heard.from.node, peer);
    }

    /// Whether every director but this node and `holder` has said since `epoch_since` that it carries nothing.
    pub(super) fn others_are_clear(
        &self,
        config: &Config,
        node: &str,
        holder: &str,
        epoch_since: Tick,
    ) -> bool {
        config
            .others(node)
            .filter(|other| *other != holder)
            .all(|other| {
                self.get(other)
                    .is_some_and(|peer| peer.heard_at >= epoch_since && peer.is_clear())
            })
    }

    /// Consent lasts no longer than its giver can be heard.
    pub(super) fn expire_consent(&mut self, silence: Duration, now: Tick) {
        for peer in self.peers.values_mut() {
            if now.since(peer.heard_at) >= silence {
                peer.offers_since = None;
            }
        }
    }

    /// Forgets who is no director any more.
    pub(super) fn retain(&mut self, config: &Config) {
        self.peers
            .retain(|node, _| config.directors.is_empty() || config.directors.contains(node));
    }

    pub(super) fn get(&self, node: &str) -> Option<&Peer> {
        self.peers.get(node)
    }

    /// Those that were heard within `silence`.
    pub(super) fn alive(
        &self,
        silence: Duration,
        now: Tick,
    ) -> impl Iterator<Item = (&str, &Peer)> {
        self.peers
            .iter()
            .filter(move |(_, peer)| now.since(peer.heard_at) < silence)
            .map(|(node, peer)| (node.as_str(), peer))
    }

    /// When the last of them will have been silent for `silence`, if any is still alive.
    pub(super) fn last_heard(&self) -> Option<Tick> {
        self.peers.values().map(|peer| peer.heard_at).max()
    }

    /// How many ready candidates, `holder` aside, go before one of this priority and node: first the one that is to have it,
    /// then RFC 9568 §6.4.3 lets the higher priority go, and among equals the one later in the list of directors. None when
    /// nobody was ever heard.
    pub(super) fn rank(
        &self,
        config: &Config,
        node: &str,
        holder: Option<&str>,
        silence: Duration,
        now: Tick,
    ) -> Option<u32> {
        if self.peers.is_empty() {
            return None;
        }
        let place = |name: &str| {
            config
                .directors
                .iter()
                .position(|director| director == name)
        };
        let is_wanted = |name: &str| config.hand_over_to.as_deref() == Some(name);
        let mine = (is_wanted(node), config.priority, place(node));
        let better = self
            .alive(silence, now)
            .filter(|(name, peer)| {
                Some(*name) != holder
                    && peer.standing.ready
                    && (is_wanted(name), peer.standing.priority, place(name)) > mine
            })
            .count();
        Some(u32::try_from(better).unwrap_or(u32::MAX))
    }
}
