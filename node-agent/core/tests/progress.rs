//! How far the addresses of an epoch have come: in the kernel, announced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test says what is wrong by failing.

use std::collections::BTreeSet;

use lvs_core::election::{Hold, Lifetime, Tick, Timing};
use lvs_core::fence::{Action, DirectorAddress, Fence, HolderUntil, Outcome, Progress, Step};
use lvs_core::heartbeat::Carriage;

const ROUTER: &str = "edge";

fn at(milliseconds: u64) -> Tick {
    Tick::from_nanoseconds(milliseconds * 1_000_000)
}

fn address(text: &str) -> DirectorAddress {
    DirectorAddress {
        address: text.parse().unwrap(),
        device: "eth0".to_owned(),
    }
}

fn hold(fence: &mut Fence, epoch: u64, now: Tick) {
    let hold = Hold {
        epoch,
        sent_at: now,
        until: HolderUntil::new(at(100_000_000)),
        lifetime: Lifetime::Seconds(2),
        decided_at: now,
        confirmed_at: Some(now),
    };
    fence.hold(ROUTER, hold);
}

/// Carries out what is due, the refused address aside, and notes the progress.
fn work(fence: &mut Fence, refused: Option<&DirectorAddress>, now: Tick) -> Progress {
    for action in fence.due(now) {
        let outcome = if Some(&action.address) == refused && matches!(action.step, Step::Add(_)) {
            Outcome::NoDevice
        } else {
            Outcome::Done
        };
        assert_eq!(fence.done(&action, outcome, now), None);
    }
    fence.note_progress(now);
    fence.report()[ROUTER].progress
}

fn configured() -> Fence {
    let mut fence = Fence::default();
    let settings = (
        Timing::for_lease_seconds(10).unwrap(),
        serde_json::from_str("{}").unwrap(),
    );
    fence.configure([(ROUTER.to_owned(), settings)].into());
    fence
}

#[test]
fn an_epoch_is_applied_with_its_last_address_and_announced_with_its_last_announcement() {
    let mut fence = configured();
    let (first, second) = (address("192.0.2.250"), address("192.0.2.251"));
    fence.want(ROUTER, [first, second.clone()].into());
    assert_eq!(
        work(&mut fence, None, at(500)),
        Progress::default(),
        "nothing is held"
    );
    hold(&mut fence, 3, at(1_000));
    let progress = work(&mut fence, Some(&second), at(1_001));
    assert_eq!(
        progress,
        Progress {
            epoch: 3,
            ..Progress::default()
        }
    );
    // The second comes a second later, and is announced after that.
    let progress = work(&mut fence, None, at(2_002));
    assert_eq!(
        (progress.applied_at, progress.announced_at),
        (Some(at(2_002)), None)
    );
    let progress = work(&mut fence, None, at(2_003));
    let complete = Progress {
        epoch: 3,
        applied_at: Some(at(2_002)),
        announced_at: Some(at(2_003)),
    };
    assert_eq!(progress, complete);
    // Later refreshes and announcements are no progress.
    hold(&mut fence, 3, at(2_400));
    assert_eq!(work(&mut fence, None, at(2_600)), complete);
    // A new epoch finds what is there.
    hold(&mut fence, 5, at(2_700));
    let progress = work(&mut fence, None, at(2_701));
    assert_eq!(
        progress,
        Progress {
            epoch: 5,
            applied_at: Some(at(2_701)),
            announced_at: Some(at(2_701)),
        }
    );
    // What is given up has come nowhere.
    fence.give_up(ROUTER);
    fence.note_progress(at(2_702));
    assert_eq!(fence.report()[ROUTER].progress, Progress::default());
}

/// A director that is a real server too has its services only as master. Were the address there before them, packets of
/// other real servers' connections would be answered with resets.
#[test]
fn a_router_that_is_held_back_gets_no_address_and_its_predecessor_is_not_told_otherwise() {
    let mut fence = configured();
    let held_back = BTreeSet::from([ROUTER.to_owned()]);
    fence.hold_back(&held_back);
    fence.want(ROUTER, [address("192.0.2.250")].into());
    hold(&mut fence, 3, at(1_000));
    let progress = work(&mut fence, None, at(1_001));
    assert_eq!(progress.applied_at, None);
    // Said to be complete, it would make the predecessor let go.
    assert_eq!(fence.carriage(ROUTER, at(1_001)), Carriage::Some);
    let wake = fence.next_wake(at(1_001));
    assert!(wake.is_none_or(|wake| wake > at(1_001)), "nothing is due");

    fence.hold_back(&BTreeSet::new());
    let wake = fence.next_wake(at(1_050)).unwrap();
    assert!(wake <= at(1_050), "the address is due");
    let progress = work(&mut fence, None, at(1_050));
    assert_eq!(progress.applied_at, Some(at(1_050)));
    work(&mut fence, None, at(1_051));
    assert_eq!(fence.carriage(ROUTER, at(1_051)), Carriage::Announced);

    // What is there stays, and is refreshed.
    fence.hold_back(&held_back);
    let actions = fence.due(at(1_600));
    let refreshed = |action: &Action| matches!(action.step, Step::Refresh(_));
    assert!(actions.iter().any(refreshed), "{actions:?}");
    let deleted = |action: &Action| matches!(action.step, Step::Delete);
    assert!(!actions.iter().any(deleted), "{actions:?}");
}
