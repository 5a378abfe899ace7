//! The whole of a namespace's tables, consistent, or an error.

use lvs_core::ipvs::{
    Destination, DestinationKey, Idle, Service, ServiceKey, ServiceState, Services,
};
use lvs_core::sync_daemon::SyncDaemons;
use lvs_core::table::{self, Disorder};
use nix::errno::Errno;

use super::Reading;
use super::connection::{Connection, Failure};
use crate::Dump;
use crate::decode::{self, DumpedService};
use crate::uapi::command;

impl Connection {
    pub(super) fn dump(&mut self, reading: &mut Reading) -> Result<Dump, Failure> {
        let mut found: Vec<(ServiceKey, Service)> = Vec::new();
        let mut unnameable = Vec::new();
        self.walk(command::GET_SERVICE, None, |attributes| {
            match decode::service(attributes)? {
                DumpedService::Named(key, service) => found.push((key, service)),
                DumpedService::Unnameable(line) => unnameable.push(line),
            }
            Ok(())
        })?;
        let count = found.len();
        let mut services = Services::new();
        let mut disorder = Disorder::new();
        let mut idle = Idle::new();
        let mut expected = 0;
        for (key, service) in found {
            *reading = Reading::Destinations(key);
            let mut listed = Vec::new();
            let order = table::depends_on_order(&service).then_some(&mut listed);
            let destinations = self.destinations(&key, expected, order, &mut idle)?;
            expected = destinations.len();
            if !table::is_canonical(&listed) {
                disorder.insert(key, listed);
            }
            services.insert(
                key,
                ServiceState {
                    service,
                    destinations,
                },
            );
        }
        if services.len() != count {
            // The same service twice: the table shifted between two parts of the dump.
            *reading = Reading::Services;
            return Err(Failure::Changed);
        }
        *reading = Reading::Timeouts;
        let timeouts = self.ask(command::GET_CONFIG, None, decode::timeouts)?;
        *reading = Reading::SyncDaemons;
        let mut sync_daemons = SyncDaemons::new();
        self.walk(command::GET_DAEMON, None, |attributes| {
            let (role, daemon) = decode::sync_daemon(attributes)?;
            sync_daemons.insert(role, daemon);
            Ok(())
        })?;
        Ok(Dump {
            services,
            disorder,
            idle,
            timeouts,
            sync_daemons,
            unnameable,
        })
    }

    /// Destinations sorted by key; `order` gets their keys as the kernel lists them, `idle` those that are.
    pub(super) fn destinations(
        &mut self,
        key: &ServiceKey,
        expected: usize,
        order: Option<&mut Vec<DestinationKey>>,
        idle: &mut Idle,
    ) -> Result<Vec<(DestinationKey, Destination)>, Failure> {
        let mut destinations: Vec<(DestinationKey, Destination)> = Vec::with_capacity(expected);
        let family = key.family();
        self.walk(command::GET_DEST, Some(key), |attributes| {
            let found = decode::destination(attributes, family)?;
            if found.is_idle() {
                idle.insert((*key, found.key));
            }
            destinations.push((found.key, found.state));
            Ok(())
        })?;
        if destinations.is_empty() {
            // The kernel dumps nothing for a service that is gone, too. Gone is not empty.
            match self.ask(command::GET_SERVICE, Some(key), decode::service) {
                Ok(_) => {}
                Err(Failure::Refused {
                    errno: Errno::ESRCH,
                    ..
                }) => return Err(Failure::Changed),
                Err(failure) => return Err(failure),
            }
        }
        if let Some(order) = order {
            order.extend(destinations.iter().map(|(key, _)| *key));
        }
        // The kernel lists the newest first; a sorted or reversed run is recognized and costs one pass.
        destinations.sort_unstable_by_key(|(key, _)| *key);
        if destinations
            .windows(2)
            .any(|pair| matches!(pair, [(left, _), (right, _)] if left == right))
        {
            return Err(Failure::Changed);
        }
        destinations.shrink_to_fit();
        Ok(destinations)
    }
}
