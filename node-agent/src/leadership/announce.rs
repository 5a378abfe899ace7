//! Telling the neighbours that an address has moved: gratuitous ARP (RFC 5227 §3) and unsolicited
//! neighbour advertisements (RFC 4861 §7.2.6), as RFC 9568 §6.4.1 sends them when a router becomes active.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

#[allow(clippy::cast_possible_truncation)]
const PACKET_FAMILY: libc::sa_family_t = libc::AF_PACKET as libc::sa_family_t;
#[allow(clippy::cast_possible_truncation)]
const LINK_ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
/// EtherType of ARP.
const ETHERTYPE_ARP: u16 = 0x0806;
/// ICMPv6 type of a neighbour advertisement.
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Router and Override: what it says replaces what was known.
const FLAGS_ROUTER_OVERRIDE: u8 = 0b1010_0000;
/// Option "target link-layer address", of one unit of 8 bytes.
const OPTION_TARGET_LINK_LAYER: [u8; 2] = [2, 1];
/// Every host on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Receivers drop neighbour discovery that came through a router.
const HOP_LIMIT: u32 = 255;

/// A gratuitous ARP request: sender and target are the announced address (an ARP Announcement).
pub fn arp_announcement(address: Ipv4Addr, hardware_address: [u8; 6]) -> [u8; 28] {
    let mut packet = [0; 28];
    // Ethernet, IPv4, lengths 6 and 4, request.
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    packet[8..14].copy_from_slice(&hardware_address);
    packet[14..18].copy_from_slice(&address.octets());
    packet[24..28].copy_from_slice(&address.octets());
    packet
}

/// An unsolicited neighbour advertisement; the kernel fills the checksum of a raw ICMPv6 socket.
pub fn neighbour_advertisement(address: Ipv6Addr, hardware_address: [u8; 6]) -> [u8; 32] {
    let mut packet = [0; 32];
    packet[0] = NEIGHBOUR_ADVERTISEMENT;
    packet[4] = FLAGS_ROUTER_OVERRIDE;
    packet[8..24].copy_from_slice(&address.octets());
    packet[24..26].copy_from_slice(&OPTION_TARGET_LINK_LAYER);
    packet[26..32].copy_from_slice(&hardware_address);
    packet
}

/// The sockets for it, opened when first needed: a kernel without IPv6 announces IPv4 nevertheless.
#[derive(Debug, Default)]
pub struct Announcer {
    packet: Option<Socket>,
    icmpv6: Option<Socket>,
}

impl Announcer {
    /// Sends one announcement. Never waits: a full queue is an error.
    pub fn announce(
        &mut self,
        address: IpAddr,
        index: u32,
        hardware_address: [u8; 6],
    ) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => {
                let socket = opened(&mut self.packet, || {
                    // Protocol 0: it sends, and receives nothing.
                    Socket::new(Domain::PACKET, Type::DGRAM, None)
                })?;
                let to = link_broadcast(index);
                socket.send_to(&arp_announcement(address, hardware_address), &to)?;
            }
            IpAddr::V6(address) => {
                let socket = opened(&mut self.icmpv6, || {
                    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
                    socket.set_multicast_hops_v6(HOP_LIMIT)?;
                    // Nobody reads it: what arrives is dropped at the smallest queue there is.
                    socket.set_recv_buffer_size(1)?;
                    Ok(socket)
                })?;
                socket.set_multicast_if_v6(index)?;
                let to = SockAddr::from(SocketAddrV6::new(ALL_NODES, 0, 0, index));
                socket.send_to(&neighbour_advertisement(address, hardware_address), &to)?;
            }
        }
        Ok(())
    }
}

fn opened(
    slot: &mut Option<Socket>,
    open: impl FnOnce() -> io::Result<Socket>,
) -> io::Result<&Socket> {
    if slot.is_none() {
        let socket = open()?;
        socket.set_nonblocking(true)?;
        *slot = Some(socket);
    }
    slot.as_ref()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
}

/// The Ethernet broadcast address on a device, as `sockaddr_ll`.
#[allow(unsafe_code)]
fn link_broadcast(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data, smaller than the storage, and every bit pattern is valid.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = PACKET_FAMILY;
    link.sll_protocol = ETHERTYPE_ARP.to_be();
    link.sll_ifindex = index.cast_signed();
    link.sll_halen = 6;
    link.sll_addr[..6].fill(0xff);
    let length = LINK_ADDRESS_BYTES;
    // SAFETY: the storage holds a sockaddr_ll of this length.
    unsafe { SockAddr::new(storage, length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn an_arp_announcement_names_the_address_as_sender_and_target() {
        let packet = arp_announcement(Ipv4Addr::new(192, 0, 2, 250), MAC);
        assert_eq!(packet[..8], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(packet[8..14], MAC);
        assert_eq!(packet[14..18], [192, 0, 2, 250]);
        assert_eq!(packet[18..24], [0; 6]);
        assert_eq!(packet[24..28], [192, 0, 2, 250]);
    }

    #[test]
    fn a_neighbour_advertisement_overrides_and_is_no_answer() {
        let address: Ipv6Addr = "2001:db8::250".parse().unwrap();
        let packet = neighbour_advertisement(address, MAC);
        assert_eq!(packet[..2], [136, 0]);
        assert_eq!(
            packet[4], 0xa0,
            "Router and Override are set, Solicited is not"
        );
        assert_eq!(packet[8..24], address.octets());
        assert_eq!(packet[24..], [2, 1, 2, 0, 0, 0, 0, 9]);
    }
}
