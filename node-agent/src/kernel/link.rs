//! Devices (`include/uapi/linux/if_link.h`, `if_tunnel.h`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvs_core::host::{Link, LinkKind};
use neli::consts::nl::NlmF;
use nix::errno::Errno;
use nix::libc;

use super::error::KernelError;
use super::message::{AttributeWriter, Attributes, MessageError, Request};
use super::socket::NetlinkSocket;

const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
/// `IFLA_IPTUN_LOCAL`, and `IFLA_GRE_LOCAL` of gre and ip6gre.
const IPTUN_LOCAL: u16 = 2;
const GRE_LOCAL: u16 = 6;
/// `IFLA_GRE_IFLAGS`, and `GRE_CSUM` in it (`include/uapi/linux/if_tunnel.h`, network order).
const GRE_INPUT_FLAGS: u16 = 2;
const GRE_CHECKSUM: u16 = 0x8000;
/// `IFLA_MACVLAN_MODE`, and `MACVLAN_MODE_PRIVATE`: devices beside it hear nothing of each other.
const MACVLAN_MODE: u16 = 1;
const MACVLAN_PRIVATE: u32 = 1;
const IPTUN_FLAGS: u16 = 8;
const IPTUN_PROTO: u16 = 9;
const IPTUN_PMTUDISC: u16 = 10;
const GRE_PMTUDISC: u16 = 10;
const GRE_FLAGS: u16 = 13;
/// `IP6_TNL_F_IGN_ENCAP_LIMIT`: no destination option of four bytes, as IPVS adds none.
const IGNORE_ENCAPSULATION_LIMIT: u32 = 1;
/// `RTEXT_FILTER_SKIP_STATS`: counters are half of a link's dump and of no use here.
const SKIP_STATISTICS: u32 = 1 << 3;
/// `IFF_LOWER_UP` (`include/uapi/linux/if.h`); libc has no name for it.
const LOWER_UP: u32 = 1 << 16;
/// Longest name, without the terminating zero (`IFNAMSIZ`).
const MAXIMUM_NAME_BYTES: usize = 15;

fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Every device of this network namespace by name.
pub fn dump(socket: &mut NetlinkSocket) -> Result<BTreeMap<String, Link>, KernelError> {
    let doing = "reading devices";
    let message = |source| KernelError::Message {
        doing: doing.into(),
        source,
    };
    let mut attributes = AttributeWriter::new();
    attributes
        .u32_host(libc::IFLA_EXT_MASK, SKIP_STATISTICS)
        .map_err(message)?;
    let request = Request::new(
        libc::RTM_GETLINK,
        NlmF::empty(),
        &header(0, 0, 0),
        &attributes,
    );
    socket.dump(
        doing,
        request,
        |found: &mut BTreeMap<String, Link>, type_, body| {
            if type_ == libc::RTM_NEWLINK {
                let (name, link) = read(body).map_err(message)?;
                found.insert(name, link);
            }
            Ok(())
        },
    )
}

/// One device from `struct ifinfomsg` and its attributes.
pub fn read(body: &[u8]) -> Result<(String, Link), MessageError> {
    let short = || MessageError::Decode("a device of less than 16 bytes".into());
    let word = |range: std::ops::Range<usize>| {
        body.get(range)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_ne_bytes)
            .ok_or_else(short)
    };
    let index = word(4..8)?;
    let flags = word(8..12)?;
    let attributes = Attributes::read(body.get(16..).ok_or_else(short)?)?;
    let name = attributes
        .text(libc::IFLA_IFNAME)
        .ok_or(MessageError::Missing {
            attribute: libc::IFLA_IFNAME,
        })?;
    let kind = attributes
        .nested(libc::IFLA_LINKINFO)?
        .map(|info| kind(&info, &attributes))
        .transpose()?;
    Ok((
        name,
        Link {
            index,
            kind: kind.flatten(),
            up: flags & libc::IFF_UP as u32 != 0,
            carrier: flags & LOWER_UP != 0,
            loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
            hardware_address: attributes
                .get(libc::IFLA_ADDRESS)
                .unwrap_or_default()
                .to_vec(),
        },
    ))
}

fn kind(info: &Attributes, link: &Attributes) -> Result<Option<LinkKind>, MessageError> {
    let Some(kind) = info.text(INFO_KIND) else {
        return Ok(None);
    };
    let data = info.nested(INFO_DATA)?;
    let local = |attribute| -> Result<IpAddr, MessageError> {
        let data = data.as_ref().ok_or(MessageError::Missing {
            attribute: INFO_DATA,
        })?;
        data.address(attribute)?
            .ok_or(MessageError::Missing { attribute })
    };
    let checksum = || -> Result<bool, MessageError> {
        let flags = match &data {
            Some(data) => data.u16_network(GRE_INPUT_FLAGS)?,
            None => None,
        };
        Ok(flags.unwrap_or_default() & GRE_CHECKSUM != 0)
    };
    Ok(match kind.as_str() {
        "dummy" => Some(LinkKind::Dummy),
        "macvlan" => macvlan(link)?,
        "ipip" => Some(LinkKind::IpIp(local(IPTUN_LOCAL)?)),
        "sit" => Some(LinkKind::Sit(local(IPTUN_LOCAL)?)),
        "ip6tnl" => Some(LinkKind::Ip6Tunnel(local(IPTUN_LOCAL)?)),
        "gre" if checksum()? => Some(LinkKind::GreChecksum(local(GRE_LOCAL)?)),
        "ip6gre" if checksum()? => Some(LinkKind::Ip6GreChecksum(local(GRE_LOCAL)?)),
        "gre" => Some(LinkKind::Gre(local(GRE_LOCAL)?)),
        "ip6gre" => Some(LinkKind::Ip6Gre(local(GRE_LOCAL)?)),
        _ => None,
    })
}

fn macvlan(link: &Attributes) -> Result<Option<LinkKind>, MessageError> {
    let parent = link.u32_host(libc::IFLA_LINK)?;
    let hardware_address = link.get(libc::IFLA_ADDRESS).unwrap_or_default();
    Ok(parent
        .zip(hardware_address.try_into().ok())
        .map(|(parent, hardware_address)| LinkKind::Macvlan {
            parent,
            hardware_address,
        }))
}

/// Makes a device and sets it up, unless it is of a kind that waits for that. An existing name is refused by the kernel, never changed.
pub fn add(socket: &mut NetlinkSocket, name: &str, kind: LinkKind) -> Result<(), KernelError> {
    let doing = format!("adding device {name} ({})", kind.as_str());
    check_name(&doing, name)?;
    let request = add_request(name, kind).map_err(|source| KernelError::Message {
        doing: doing.clone(),
        source,
    })?;
    socket
        .execute(&doing, request)
        .map_err(|error| error.or_module_missing(&[Errno::EOPNOTSUPP, Errno::ENOENT], module(kind)))
}

fn module(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Gre(_) | LinkKind::GreChecksum(_) => "ip_gre",
        LinkKind::Ip6Gre(_) | LinkKind::Ip6GreChecksum(_) => "ip6_gre",
        LinkKind::Ip6Tunnel(_) => "ip6_tunnel",
        LinkKind::Dummy | LinkKind::IpIp(_) | LinkKind::Sit(_) | LinkKind::Macvlan { .. } => {
            kind.as_str()
        }
    }
}

fn add_request(name: &str, kind: LinkKind) -> Result<Request, MessageError> {
    let mut data = AttributeWriter::new();
    match kind {
        LinkKind::Dummy => {}
        LinkKind::Macvlan { .. } => {
            data.u32_host(MACVLAN_MODE, MACVLAN_PRIVATE)?;
        }
        LinkKind::IpIp(local) => {
            data.address(IPTUN_LOCAL, local)?
                .u8(IPTUN_PROTO, 4)?
                .u8(IPTUN_PMTUDISC, 1)?;
        }
        LinkKind::Sit(local) => {
            data.address(IPTUN_LOCAL, local)?
                .u8(IPTUN_PROTO, 41)?
                .u8(IPTUN_PMTUDISC, 1)?;
        }
        LinkKind::Ip6Tunnel(local) => {
            // Protocol 0: IPv4 and IPv6 inside.
            data.address(IPTUN_LOCAL, local)?
                .u8(IPTUN_PROTO, 0)?
                .u32_host(IPTUN_FLAGS, IGNORE_ENCAPSULATION_LIMIT)?;
        }
        LinkKind::Gre(local) | LinkKind::GreChecksum(local) => {
            data.address(GRE_LOCAL, local)?.u8(GRE_PMTUDISC, 1)?;
        }
        LinkKind::Ip6Gre(local) | LinkKind::Ip6GreChecksum(local) => {
            data.address(GRE_LOCAL, local)?
                .u32_host(GRE_FLAGS, IGNORE_ENCAPSULATION_LIMIT)?;
        }
    }
    if kind.expects_checksum() {
        data.u16_network(GRE_INPUT_FLAGS, GRE_CHECKSUM)?;
    }
    let mut info = AttributeWriter::new();
    info.text(INFO_KIND, kind.as_str())?;
    if !data.as_bytes().is_empty() {
        info.nest(INFO_DATA, &data)?;
    }
    let mut attributes = AttributeWriter::new();
    attributes
        .text(libc::IFLA_IFNAME, name)?
        .nest(libc::IFLA_LINKINFO, &info)?;
    if let LinkKind::Macvlan {
        parent,
        hardware_address,
    } = kind
    {
        attributes
            .u32_host(libc::IFLA_LINK, parent)?
            .bytes(libc::IFLA_ADDRESS, &hardware_address)?;
    }
    let up = if kind.is_always_up() {
        libc::IFF_UP as u32
    } else {
        0
    };
    Ok(Request::new(
        libc::RTM_NEWLINK,
        NlmF::CREATE | NlmF::EXCL,
        &header(0, up, up),
        &attributes,
    ))
}

/// Sets a device up.
pub fn set_up(socket: &mut NetlinkSocket, name: &str) -> Result<(), KernelError> {
    by_name(
        socket,
        &format!("setting device {name} up"),
        name,
        libc::RTM_NEWLINK,
        (libc::IFF_UP as u32, libc::IFF_UP as u32),
    )
}

/// Sets a device down.
pub fn set_down(socket: &mut NetlinkSocket, name: &str) -> Result<(), KernelError> {
    by_name(
        socket,
        &format!("setting device {name} down"),
        name,
        libc::RTM_NEWLINK,
        (0, libc::IFF_UP as u32),
    )
}

/// Removes a device.
pub fn delete(socket: &mut NetlinkSocket, name: &str) -> Result<(), KernelError> {
    by_name(
        socket,
        &format!("removing device {name}"),
        name,
        libc::RTM_DELLINK,
        (0, 0),
    )
}

fn by_name(
    socket: &mut NetlinkSocket,
    doing: &str,
    name: &str,
    message_type: u16,
    (flags, change): (u32, u32),
) -> Result<(), KernelError> {
    check_name(doing, name)?;
    let mut attributes = AttributeWriter::new();
    attributes
        .text(libc::IFLA_IFNAME, name)
        .map_err(|source| KernelError::Message {
            doing: doing.to_owned(),
            source,
        })?;
    socket.execute(
        doing,
        Request::new(
            message_type,
            NlmF::empty(),
            &header(0, flags, change),
            &attributes,
        ),
    )
}

fn check_name(doing: &str, name: &str) -> Result<(), KernelError> {
    if name.is_empty() || name.len() > MAXIMUM_NAME_BYTES || name.contains(['/', '\0']) {
        return Err(KernelError::Invalid {
            doing: doing.to_owned(),
            what: "a device name has 1 to 15 bytes and no slash",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_is_read_back_as_it_was_asked_for() {
        let four: IpAddr = "192.0.2.7".parse().unwrap();
        let six: IpAddr = "2001:db8::7".parse().unwrap();
        for kind in [
            LinkKind::Dummy,
            LinkKind::IpIp(four),
            LinkKind::Sit(four),
            LinkKind::Ip6Tunnel(six),
            LinkKind::Gre(four),
            LinkKind::Ip6Gre(six),
            LinkKind::GreChecksum(four),
            LinkKind::Ip6GreChecksum(six),
            LinkKind::Macvlan {
                parent: 7,
                hardware_address: [0, 0, 0x5e, 0, 1, 51],
            },
        ] {
            let request = add_request("lvs-x", kind).unwrap();
            let (name, link) = read(&request.body).unwrap();
            assert_eq!(name, "lvs-x");
            assert_eq!(link.kind, Some(kind));
            assert_eq!(link.up, kind.is_always_up());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
