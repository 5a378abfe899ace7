//! What a dump says beside the rules: counters and connections.

use lvs_core::ipvs::ServiceKey;
use lvs_core::shown::{DestinationReading, ServiceReading};
use lvs_core::statistics::{Counters, DestinationStatistics, Rates};
use lvs_crds::value::AddressFamily;

use super::{DecodeError, DestinationAttributes, ServiceAttributes, find, missing};
use crate::attribute::{Attribute, AttributeError};
use crate::uapi::{destination, service, statistics, top};

/// A message of a service dump: the service and its counters. `None` for one that no key can name.
pub fn service_statistics(
    attributes: &[u8],
) -> Result<Option<(ServiceKey, Counters)>, DecodeError> {
    let nest = find(attributes, top::SERVICE, "IPVS_CMD_ATTR_SERVICE")?;
    let Ok(key) = ServiceAttributes::read(&nest)?.key()? else {
        return Ok(None);
    };
    let found = counters(&nest, service::STATS64)?;
    let (counters, _) = found.ok_or(missing("IPVS_SVC_ATTR_STATS64"))?;
    Ok(Some((key, counters)))
}

/// A message of a service dump with all that it says; `Err` inside: a line for one that no key can name.
pub fn service_reading(attributes: &[u8]) -> Result<Result<ServiceReading, String>, DecodeError> {
    let nest = find(attributes, top::SERVICE, "IPVS_CMD_ATTR_SERVICE")?;
    let found = ServiceAttributes::read(&nest)?;
    let key = match found.key()? {
        Ok(key) => key,
        Err(line) => return Ok(Err(line)),
    };
    let statistics = counters(&nest, service::STATS64)?;
    let (counters, rates) = statistics.ok_or(missing("IPVS_SVC_ATTR_STATS64"))?;
    Ok(Ok(ServiceReading {
        key,
        service: found.state()?,
        counters,
        rates,
        destinations: Vec::new(),
    }))
}

/// A message of a destination dump with all that it says. `service_family` as in [`super::destination`].
pub fn destination_reading(
    attributes: &[u8],
    service_family: AddressFamily,
) -> Result<DestinationReading, DecodeError> {
    let nest = find(attributes, top::DEST, "IPVS_CMD_ATTR_DEST")?;
    let found = DestinationAttributes::read(&nest)?;
    let (statistics, rates) = read_destination(&nest, &found, service_family)?;
    Ok(DestinationReading {
        state: found.state()?,
        statistics,
        rates,
    })
}

/// A message of a destination dump: the destination, its counters and its connections. `service_family` as in
/// [`super::destination`].
pub fn destination_statistics(
    attributes: &[u8],
    service_family: AddressFamily,
) -> Result<DestinationStatistics, DecodeError> {
    let nest = find(attributes, top::DEST, "IPVS_CMD_ATTR_DEST")?;
    let found = DestinationAttributes::read(&nest)?;
    Ok(read_destination(&nest, &found, service_family)?.0)
}

fn read_destination(
    nest: &Attribute<'_>,
    found: &DestinationAttributes<'_>,
    service_family: AddressFamily,
) -> Result<(DestinationStatistics, Rates), DecodeError> {
    let mut persistent = None;
    for attribute in nest.nested() {
        let attribute = attribute?;
        if attribute.kind == destination::PERSIST_CONNS {
            persistent = Some(attribute.u32()?);
        }
    }
    let statistics = counters(nest, destination::STATS64)?;
    let (counters, rates) = statistics.ok_or(missing("IPVS_DEST_ATTR_STATS64"))?;
    let statistics = DestinationStatistics {
        key: found.key(service_family)?,
        counters,
        weight: found.weight.ok_or(missing("IPVS_DEST_ATTR_WEIGHT"))?,
        active_connections: found
            .active_connections
            .ok_or(missing("IPVS_DEST_ATTR_ACTIVE_CONNS"))?,
        inactive_connections: found
            .inactive_connections
            .ok_or(missing("IPVS_DEST_ATTR_INACT_CONNS"))?,
        persistent_connections: persistent.ok_or(missing("IPVS_DEST_ATTR_PERSIST_CONNS"))?,
    };
    Ok((statistics, rates))
}

/// The counters and rates in the attribute `kind` of `nest`, if it is there.
fn counters(nest: &Attribute<'_>, kind: u16) -> Result<Option<(Counters, Rates)>, AttributeError> {
    let mut found = None;
    for attribute in nest.nested() {
        let attribute = attribute?;
        if attribute.kind != kind {
            continue;
        }
        let mut counters = Counters::default();
        let mut rates = Rates::default();
        for attribute in attribute.nested() {
            let attribute = attribute?;
            match attribute.kind {
                statistics::CONNS => counters.connections = attribute.u64()?,
                statistics::INPKTS => counters.incoming_packets = attribute.u64()?,
                statistics::OUTPKTS => counters.outgoing_packets = attribute.u64()?,
                statistics::INBYTES => counters.incoming_bytes = attribute.u64()?,
                statistics::OUTBYTES => counters.outgoing_bytes = attribute.u64()?,
                statistics::CPS => rates.connections_per_second = attribute.u64()?,
                statistics::INPPS => rates.incoming_packets_per_second = attribute.u64()?,
                statistics::OUTPPS => rates.outgoing_packets_per_second = attribute.u64()?,
                statistics::INBPS => rates.incoming_bytes_per_second = attribute.u64()?,
                statistics::OUTBPS => rates.outgoing_bytes_per_second = attribute.u64()?,
                _ => {}
            }
        }
        found = Some((counters, rates));
    }
    Ok(found)
}
