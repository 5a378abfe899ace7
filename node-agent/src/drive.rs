//! The sync loop's thread: waits, gathers what came meanwhile, passes, reports.

use std::future::Future;
use std::time::{Duration, Instant};

use lvs_ipvs::IpvsKernel;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::book::PlanEvent;
use crate::endpoints::EndpointStates;
use crate::http::Health;
use crate::kernel::HostKernel;
use crate::kernel::link_watch::Links;
use crate::kernel::removal_watch::Removals;
use crate::limits::{COALESCE, FIRST_RETRY};
use crate::port::{LeadershipPort, LeadershipView};
use crate::status::Reports;
use crate::sync::Syncer;

/// Why the loop woke up.
enum Wake {
    Plan(Box<PlanEvent>),
    Leadership,
    Links,
    Removals,
    Endpoints,
    RealServers,
    Due,
    Stop,
}

/// What wakes the loop, and where it reports.
pub struct Wiring {
    /// Events of the watch.
    pub events: mpsc::Receiver<PlanEvent>,
    /// Rings when something of leadership may have changed.
    pub leadership: watch::Receiver<u64>,
    /// Every device, as it changes.
    pub links: watch::Receiver<Links>,
    /// What of ours was removed, by whomever.
    pub removals: watch::Receiver<Removals>,
    /// What is known of tracked endpoints, as it changes.
    pub endpoints: watch::Receiver<EndpointStates>,
    /// Rings when something else is known of a real server.
    pub real_servers: watch::Receiver<u64>,
    /// True when the loop is to end after the pass at hand.
    pub stop: watch::Receiver<bool>,
    /// Reports for the status writer.
    pub reports: watch::Sender<Reports>,
    /// Facts for readiness.
    pub health: Health,
    /// Time between passes when nothing else happens.
    pub resync_interval: Duration,
}

impl Wiring {
    async fn next(&mut self, due: Instant) -> Wake {
        tokio::select! {
            biased;
            () = stopped(&mut self.stop) => Wake::Stop,
            event = self.events.recv() => event.map_or(Wake::Stop, |event| Wake::Plan(Box::new(event))),
            changed = self.leadership.changed() => match changed {
                Ok(()) => Wake::Leadership,
                Err(_) => Wake::Stop,
            },
            changed = self.links.changed() => match changed {
                Ok(()) => Wake::Links,
                Err(_) => Wake::Stop,
            },
            changed = self.removals.changed() => match changed {
                Ok(()) => Wake::Removals,
                Err(_) => Wake::Stop,
            },
            changed = self.endpoints.changed() => match changed {
                Ok(()) => Wake::Endpoints,
                Err(_) => Wake::Stop,
            },
            changed = self.real_servers.changed() => match changed {
                Ok(()) => Wake::RealServers,
                Err(_) => Wake::Stop,
            },
            () = tokio::time::sleep_until(due.into()) => Wake::Due,
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the process is ending.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Runs until told to stop or until a channel closes, and gives leadership back. Blocking: belongs on a thread of
/// its own.
pub fn drive<I: IpvsKernel, H: HostKernel, L: LeadershipPort>(
    mut syncer: Syncer<I, H, L>,
    mut wiring: Wiring,
    runtime: &Handle,
) -> L {
    let _context = runtime.enter();
    let mut due = Instant::now();
    let mut retry_wait = FIRST_RETRY;
    let mut seen: Option<LeadershipView> = None;
    loop {
        let wake = block(runtime, wiring.next(due));
        let mut is_due = match wake {
            Wake::Stop => return syncer.leadership,
            Wake::Plan(event) => syncer.take(*event),
            Wake::Leadership => {
                let view = syncer.leadership.view();
                seen.as_ref().is_none_or(|seen| view.differs(seen))
            }
            Wake::Links => syncer.links_differ(&wiring.links.borrow()),
            Wake::Removals | Wake::Endpoints | Wake::RealServers | Wake::Due => true,
        };
        if is_due {
            // What belongs together comes together: one pass for all of it.
            std::thread::sleep(COALESCE);
        }
        while let Ok(event) = wiring.events.try_recv() {
            is_due |= syncer.take(event);
        }
        if !is_due {
            continue;
        }
        if syncer.knows_nothing() {
            wiring.health.waiting();
            due = Instant::now() + wiring.resync_interval;
            continue;
        }
        seen = Some(syncer.leadership.view());
        let report = syncer.pass();
        wiring
            .health
            .passed(report.blindness.map(|blindness| blindness.message));
        wiring.reports.send_replace(report.plans);
        syncer.store_plans();
        let wait = if report.retry {
            let wait = retry_wait.min(wiring.resync_interval);
            retry_wait = (retry_wait * 2).min(wiring.resync_interval);
            wait
        } else {
            retry_wait = FIRST_RETRY;
            wiring.resync_interval
        };
        due = Instant::now() + report.due.map_or(wait, |due| wait.min(due));
    }
}

fn block<T>(runtime: &Handle, future: impl Future<Output = T>) -> T {
    runtime.block_on(future)
}
