//! What virtual servers balance: addresses, marks, and groups of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::quantity::{bounded, port, unicast};
use super::super::report::{Fate, Ledger};
use super::tree::Directive;

/// What a virtual server balances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// Addresses with one port, 0 for all.
    Addresses(Vec<IpAddr>, u16),
    /// A firewall mark.
    Mark(u32),
}

/// Entries of `virtual_server_group`, by the name of the group.
pub type Groups = BTreeMap<String, Vec<Head>>;

/// Addresses that one VirtualService may have.
const MOST_ADDRESSES: usize = 16;
/// Addresses that one range may stand for.
const MOST_OF_A_RANGE: usize = 256;

/// Reads a group: entries with the same port are one.
pub fn group(ledger: &mut Ledger, directive: &Directive) -> Vec<Head> {
    directive.note_braces(ledger);
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    let mut marks = Vec::new();
    for entry in &directive.children {
        let first = entry.keyword();
        if first == "fwmark" {
            match bounded(entry.argument(0), 1, u32::MAX) {
                Some((mark, false)) => {
                    marks.push(Head::Mark(mark));
                    ledger.note(
                        entry.line,
                        Fate::Translated,
                        "VirtualService spec.firewallMark",
                        "a VirtualService of its own",
                    );
                }
                Some(_) | None => {
                    entry.note_all(ledger, Fate::NotOffered, "", "not a mark of 1..4294967295");
                }
            }
            continue;
        }
        let number = if entry.argument(0).is_empty() {
            Some(0)
        } else {
            port(entry.argument(0))
        };
        match (range(first), number) {
            (Some(addresses), Some(number)) => {
                ledger.note(
                    entry.line,
                    Fate::Translated,
                    "VirtualService spec.addresses, spec.ports",
                    "",
                );
                let known = by_port.entry(number).or_default();
                for address in addresses {
                    if !known.contains(&address) {
                        known.push(address);
                    }
                }
            }
            _ => entry.note_all(
                ledger,
                Fate::NotOffered,
                "",
                "not an address or range that clients can reach, with a port",
            ),
        }
    }
    let chunks = by_port.into_iter().flat_map(|(port, addresses)| {
        addresses
            .chunks(MOST_ADDRESSES)
            .map(|chunk| Head::Addresses(chunk.to_vec(), port))
            .collect::<Vec<_>>()
    });
    chunks.chain(marks).collect()
}

/// `192.0.2.1`, `192.0.2.1-9` or `2001:db8::1-f`.
fn range(text: &str) -> Option<Vec<IpAddr>> {
    let Some((first, last)) = text.split_once('-') else {
        return unicast(text).map(|address| vec![address]);
    };
    let start = unicast(first)?;
    let separator = if start.is_ipv4() { '.' } else { ':' };
    let end: IpAddr = match last.parse() {
        Ok(end) => end,
        Err(_) => format!("{}{separator}{last}", first.rsplit_once(separator)?.0)
            .parse()
            .ok()?,
    };
    addresses_between(start, end)
}

/// All addresses of a range, at most 256.
pub fn addresses_between(start: IpAddr, end: IpAddr) -> Option<Vec<IpAddr>> {
    let addresses: Vec<IpAddr> = match (start, end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => (u32::from(start)..=u32::from(end))
            .take(MOST_OF_A_RANGE + 1)
            .map(|number| IpAddr::V4(number.into()))
            .collect(),
        (IpAddr::V6(start), IpAddr::V6(end)) => (u128::from(start)..=u128::from(end))
            .take(MOST_OF_A_RANGE + 1)
            .map(|number| IpAddr::V6(number.into()))
            .collect(),
        _ => return None,
    };
    (1..=MOST_OF_A_RANGE)
        .contains(&addresses.len())
        .then_some(addresses)
}
