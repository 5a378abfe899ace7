//! How far the addresses of an epoch have come.

use super::{Authority, Fence, Presence, RouterFence};
use crate::election::Tick;

/// When the addresses of an epoch were there, and known to the neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The epoch under which they are held; 0 while there is none.
    pub epoch: u64,
    /// When all of them were in the kernel for the first time.
    pub applied_at: Option<Tick>,
    /// When all of them had been announced at least once.
    pub announced_at: Option<Tick>,
}

impl Fence {
    /// Notes how far every router has come by `now`; to be called after actions were carried out.
    pub fn note_progress(&mut self, now: Tick) {
        for router in self.routers.values_mut() {
            router.note_progress(now);
        }
    }
}

impl RouterFence {
    /// A new epoch begins from the start.
    pub(super) fn begin_progress(&mut self, epoch: u64) {
        if self.progress.epoch != epoch {
            self.progress = Progress {
                epoch,
                ..Progress::default()
            };
        }
    }

    fn note_progress(&mut self, now: Tick) {
        let (Authority::Held(_), Some(wanted)) = (&self.authority, &self.wanted) else {
            return;
        };
        if self.progress.announced_at.is_some() {
            return;
        }
        let mut is_announced = true;
        for address in wanted {
            match self.entries.get(address) {
                Some(entry) if matches!(entry.presence, Presence::Present { .. }) => {
                    is_announced &= entry.announcements.begun;
                }
                Some(_) | None => return,
            }
        }
        self.progress.applied_at.get_or_insert(now);
        if is_announced {
            self.progress.announced_at = Some(now);
        }
    }
}
