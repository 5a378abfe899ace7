//! What people are shown: everything that the kernel tells of its services, and its counters set to zero.

use std::collections::BTreeSet;

use lvs_core::ipvs::ServiceKey;
use lvs_core::shown::ServiceReading;
use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::connection::{Connection, Failure};
use super::statistics::unless_changed;
use super::{Client, Reading};
use crate::decode;
use crate::encode;
use crate::error::DumpError;
use crate::uapi::command;

impl Client {
    /// Every service with its destinations and all that they count, and a line for each that no key can name. A service or
    /// destination that comes or goes meanwhile may be in it or not; each that is in it is as the kernel told.
    pub fn readings(&mut self) -> Result<(Vec<ServiceReading>, Vec<String>), DumpError> {
        let mut reading = Reading::Services;
        let result = match self.connect() {
            Err(source) => Err(Failure::Transport(source)),
            Ok(connection) => connection.readings(&mut reading),
        };
        result.map_err(|failure| self.give_up(reading.to_string(), failure))
    }

    /// Sets counters to zero: those of one service and its destinations, or without a key those of everything in this
    /// network namespace. A service that does not exist is [`DumpError::Refused`] with `ESRCH`.
    pub fn zero(&mut self, key: Option<&ServiceKey>) -> Result<(), DumpError> {
        let result = match self.connect() {
            Err(source) => Err(Failure::Transport(source)),
            Ok(connection) => connection.zero(key),
        };
        let what = key.map_or_else(
            || "the answer to zeroing all counters of IPVS".to_owned(),
            |key| format!("the answer to zeroing the counters of IPVS service {key}"),
        );
        result.map_err(|failure| self.give_up(what, failure))
    }
}

impl Connection {
    fn readings(
        &mut self,
        reading: &mut Reading,
    ) -> Result<(Vec<ServiceReading>, Vec<String>), Failure> {
        let mut services = Vec::new();
        let mut unnameable = Vec::new();
        let listed = self.walk(command::GET_SERVICE, None, |attributes| {
            match decode::service_reading(attributes)? {
                Ok(service) => services.push(service),
                Err(line) => unnameable.push(line),
            }
            Ok(())
        });
        unless_changed(listed)?;
        // The list may have shifted between two parts of a dump: what was told twice is taken as told first.
        services.sort_by_key(|service: &ServiceReading| service.key);
        services.dedup_by_key(|service| service.key);
        for service in &mut services {
            let key = service.key;
            *reading = Reading::Destinations(key);
            let mut seen = BTreeSet::new();
            let listed = self.walk(command::GET_DEST, Some(&key), |attributes| {
                let found = decode::destination_reading(attributes, key.family())?;
                if seen.insert(found.statistics.key) {
                    service.destinations.push(found);
                }
                Ok(())
            });
            unless_changed(listed)?;
        }
        Ok((services, unnameable))
    }

    fn zero(&mut self, key: Option<&ServiceKey>) -> Result<(), Failure> {
        let envelope = self.envelope(NlmF::ACK);
        self.request.clear();
        match key {
            None => encode::bare(&mut self.request, envelope, command::ZERO),
            Some(key) => encode::service_only(&mut self.request, envelope, command::ZERO, key),
        }
        self.socket.send(&self.request)?;
        let mut refused: Option<(Errno, Option<String>)> = None;
        self.collect(envelope.sequence, envelope.sequence, |_, errno, message| {
            refused = Some((errno, message));
        })?;
        match refused {
            None => Ok(()),
            Some((errno, message)) => Err(Failure::Refused { errno, message }),
        }
    }
}
