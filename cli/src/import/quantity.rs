//! Readers of numbers, addresses, ports and masks as the three tools write them.

use std::net::{IpAddr, Ipv4Addr};

/// A number of seconds, whole or with a fraction, rounded up and kept within `least..=most`; and whether that
/// changed it.
pub fn seconds(text: &str, least: u32, most: u32) -> Option<(u32, bool)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty()
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { digits(whole)? };
    let part = fraction.bytes().any(|byte| byte != b'0');
    let rounded = u32::try_from(whole.saturating_add(u64::from(part))).unwrap_or(u32::MAX);
    let kept = rounded.clamp(least, most);
    Some((kept, part || u64::from(kept) != whole))
}

/// A number in decimal digits, at most `u64::MAX`.
pub fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// A number within `least..=most`; and whether keeping it there changed it.
pub fn bounded(text: &str, least: u32, most: u32) -> Option<(u32, bool)> {
    let number = digits(text)?;
    let kept = u32::try_from(number).unwrap_or(u32::MAX).clamp(least, most);
    Some((kept, u64::from(kept) != number))
}

/// A firewall mark as ipvsadm prints it: those above 2147483647 as negative numbers.
pub fn saved_mark(text: &str) -> Option<u32> {
    let mark: i64 = text.parse().ok()?;
    let mark = match u32::try_from(mark) {
        Ok(mark) => mark,
        Err(_) => i32::try_from(mark).ok()?.cast_unsigned(),
    };
    (mark != 0).then_some(mark)
}

/// A port by number or, of those that are common behind a balancer, by its name in /etc/services.
pub fn port(text: &str) -> Option<u16> {
    if let Some(number) = digits(text) {
        return u16::try_from(number).ok();
    }
    Some(match text {
        "ftp" => 21,
        "ssh" => 22,
        "telnet" => 23,
        "smtp" => 25,
        "domain" => 53,
        "http" | "www" => 80,
        "pop3" => 110,
        "nntp" => 119,
        "ntp" => 123,
        "imap" | "imap2" => 143,
        "ldap" => 389,
        "https" => 443,
        "submissions" => 465,
        "submission" => 587,
        "ldaps" => 636,
        "imaps" => 993,
        "pop3s" => 995,
        "radius" => 1812,
        "squid" => 3128,
        "mysql" => 3306,
        "postgresql" => 5432,
        "sip" => 5060,
        "http-alt" => 8080,
        _ => return None,
    })
}

/// An address that a client or a director can reach: not unspecified, loopback, link-local, multicast or broadcast.
pub fn unicast(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let reachable = match address {
        IpAddr::V4(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_multicast())
                && address.to_ipv4_mapped().is_none()
        }
    };
    reachable.then_some(address)
}

/// `address:port`, `[address]:port`, or an address alone, whose port is 0. The address is returned as text.
pub fn endpoint(text: &str) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(number) => Some((address, port(number)?)),
            None if rest.is_empty() => Some((address, 0)),
            None => None,
        };
    }
    match text.rsplit_once(':') {
        Some((address, number)) if !address.contains(':') => Some((address, port(number)?)),
        Some(_) | None => Some((text, 0)),
    }
}

/// Prefix length of a netmask in dotted quad notation or of a prefix length, at least 1.
pub fn prefix_length(text: &str) -> Option<u8> {
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let mask = u32::from(mask);
        let length = u8::try_from(mask.leading_ones()).ok()?;
        return (mask.count_ones() == mask.leading_ones() && length > 0).then_some(length);
    }
    let length = digits(text.strip_prefix('/').unwrap_or(text))?;
    u8::try_from(length)
        .ok()
        .filter(|length| (1..=128).contains(length))
}

/// Networks that hold all addresses, at most `most` of them: single hosts, or as narrow as the number permits.
pub fn networks(addresses: &[IpAddr], most: usize) -> Vec<String> {
    for host_bits in [0_u32, 8, 16, 24, 64] {
        let mut found: Vec<(IpAddr, u32)> = addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => {
                    let bits = host_bits.min(32);
                    let mask = u32::MAX.checked_shl(bits).unwrap_or(0);
                    (IpAddr::V4((u32::from(*address) & mask).into()), 32 - bits)
                }
                IpAddr::V6(address) => {
                    let bits = if host_bits == 0 {
                        0
                    } else {
                        64 + host_bits.saturating_sub(8).min(64)
                    };
                    let mask = u128::MAX.checked_shl(bits).unwrap_or(0);
                    (IpAddr::V6((u128::from(*address) & mask).into()), 128 - bits)
                }
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        if found.len() <= most {
            return found
                .into_iter()
                .map(|(address, length)| format!("{address}/{length}"))
                .collect();
        }
    }
    Vec::new()
}

/// A DNS label from any text: lower case, everything else than letters and digits a `-`; `otherwise` if nothing
/// is left.
pub fn label(text: &str, most: usize, otherwise: &str) -> String {
    let mut label = String::new();
    for character in text.chars() {
        let character = character.to_ascii_lowercase();
        if label.len() == most {
            break;
        }
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            label.push(character);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    let label = label.trim_end_matches('-');
    if label.is_empty() {
        otherwise.to_owned()
    } else {
        label.to_owned()
    }
}

/// An address as a part of an object's name.
pub fn address_label(address: &IpAddr) -> String {
    let text = address.to_string().replace([':', '.'], "-");
    let end = if text.ends_with('-') { "0" } else { "" };
    format!("{text}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up_and_kept_within_bounds() {
        assert_eq!(seconds("6", 1, 3600), Some((6, false)));
        assert_eq!(seconds("6.0", 1, 3600), Some((6, false)));
        assert_eq!(seconds("0.25", 1, 3600), Some((1, true)));
        assert_eq!(seconds("99999999999999999999", 1, 3600), Some((3600, true)));
        assert_eq!(seconds("", 1, 2), None);
        assert_eq!(seconds(".", 1, 2), None);
        assert_eq!(seconds("1s", 1, 2), None);
    }

    #[test]
    fn marks_are_signed_or_not() {
        assert_eq!(saved_mark("7"), Some(7));
        assert_eq!(saved_mark("-1"), Some(u32::MAX));
        assert_eq!(saved_mark("4294967295"), Some(u32::MAX));
        for bad in ["0", "", "4294967296", "-2147483649", "x"] {
            assert_eq!(saved_mark(bad), None, "{bad}");
        }
    }

    #[test]
    fn masks_have_a_prefix_length_or_none() {
        assert_eq!(prefix_length("255.255.255.0"), Some(24));
        assert_eq!(prefix_length("24"), Some(24));
        assert_eq!(prefix_length("/64"), Some(64));
        assert_eq!(prefix_length("255.0.255.0"), None);
        assert_eq!(prefix_length("0.0.0.0"), None);
    }

    #[test]
    fn networks_widen_until_they_are_few_enough() {
        let addresses: Vec<IpAddr> = [
            "192.0.2.1",
            "192.0.2.9",
            "198.51.100.7",
            "2001:db8::1",
            "2001:db8::2",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        assert_eq!(networks(&addresses[..1], 1), ["192.0.2.1/32"]);
        assert_eq!(
            networks(&addresses, 3),
            ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64"]
        );
    }

    #[test]
    fn labels_are_dns_labels() {
        assert_eq!(label("VI_1", 48, "router"), "vi-1");
        assert_eq!(label("__", 48, "router"), "router");
        assert_eq!(address_label(&"2001:db8::".parse().unwrap()), "2001-db8--0");
    }
}
