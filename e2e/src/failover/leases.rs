//! The history of a router's Lease, for the first invariant of leadership: one holder per epoch, and a node carries the
//! address only under an epoch that it acquired itself.
//!
//! The times in a Lease are those of the agents, so of the guest's clock, as the times of addresses are.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use lvs_crds::VIRTUAL_ROUTER_LABEL;
use tokio::sync::oneshot;

use super::record::{Line, Microseconds};
use crate::lab::{Lab, OPERATOR_NAMESPACE};

/// A state of the Lease in which somebody holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its leaseTransitions.
    pub epoch: i32,
    /// Its holderIdentity.
    pub holder: String,
    /// Its acquireTime.
    pub acquired: Microseconds,
}

/// A watch of one router's Lease.
pub struct LeaseHistory {
    seen: Arc<Mutex<Vec<Held>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LeaseHistory {
    /// Begins to watch the Lease of a VirtualRouter; returns when its present state is known.
    pub fn begin(lab: &Lab, router: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let kubeconfig = Kubeconfig::read_from(lab.cluster.kubeconfig())?;
        let labels = format!("{VIRTUAL_ROUTER_LABEL}={router}");
        let client = runtime.block_on(async {
            let config =
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        let api: Api<Lease> = Api::namespaced(client, OPERATOR_NAMESPACE);
        let seen: Arc<Mutex<Vec<Held>>> = Arc::default();
        let filling = Arc::clone(&seen);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("lease history".into())
            .spawn(move || {
                let watching = async {
                    let watched = watcher::Config::default().labels(&labels);
                    // An API server that is away is asked again later.
                    let mut leases = watcher(api, watched)
                        .default_backoff()
                        .applied_objects()
                        .boxed();
                    loop {
                        if let Ok(Some(lease)) = leases.try_next().await
                            && let Some(held) = held(&lease)
                        {
                            let mut all = filling.lock().unwrap_or_else(PoisonError::into_inner);
                            if all.last() != Some(&held) {
                                all.push(held);
                            }
                        }
                    }
                };
                runtime.block_on(async {
                    tokio::select! { () = watching => {} _ = stopped => {} }
                });
            })?;
        let history = Self {
            seen,
            stop: Some(stop),
            thread: Some(thread),
        };
        crate::await_condition::until(crate::lab::LIMIT, "a held Lease", || {
            let all = history.so_far();
            Ok(if all.is_empty() { Err(all) } else { Ok(()) })
        })?;
        Ok(history)
    }

    fn so_far(&self) -> Vec<Held> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the watch; every state with another holder, epoch or acquisition than the one before.
    pub fn end(mut self) -> Vec<Held> {
        self.finish();
        self.so_far()
    }

    fn finish(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for LeaseHistory {
    fn drop(&mut self) {
        self.finish();
    }
}

fn held(lease: &Lease) -> Option<Held> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.clone().filter(|one| !one.is_empty())?;
    Some(Held {
        epoch: spec.lease_transitions?,
        holder,
        acquired: spec.acquire_time.as_ref()?.0.as_microsecond(),
    })
}

/// One holder per epoch, epochs only grow, and whoever begins to carry the address holds the newest epoch acquired by then.
pub fn check_one_holder_per_epoch(history: &[Held], lines: &[Line]) -> Result<()> {
    for pair in history.windows(2) {
        let [before, after] = pair else { continue };
        ensure!(
            after.epoch > before.epoch
                || (after.epoch == before.epoch && after.holder == before.holder),
            "the Lease went from {before:?} to {after:?}"
        );
    }
    let mut carrying: Vec<&str> = Vec::new();
    for line in lines {
        let Line::Carried { host, at, present } = line else {
            continue;
        };
        if !present {
            carrying.retain(|one| one != host);
        } else if !carrying.contains(&host.as_str()) {
            carrying.push(host);
            let newest = history
                .iter()
                .filter(|held| held.acquired <= *at)
                .max_by_key(|held| held.epoch)
                .with_context(|| format!("{host} carries the address under no epoch"))?;
            ensure!(
                newest.holder == *host || newest.holder.starts_with(&format!("{host}/")),
                "{host} began to carry the address at {at}, when the newest epoch was {newest:?}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Held, Line, check_one_holder_per_epoch};

    fn held(epoch: i32, node: &str, acquired: i64) -> Held {
        Held {
            epoch,
            holder: format!("{node}/x"),
            acquired,
        }
    }

    fn begins(host: &str, at: i64) -> Line {
        Line::Carried {
            host: host.into(),
            at,
            present: true,
        }
    }

    #[test]
    fn whoever_carries_has_acquired() {
        let history = [held(1, "a", 10), held(2, "b", 100)];
        let check = |lines: &[Line]| check_one_holder_per_epoch(&history, lines);
        assert!(check(&[begins("a", 20), begins("b", 110)]).is_ok());
        assert!(check(&[begins("b", 20)]).is_err(), "b has nothing yet");
        assert!(check(&[begins("a", 110)]).is_err(), "a was overtaken");
        assert!(check(&[begins("a", 5)]).is_err(), "before every epoch");
        let still = [begins("a", 20), begins("b", 110), begins("a", 120)];
        assert!(check(&still).is_ok(), "a refresh, not a beginning");
    }

    #[test]
    fn an_epoch_has_one_holder_and_none_comes_back() {
        let check = |history: &[Held]| check_one_holder_per_epoch(history, &[]);
        assert!(check(&[held(1, "a", 1), held(1, "b", 2)]).is_err());
        assert!(check(&[held(2, "a", 1), held(1, "b", 2)]).is_err());
        assert!(check(&[held(1, "a", 1), held(2, "a", 2)]).is_ok());
    }
}
