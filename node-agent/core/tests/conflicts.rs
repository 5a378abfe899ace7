//! Claims of others on an address that is held: expected in a takeover, otherwise told and answered, for as long as they
//! last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test says what is wrong by failing.

use std::time::Duration;

use lvs_core::election::{Hold, Lifetime, Tick, Timing};
use lvs_core::fence::claim::{Claim, HardwareAddress};
use lvs_core::fence::{
    DirectorAddress, Fence, HolderUntil, Outcome, QUIET_PERIOD, RouterAddresses, Step,
};
use proptest::prelude::*;

const ROUTER: &str = "edge";
const STRANGER: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 9]);

fn at(milliseconds: u64) -> Tick {
    Tick::from_nanoseconds(milliseconds * 1_000_000)
}

fn address() -> DirectorAddress {
    DirectorAddress {
        address: "192.0.2.250".parse().unwrap(),
        device: "eth0".to_owned(),
    }
}

fn claim() -> Claim {
    Claim {
        address: address().address,
        hardware_address: STRANGER,
    }
}

/// A fence that holds one address since 0, and the announcements it sent.
struct Node {
    fence: Fence,
    now: Tick,
    announced: Vec<Tick>,
}

fn timing() -> Timing {
    Timing::for_lease_seconds(10).unwrap()
}

/// F, in which a takeover explains claims.
fn fence_bound() -> Duration {
    timing().fence_bound()
}

fn hold(epoch: u64, sent_at: Tick) -> Hold {
    Hold {
        epoch,
        sent_at,
        until: HolderUntil::new(at(100_000_000)),
        lifetime: Lifetime::Seconds(2),
        decided_at: sent_at,
        confirmed_at: Some(sent_at),
    }
}

impl Node {
    fn holding() -> Self {
        let mut fence = Fence::default();
        let settings = (timing(), serde_json::from_str("{}").unwrap());
        fence.configure([(ROUTER.to_owned(), settings)].into());
        fence.want(ROUTER, [address()].into());
        fence.hold(ROUTER, hold(1, at(0)));
        let mut node = Self {
            fence,
            now: at(0),
            announced: Vec::new(),
        };
        node.work();
        node
    }

    fn work(&mut self) {
        for action in self.fence.due(self.now) {
            if action.step == Step::Announce {
                self.announced.push(self.now);
            }
            assert_eq!(self.fence.done(&action, Outcome::Done, self.now), None);
        }
    }

    /// Lets time pass as the fence thread does: it wakes when it asked for.
    fn until(&mut self, end: Tick) {
        while let Some(wake) = self.fence.next_wake(self.now).filter(|wake| *wake <= end) {
            assert!(
                wake > self.now || !self.fence.clone().due(self.now).is_empty(),
                "it would turn in circles at {}",
                self.now
            );
            self.now = self.now.max(wake);
            self.work();
        }
        self.now = end;
        self.work();
    }

    fn claimed(&mut self, when: Tick) {
        self.until(when);
        self.fence.claimed(&claim(), when);
        self.work();
    }

    fn report(&self) -> RouterAddresses {
        self.fence.report()[ROUTER].clone()
    }

    fn conflict(&self) -> Option<HardwareAddress> {
        self.report().conflicts.get(&address()).copied()
    }

    fn announced_since(&self, start: Tick) -> usize {
        self.announced.iter().filter(|time| **time >= start).count()
    }
}

#[test]
fn claims_of_the_old_holder_after_a_takeover_are_expected() {
    let mut node = Node::holding();
    for time in (100..3_200).step_by(100) {
        node.claimed(at(time));
    }
    node.until(at(60_000));
    assert_eq!(node.conflict(), None);
}

#[test]
fn a_claim_is_told_and_answered_once_it_cannot_be_a_successors() {
    let mut node = Node::holding();
    node.until(at(20_000));
    let quiet = node.announced.len();
    node.claimed(at(20_000));
    // A successor's would be explained within F, by the loss of the address; shouting would take its clients away.
    node.until(at(20_000) + fence_bound() - Duration::from_millis(1));
    assert_eq!(node.conflict(), None);
    assert_eq!(node.announced.len(), quiet);
    node.until(at(20_000) + fence_bound());
    assert_eq!(node.conflict(), Some(STRANGER));
    node.until(at(25_000));
    assert_eq!(node.announced.len(), quiet + 5, "one burst");
    // One claim, one answer; it is told until nobody has claimed for a while.
    let end = at(20_000) + QUIET_PERIOD;
    node.until(end - Duration::from_millis(1));
    assert_eq!(node.announced.len(), quiet + 5);
    assert_eq!(node.conflict(), Some(STRANGER));
    node.until(end);
    assert_eq!(node.conflict(), None);
}

#[test]
fn claims_that_go_on_are_answered_with_one_burst_a_second() {
    let mut node = Node::holding();
    node.until(at(20_000));
    for time in (20_000..40_000).step_by(200) {
        node.claimed(at(time));
    }
    let answered = node.announced_since(at(30_000));
    assert!((45..=50).contains(&answered), "{answered} in 10 s");
    node.until(at(40_000) + QUIET_PERIOD);
    assert_eq!(node.conflict(), None);
    assert_eq!(node.announced_since(at(42_000)), 0);
}

/// A holder of a moment ago is in its burst yet, and hears the successor's claims.
#[test]
fn who_has_yielded_announces_nothing_beside_its_successor() {
    let mut node = Node::holding();
    node.until(at(1_000));
    assert!(node.announced_since(at(800)) > 0, "its burst goes on");
    node.fence.yield_to_successor(ROUTER);
    for time in (1_050..5_000).step_by(50) {
        node.claimed(at(time));
    }
    assert_eq!(node.announced_since(at(1_001)), 0);
    // It is the holder again.
    node.fence.hold(ROUTER, hold(2, at(5_000)));
    node.until(at(20_000));
    assert!(node.announced_since(at(5_000)) > 0);
}

#[test]
fn a_conflict_ends_with_the_address() {
    let mut node = Node::holding();
    node.claimed(at(20_000));
    node.until(at(24_000));
    assert!(node.conflict().is_some());
    node.fence.give_up(ROUTER);
    node.work();
    assert_eq!(node.report(), RouterAddresses::default());
    // And a backup takes no note of claims: they are the master's.
    node.fence.claimed(&claim(), at(25_000));
    node.until(at(40_000));
    assert_eq!(node.conflict(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whenever others claim: nothing is told while a takeover may explain it, nothing is told that nobody claimed in the
    /// last half minute, and no flood makes more than five announcements a second.
    #[test]
    fn claims_are_judged_by_time_alone(mut pauses in prop::collection::vec(1..20_000_u64, 1..60), start in 0..30_000_u64) {
        let mut node = Node::holding();
        let mut time = start;
        let mut last = None;
        pauses.push(1);
        for pause in pauses {
            let before = at(time);
            node.claimed(before);
            last = (before >= at(0) + fence_bound()).then_some(before).or(last);
            time += pause;
            node.until(at(time) - Duration::from_millis(1));
            if node.conflict().is_some() {
                prop_assert!(node.now >= at(0) + 2 * fence_bound());
                prop_assert!(node.now.since(last.unwrap()) < QUIET_PERIOD);
            }
        }
        for window in node.announced.windows(11) {
            prop_assert!(window[10].since(window[0]) > Duration::from_millis(900), "{:?}", window);
        }
        node.until(node.now + QUIET_PERIOD);
        prop_assert_eq!(node.conflict(), None);
    }
}
