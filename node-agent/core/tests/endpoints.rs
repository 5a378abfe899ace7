//! Tracked endpoints: when they are asked, and what their answers come to.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use lvs_core::election::Tick;
use lvs_core::endpoint::{Answer, EndpointCheck, EndpointState};
use lvs_crds::tracking::TrackedEndpoint;
use proptest::prelude::*;

fn settings(failure_threshold: u8, success_threshold: u8) -> TrackedEndpoint {
    TrackedEndpoint {
        url: "http://127.0.0.1:9/ok".to_owned(),
        priority_delta: 0,
        period_seconds: 2,
        timeout_seconds: 5,
        failure_threshold,
        success_threshold,
    }
}

fn at(milliseconds: u64) -> Tick {
    Tick::default() + Duration::from_millis(milliseconds)
}

fn failing(words: &str) -> EndpointState {
    EndpointState::Failing(words.to_owned())
}

fn refused() -> Answer {
    Answer::Failed("connect refused".to_owned())
}

#[test]
fn an_answer_counts_by_its_status_and_a_failure_is_told_in_words() {
    for (answer, wanted) in [
        (Answer::Status(200), EndpointState::Good),
        (Answer::Status(299), EndpointState::Good),
        (Answer::Status(199), failing("status 199, expected 200-299")),
        (Answer::Status(302), failing("status 302, expected 200-299")),
        (Answer::Status(503), failing("status 503, expected 200-299")),
        (Answer::TimedOut, failing("timed out after 5 s")),
        (refused(), failing("connect refused")),
    ] {
        let mut check = EndpointCheck::new(settings(1, 1));
        assert_eq!(*check.state(), EndpointState::Unknown);
        check.begin(at(0));
        check.finish(&answer);
        assert_eq!(*check.state(), wanted);
    }
}

#[test]
fn the_next_question_waits_for_the_period_and_for_the_answer() {
    let mut check = EndpointCheck::new(settings(1, 1));
    assert_eq!(
        check.due(),
        Some(Tick::default()),
        "the first is due at once"
    );
    assert_eq!(check.begin(at(10_000)), Duration::from_secs(5));
    assert_eq!(check.due(), None, "one is under way");
    check.finish(&Answer::Status(200));
    assert_eq!(check.due(), Some(at(12_000)), "from start to start");
    check.begin(at(12_000));
    check.finish(&Answer::TimedOut);
    assert_eq!(
        check.due(),
        Some(at(14_000)),
        "overdue when it ends at 17 s"
    );
    // Asked more often: it counts from the question before.
    let often = TrackedEndpoint {
        period_seconds: 1,
        ..settings(1, 1)
    };
    check.configure(often);
    assert_eq!(check.due(), Some(at(13_000)));
    assert_eq!(
        *check.state(),
        failing("timed out after 5 s"),
        "it stays known"
    );
}

#[test]
fn other_words_must_come_as_often_as_the_first() {
    let mut check = EndpointCheck::new(settings(2, 1));
    let mut hear = |answer: Answer| {
        check.finish(&answer);
        check.state().clone()
    };
    assert_eq!(hear(refused()), EndpointState::Unknown);
    let busy = || Answer::Status(503);
    assert_eq!(hear(busy()), failing("status 503, expected 200-299"));
    for _ in 0..5 {
        assert_eq!(hear(refused()), failing("status 503, expected 200-299"));
        assert_eq!(hear(busy()), failing("status 503, expected 200-299"));
    }
    assert_eq!(hear(refused()), failing("status 503, expected 200-299"));
    assert_eq!(hear(refused()), failing("connect refused"));
}

proptest! {
    /// The state is that of the last run of answers that was long enough; before the first it is unknown.
    #[test]
    fn the_last_long_enough_run_decides(
        answers in proptest::collection::vec(any::<bool>(), 0..60),
        thresholds in (1..5_u8, 1..5_u8),
    ) {
        let (failures, successes) = thresholds;
        let mut check = EndpointCheck::new(settings(failures, successes));
        for length in 1..=answers.len() {
            let heard = &answers[..length];
            check.finish(&if heard[length - 1] { Answer::Status(204) } else { refused() });
            let ends_long = |end: usize| {
                let needed = usize::from(if heard[end] { successes } else { failures });
                end + 1 >= needed && heard[end + 1 - needed..=end].iter().all(|one| *one == heard[end])
            };
            let last = (0..length).rev().find(|end| ends_long(*end));
            let wanted = last.map_or(EndpointState::Unknown, |end| {
                if heard[end] { EndpointState::Good } else { failing("connect refused") }
            });
            prop_assert_eq!(check.state(), &wanted, "{:?}", heard);
        }
    }

    /// Never two questions at a time, never closer than a period, whatever time answers take.
    #[test]
    fn questions_keep_their_distance(steps in proptest::collection::vec((0..4_000_u64, 0..8_000_u64), 1..40)) {
        let mut check = EndpointCheck::new(settings(3, 1));
        let mut now = at(60_000);
        let mut begun: Option<Tick> = None;
        for (late, answered) in steps {
            let due = check.due().unwrap();
            now = now.max(due) + Duration::from_millis(late);
            if let Some(begun) = begun {
                prop_assert!(now.since(begun) >= Duration::from_secs(2));
            }
            check.begin(now);
            begun = Some(now);
            prop_assert_eq!(check.due(), None);
            now = now + Duration::from_millis(answered);
            check.finish(&Answer::Status(200));
        }
    }
}
