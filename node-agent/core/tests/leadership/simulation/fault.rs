//! What goes wrong, or is done on purpose.

use std::time::Duration;

use lvs_core::election::{Config, Event};

use super::{Happening, World, node};

/// What goes wrong, or is done on purpose.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The node cannot reach the API any more; requests are refused or vanish.
    Unreachable {
        node: usize,
        silent: bool,
    },
    Reachable {
        node: usize,
    },
    /// SIGSTOP and SIGCONT: the kernel goes on.
    Freeze {
        node: usize,
        length: Duration,
    },
    /// As above, right between the fence's check of the time and its write to the kernel.
    FreezeAtWrite {
        node: usize,
        length: Duration,
    },
    /// kill -9.
    Kill {
        node: usize,
    },
    /// kill -9 and an empty kernel.
    Reboot {
        node: usize,
    },
    Start {
        node: usize,
    },
    /// SIGTERM.
    Shutdown {
        node: usize,
    },
    Configure {
        node: usize,
        config: Box<Config>,
    },
    /// The whole machine stands still, its clocks too.
    Suspend {
        node: usize,
        length: Duration,
    },
    /// Heartbeats of one reach the other no more.
    Deafen {
        from: usize,
        to: usize,
    },
    Undeafen {
        from: usize,
        to: usize,
    },
    /// Its watch of the Lease brings nothing any more, and nobody knows; or does again.
    Watch {
        node: usize,
        alive: bool,
    },
    /// Its key is another one than the others', or the right one again.
    Key {
        node: usize,
        right: bool,
    },
    Annotate,
    DeleteLease,
    CreateLease,
}

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.note(|_| format!("{fault:?}").chars().take(60).collect());
        let now = self.now;
        match fault {
            Fault::Unreachable { node, silent } => {
                self.nodes[node].reachable = false;
                let incarnation = self.nodes[node].incarnation;
                if !silent {
                    let at = now + self.random.milliseconds(1..1000);
                    self.schedule(at, Happening::WatchLost { node, incarnation });
                }
                self.look_at_api(node);
            }
            Fault::Reachable { node } => {
                self.nodes[node].reachable = true;
                self.tell_watcher(node, Duration::from_millis(800));
                self.look_at_api(node);
            }
            Fault::Suspend { node, length } => {
                let suspended = &mut self.nodes[node];
                // One that stands still already cannot be stopped again.
                if suspended.suspended_until <= now {
                    suspended.clock.pause(now, length);
                    suspended.suspended_until = now + length;
                    suspended.frozen_until = suspended.frozen_until.max(now + length);
                }
            }
            Fault::Deafen { from, to } => drop(self.deaf.insert((from, to))),
            Fault::Undeafen { from, to } => drop(self.deaf.remove(&(from, to))),
            Fault::Watch { node, alive } => {
                self.nodes[node].watches = alive;
                self.lost_watch |= !alive;
                if alive {
                    self.tell_watcher(node, Duration::ZERO);
                }
            }
            Fault::Key { node, right } => self.nodes[node].wrong_key = !right,
            Fault::Freeze { node, length } => {
                let until = now + length;
                self.nodes[node].frozen_until = self.nodes[node].frozen_until.max(until);
            }
            Fault::FreezeAtWrite { node, length } => {
                self.freeze_at_write.insert(node, length);
            }
            Fault::Kill { node } => self.nodes[node].agent = None,
            Fault::Reboot { node } => {
                self.nodes[node].agent = None;
                self.nodes[node].kernel = node::InKernel::Nothing;
                self.nodes[node].journal.clear();
            }
            Fault::Start { node } => {
                if self.nodes[node].agent.is_none() && self.nodes[node].suspended_until <= now {
                    self.nodes[node].frozen_until = self.nodes[node].suspended_until.max(now);
                    self.freeze_at_write.remove(&node);
                    self.nodes[node].start(now);
                    if self.nodes[node].reachable {
                        self.tell_watcher(node, Duration::ZERO);
                    } else {
                        self.look_at_api(node);
                    }
                    self.feed(node, Event::Deadline);
                }
            }
            Fault::Shutdown { node } => self.feed(node, Event::ShutdownRequested),
            Fault::Configure { node, config } => {
                if self.nodes[node].agent.is_some() {
                    self.feed(node, Event::Configured(*config));
                } else {
                    self.nodes[node].config = *config;
                }
            }
            Fault::Annotate => {
                self.store.annotate();
                self.tell_watchers();
            }
            Fault::DeleteLease => {
                self.store.lease = None;
                self.tell_watchers();
            }
            Fault::CreateLease => {
                if self.store.lease.is_none() {
                    self.store.create();
                    self.tell_watchers();
                }
            }
        }
    }
}
