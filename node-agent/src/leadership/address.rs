//! Director addresses in the kernel: /32 and /128 with a lifetime (`include/uapi/linux/if_addr.h`).

use std::net::IpAddr;

use lvs_core::election::Lifetime;
use lvs_core::fence::DirectorAddress;
use lvs_core::host::OWNER_PROTOCOL;
use neli::consts::nl::NlmF;
use nix::errno::Errno;
use nix::libc;

use crate::kernel::error::KernelError;
use crate::kernel::link;
use crate::kernel::message::{AttributeWriter, FAMILY_IPV4, FAMILY_IPV6, MessageError, Request};
use crate::kernel::socket::NetlinkSocket;

/// `IFA_PROTO` (Linux 5.18; older kernels ignore it).
const PROTO: u16 = 11;
/// "For ever" in `struct ifa_cacheinfo`.
const INFINITY: u32 = u32::MAX;

/// A device as the fence needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Interface index.
    pub index: u32,
    /// Ethernet address; none on devices that have no neighbours to tell.
    pub hardware_address: Option<[u8; 6]>,
    /// `IFF_UP`.
    pub up: bool,
}

/// Looks a device up by name, anew each time: an index outlives its device.
pub fn device(socket: &mut NetlinkSocket, name: &str) -> Result<Device, KernelError> {
    let doing = format!("looking up device {name}");
    let message = |source| KernelError::Message {
        doing: doing.clone(),
        source,
    };
    let mut attributes = AttributeWriter::new();
    attributes.text(libc::IFLA_IFNAME, name).map_err(message)?;
    let request = Request::new(libc::RTM_GETLINK, NlmF::empty(), &[0; 16], &attributes);
    let mut found = None;
    socket.get(&doing, request, |body| {
        let (_, link) = link::read(body).map_err(|source| KernelError::Message {
            doing: doing.clone(),
            source,
        })?;
        found = Some(link);
        Ok(())
    })?;
    let link = found.ok_or(KernelError::Protocol {
        doing,
        what: "the kernel acknowledged without a device",
    })?;
    Ok(Device {
        index: link.index,
        hardware_address: link.hardware_address.as_slice().try_into().ok(),
        up: link.up,
    })
}

/// How an address is put into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It must not be there: `NLM_F_EXCL`.
    New,
    /// Its lifetime is set; it is added when it is not there.
    Replace,
}

/// Adds an address, or sets its lifetime.
///
/// No duplicate address detection (a second holder would end as `dadfailed` for ever), no prefix route, and
/// in IPv6 deprecated from the start, so that it is never chosen as a source.
pub fn put(
    socket: &mut NetlinkSocket,
    address: &DirectorAddress,
    index: u32,
    how: Put,
    lifetime: Lifetime,
) -> Result<(), KernelError> {
    let verb = match how {
        Put::New => "adding",
        Put::Replace => "refreshing",
    };
    let valid_seconds = match lifetime {
        Lifetime::Seconds(seconds) => seconds,
        Lifetime::Permanent => INFINITY,
    };
    // IPv4 knows no deprecated address without one that expires earlier; a /32 without prefix route is
    // not chosen as source while the device has another.
    let preferred_seconds = if address.address.is_ipv4() {
        valid_seconds
    } else {
        0
    };
    let flags = match how {
        Put::New => NlmF::CREATE | NlmF::EXCL,
        Put::Replace => NlmF::CREATE | NlmF::REPLACE,
    };
    let message = Message {
        verb,
        address,
        index,
        kind: libc::RTM_NEWADDR,
        flags,
    };
    send(socket, &message, |attributes| {
        attributes.u32_host(
            libc::IFA_FLAGS,
            libc::IFA_F_NODAD | libc::IFA_F_NOPREFIXROUTE,
        )?;
        attributes.u8(PROTO, OWNER_PROTOCOL)?;
        // struct ifa_cacheinfo: preferred, valid, created, updated; the kernel ignores the last two.
        let mut cache_info = [0; 16];
        cache_info[..4].copy_from_slice(&preferred_seconds.to_ne_bytes());
        cache_info[4..8].copy_from_slice(&valid_seconds.to_ne_bytes());
        attributes.bytes(libc::IFA_CACHEINFO, &cache_info)?;
        Ok(())
    })
}

/// Deletes an address; one that is not there, or whose device is not, is fine.
pub fn delete(
    socket: &mut NetlinkSocket,
    address: &DirectorAddress,
    index: u32,
) -> Result<(), KernelError> {
    let message = Message {
        verb: "deleting",
        address,
        index,
        kind: libc::RTM_DELADDR,
        flags: NlmF::empty(),
    };
    match send(socket, &message, |_| Ok(())) {
        Err(error) if matches!(error.errno(), Some(Errno::EADDRNOTAVAIL | Errno::ENODEV)) => Ok(()),
        other => other,
    }
}

/// What is told to the kernel about an address.
struct Message<'a> {
    verb: &'static str,
    address: &'a DirectorAddress,
    index: u32,
    kind: u16,
    flags: NlmF,
}

fn send(
    socket: &mut NetlinkSocket,
    message: &Message<'_>,
    more: impl FnOnce(&mut AttributeWriter) -> Result<(), MessageError>,
) -> Result<(), KernelError> {
    let Message { verb, address, .. } = message;
    let doing = format!("{verb} director address {address}");
    let (family, prefix_length) = match address.address {
        IpAddr::V4(_) => (FAMILY_IPV4, 32),
        IpAddr::V6(_) => (FAMILY_IPV6, 128),
    };
    // struct ifaddrmsg: family, prefix length, flags, scope (universe), index.
    let mut header = [family, prefix_length, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&message.index.to_ne_bytes());
    let mut attributes = AttributeWriter::new();
    attributes
        .address(libc::IFA_LOCAL, address.address)
        .and_then(|attributes| attributes.address(libc::IFA_ADDRESS, address.address))
        .and_then(more)
        .map_err(|source| KernelError::Message {
            doing: doing.clone(),
            source,
        })?;
    socket.execute(
        &doing,
        Request::new(message.kind, message.flags, &header, &attributes),
    )
}
