//! What a machine is told about itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::election::Timing;

/// What the plan wants of this node's leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Intent {
    /// Take part: acquire, hold, renew.
    Hold,
    /// Hold, but offer the Lease to the others; never acquire it anew.
    Leave,
    /// Give up at once and leave the Lease without holder.
    Withdraw,
    /// Go on as holder, with addresses that stay without an agent; take nothing from others.
    Retain,
}

/// What a shutdown of the process does with a Lease that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnShutdown {
    /// Offer it to a verified successor while the addresses stay; without one, lend: the addresses
    /// stay for half a minute, in which a restarted agent adopts them.
    HandOver,
    /// Leave it without holder at once. For holders without addresses.
    Release,
}

/// What a holder does that has lost the API server (rule 9), when others could hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiLoss {
    /// Go on as long as every other director has lost it too and promises to wait; else hand over, or give up.
    #[default]
    Hold,
    /// Go on until another director's heartbeat, or the API server, says otherwise: VRRP's way. Two may hold in a partition.
    HoldAlways,
    /// Hand over, or give up a second later.
    Release,
}

/// When a director that has taken over adds the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Takeover {
    /// At once: for a moment two directors may carry them.
    #[default]
    Fast,
    /// Once the old holder says that it carries nothing, or F later: never two.
    Strict,
}

/// Everything about a candidate that may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Times.
    pub timing: Timing,
    /// VRRP priority, 1..254. 0: it gives way to any other that is ready (RFC 9568 §5.2.4), and to none where all are 0.
    pub priority: u8,
    /// How long a director with a higher priority must be ready before the holder gives way to it; none = it never does.
    pub preemption_delay: Option<Duration>,
    /// Node to which the holder is to hand over once it is ready.
    pub hand_over_to: Option<String>,
    /// Whether the node may acquire (leadership.md rule 13).
    pub permitted: bool,
    /// Nodes of all directors, to know whether there are others, and [in order](in_order) among equals: the last goes
    /// first. Empty: there may be others, nobody knows who.
    pub directors: Vec<String>,
    /// What is wanted.
    pub intent: Intent,
    /// Whether what the role needs (the services of the router) is in place and verified.
    pub verified: bool,
    /// What a shutdown does.
    pub on_shutdown: OnShutdown,
    /// What the loss of the API server does.
    pub on_api_loss: ApiLoss,
    /// When addresses are added after a takeover.
    pub takeover: Takeover,
}

/// Directors in the order of equals, the one that goes first last: by address, the higher one first (RFC 9568 §6.4.3), and
/// by name where addresses are not known. One with an address goes before one without. IPv6 counts as higher than IPv4.
///
/// It depends on nothing but the arguments, not on their order either: directors that know the same decide alike.
pub fn in_order(mut directors: Vec<String>, addresses: &BTreeMap<String, IpAddr>) -> Vec<String> {
    directors.sort_by(|left, right| {
        let key = |name: &str| addresses.get(name).map(IpAddr::to_canonical);
        (key(left), left).cmp(&(key(right), right))
    });
    directors
}

/// RFC 9568 §6.1 counts priorities in 256ths.
const PRIORITY_STEPS: u32 = 256;

impl Config {
    /// For a controller's replica: no priority, no addresses.
    pub fn stateless(timing: Timing) -> Self {
        Self {
            timing,
            priority: 0,
            preemption_delay: None,
            hand_over_to: None,
            permitted: true,
            directors: Vec::new(),
            intent: Intent::Hold,
            verified: true,
            on_shutdown: OnShutdown::Release,
            on_api_loss: ApiLoss::Release,
            takeover: Takeover::Fast,
        }
    }

    /// Whether no other node can ever hold the Lease.
    pub(crate) fn alone(&self, node: &str) -> bool {
        !self.directors.is_empty() && self.directors.iter().all(|director| director == node)
    }

    /// Directors other than this node.
    pub(crate) fn others(&self, node: &str) -> impl Iterator<Item = &str> {
        self.directors
            .iter()
            .map(String::as_str)
            .filter(move |director| *director != node)
    }

    /// How long the node lets better ones go first: `Skew_Time` of RFC 9568 §6.1 with a master interval
    /// of one second, (256 − priority)/256 s, and a part of one such step by place, last first, which
    /// orders equals alike everywhere and never reverses priorities.
    pub(crate) fn skew(&self, node: &str) -> Duration {
        if self.alone(node) {
            return Duration::ZERO;
        }
        let step = Duration::from_secs(1) / PRIORITY_STEPS;
        let place = self.directors.iter().position(|director| director == node);
        let higher = place.map_or(0, |place| self.directors.len() - place - 1);
        let count = u32::try_from(self.directors.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let higher = u32::try_from(higher).unwrap_or(u32::MAX);
        step * (PRIORITY_STEPS - u32::from(self.priority)) + step / count * higher.min(count)
    }
}

/// What is known from an earlier process of the same boot, and from nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// Highest epoch the node ever acquired.
    pub epoch: u64,
    /// Whether the addresses of that epoch may still be in the kernel.
    pub held: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::election::peers::Peers;
    use crate::election::{Identity, Tick};
    use crate::heartbeat::{Carriage, Heard, Standing};

    fn ordered(directors: &[(&str, Option<&str>)]) -> Vec<String> {
        let addresses = directors.iter().filter_map(|(name, address)| {
            let address = address.as_ref()?.parse().ok()?;
            Some(((*name).to_owned(), address))
        });
        let names = directors.iter().map(|(name, _)| (*name).to_owned());
        in_order(names.collect(), &addresses.collect())
    }

    #[test]
    fn the_higher_address_goes_first_by_number_and_not_by_its_spelling() {
        assert_eq!(
            ordered(&[("a", Some("192.0.2.100")), ("b", Some("192.0.2.9"))]),
            ["b", "a"]
        );
        assert_eq!(
            ordered(&[("a", Some("2001:db8::1")), ("b", Some("192.0.2.9"))]),
            ["b", "a"]
        );
    }

    #[test]
    fn names_decide_where_addresses_are_unknown_or_equal() {
        assert_eq!(ordered(&[("b", None), ("a", None)]), ["a", "b"]);
        assert_eq!(
            ordered(&[("b", None), ("a", Some("192.0.2.1"))]),
            ["b", "a"]
        );
        assert_eq!(
            ordered(&[("b", Some("192.0.2.1")), ("a", Some("192.0.2.1"))]),
            ["a", "b"]
        );
    }

    #[derive(Clone, Debug)]
    struct Director {
        address: Option<IpAddr>,
        priority: u8,
        ready: bool,
    }

    fn directors() -> impl Strategy<Value = Vec<Director>> {
        // Few values: ties are what this is about.
        let address = (any::<bool>(), 0_u8..4).prop_map(|(ipv4, last)| {
            if ipv4 {
                IpAddr::from([192, 0, 2, last])
            } else {
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)])
            }
        });
        let director = (proptest::option::of(address), 0_u8..3, any::<bool>());
        let director = director.prop_map(|(address, priority, ready)| Director {
            address,
            priority,
            ready,
        });
        proptest::collection::vec(director, 1..8)
    }

    proptest! {
        /// Each ready director counts those that go before it; together they must have counted 0, 1, 2 and so on, in
        /// whatever order each learnt of the others.
        #[test]
        fn directors_that_know_the_same_decide_alike(directors in directors(), rotation in 0_usize..8) {
            let name = |index: usize| format!("lb-{index}");
            let addresses: BTreeMap<String, IpAddr> = directors
                .iter()
                .enumerate()
                .filter_map(|(index, director)| Some((name(index), director.address?)))
                .collect();
            let now = Tick::from_nanoseconds(1_000_000_000);
            let timing = Timing::for_lease_seconds(10).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let mut ranks = Vec::new();
            for (mine, director) in directors.iter().enumerate().filter(|(_, one)| one.ready) {
                let mut names: Vec<String> = (0..directors.len()).map(name).collect();
                names.rotate_left((mine * rotation) % directors.len());
                let config = Config {
                    priority: director.priority,
                    directors: in_order(names, &addresses),
                    ..Config::stateless(timing)
                };
                let mut peers = Peers::default();
                for (index, other) in directors.iter().enumerate().filter(|(index, _)| *index != mine) {
                    let heard = Heard {
                        from: Identity { node: name(index), incarnation: "1".to_owned() },
                        sequence: 1,
                        fresh: true,
                        carriage: Carriage::Nothing,
                        standing: Standing {
                            priority: other.priority,
                            ready: other.ready,
                            ..Standing::default()
                        },
                        promised_at: None,
                    };
                    peers.hear(heard, Duration::from_secs(1), now);
                }
                let rank = peers.rank(&config, &name(mine), None, Duration::from_secs(1), now);
                ranks.push(rank.unwrap_or_default());
            }
            ranks.sort_unstable();
            prop_assert!(ranks.iter().copied().eq(0..u32::try_from(ranks.len()).unwrap_or(u32::MAX)), "{ranks:?}");
        }
    }
}
