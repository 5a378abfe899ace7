//! Default routes of ours in tables of ours (`include/uapi/linux/rtnetlink.h`).

use std::collections::{BTreeMap, BTreeSet};

use lvs_core::host::{DefaultRoute, OWNER_PROTOCOL};
use neli::consts::nl::NlmF;
use nix::errno::Errno;
use nix::libc;

use super::address::{address_or_unspecified, family};
use super::error::KernelError;
use super::message::{
    AttributeWriter, Attributes, FAMILY_IPV4, FAMILY_IPV6, MessageError, Request,
};
use super::socket::NetlinkSocket;

/// Bytes of `struct rtmsg`.
const HEADER_BYTES: usize = 12;

/// Default routes with our protocol number, of both families. `socket` should filter dumps: nodes may carry a full
/// routing table. `names` are the devices by index.
pub fn dump(
    socket: &mut NetlinkSocket,
    names: &BTreeMap<u32, &str>,
) -> Result<BTreeSet<DefaultRoute>, KernelError> {
    let doing = "reading routes";
    let mut routes = BTreeSet::new();
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        let mut header = [0; HEADER_BYTES];
        header[0] = family;
        header[5] = OWNER_PROTOCOL;
        let request = Request::new(
            libc::RTM_GETROUTE,
            NlmF::empty(),
            &header,
            &AttributeWriter::new(),
        );
        let found = socket.dump(
            doing,
            request,
            |found: &mut Vec<DefaultRoute>, type_, body| {
                if type_ == libc::RTM_NEWROUTE {
                    let route = read(body, names).map_err(|source| KernelError::Message {
                        doing: doing.into(),
                        source,
                    })?;
                    found.extend(route);
                }
                Ok(())
            },
        );
        match found {
            Ok(found) => routes.extend(found),
            // A kernel without IPv6 has no IPv6 routes.
            Err(error)
                if family == FAMILY_IPV6
                    && matches!(error.errno(), Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(routes)
}

/// A default route with our protocol number; `None` for every other route.
pub fn read(
    body: &[u8],
    names: &BTreeMap<u32, &str>,
) -> Result<Option<DefaultRoute>, MessageError> {
    let short = || MessageError::Decode("a route of less than 12 bytes".into());
    let header: &[u8; HEADER_BYTES] = body.first_chunk().ok_or_else(short)?;
    let [family, destination_bits, _, _, table, protocol, ..] = *header;
    if protocol != OWNER_PROTOCOL || destination_bits != 0 {
        return Ok(None);
    }
    let attributes = Attributes::read(body.get(HEADER_BYTES..).ok_or_else(short)?)?;
    let Some(device) = attributes
        .u32_host(libc::RTA_OIF)?
        .and_then(|index| names.get(&index))
    else {
        return Ok(None);
    };
    Ok(Some(DefaultRoute {
        table: attributes
            .u32_host(libc::RTA_TABLE)?
            .unwrap_or(u32::from(table)),
        gateway: address_or_unspecified(attributes.get(libc::RTA_GATEWAY), family)?,
        device: (*device).to_owned(),
    }))
}

/// Adds a default route. An existing one of the same table is refused by the kernel.
pub fn add(
    socket: &mut NetlinkSocket,
    route: &DefaultRoute,
    index: u32,
) -> Result<(), KernelError> {
    change(
        socket,
        "adding",
        route,
        index,
        libc::RTM_NEWROUTE,
        NlmF::CREATE | NlmF::EXCL,
    )
}

/// Removes a default route.
pub fn delete(
    socket: &mut NetlinkSocket,
    route: &DefaultRoute,
    index: u32,
) -> Result<(), KernelError> {
    change(
        socket,
        "removing",
        route,
        index,
        libc::RTM_DELROUTE,
        NlmF::empty(),
    )
}

fn change(
    socket: &mut NetlinkSocket,
    verb: &str,
    route: &DefaultRoute,
    index: u32,
    message_type: u16,
    flags: NlmF,
) -> Result<(), KernelError> {
    let doing = format!(
        "{verb} default route via {} on device {} in table {}",
        route.gateway, route.device, route.table
    );
    let request =
        request(route, index, message_type, flags).map_err(|source| KernelError::Message {
            doing: doing.clone(),
            source,
        })?;
    socket.execute(&doing, request)
}

fn request(
    route: &DefaultRoute,
    index: u32,
    message_type: u16,
    flags: NlmF,
) -> Result<Request, MessageError> {
    let mut header = [0; HEADER_BYTES];
    header[0] = family(route.gateway);
    header[4] = libc::RT_TABLE_UNSPEC;
    header[5] = OWNER_PROTOCOL;
    header[6] = libc::RT_SCOPE_UNIVERSE;
    header[7] = libc::RTN_UNICAST;
    let mut attributes = AttributeWriter::new();
    attributes
        .u32_host(libc::RTA_TABLE, route.table)?
        .address(libc::RTA_GATEWAY, route.gateway)?
        .u32_host(libc::RTA_OIF, index)?;
    Ok(Request::new(message_type, flags, &header, &attributes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_route_is_read_back_as_it_was_asked_for() {
        let names = BTreeMap::from([(3, "eth0")]);
        for gateway in ["192.0.2.1", "2001:db8::1"] {
            let route = DefaultRoute {
                table: 7_600,
                gateway: gateway.parse().unwrap(),
                device: "eth0".into(),
            };
            let request = request(&route, 3, libc::RTM_NEWROUTE, NlmF::empty()).unwrap();
            assert_eq!(read(&request.body, &names).unwrap(), Some(route));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = read(&bytes, &BTreeMap::from([(1, "lo")]));
        }
    }
}
