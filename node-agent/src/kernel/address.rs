//! Addresses on devices (`include/uapi/linux/if_addr.h`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvs_core::host::{AddressAttributes, AddressKey, OWNER_PROTOCOL};
use neli::consts::nl::NlmF;
use nix::libc;

use super::error::KernelError;
use super::message::{
    AttributeWriter, Attributes, FAMILY_IPV4, FAMILY_IPV6, MessageError, Request, address_from,
};
use super::socket::NetlinkSocket;

/// `IFA_PROTO` (Linux 5.18; older kernels ignore it).
const PROTO: u16 = 11;
/// `IFA_CACHEINFO` says this for "for ever".
const INFINITY: u32 = u32::MAX;
/// Bytes of `struct ifaddrmsg`.
const HEADER_BYTES: usize = 8;

pub(super) const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => FAMILY_IPV4,
        IpAddr::V6(_) => FAMILY_IPV6,
    }
}

fn header(family: u8, prefix_length: u8, scope: u8, index: u32) -> [u8; HEADER_BYTES] {
    let mut header = [family, prefix_length, 0, scope, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

/// An address as dumped: its device by index.
pub type DumpedAddress = (u32, IpAddr, u8, AddressAttributes);

/// Every address of this network namespace. `names` are the devices by index: an address on a device that
/// appeared since is left for the next pass.
pub fn dump(
    socket: &mut NetlinkSocket,
    names: &BTreeMap<u32, &str>,
) -> Result<Vec<(AddressKey, AddressAttributes)>, KernelError> {
    let doing = "reading addresses";
    let request = Request::new(
        libc::RTM_GETADDR,
        NlmF::empty(),
        &header(0, 0, 0, 0),
        &AttributeWriter::new(),
    );
    socket.dump(doing, request, |found: &mut Vec<_>, type_, body| {
        if type_ == libc::RTM_NEWADDR {
            let read = read(body).map_err(|source| KernelError::Message {
                doing: doing.into(),
                source,
            })?;
            if let Some((index, address, prefix_length, attributes)) = read
                && let Some(device) = names.get(&index)
            {
                let device = (*device).to_owned();
                found.push((
                    AddressKey {
                        device,
                        address,
                        prefix_length,
                    },
                    attributes,
                ));
            }
        }
        Ok(())
    })
}

/// One address from `struct ifaddrmsg` and its attributes; `None` for families other than IP.
pub fn read(body: &[u8]) -> Result<Option<DumpedAddress>, MessageError> {
    let short = || MessageError::Decode("an address of less than 8 bytes".into());
    let header: &[u8; HEADER_BYTES] = body.first_chunk().ok_or_else(short)?;
    let [family, prefix_length, _, scope, index @ ..] = *header;
    if family != FAMILY_IPV4 && family != FAMILY_IPV6 {
        return Ok(None);
    }
    let attributes = Attributes::read(body.get(HEADER_BYTES..).ok_or_else(short)?)?;
    // IFA_LOCAL is our side of a point-to-point address; without a peer only one of the two may be there.
    let address = match attributes.address(libc::IFA_LOCAL)? {
        Some(address) => address,
        None => attributes
            .address(libc::IFA_ADDRESS)?
            .ok_or(MessageError::Missing {
                attribute: libc::IFA_ADDRESS,
            })?,
    };
    let valid = match attributes.get(libc::IFA_CACHEINFO) {
        None => INFINITY,
        Some(info) => info
            .get(4..8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_ne_bytes)
            .ok_or(MessageError::WrongSize {
                attribute: libc::IFA_CACHEINFO,
                bytes: info.len(),
            })?,
    };
    Ok(Some((
        u32::from_ne_bytes(index),
        address,
        prefix_length,
        AddressAttributes {
            valid_seconds: (valid != INFINITY).then_some(valid),
            protocol: attributes.u8(PROTO)?.unwrap_or_default(),
            global: scope == libc::RT_SCOPE_UNIVERSE,
        },
    )))
}

/// Adds a permanent address on a device of ours: no duplicate address detection, no prefix route, never chosen as
/// source (IPv4 by link scope, IPv6 as deprecated). An existing one is refused by the kernel, never changed.
pub fn add(socket: &mut NetlinkSocket, key: &AddressKey, index: u32) -> Result<(), KernelError> {
    change(
        socket,
        "adding",
        key,
        index,
        libc::RTM_NEWADDR,
        NlmF::CREATE | NlmF::EXCL,
    )
}

/// Removes an address.
pub fn delete(socket: &mut NetlinkSocket, key: &AddressKey, index: u32) -> Result<(), KernelError> {
    change(
        socket,
        "removing",
        key,
        index,
        libc::RTM_DELADDR,
        NlmF::empty(),
    )
}

fn change(
    socket: &mut NetlinkSocket,
    verb: &str,
    key: &AddressKey,
    index: u32,
    message_type: u16,
    flags: NlmF,
) -> Result<(), KernelError> {
    let doing = format!(
        "{verb} address {}/{} on device {}",
        key.address, key.prefix_length, key.device
    );
    let request =
        request(key, index, message_type, flags).map_err(|source| KernelError::Message {
            doing: doing.clone(),
            source,
        })?;
    socket.execute(&doing, request)
}

fn request(
    key: &AddressKey,
    index: u32,
    message_type: u16,
    flags: NlmF,
) -> Result<Request, MessageError> {
    let mut attributes = AttributeWriter::new();
    attributes
        .address(libc::IFA_LOCAL, key.address)?
        .address(libc::IFA_ADDRESS, key.address)?;
    if message_type == libc::RTM_NEWADDR {
        attributes
            .u32_host(
                libc::IFA_FLAGS,
                libc::IFA_F_PERMANENT | libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE,
            )?
            .u8(PROTO, OWNER_PROTOCOL)?;
        if key.address.is_ipv6() {
            // struct ifa_cacheinfo: preferred, valid, created, updated.
            let mut lifetime = [0; 16];
            lifetime[4..8].copy_from_slice(&INFINITY.to_ne_bytes());
            attributes.bytes(libc::IFA_CACHEINFO, &lifetime)?;
        }
    }
    let scope = match key.address {
        IpAddr::V4(_) if message_type == libc::RTM_NEWADDR => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    Ok(Request::new(
        message_type,
        flags,
        &header(family(key.address), key.prefix_length, scope, index),
        &attributes,
    ))
}

/// The address in an attribute, or the unspecified one of the family for a missing attribute.
pub(super) fn address_or_unspecified(
    bytes: Option<&[u8]>,
    family: u8,
) -> Result<IpAddr, MessageError> {
    match bytes {
        Some(bytes) => address_from(bytes)
            .ok_or_else(|| MessageError::Decode(format!("an address of {} bytes", bytes.len()))),
        None if family == FAMILY_IPV4 => Ok(IpAddr::from([0u8; 4])),
        None => Ok(IpAddr::from([0u8; 16])),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_read_back_as_it_was_asked_for() {
        for text in ["192.0.2.9", "2001:db8::9"] {
            let key = AddressKey {
                device: "lvs-dr".into(),
                address: text.parse().unwrap(),
                prefix_length: if text.contains(':') { 128 } else { 32 },
            };
            let request = request(&key, 7, libc::RTM_NEWADDR, NlmF::empty()).unwrap();
            let (index, address, prefix_length, attributes) = read(&request.body).unwrap().unwrap();
            assert_eq!(
                (index, address, prefix_length),
                (7, key.address, key.prefix_length)
            );
            assert_eq!(attributes.valid_seconds, None);
            assert_eq!(attributes.protocol, OWNER_PROTOCOL);
            assert_eq!(attributes.global, key.address.is_ipv6());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = read(&bytes);
        }
    }
}
