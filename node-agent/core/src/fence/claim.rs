//! Claims: what neighbours say of an address, in ARP (RFC 826, RFC 5227) and in neighbour advertisements (RFC 4861).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::election::Tick;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareAddress(pub [u8; 6]);

impl fmt::Display for HardwareAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(formatter, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl HardwareAddress {
    /// Whether it can be the address of one host: not a group's, not none.
    const fn is_of_a_host(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

/// Somebody says that an address is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// Whose it is said to be.
    pub hardware_address: HardwareAddress,
}

/// ARP over Ethernet for IPv4: hardware type 1, protocol 0x0800, lengths 6 and 4.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const IPV6_HEADER_BYTES: usize = 40;
/// Next header: ICMPv6, without extension headers before it.
const ICMPV6: u8 = 58;
/// RFC 4861 §7.1.2: what came through a router is invalid.
const HOP_LIMIT: u8 = 255;
const NEIGHBOUR_ADVERTISEMENT: [u8; 2] = [136, 0];
/// Option "target link-layer address" of one unit of 8 bytes.
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

impl Claim {
    /// From an ARP packet, the link's header removed: a request or a reply whose sender has an address, gratuitous
    /// ones included. A probe (RFC 5227 §2.1.1) claims nothing yet.
    pub fn from_arp(packet: &[u8]) -> Option<Self> {
        let packet: &[u8; 28] = packet.get(..28)?.try_into().ok()?;
        let operation = [packet[6], packet[7]];
        if packet[..6] != ARP_ETHERNET_IPV4 || !matches!(operation, [0, 1 | 2]) {
            return None;
        }
        let hardware_address = HardwareAddress(packet[8..14].try_into().ok()?);
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[14..18]).ok()?);
        (hardware_address.is_of_a_host() && !address.is_unspecified()).then_some(Self {
            address: address.into(),
            hardware_address,
        })
    }

    /// From an IPv6 packet, the link's header removed: a neighbour advertisement that says where its target is.
    pub fn from_ipv6(packet: &[u8]) -> Option<Self> {
        let header: &[u8; IPV6_HEADER_BYTES] = packet.get(..IPV6_HEADER_BYTES)?.try_into().ok()?;
        if header[0] >> 4 != 6 || header[6] != ICMPV6 || header[7] != HOP_LIMIT {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let message = packet.get(IPV6_HEADER_BYTES..IPV6_HEADER_BYTES + length)?;
        if message.get(..2)? != NEIGHBOUR_ADVERTISEMENT {
            return None;
        }
        let address = Ipv6Addr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?);
        let mut options = message.get(24..)?;
        while let [_, units, ..] = options {
            let length = usize::from(*units) * 8;
            // RFC 4861 §4.6: a length of zero makes the whole packet invalid.
            let option = options.get(..length).filter(|option| !option.is_empty())?;
            if option[..2] == TARGET_LINK_LAYER_ADDRESS {
                let hardware_address = HardwareAddress(option[2..8].try_into().ok()?);
                return hardware_address.is_of_a_host().then_some(Self {
                    address: address.into(),
                    hardware_address,
                });
            }
            options = &options[length..];
        }
        None
    }
}

/// Claims of one address are taken note of at most this often: who floods the link with them must not keep the fence
/// from its work.
const NOTICE_INTERVAL: Duration = Duration::from_millis(200);

/// Which of the claims that are heard are somebody else's on an address that is held, and new enough to be passed on.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    held: BTreeSet<IpAddr>,
    own: BTreeSet<HardwareAddress>,
    noticed: BTreeMap<IpAddr, Tick>,
}

impl Listening {
    /// The addresses that are held.
    pub fn hold(&mut self, held: BTreeSet<IpAddr>) {
        self.noticed.retain(|address, _| held.contains(address));
        self.held = held;
    }

    /// Hardware addresses of this node's devices: what they say is our own word.
    pub fn own(&mut self, own: BTreeSet<HardwareAddress>) {
        self.own = own;
    }

    /// Whether the claim is to be passed on.
    pub fn heeds(&mut self, claim: &Claim, now: Tick) -> bool {
        if !self.held.contains(&claim.address) || self.own.contains(&claim.hardware_address) {
            return false;
        }
        let noticed = self.noticed.get(&claim.address);
        let heeds = noticed.is_none_or(|noticed| now >= *noticed + NOTICE_INTERVAL);
        if heeds {
            self.noticed.insert(claim.address, now);
        }
        heeds
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn arp(operation: u8, sender: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
        packet.extend(MAC);
        packet.extend(sender);
        packet.extend([0; 6]);
        packet.extend([192, 0, 2, 1]);
        packet
    }

    fn advertisement(options: &[u8]) -> Vec<u8> {
        let target: Ipv6Addr = "2001:db8::250".parse().unwrap();
        let length = u8::try_from(24 + options.len()).unwrap();
        let mut packet = vec![0x60, 0, 0, 0, 0, length, 58, 255];
        packet.extend([0; 32]);
        packet.extend([136, 0, 0, 0, 0x20, 0, 0, 0]);
        packet.extend(target.octets());
        packet.extend(options);
        packet
    }

    #[test]
    fn arp_claims_its_senders_address() {
        let claim = Claim {
            address: "192.0.2.250".parse().unwrap(),
            hardware_address: HardwareAddress(MAC),
        };
        // Requests and replies; Ethernet pads to 46 bytes.
        for operation in [1, 2] {
            let mut packet = arp(operation, [192, 0, 2, 250]);
            assert_eq!(Claim::from_arp(&packet), Some(claim));
            packet.extend([0; 18]);
            assert_eq!(Claim::from_arp(&packet), Some(claim));
        }
        assert_eq!(Claim::from_arp(&arp(1, [0; 4])), None, "a probe");
        assert_eq!(Claim::from_arp(&arp(3, [192, 0, 2, 250])), None, "RARP");
        let mut group = arp(1, [192, 0, 2, 250]);
        group[8] = 1;
        assert_eq!(Claim::from_arp(&group), None, "nobody's address");
    }

    #[test]
    fn an_advertisement_claims_its_target() {
        let option = [2, 1, 2, 0, 0, 0, 0, 9];
        let claim = Claim {
            address: "2001:db8::250".parse().unwrap(),
            hardware_address: HardwareAddress(MAC),
        };
        assert_eq!(Claim::from_ipv6(&advertisement(&option)), Some(claim));
        // Another option before it.
        let second = [&[14, 1, 0, 0, 0, 0, 0, 0][..], &option].concat();
        assert_eq!(Claim::from_ipv6(&advertisement(&second)), Some(claim));
        assert_eq!(
            Claim::from_ipv6(&advertisement(&[])),
            None,
            "says not where"
        );
        assert_eq!(Claim::from_ipv6(&advertisement(&[2, 0])), None, "no length");
        let mut routed = advertisement(&option);
        routed[7] = 254;
        assert_eq!(Claim::from_ipv6(&routed), None, "came through a router");
        let mut solicitation = advertisement(&option);
        solicitation[40] = 135;
        assert_eq!(Claim::from_ipv6(&solicitation), None);
    }

    #[test]
    fn a_flood_is_heeded_five_times_a_second_and_only_on_what_is_held() {
        let claim = |address: &str| Claim {
            address: address.parse().unwrap(),
            hardware_address: HardwareAddress(MAC),
        };
        let mut listening = Listening::default();
        listening.hold(["192.0.2.250".parse().unwrap()].into());
        let at = |milliseconds: u64| Tick::from_nanoseconds(milliseconds * 1_000_000);
        let heeded = (0..1000)
            .filter(|time| listening.heeds(&claim("192.0.2.250"), at(*time)))
            .count();
        assert_eq!(heeded, 5);
        assert!(!listening.heeds(&claim("192.0.2.251"), at(2000)));
        listening.own([HardwareAddress(MAC)].into());
        assert!(!listening.heeds(&claim("192.0.2.250"), at(2000)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..3_u8) {
            let mut packet = bytes;
            if kind == 1 {
                packet.splice(..0, arp(1, [192, 0, 2, 250]).into_iter().take(8));
            } else if kind == 2 {
                packet.splice(..0, advertisement(&[]));
                let length = u8::try_from(packet.len() - 40).unwrap();
                packet[5] = length;
            }
            let _ = (Claim::from_arp(&packet), Claim::from_ipv6(&packet));
        }
    }
}
