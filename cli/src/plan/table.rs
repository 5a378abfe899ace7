//! Which clients the hashing schedulers send elsewhere: tables of `mh` and `sh` before and after. They depend on the real
//! servers, their order and their weights alone, and each slot of a table gets an equal share of the clients' addresses
//! (net/netfilter/ipvs/ip_vs_mh.c, ip_vs_sh.c), so that the share of slots that change is the share of clients.

use std::net::IpAddr;

use lvs_core::ipvs::{DestinationKey, ServiceState};

/// Slots of a table of `mh`, by `CONFIG_IP_VS_MH_TAB_INDEX`'s default 12.
const MAGLEV_SLOTS: usize = 4093;
/// Bits of turns that a weight may have there.
const MAGLEV_WEIGHT_BITS: u32 = 6;
/// Slots of a table of `sh`, by `CONFIG_IP_VS_SH_TAB_BITS`' default 8.
const SOURCE_SLOTS: usize = 256;
/// Keys by which `mh` finds a real server's first slot, and its step from there.
const MAGLEV_KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// A real server in a table: its weight there, and whether it serves the clients that come to it.
struct Taker {
    key: DestinationKey,
    weight: u32,
    serves: bool,
}

/// Percent of the clients that another real server gets, or none, of those that had one. `None` where the scheduler does
/// not choose by the client's address, or is another one afterwards.
pub fn moved_percent(before: &ServiceState, after: &ServiceState) -> Option<f64> {
    if before.service.scheduler != after.service.scheduler {
        return None;
    }
    // With the port in the hash the same client comes to other slots with each connection; the share is the same.
    let (old, new) = (table(before, None)?, table(after, Some(before))?);
    let served = old.iter().zip(&new).filter(|(old, _)| old.is_some());
    let (mut count, mut moved) = (0_u32, 0_u32);
    for (old, new) in served {
        count += 1;
        moved += u32::from(old != new);
    }
    (count > 0).then(|| f64::from(moved) * 100.0 / f64::from(count))
}

/// The real server that serves each slot. Destinations are sorted; the kernel lists them in the opposite order.
fn table(
    state: &ServiceState,
    before: Option<&ServiceState>,
) -> Option<Vec<Option<DestinationKey>>> {
    let scheduler = state.service.scheduler.as_str();
    if !matches!(scheduler, "mh" | "sh") {
        return None;
    }
    let listed: Vec<Taker> = state
        .destinations
        .iter()
        .rev()
        .map(|(key, destination)| {
            let known = before.and_then(|before| weight_of(before, key));
            // mh keeps the place of who drains: by the last weight that it had.
            let last = known.filter(|_| scheduler == "mh").unwrap_or_default();
            Taker {
                key: *key,
                weight: if destination.weight > 0 {
                    destination.weight
                } else {
                    last
                },
                serves: destination.weight > 0,
            }
        })
        .collect();
    Some(if scheduler == "mh" {
        maglev(&listed)
    } else {
        source_hash(&listed)
    })
}

fn weight_of(state: &ServiceState, key: &DestinationKey) -> Option<u32> {
    let mut destinations = state.destinations.iter();
    let found = destinations.find(|(known, _)| known == key);
    found.map(|(_, destination)| destination.weight)
}

/// Maglev: every real server has its own order of all slots, and in turn takes the next that is free, as often in a row as
/// its weight says.
fn maglev(listed: &[Taker]) -> Vec<Option<DestinationKey>> {
    let mut slots: Vec<Option<&Taker>> = vec![None; MAGLEV_SLOTS];
    let divisor = listed.iter().map(|taker| taker.weight).fold(0, gcd);
    let heaviest = listed.iter().map(|taker| taker.weight).max();
    let heaviest = heaviest.unwrap_or_default().checked_div(divisor);
    let bits = u32::BITS - heaviest.unwrap_or_default().leading_zeros();
    let shift = bits.saturating_sub(MAGLEV_WEIGHT_BITS);
    let mut takers: Vec<(&Taker, usize, usize, u32)> = listed
        .iter()
        .filter(|taker| taker.weight > 0)
        .map(|taker| {
            let seed = folded(taker.key.address).wrapping_add(u32::from(taker.key.port));
            let [first, step] = MAGLEV_KEYS.map(|half| hash(seed, half) as usize);
            let turns = (taker.weight.checked_div(divisor).unwrap_or_default() >> shift).max(1);
            let step = step % (MAGLEV_SLOTS - 1) + 1;
            (taker, first % MAGLEV_SLOTS, step, turns)
        })
        .collect();
    let mut free = if takers.is_empty() { 0 } else { MAGLEV_SLOTS };
    while free > 0 {
        for (taker, next, step, turns) in &mut takers {
            for _ in 0..(*turns).min(u32::try_from(free).unwrap_or(u32::MAX)) {
                while slots.get(*next).is_some_and(Option::is_some) {
                    *next = (*next + *step) % MAGLEV_SLOTS;
                }
                if let Some(slot) = slots.get_mut(*next) {
                    *slot = Some(*taker);
                }
                free -= 1;
            }
        }
    }
    slots.iter().map(|slot| served_by(*slot)).collect()
}

/// Source hashing: real servers one after the other, each with as many slots as its weight says, over and over. One with
/// weight 0 has one too, whose clients nobody serves, or with the fallback others.
fn source_hash(listed: &[Taker]) -> Vec<Option<DestinationKey>> {
    let in_turn = listed.iter().flat_map(|taker| {
        let times = usize::try_from(taker.weight.max(1)).unwrap_or(SOURCE_SLOTS);
        std::iter::repeat_n(taker, times.min(SOURCE_SLOTS))
    });
    let taken = in_turn.cycle().take(SOURCE_SLOTS);
    let mut slots: Vec<_> = taken.map(|taker| served_by(Some(taker))).collect();
    slots.resize(SOURCE_SLOTS, None);
    slots
}

fn served_by(taker: Option<&Taker>) -> Option<DestinationKey> {
    taker.filter(|taker| taker.serves).map(|taker| taker.key)
}

fn gcd(left: u32, right: u32) -> u32 {
    let (mut left, mut right) = (left, right);
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

/// An address as `mh` hashes it.
fn folded(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let words = [96, 64, 32, 0].map(|shift| (bits >> shift) & 0xffff_ffff);
            let folded = words.iter().fold(0, |sum, word| sum ^ word);
            u32::try_from(folded).unwrap_or_default()
        }
    }
}

/// SipHash-1-3 of four bytes with twice the same half of a key, its lower half: the kernel's `hsiphash` on 64 bits.
fn hash(word: u32, half: u64) -> u32 {
    let mut state = [
        half ^ 0x736f_6d65_7073_6575,
        half ^ 0x646f_7261_6e64_6f6d,
        half ^ 0x6c79_6765_6e65_7261,
        half ^ 0x7465_6462_7974_6573,
    ];
    let block = (4 << 56) | u64::from(word);
    state[3] ^= block;
    round(&mut state);
    state[0] ^= block;
    state[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut state);
    }
    let sum = state.iter().fold(0, |sum, part| sum ^ part);
    u32::try_from(sum & 0xffff_ffff).unwrap_or_default()
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::hash::Hasher;

    use lvs_core::ipvs::{Destination, DestinationForwarding, Service, ServiceFlags};
    use proptest::prelude::*;

    use super::*;

    fn state(scheduler: &str, weights: &[(u8, u32)]) -> ServiceState {
        let destination = |(last, weight): &(u8, u32)| {
            let key = DestinationKey {
                address: IpAddr::from([10, 0, 1, *last]),
                port: 80,
            };
            let destination = Destination {
                forwarding: DestinationForwarding::DirectRoute,
                weight: *weight,
                upper_threshold: 0,
                lower_threshold: 0,
            };
            (key, destination)
        };
        ServiceState {
            service: Service {
                scheduler: scheduler.to_owned(),
                flags: ServiceFlags(0),
                timeout_seconds: 0,
                prefix_length: 32,
                persistence_engine: None,
            },
            destinations: weights.iter().map(destination).collect(),
        }
    }

    fn shares(state: &ServiceState) -> Vec<f64> {
        let table = table(state, None).unwrap();
        let whole = f64::from(u32::try_from(table.len()).unwrap());
        let keys = state.destinations.iter().map(|(key, _)| key);
        keys.map(|key| {
            let own = table.iter().filter(|slot| slot.as_ref() == Some(key));
            f64::from(u32::try_from(own.count()).unwrap()) / whole
        })
        .collect()
    }

    #[test]
    fn the_hash_is_siphash_1_3() {
        for word in [0, 1, 80, 0xc000_0201, u32::MAX] {
            // Rust's own, with keys of zero.
            let mut known = std::collections::hash_map::DefaultHasher::new();
            known.write(&word.to_le_bytes());
            assert_eq!(u64::from(hash(word, 0)), known.finish() & 0xffff_ffff);
        }
    }

    #[test]
    fn slots_are_shared_by_weight() {
        for (scheduler, tolerance) in [("mh", 0.001), ("sh", 0.01)] {
            let shares = shares(&state(scheduler, &[(1, 1), (2, 2), (3, 1)]));
            for (share, wanted) in shares.iter().zip([0.25, 0.5, 0.25]) {
                assert!((share - wanted).abs() < tolerance, "{scheduler} {shares:?}");
            }
        }
    }

    #[test]
    fn maglev_moves_little_more_than_who_leaves_and_source_hashing_nearly_all() {
        let all: Vec<(u8, u32)> = (1..=10).map(|last| (last, 1)).collect();
        let without: Vec<(u8, u32)> = all.iter().copied().filter(|(last, _)| *last != 5).collect();
        let moved = |scheduler| moved_percent(&state(scheduler, &all), &state(scheduler, &without));
        let maglev = moved("mh").unwrap();
        assert!((10.0..25.0).contains(&maglev), "{maglev}");
        let source = moved("sh").unwrap();
        assert!(source > 50.0, "{source}");
        assert_eq!(moved("wrr"), None);
    }

    #[test]
    fn who_drains_keeps_the_place_of_his_clients() {
        let before = state("mh", &[(1, 1), (2, 1), (3, 1), (4, 1)]);
        let after = state("mh", &[(1, 1), (2, 0), (3, 1), (4, 1)]);
        let moved = moved_percent(&before, &after).unwrap();
        assert!((moved - 25.0).abs() < 0.1, "{moved}");
    }

    proptest! {
        #[test]
        fn nothing_moves_where_nothing_changes(
            weights in prop::collection::btree_map(0_u8..=255, 0_u32..200, 0..20),
            scheduler in prop::sample::select(vec!["mh", "sh"]),
        ) {
            let weights: Vec<(u8, u32)> = weights.into_iter().collect();
            let state = state(scheduler, &weights);
            let is_served = weights.iter().any(|(_, weight)| *weight > 0);
            let moved = moved_percent(&state, &state);
            // More than a table's worth of turns of one may leave none for the others.
            prop_assert!(moved == Some(0.0) || (!is_served && moved.is_none()) || (scheduler == "sh" && moved.is_none()));
        }
    }
}
