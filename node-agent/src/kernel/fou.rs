//! Receive ports of foo-over-udp (`include/uapi/linux/fou.h`, generic netlink family `fou`).

use std::collections::BTreeSet;

use lvs_core::host::FouPort;
use lvs_crds::value::AddressFamily;
use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::error::KernelError;
use super::message::{
    AttributeWriter, Attributes, FAMILY_IPV4, FAMILY_IPV6, MessageError, Request,
};
use super::socket::NetlinkSocket;

const FAMILY: &str = "fou";
const VERSION: u8 = 1;
const ADD: u8 = 1;
const DELETE: u8 = 2;
const GET: u8 = 3;
const PORT: u16 = 1;
const ADDRESS_FAMILY: u16 = 2;
const TYPE: u16 = 4;
/// `FOU_ENCAP_GUE`.
const GUE: u8 = 2;
/// Family `nlctrl`, its one command of use here, and its attributes.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Bytes of `struct genlmsghdr`.
const HEADER_BYTES: usize = 4;

fn attributes(body: &[u8]) -> Result<Attributes, MessageError> {
    Attributes::read(
        body.get(HEADER_BYTES..)
            .ok_or_else(|| MessageError::Decode("a generic message of less than 4 bytes".into()))?,
    )
}

/// Number of the family if the module is loaded. Asked by a dump, as asking by name would load it.
fn loaded_family(socket: &mut NetlinkSocket) -> Result<Option<u16>, KernelError> {
    let doing = "reading generic netlink families";
    let message = |source| KernelError::Message {
        doing: doing.into(),
        source,
    };
    let request = Request::new(
        CONTROL,
        NlmF::empty(),
        &[GET_FAMILY, VERSION, 0, 0],
        &AttributeWriter::new(),
    );
    socket.dump(doing, request, |found: &mut Option<u16>, _, body| {
        let attributes = attributes(body).map_err(message)?;
        if attributes.text(FAMILY_NAME).as_deref() == Some(FAMILY) {
            *found = attributes.u16_host(FAMILY_ID).map_err(message)?;
        }
        Ok(())
    })
}

/// Number of the family; the kernel loads the module if it can.
fn family(socket: &mut NetlinkSocket, doing: &str) -> Result<u16, KernelError> {
    let message = |source| KernelError::Message {
        doing: doing.into(),
        source,
    };
    let mut name = AttributeWriter::new();
    name.text(FAMILY_NAME, FAMILY).map_err(message)?;
    let request = Request::new(CONTROL, NlmF::empty(), &[GET_FAMILY, VERSION, 0, 0], &name);
    let mut found = None;
    socket
        .get(doing, request, |body| {
            found = attributes(body)
                .and_then(|found| found.u16_host(FAMILY_ID))
                .map_err(message)?;
            Ok(())
        })
        .map_err(|error| error.or_module_missing(&[Errno::ENOENT], "fou"))?;
    found.ok_or_else(|| KernelError::Protocol {
        doing: doing.to_owned(),
        what: "the family fou has no number",
    })
}

/// Every receive port, foreign ones included; empty while the module is not loaded.
pub fn dump(socket: &mut NetlinkSocket) -> Result<BTreeSet<FouPort>, KernelError> {
    let doing = "reading foo-over-udp ports";
    let Some(family) = loaded_family(socket)? else {
        return Ok(BTreeSet::new());
    };
    let request = Request::new(
        family,
        NlmF::empty(),
        &[GET, VERSION, 0, 0],
        &AttributeWriter::new(),
    );
    socket.dump(doing, request, |found: &mut BTreeSet<FouPort>, _, body| {
        found.insert(read(body).map_err(|source| KernelError::Message {
            doing: doing.into(),
            source,
        })?);
        Ok(())
    })
}

/// One port from a generic message.
pub fn read(body: &[u8]) -> Result<FouPort, MessageError> {
    let attributes = attributes(body)?;
    let family = match attributes.u8(ADDRESS_FAMILY)? {
        Some(FAMILY_IPV6) => AddressFamily::IPv6,
        _ => AddressFamily::IPv4,
    };
    let port = attributes
        .u16_network(PORT)?
        .ok_or(MessageError::Missing { attribute: PORT })?;
    Ok(FouPort { port, family })
}

/// Opens a port for GUE.
pub fn add(socket: &mut NetlinkSocket, fou: FouPort) -> Result<(), KernelError> {
    change(socket, "opening", fou, ADD)
}

/// Closes a port.
pub fn delete(socket: &mut NetlinkSocket, fou: FouPort) -> Result<(), KernelError> {
    change(socket, "closing", fou, DELETE)
}

fn change(
    socket: &mut NetlinkSocket,
    verb: &str,
    fou: FouPort,
    command: u8,
) -> Result<(), KernelError> {
    let doing = format!("{verb} GUE port {} ({:?})", fou.port, fou.family);
    let family = family(socket, &doing)?;
    let attributes = port_attributes(fou, command).map_err(|source| KernelError::Message {
        doing: doing.clone(),
        source,
    })?;
    let request = Request::new(
        family,
        NlmF::empty(),
        &[command, VERSION, 0, 0],
        &attributes,
    );
    socket
        .execute(&doing, request)
        .map_err(|error| match fou.family {
            AddressFamily::IPv4 => error,
            AddressFamily::IPv6 => {
                error.or_module_missing(&[Errno::EPFNOSUPPORT, Errno::EAFNOSUPPORT], "fou6")
            }
        })
}

fn port_attributes(fou: FouPort, command: u8) -> Result<AttributeWriter, MessageError> {
    let mut attributes = AttributeWriter::new();
    let address_family = match fou.family {
        AddressFamily::IPv4 => FAMILY_IPV4,
        AddressFamily::IPv6 => FAMILY_IPV6,
    };
    attributes
        .u16_network(PORT, fou.port)?
        .u8(ADDRESS_FAMILY, address_family)?;
    if command == ADD {
        attributes.u8(TYPE, GUE)?;
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_port_is_read_back_as_it_was_asked_for() {
        for family in [AddressFamily::IPv4, AddressFamily::IPv6] {
            let fou = FouPort { port: 6080, family };
            let mut body = vec![ADD, VERSION, 0, 0];
            body.extend_from_slice(port_attributes(fou, ADD).unwrap().as_bytes());
            assert_eq!(read(&body).unwrap(), fou);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
        }
    }
}
