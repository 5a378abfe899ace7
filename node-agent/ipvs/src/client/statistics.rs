//! Reading counters: what changes with every packet, without the promises of a whole dump.

use lvs_core::ipvs::ServiceKey;
use lvs_core::statistics::ServiceStatistics;

use super::connection::{Connection, Failure};
use super::{Client, Reading};
use crate::decode;
use crate::error::DumpError;
use crate::uapi::command;

/// What is to be read of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: it is somebody else's.
    Nothing,
    /// Its own counters.
    Service,
    /// Those of its destinations too.
    Destinations,
}

impl Client {
    /// Statistics of the services for which something is `wanted`. A service or destination that comes or goes meanwhile may
    /// be in it or not; each that is in it is as the kernel told.
    pub fn statistics(
        &mut self,
        wanted: impl Fn(&ServiceKey) -> Wanted,
    ) -> Result<Vec<ServiceStatistics>, DumpError> {
        let mut reading = Reading::Services;
        let result = match self.connect() {
            Err(source) => Err(Failure::Transport(source)),
            Ok(connection) => connection.statistics(&wanted, &mut reading),
        };
        result.map_err(|failure| {
            // The family has another number after the module was loaded anew; the next reading asks for it.
            if failure.passes() {
                self.connection = None;
            }
            self.give_up(reading.to_string(), failure)
        })
    }
}

impl Connection {
    fn statistics(
        &mut self,
        wanted: &impl Fn(&ServiceKey) -> Wanted,
        reading: &mut Reading,
    ) -> Result<Vec<ServiceStatistics>, Failure> {
        let mut services = Vec::new();
        let listed = self.walk(command::GET_SERVICE, None, |attributes| {
            if let Some((key, counters)) = decode::service_statistics(attributes)?
                && wanted(&key) != Wanted::Nothing
            {
                services.push(ServiceStatistics {
                    key,
                    counters,
                    destinations: Vec::new(),
                });
            }
            Ok(())
        });
        unless_changed(listed)?;
        // The list may have shifted between two parts of a dump: what was told twice is taken as told first.
        services.sort_by_key(|service: &ServiceStatistics| service.key);
        services.dedup_by_key(|service| service.key);
        for service in &mut services {
            let key = service.key;
            if wanted(&key) != Wanted::Destinations {
                continue;
            }
            *reading = Reading::Destinations(key);
            let family = key.family();
            let listed = self.walk(command::GET_DEST, Some(&key), |attributes| {
                let found = decode::destination_statistics(attributes, family)?;
                service.destinations.push(found);
                Ok(())
            });
            unless_changed(listed)?;
            let destinations = &mut service.destinations;
            destinations.sort_by_key(|destination| destination.key);
            destinations.dedup_by_key(|destination| destination.key);
        }
        Ok(services)
    }
}

/// A list that changed while it was read is still a list of what was there.
pub(super) fn unless_changed(listed: Result<(), Failure>) -> Result<(), Failure> {
    match listed {
        Err(Failure::Changed) => Ok(()),
        other => other,
    }
}
