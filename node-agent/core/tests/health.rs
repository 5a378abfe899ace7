//! Laws of health: thresholds are exact, a check is made when it should be and never twice at a time, weights follow.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lvs_core::election::Tick;
use lvs_core::health::{
    Cadence, Checks, EffectiveWeight, Health, Machine, Outcome, SlowStart, Standing, Thresholds,
    is_quorum_met,
};
use lvs_crds::traffic_policy::{AdministrativeState, OnFailure, Quorum};
use proptest::prelude::*;

fn failure(words: &str) -> Outcome {
    Outcome::Failure(words.to_owned())
}

fn cadence(period: Duration) -> Cadence {
    Cadence {
        period,
        retry_period: period,
        timeout: period,
        thresholds: Thresholds {
            failure: 1,
            success: 1,
        },
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn wanted(count: u32, cadence: Cadence) -> BTreeMap<u32, Cadence> {
    (0..count).map(|key| (key, cadence)).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as it is asked for")]
fn nothing_known(_: &u32) -> Health {
    Health::Unknown
}

#[test]
fn nothing_is_assumed_of_what_was_never_checked() {
    let thresholds = Thresholds {
        failure: 2,
        success: 2,
    };
    let mut machine = Machine::default();
    assert!(machine.is_contradicted(), "the next check is to come soon");
    assert!(!machine.note(&Outcome::Success, thresholds));
    assert_eq!(*machine.health(), Health::Unknown);
    assert!(machine.note(&Outcome::Success, thresholds));
    assert_eq!(*machine.health(), Health::Up);
    assert!(!machine.is_contradicted());
}

#[test]
fn what_was_known_before_a_restart_stays_until_results_speak_against_it() {
    let thresholds = Thresholds {
        failure: 2,
        success: 1,
    };
    let mut machine = Machine::with(Health::Up);
    assert!(!machine.note(&failure("refused"), thresholds));
    assert_eq!(*machine.health(), Health::Up);
    assert!(machine.is_contradicted());
    assert!(machine.note(&failure("refused"), thresholds));
    assert_eq!(*machine.health(), Health::Down("refused".to_owned()));
}

#[test]
fn words_change_only_when_they_have_lasted() {
    let thresholds = Thresholds {
        failure: 2,
        success: 1,
    };
    let mut machine = Machine::with(Health::Down("refused".to_owned()));
    for words in ["timed out", "refused", "timed out", "refused"] {
        assert!(!machine.note(&failure(words), thresholds));
    }
    assert!(!machine.note(&failure("timed out"), thresholds));
    assert!(machine.note(&failure("timed out"), thresholds));
    assert_eq!(*machine.health(), Health::Down("timed out".to_owned()));
}

#[test]
fn a_trouble_of_the_director_itself_takes_nobody_out_and_is_told_where_nobody_serves() {
    let thresholds = Thresholds {
        failure: 1,
        success: 1,
    };
    let not_asked = Outcome::NotAsked("not asked: too many open files".to_owned());
    let mut machine = Machine::with(Health::Up);
    assert!(!machine.note(&not_asked, thresholds));
    assert_eq!(*machine.health(), Health::Up);
    let mut machine = Machine::default();
    assert!(machine.note(&not_asked, thresholds));
    let told = Health::Down("not asked: too many open files".to_owned());
    assert_eq!(*machine.health(), told);
}

#[test]
fn an_outcome_of_a_check_that_was_taken_away_counts_for_nobody() {
    let mut checks = Checks::default();
    let now = Tick::default() + seconds(100);
    let one = wanted(1, cadence(seconds(5)));
    checks.want(&one, nothing_known, now);
    let stale = checks.start(now + seconds(1), 1).remove(0);
    checks.want(&BTreeMap::new(), nothing_known, now);
    checks.want(&one, nothing_known, now);
    let ended = checks.end(&0, stale.serial, &Outcome::Success, now);
    assert_eq!(ended, None);
    assert_eq!(checks.health(&0), Health::Unknown);
    let fresh = checks.start(now + seconds(2), 1).remove(0);
    let stale = checks.end(&0, stale.serial, &Outcome::Success, now);
    assert_eq!(stale, None, "also while another is under way");
    assert!(
        checks
            .end(&0, fresh.serial, &Outcome::Success, now)
            .is_some()
    );
}

#[test]
fn a_new_cadence_keeps_what_is_known_and_counts_at_once() {
    let mut checks = Checks::default();
    let now = Tick::default() + seconds(100);
    checks.want(&wanted(1, cadence(seconds(3_600))), |_| Health::Up, now);
    let first = checks.start(now + seconds(1), 1).remove(0);
    checks.end(&0, first.serial, &Outcome::Success, now + seconds(1));
    let second = checks.start(now + seconds(3_700), 1).remove(0);
    let later = now + seconds(3_700);
    checks.end(&0, second.serial, &Outcome::Success, later);
    checks.want(&wanted(1, cadence(seconds(2))), nothing_known, later);
    assert_eq!(checks.health(&0), Health::Up);
    assert!(checks.next_due().unwrap() <= later + seconds(2));
    assert_eq!(checks.start(later + seconds(2), 9).len(), 1);
}

/// Runs checks for a while, each taking `takes`, and returns every start by check.
fn run(
    checks: &mut Checks<u32>,
    from: Tick,
    lasts: Duration,
    takes: Duration,
    outcome: &Outcome,
) -> BTreeMap<u32, Vec<Tick>> {
    let mut starts: BTreeMap<u32, Vec<Tick>> = BTreeMap::new();
    let mut under_way: BTreeSet<(Tick, u32, u64)> = BTreeSet::new();
    let mut now = from;
    while now <= from + lasts {
        while let Some((ends, key, serial)) = under_way.first().copied().filter(|one| one.0 <= now)
        {
            under_way.remove(&(ends, key, serial));
            checks.end(&key, serial, outcome, now);
        }
        for start in checks.start(now, usize::MAX) {
            let of_key = starts.entry(start.key).or_default();
            of_key.push(now);
            assert!(
                under_way.iter().all(|(_, key, _)| *key != start.key),
                "twice at a time"
            );
            under_way.insert((now + takes, start.key, start.serial));
        }
        let next_end = under_way.first().map(|one| one.0);
        let Some(next) = [next_end, checks.next_due()].into_iter().flatten().min() else {
            break;
        };
        now = next.max(now);
    }
    starts
}

#[test]
fn checks_that_begin_together_are_spread() {
    const COUNT: u32 = 2_000;
    let mut checks = Checks::default();
    let from = Tick::default() + seconds(100);
    checks.want(&wanted(COUNT, cadence(seconds(5))), |_| Health::Up, from);
    let starts = run(
        &mut checks,
        from,
        seconds(40),
        Duration::ZERO,
        &Outcome::Success,
    );
    let in_window = |begin: Duration, length: Duration| {
        let within = |start: &&Tick| (begin..begin + length).contains(&start.since(from));
        starts.values().flatten().filter(within).count()
    };
    assert_eq!(
        starts
            .values()
            .filter(|all| all[0] <= from + seconds(1))
            .count(),
        2_000,
        "all first checks come within a second"
    );
    for tenth in 0..10 {
        let count = in_window(
            Duration::from_millis(100 * tenth),
            Duration::from_millis(100),
        );
        assert!(
            (100..400).contains(&count),
            "tenth {tenth} of the first second: {count}"
        );
    }
    for second in 10..40 {
        let count = in_window(seconds(second), seconds(1));
        assert!(
            (250..650).contains(&count),
            "second {second}: {count} of 2000 in 5 s"
        );
    }
}

/// 2,400 checks a second, or 240, are no reason to wake up as often.
#[test]
fn checks_are_made_several_at_a_time() {
    let mut checks = Checks::default();
    let from = Tick::default() + seconds(100);
    checks.want(&wanted(1_200, cadence(seconds(5))), |_| Health::Up, from);
    let lasts = seconds(60);
    let starts = run(&mut checks, from, lasts, Duration::ZERO, &Outcome::Success);
    let made = starts.values().flatten().count();
    let times: BTreeSet<Tick> = starts.into_values().flatten().collect();
    assert!(times.len() <= 51 * 60, "{} times in a minute", times.len());
    assert!(made >= 4 * times.len(), "{made} at {} times", times.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn thresholds_are_exact(
        outcomes in proptest::collection::vec(any::<bool>(), 1..60),
        failure_threshold in 1_u8..6,
        success_threshold in 1_u8..6,
    ) {
        let thresholds = Thresholds { failure: failure_threshold, success: success_threshold };
        let mut machine = Machine::default();
        let mut expected = Health::Unknown;
        for (index, good) in outcomes.iter().enumerate() {
            let outcome = if *good { Outcome::Success } else { failure("refused") };
            let changed = machine.note(&outcome, thresholds);
            let in_a_row = |count: u8| {
                let count = usize::from(count);
                index + 1 >= count && outcomes[index + 1 - count..=index].iter().all(|one| one == good)
            };
            let before = expected.clone();
            if *good && in_a_row(success_threshold) {
                expected = Health::Up;
            } else if !good && in_a_row(failure_threshold) {
                expected = Health::Down("refused".to_owned());
            }
            prop_assert_eq!(machine.health(), &expected);
            prop_assert_eq!(changed, before != expected);
        }
    }

    #[test]
    fn a_check_keeps_its_period_and_is_never_late(
        period in 1_u64..30,
        takes_milliseconds in 0_u64..40_000,
        count in 1_u32..5,
    ) {
        let mut checks = Checks::default();
        let from = Tick::default() + seconds(100);
        let period = seconds(period);
        let takes = Duration::from_millis(takes_milliseconds);
        checks.want(&wanted(count, cadence(period)), |_| Health::Up, from);
        let starts = run(&mut checks, from, period.max(takes) * 12, takes, &Outcome::Success);
        prop_assert_eq!(starts.len(), usize::try_from(count).unwrap());
        for all in starts.values() {
            prop_assert!(all.len() >= 10);
            for (index, pair) in all.windows(2).enumerate() {
                let gap = pair[1].since(pair[0]);
                let longest = period.max(takes);
                prop_assert!(gap <= longest, "{gap:?} of {longest:?}");
                // The second one spreads checks over the period.
                let shortest = if index == 0 { takes } else { (period * 19 / 20).max(takes) };
                prop_assert!(gap >= shortest, "{gap:?}, at least {shortest:?}");
            }
        }
    }

    #[test]
    fn a_dead_real_server_is_found_within_the_bound(
        period in 1_u64..20,
        retry_period in 1_u64..20,
        threshold in 1_u8..5,
        takes_milliseconds in 0_u64..5_000,
        dies_at_milliseconds in 0_u64..60_000,
    ) {
        let retry_period = seconds(retry_period.min(period));
        let period = seconds(period);
        let cadence = Cadence {
            period,
            retry_period,
            timeout: seconds(5),
            thresholds: Thresholds { failure: threshold, success: 1 },
        };
        let mut checks = Checks::default();
        let from = Tick::default() + seconds(100);
        checks.want(&wanted(1, cadence), |_| Health::Up, from);
        let dies_at = Duration::from_millis(dies_at_milliseconds);
        run(&mut checks, from, dies_at, Duration::ZERO, &Outcome::Success);
        let takes = Duration::from_millis(takes_milliseconds);
        let bound = period + (retry_period.max(takes)) * u32::from(threshold - 1) + takes;
        // The run above may have begun one that will succeed yet.
        run(&mut checks, from + dies_at, bound, takes, &failure("timed out"));
        prop_assert_eq!(checks.health(&0), Health::Down("timed out".to_owned()));
    }

    #[test]
    fn a_quorum_has_hysteresis_and_more_is_never_less(
        minimum_weight in 1_u32..100,
        hysteresis in 0_u32..100,
        live in 0_u32..300,
        was_met: bool,
    ) {
        let hysteresis = hysteresis.min(minimum_weight - 1);
        let quorum = Quorum { minimum_weight, hysteresis, on_loss: None };
        let is_met = |live, was_met| is_quorum_met(&quorum, live, was_met);
        prop_assert!(!is_met(live, was_met) || is_met(live + 1, was_met));
        prop_assert!(!is_met(live, false) || is_met(live, true));
        prop_assert_eq!(is_met(minimum_weight + hysteresis, false), true);
        prop_assert_eq!(is_met(minimum_weight - hysteresis, true), true);
        prop_assert!(hysteresis == 0 || !is_met(minimum_weight - hysteresis - 1, true));
    }

    #[test]
    fn weight_follows_health_and_is_never_zero_unasked(
        weight: u16,
        is_up: bool,
        is_in_kernel: bool,
        administrative_state in prop_oneof![Just(AdministrativeState::Enabled), Just(AdministrativeState::Draining), Just(AdministrativeState::Disabled)],
        quiesce: bool,
        slow_start in proptest::option::of((0_u64..600, 0_u64..600)),
        now in 0_u64..1_200,
    ) {
        let standing = Standing {
            weight,
            is_up,
            is_in_kernel,
            administrative_state,
            on_failure: if quiesce { OnFailure::Quiesce } else { OnFailure::Remove },
            slow_start: slow_start.map(|(since, duration)| SlowStart {
                since: Tick::default() + seconds(since),
                duration: seconds(duration),
            }),
        };
        let now = Tick::default() + seconds(now);
        let effective = standing.effective_weight(now);
        prop_assert!(effective <= EffectiveWeight::Weight(weight));
        // Monotone in health, in what people want and in time.
        let if_up = Standing { is_up: true, ..standing };
        prop_assert!(effective <= if_up.effective_weight(now));
        let if_enabled = Standing { administrative_state: AdministrativeState::Enabled, ..standing };
        let zero = EffectiveWeight::Weight(0);
        prop_assert!(effective <= if_enabled.effective_weight(now).max(zero));
        if effective == EffectiveWeight::Absent {
            prop_assert!(administrative_state == AdministrativeState::Disabled || (!is_up && !quiesce));
        }
        // Who drains and is there stays there, and never gets more than nothing.
        if administrative_state == AdministrativeState::Draining && is_in_kernel {
            prop_assert_eq!(effective, zero);
        }
        prop_assert!(effective <= standing.effective_weight(now + seconds(1)));
        if administrative_state == AdministrativeState::Enabled && is_up && weight > 0 {
            prop_assert!(effective > EffectiveWeight::Weight(0));
        }
        // Following the steps leads to the whole weight.
        let mut at = now;
        while let Some(next) = standing.next_step(at) {
            prop_assert!(next > at);
            at = next;
        }
        prop_assert_eq!(standing.effective_weight(at), standing.effective_weight(at + seconds(10_000)));
    }
}
