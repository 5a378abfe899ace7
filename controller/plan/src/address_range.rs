//! Sets of addresses as users write them: one address, a CIDR, or `first-last`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lvs_crds::value::AddressFamily;

/// Addresses from `first` to `last`, both included and of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
    written_as_network: bool,
}

/// Why a text is no set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither an address nor a CIDR nor a range.
    #[error("{text:?} is no address, CIDR or range first-last")]
    Malformed {
        /// What was written.
        text: String,
    },
    /// The ends of a range are of different families or in the wrong order.
    #[error("{text:?} does not go upwards within one family")]
    Backwards {
        /// What was written.
        text: String,
    },
}

impl AddressRange {
    /// Reads `192.0.2.1`, `192.0.2.0/24` or `192.0.2.1-192.0.2.9`, and the same in IPv6. Host
    /// bits of a CIDR are ignored. An IPv4-mapped IPv6 address is malformed: it would be a
    /// second spelling of an IPv4 address.
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let malformed = || RangeError::Malformed {
            text: text.to_owned(),
        };
        if let Some((first, last)) = text.split_once('-') {
            let first = parse_address(first.trim()).ok_or_else(malformed)?;
            let last = parse_address(last.trim()).ok_or_else(malformed)?;
            if AddressFamily::of(&first) != AddressFamily::of(&last) || first > last {
                return Err(RangeError::Backwards {
                    text: text.to_owned(),
                });
            }
            return Ok(Self {
                first,
                last,
                written_as_network: false,
            });
        }
        if let Some((address, length)) = text.split_once('/') {
            let address = parse_address(address).ok_or_else(malformed)?;
            let length: u8 = length.parse().map_err(|_| malformed())?;
            let width = width_bits(AddressFamily::of(&address));
            if length > width {
                return Err(malformed());
            }
            let host_bits = width - length;
            let mask = 1u128
                .checked_shl(u32::from(host_bits))
                .map_or(u128::MAX, |bit| bit - 1);
            let number = to_number(address);
            let family = AddressFamily::of(&address);
            return Ok(Self {
                first: from_number(family, number & !mask),
                last: from_number(family, number | mask),
                written_as_network: true,
            });
        }
        let address = parse_address(text).ok_or_else(malformed)?;
        Ok(Self {
            first: address,
            last: address,
            written_as_network: false,
        })
    }

    /// Family of every address of the range.
    pub fn family(&self) -> AddressFamily {
        AddressFamily::of(&self.first)
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: &IpAddr) -> bool {
        AddressFamily::of(address) == self.family() && (self.first..=self.last).contains(address)
    }

    /// Whether every address of another range is in it.
    pub fn includes(&self, other: &Self) -> bool {
        self.contains(&other.first) && self.contains(&other.last)
    }

    /// Number of addresses; saturates at `u128::MAX`, which only `::/0` reaches.
    pub fn count(&self) -> u128 {
        (to_number(self.last) - to_number(self.first)).saturating_add(1)
    }

    /// The lowest address that may be handed out and that `is_free` accepts.
    pub fn first_free(&self, is_free: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        self.handed_out().find(is_free)
    }

    /// Every address that may be handed out, upwards. Of an IPv4 CIDR shorter than /31 the first
    /// and last address are not: hosts of that subnet read them as network and broadcast address
    /// (RFC 1122 §3.2.1.3).
    pub fn handed_out(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (mut first, mut last) = (to_number(self.first), to_number(self.last));
        let family = self.family();
        if self.written_as_network && family == AddressFamily::IPv4 && last - first >= 3 {
            first += 1;
            last -= 1;
        }
        (first..=last).map(move |number| from_number(family, number))
    }
}

/// An address in its one canonical spelling; an IPv4-mapped IPv6 address is refused.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    (address.to_canonical() == address).then_some(address)
}

const fn width_bits(family: AddressFamily) -> u8 {
    match family {
        AddressFamily::IPv4 => 32,
        AddressFamily::IPv6 => 128,
    }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an IPv4 number came from 32 bits and only its host bits changed"
)]
fn from_number(family: AddressFamily, number: u128) -> IpAddr {
    match family {
        AddressFamily::IPv4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
        AddressFamily::IPv6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        AddressRange::parse(text).unwrap()
    }

    #[test]
    fn reads_the_three_spellings() {
        assert_eq!(range("192.0.2.7").count(), 1);
        assert_eq!(range("192.0.2.7/24").count(), 256);
        assert_eq!(range("10.0.0.1-10.0.0.9").count(), 9);
        assert_eq!(range("2001:db8::/64").count(), 1 << 64);
        assert_eq!(range("0.0.0.0/0").count(), 1 << 32);
        assert_eq!(range("::/0").count(), u128::MAX);
    }

    #[test]
    fn refuses_what_is_no_set() {
        for text in [
            "",
            "x",
            "192.0.2.0/33",
            "192.0.2.0/-1",
            "::ffff:192.0.2.1",
            "::/129",
            "1-2",
        ] {
            assert!(
                matches!(AddressRange::parse(text), Err(RangeError::Malformed { .. })),
                "{text}"
            );
        }
        for text in ["192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1"] {
            assert!(
                matches!(AddressRange::parse(text), Err(RangeError::Backwards { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn hands_out_no_network_or_broadcast_address() {
        assert_eq!(
            range("192.0.2.0/30").first_free(|_| true),
            Some("192.0.2.1".parse().unwrap())
        );
        let taken: IpAddr = "192.0.2.1".parse().unwrap();
        let second: IpAddr = "192.0.2.2".parse().unwrap();
        assert_eq!(
            range("192.0.2.0/30").first_free(|a| *a != taken),
            Some(second)
        );
        assert_eq!(
            range("192.0.2.0/30").first_free(|a| *a != taken && *a != second),
            None
        );
        assert_eq!(
            range("192.0.2.0/31").first_free(|_| true),
            Some("192.0.2.0".parse().unwrap())
        );
        assert_eq!(
            range("192.0.2.0-192.0.2.3").first_free(|_| true),
            Some("192.0.2.0".parse().unwrap())
        );
        assert_eq!(
            range("::/0").first_free(|_| true),
            Some("::".parse().unwrap())
        );
    }

    #[test]
    fn contains_only_its_own_family() {
        assert!(range("192.0.2.0/24").contains(&"192.0.2.255".parse().unwrap()));
        assert!(!range("0.0.0.0/0").contains(&"::1".parse().unwrap()));
    }
}
