//! Who carried the address, for how long nobody did or two did together.

use std::collections::BTreeMap;
use std::time::Duration;

use super::World;

/// The longest interval of heartbeats, by a slow clock, and a way of the network.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// A stretch in which these nodes carried the address together.
#[derive(Clone, Debug, Default)]
pub struct Overlaps {
    /// Longest while the Lease had been offered, released, or taken by the node itself.
    pub voluntary: Duration,
    /// Longest otherwise.
    pub involuntary: Duration,
    /// Most refreshes by nodes that were superseded, in one stretch.
    pub superseded_writes: usize,
    /// Most nodes at once for longer than it takes to hear a heartbeat: a process that goes on after it stood still may write
    /// an address before it hears what happened.
    pub most: usize,
}

impl World {
    pub fn carriers(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|node| self.nodes[*node].carries(self.now))
            .collect()
    }

    /// Keeps count of who carries the address, at every moment at which that may have changed.
    pub(super) fn account(&mut self) {
        let carriers = self.carriers();
        if self.carried.1 != carriers.len() {
            self.carried = (self.now, carriers.len());
        }
        if self.now.saturating_sub(self.carried.0) > HEARTBEAT || carriers.len() <= 2 {
            self.overlaps.most = self.overlaps.most.max(carriers.len());
        }
        if carriers.is_empty() {
            let since = *self.bare_since.get_or_insert(self.now);
            let gap = self.now.saturating_sub(since.max(self.measure_from));
            self.longest_gap = self.longest_gap.max(gap);
        } else {
            self.bare_since = None;
        }
        if carriers.len() > 1 {
            let since = *self.shared_since.get_or_insert(self.now);
            // From the last refresh by one that is superseded: a process that was stopped between its look at the time and
            // its write writes once more.
            let newest = self
                .store
                .history
                .last()
                .and_then(|last| last.holder.as_ref());
            let superseded = carriers
                .iter()
                .map(|node| &self.nodes[*node])
                .filter(|node| newest.is_none_or(|newest| newest.node != node.name));
            let refreshed_at = superseded.map(|node| node.written_at).max();
            if let Some(at) = refreshed_at
                && at > since
                && self.superseded_writes.0 != at
            {
                self.superseded_writes = (at, self.superseded_writes.1 + 1);
                let most = &mut self.overlaps.superseded_writes;
                *most = (*most).max(self.superseded_writes.1);
            }
            let length = self
                .now
                .saturating_sub(refreshed_at.map_or(since, |at| at.max(since)));
            let given = self.store.history.last().is_some_and(|last| last.given);
            let worst = if given {
                &mut self.overlaps.voluntary
            } else {
                &mut self.overlaps.involuntary
            };
            *worst = (*worst).max(length);
        } else {
            self.superseded_writes.1 = 0;
            self.shared_since = None;
        }
    }

    /// I1: one holder per epoch.
    pub fn assert_one_holder_per_epoch(&self) {
        let mut holders: BTreeMap<u64, &str> = BTreeMap::new();
        for written in &self.store.history {
            if let Some(holder) = &written.holder {
                let known = holders.entry(written.epoch).or_insert(&holder.node);
                assert_eq!(
                    *known, holder.node,
                    "two holders of epoch {}",
                    written.epoch
                );
            }
        }
    }
}
