//! What a dump says beside the rules: counters and connections.

use lvs_core::ipvs::ServiceKey;
use lvs_core::statistics::{Counters, DestinationStatistics};
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
    Ok(Some((key, found.ok_or(missing("IPVS_SVC_ATTR_STATS64"))?)))
}

/// A message of a destination dump: the destination, its counters and its connections. `service_family` as in
/// [`super::destination`].
pub fn destination_statistics(
    attributes: &[u8],
    service_family: AddressFamily,
) -> Result<DestinationStatistics, DecodeError> {
    let nest = find(attributes, top::DEST, "IPVS_CMD_ATTR_DEST")?;
    let found = DestinationAttributes::read(&nest)?;
    let mut persistent = None;
    for attribute in nest.nested() {
        let attribute = attribute?;
        if attribute.kind == destination::PERSIST_CONNS {
            persistent = Some(attribute.u32()?);
        }
    }
    let counters = counters(&nest, destination::STATS64)?;
    Ok(DestinationStatistics {
        key: found.key(service_family)?,
        counters: counters.ok_or(missing("IPVS_DEST_ATTR_STATS64"))?,
        weight: found.weight.ok_or(missing("IPVS_DEST_ATTR_WEIGHT"))?,
        active_connections: found
            .active_connections
            .ok_or(missing("IPVS_DEST_ATTR_ACTIVE_CONNS"))?,
        inactive_connections: found
            .inactive_connections
            .ok_or(missing("IPVS_DEST_ATTR_INACT_CONNS"))?,
        persistent_connections: persistent.ok_or(missing("IPVS_DEST_ATTR_PERSIST_CONNS"))?,
    })
}

/// The counters in the attribute `kind` of `nest`, if it is there.
fn counters(nest: &Attribute<'_>, kind: u16) -> Result<Option<Counters>, AttributeError> {
    let mut found = None;
    for attribute in nest.nested() {
        let attribute = attribute?;
        if attribute.kind != kind {
            continue;
        }
        let mut counters = Counters::default();
        for attribute in attribute.nested() {
            let attribute = attribute?;
            match attribute.kind {
                statistics::CONNS => counters.connections = attribute.u64()?,
                statistics::INPKTS => counters.incoming_packets = attribute.u64()?,
                statistics::OUTPKTS => counters.outgoing_packets = attribute.u64()?,
                statistics::INBYTES => counters.incoming_bytes = attribute.u64()?,
                statistics::OUTBYTES => counters.outgoing_bytes = attribute.u64()?,
                _ => {}
            }
        }
        found = Some(counters);
    }
    Ok(found)
}
