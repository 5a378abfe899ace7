//! Every state of the election against every event, as a table that people read: `election/table.txt`. And the
//! laws of its constants and of the order among candidates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use lvs_core::election::{
    ApiLoss, Config, Effect, Event, HeartbeatParts, Identity, Intent, LeaseRecord, LeaseWrite,
    Machine, OnShutdown, Resumption, Role, Source, Takeover, Tick, Timing, TimingError,
    TimingParts,
};
use lvs_core::heartbeat::{Carriage, Heard, Standing};
use proptest::prelude::*;

const BEGIN: Tick = Tick::from_nanoseconds(1_000_000_000_000);

fn after(milliseconds: u64) -> Tick {
    BEGIN + Duration::from_millis(milliseconds)
}

fn identity(node: &str) -> Identity {
    Identity {
        node: node.to_owned(),
        incarnation: "1".to_owned(),
    }
}

fn config() -> Config {
    Config {
        timing: Timing::for_lease_seconds(10).unwrap(),
        priority: 100,
        preemption_delay: None,
        hand_over_to: None,
        permitted: true,
        directors: vec!["lb-a".to_owned(), "lb-b".to_owned()],
        intent: Intent::Hold,
        verified: true,
        on_shutdown: OnShutdown::HandOver,
        on_api_loss: ApiLoss::Hold,
        takeover: Takeover::Fast,
    }
}

fn lease(version: u32, holder: Option<&str>, epoch: u64) -> LeaseRecord {
    LeaseRecord {
        resource_version: version.to_string(),
        holder: holder.map(identity),
        epoch,
        lease_duration: Duration::from_secs(10),
        renewed: format!("renewal {version}"),
        offered: false,
        challenger: None,
    }
}

fn write_of(effects: &[Effect]) -> LeaseWrite {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Write(write) => Some(write.clone()),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no write in {effects:?}"))
}

fn accepted(write: &LeaseWrite, version: u32) -> Event {
    Event::Acknowledged(LeaseRecord {
        resource_version: version.to_string(),
        holder: write.holder.clone(),
        epoch: write.epoch,
        lease_duration: write.lease_duration,
        renewed: format!("renewal {version}"),
        offered: write.offered,
        challenger: write.challenger.clone(),
    })
}

/// The machine of lb-a in each state, two seconds after the beginning at most.
fn in_state(state: &str, config: &Config) -> Machine {
    let mut machine = Machine::new(identity("lb-a"), config.clone(), None, BEGIN);
    if state == "Start" {
        assert!(
            machine
                .handle(Event::Deadline, BEGIN)
                .contains(&Effect::Read)
        );
        return machine;
    }
    if state == "Backup" {
        machine.handle(Event::Seen(lease(5, Some("lb-b"), 4), Source::Watch), BEGIN);
        return machine;
    }
    if state == "Stopped" {
        let effects = machine.handle(Event::ShutdownRequested, BEGIN);
        assert!(effects.contains(&Effect::Stop));
        return machine;
    }
    machine.handle(Event::Seen(lease(5, None, 4), Source::Watch), BEGIN);
    let effects = machine.handle(Event::Deadline, after(400));
    let acquisition = write_of(&effects);
    if state == "Acquiring" {
        return machine;
    }
    machine.handle(accepted(&acquisition, 6), after(420));
    if state == "Master" {
        return machine;
    }
    if state == "Renewing" {
        write_of(&machine.handle(Event::Deadline, after(2_400)));
        return machine;
    }
    let leaving = Config {
        intent: Intent::Leave,
        ..config.clone()
    };
    let effects = machine.handle(Event::Configured(leaving), after(430));
    let offer = write_of(&effects);
    assert!(offer.offered, "{offer}");
    machine.handle(accepted(&offer, 7), after(440));
    if state == "Offering" {
        return machine;
    }
    assert_eq!(state, "HandedOver");
    let seen = Event::Seen(lease(8, Some("lb-b"), 6), Source::Watch);
    machine.handle(seen, after(450));
    assert!(machine.status().message.ends_with("handed over"));
    machine
}

const STATES: [&str; 8] = [
    "Start",
    "Backup",
    "Acquiring",
    "Master",
    "Renewing",
    "Offering",
    "HandedOver",
    "Stopped",
];

fn events() -> Vec<(&'static str, Event)> {
    let withdrawn = Config {
        intent: Intent::Withdraw,
        ..config()
    };
    let refused = Config {
        permitted: false,
        ..config()
    };
    vec![
        ("seen free", Event::Seen(lease(9, None, 4), Source::Read)),
        (
            "seen mine",
            Event::Seen(lease(6, Some("lb-a"), 5), Source::Read),
        ),
        (
            "seen other, higher",
            Event::Seen(lease(9, Some("lb-b"), 7), Source::Watch),
        ),
        (
            "seen other, lower, late",
            Event::Seen(lease(9, Some("lb-b"), 3), Source::Watch),
        ),
        (
            "seen other, lower, read",
            Event::Seen(lease(9, Some("lb-b"), 3), Source::Read),
        ),
        ("absent", Event::Absent(Source::Read)),
        ("read failed", Event::ReadFailed),
        ("watch lost", Event::WatchLost),
        ("conflict", Event::Conflict),
        ("lease gone", Event::LeaseGone),
        ("write failed", Event::WriteFailed),
        ("write refused", Event::WriteRefused),
        ("withdrawn", Event::Configured(withdrawn)),
        ("not permitted", Event::Configured(refused)),
        ("shutdown", Event::ShutdownRequested),
        ("deadline", Event::Deadline),
    ]
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Read => "read".to_owned(),
        Effect::Write(write) => format!(
            "{} {}{}",
            write.purpose,
            write.epoch,
            if write.offered { " offered" } else { "" }
        ),
        Effect::Hold(hold) => format!("hold {}", hold.epoch),
        Effect::Yield => "yield".to_owned(),
        Effect::Drop(reason) => format!("drop {reason:?}"),
        Effect::Say(standing) => {
            let flags = [
                (standing.ready, "ready"),
                (standing.offers, "offers"),
                (standing.api_lost, "api lost"),
                (standing.asks, "asks"),
                (standing.promise.is_some(), "promises"),
            ];
            let flags: Vec<&str> = flags
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, flag)| *flag)
                .collect();
            format!(
                "say {} of {} ({})",
                standing.epoch,
                standing.holder.as_deref().unwrap_or("nobody"),
                flags.join(" ")
            )
        }
        Effect::Stop => "stop".to_owned(),
    }
}

fn table(config: &Config, events: &dyn Fn() -> Vec<(&'static str, Event)>) -> String {
    let mut table = String::new();
    for state in STATES {
        writeln!(table, "{state}").unwrap();
        for (name, event) in events() {
            let mut machine = in_state(state, config);
            let now = after(if matches!(state, "Offering" | "HandedOver") {
                600
            } else {
                2_500
            });
            let effects: Vec<String> = machine.handle(event, now).iter().map(word).collect();
            let status = machine.status();
            let effects = if effects.is_empty() {
                "-".to_owned()
            } else {
                effects.join(", ")
            };
            writeln!(
                table,
                "  {name:<24} {:<8} {:<18} {effects}",
                format!("{:?}", status.role),
                status.reason.as_str()
            )
            .unwrap();
            // Nothing may be due at the very moment it was dealt with.
            let due = machine.next_deadline();
            assert!(
                due.is_none_or(|due| due > now),
                "{state}, {name}: due at once, {machine:?}"
            );
        }
    }
    table
}

#[test]
fn every_state_answers_every_event_as_the_table_says() {
    let table = table(&config(), &events);
    let wanted = include_str!("election/table.txt");
    assert_eq!(table, wanted, "the table is now:\n{table}");
}

fn with_heartbeats() -> Config {
    let heartbeat = HeartbeatParts {
        interval: Duration::from_millis(150),
        missed: 3,
        challenge_window: Duration::from_millis(200),
    };
    Config {
        timing: Timing::for_detection(10, Some(heartbeat)).unwrap(),
        ..config()
    }
}

/// lb-b says this, freshly.
fn heard(
    carriage: Carriage,
    epoch: u64,
    holder: &str,
    change: impl FnOnce(&mut Standing),
) -> Event {
    let mut standing = Standing {
        epoch,
        holder: Some(holder.to_owned()),
        priority: 100,
        ready: true,
        ..Standing::default()
    };
    change(&mut standing);
    Event::Heard(Heard {
        from: identity("lb-b"),
        sequence: 9,
        fresh: true,
        carriage,
        standing,
        promised_at: None,
    })
}

fn heartbeat_events() -> Vec<(&'static str, Event)> {
    let stale = match heard(Carriage::All, 7, "lb-b", |_| ()) {
        Event::Heard(heard) => Event::Heard(Heard {
            fresh: false,
            ..heard
        }),
        _ => unreachable!("it is a heartbeat"),
    };
    let challenged = LeaseRecord {
        challenger: Some(identity("lb-b")),
        ..lease(7, Some("lb-a"), 5)
    };
    vec![
        (
            "heard of nothing new",
            heard(Carriage::Nothing, 4, "lb-b", |_| ()),
        ),
        ("heard of mine", heard(Carriage::Nothing, 5, "lb-a", |_| ())),
        (
            "heard higher, added",
            heard(Carriage::All, 7, "lb-b", |_| ()),
        ),
        (
            "heard higher, announced",
            heard(Carriage::Announced, 7, "lb-b", |_| ()),
        ),
        ("heard higher, not fresh", stale),
        (
            "heard an offer",
            heard(Carriage::Announced, 4, "lb-b", |standing| {
                standing.offers = true;
            }),
        ),
        (
            "heard a request",
            heard(Carriage::Announced, 4, "lb-b", |standing| {
                standing.asks = true;
            }),
        ),
        ("challenged", Event::Seen(challenged, Source::Watch)),
        ("stood still", Event::Doubted(after(30_000))),
        ("API lost", Event::ApiLost),
        ("API back", Event::ApiBack),
        ("deadline", Event::Deadline),
    ]
}

/// A director that is a real server too has no services before it takes over, and they may take longer than 300 ms.
#[test]
fn who_handed_over_carries_on_while_the_successor_has_no_address_but_not_past_its_own_time() {
    let gives_up = |effects: &[Effect]| {
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Drop(_)))
    };
    let until = |machine: &Machine| machine.next_deadline().unwrap();
    let mut machine = in_state("HandedOver", &with_heartbeats());
    assert_eq!(until(&machine), after(750));
    for time in (500..=1_000).step_by(100) {
        let effects = machine.handle(heard(Carriage::Nothing, 6, "lb-b", |_| ()), after(time));
        assert!(!gives_up(&effects), "at {time}: {effects:?}");
        assert_eq!(until(&machine), after(time + 300));
    }
    // One that has some of them already is waited for no longer than before.
    machine.handle(heard(Carriage::Some, 6, "lb-b", |_| ()), after(1_100));
    assert_eq!(until(&machine), after(1_300));
    let mut announced = machine.clone();
    let effects = announced.handle(heard(Carriage::Announced, 6, "lb-b", |_| ()), after(1_150));
    assert!(gives_up(&effects), "{effects:?}");
    // Its own time is W after the offer was acknowledged.
    let offered_at = after(430);
    let end = offered_at + with_heartbeats().timing.offer_authority();
    let mut time = 1_200;
    while after(time) < end {
        machine.handle(heard(Carriage::Nothing, 6, "lb-b", |_| ()), after(time));
        assert!(until(&machine) <= end, "at {time}");
        time += 100;
    }
    assert_eq!(until(&machine), end);
    assert!(gives_up(&machine.handle(Event::Deadline, end)));
}

#[test]
fn every_state_answers_every_heartbeat_as_the_table_says() {
    let config = with_heartbeats();
    let table = table(&config, &heartbeat_events);
    let wanted = include_str!("election/heartbeats.txt");
    assert_eq!(table, wanted, "the table is now:\n{table}");
}

#[test]
fn a_conflict_with_an_unchanged_holder_is_no_loss() {
    let mut machine = in_state("Renewing", &config());
    assert_eq!(
        machine.handle(Event::Conflict, after(2_500)),
        [Effect::Read]
    );
    let seen = Event::Seen(lease(7, Some("lb-a"), 5), Source::Read);
    let again = write_of(&machine.handle(seen, after(2_520)));
    assert_eq!((again.resource_version.as_str(), again.epoch), ("7", 5));
    assert_eq!(machine.status().role, Role::Master);
}

#[test]
fn an_acquisition_is_not_repeated_without_a_new_observation() {
    let mut machine = in_state("Acquiring", &config());
    assert_eq!(machine.handle(Event::Conflict, after(500)), [Effect::Read]);
    // A watch that may be late is none.
    assert_eq!(
        machine.handle(Event::Seen(lease(6, None, 4), Source::Watch), after(501)),
        []
    );
    assert_eq!(machine.handle(Event::Deadline, after(5_000)), []);
    let other = Event::Seen(lease(7, Some("lb-b"), 5), Source::Read);
    assert_eq!(machine.handle(other, after(5_001)), []);
}

#[test]
fn what_was_not_watched_does_not_count() {
    let mut machine = in_state("Backup", &config());
    // Ten seconds without a look: a paused process must not take what it sees first for old.
    let effects = machine.handle(Event::Deadline, after(11_500));
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Write(_))),
        "{effects:?}"
    );
    let unchanged = || Event::Seen(lease(5, Some("lb-b"), 4), Source::Read);
    machine.handle(unchanged(), after(11_510));
    for time in (12_000..22_000).step_by(1_000) {
        for effect in machine.handle(unchanged(), after(time)) {
            assert!(!matches!(effect, Effect::Write(_)), "at {time}");
        }
    }
    let taken = (22_000..24_000).step_by(100).find(|time| {
        let effects = machine.handle(unchanged(), after(*time));
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Write(_)))
    });
    // 1.05 L, and the skew of priority 100: 156/256 s.
    assert!(matches!(taken, Some(22_600..=22_800)), "{taken:?}");
}

#[test]
fn an_epoch_is_higher_than_lease_and_journal_together() {
    let resumption = Some(Resumption {
        epoch: 9,
        held: false,
    });
    let mut machine = Machine::new(identity("lb-a"), config(), resumption, BEGIN);
    machine.handle(Event::Seen(lease(5, None, 4), Source::Watch), BEGIN);
    let write = write_of(&machine.handle(Event::Deadline, after(400)));
    assert_eq!(write.epoch, 10);
}

#[test]
fn a_restart_adopts_the_same_epoch_and_nothing_else() {
    for (epoch, purpose) in [(4, "adopt epoch 4"), (3, "acquire epoch 5")] {
        let resumption = Some(Resumption { epoch, held: true });
        let mut machine = Machine::new(
            Identity {
                node: "lb-a".to_owned(),
                incarnation: "2".to_owned(),
            },
            config(),
            resumption,
            BEGIN,
        );
        let seen = Event::Seen(lease(5, Some("lb-a"), 4), Source::Read);
        let effects = machine.handle(seen, BEGIN);
        let write = write_of(&effects).to_string();
        assert!(write.starts_with(purpose), "{write}");
        // No permission before the acknowledgement.
        assert!(
            !effects
                .iter()
                .any(|effect| matches!(effect, Effect::Hold(_)))
        );
    }
}

#[test]
fn a_controller_without_addresses_releases_on_shutdown() {
    let config = Config::stateless(Timing::for_lease_seconds(15).unwrap());
    let mut machine = Machine::new(identity("controller-0"), config, None, BEGIN);
    machine.handle(Event::Seen(lease(5, None, 0), Source::Read), BEGIN);
    let acquisition = write_of(&machine.handle(Event::Deadline, after(300)));
    machine.handle(accepted(&acquisition, 6), after(310));
    assert_eq!(machine.status().role, Role::Master);
    let effects = machine.handle(Event::ShutdownRequested, after(400));
    let release = write_of(&effects);
    assert_eq!(release.holder, None);
    let effects = machine.handle(accepted(&release, 7), after(410));
    assert_eq!(effects, [Effect::Stop]);
}

fn parts() -> TimingParts {
    TimingParts {
        lease_duration: Duration::from_secs(10),
        renew_interval: Duration::from_secs(2),
        write_timeout: Duration::from_secs(2),
        address_lifetime_seconds: 2,
        refresh_interval: Duration::from_millis(500),
        collector_lateness: Duration::from_millis(1250),
        heartbeat: None,
    }
}

#[test]
fn every_illegal_order_of_times_is_refused_by_name() {
    assert!(Timing::new(parts()).is_ok());
    let refused = |change: fn(&mut TimingParts)| {
        let mut parts = parts();
        change(&mut parts);
        Timing::new(parts).unwrap_err()
    };
    assert_eq!(
        refused(|parts| parts.address_lifetime_seconds = 0),
        TimingError::AddressLifetime(0)
    );
    assert_eq!(
        refused(|parts| parts.renew_interval = Duration::ZERO),
        TimingError::Zero("renew interval")
    );
    assert_eq!(
        refused(|parts| parts.lease_duration = Duration::from_millis(10_500)),
        TimingError::LeaseDurationFraction(Duration::from_millis(10_500))
    );
    assert_eq!(
        refused(|parts| parts.lease_duration = Duration::from_secs(9)),
        TimingError::LeaseDuration {
            lease_duration: Duration::from_secs(9),
            minimum: Duration::from_millis(9_250),
            write_timeout: Duration::from_secs(2),
        }
    );
    assert!(matches!(
        refused(|parts| parts.renew_interval = Duration::from_secs(3)),
        TimingError::RenewInterval { .. }
    ));
    assert!(matches!(
        refused(|parts| parts.refresh_interval = Duration::from_secs(1)),
        TimingError::RefreshInterval { .. }
    ));
    assert!(Timing::for_lease_seconds(9).is_err());
}

proptest! {
    #[test]
    fn legal_times_leave_a_holder_room_and_outlast_its_addresses(
        lease in 0_u64..400, renew in 0_u64..5_000, timeout in 0_u64..5_000,
        lifetime in 0_u32..10, refresh in 0_u64..3_000, lateness in 0_u64..3_000,
    ) {
        let parts = TimingParts {
            lease_duration: Duration::from_secs(lease),
            renew_interval: Duration::from_millis(renew),
            write_timeout: Duration::from_millis(timeout),
            address_lifetime_seconds: lifetime,
            refresh_interval: Duration::from_millis(refresh),
            collector_lateness: Duration::from_millis(lateness),
            heartbeat: None,
        };
        if let Ok(timing) = Timing::new(parts) {
            let until = timing.holder_until(BEGIN, timing.lease_duration(), lifetime);
            // A renewal that fails once is repeated in time.
            prop_assert!(BEGIN + timing.renew_interval() + 2 * timing.write_timeout() <= until);
            // The last address is gone when the Lease ends, and nobody takes over before.
            let gone = until + timing.fence_bound();
            prop_assert!(gone <= BEGIN + timing.lease_duration());
            prop_assert!(gone < BEGIN + timing.expiry(timing.lease_duration()));
        }
    }

    #[test]
    fn no_two_candidates_go_at_the_same_time_and_priority_decides_first(
        priorities in proptest::collection::vec(1_u8..=254, 2..20),
    ) {
        let directors: Vec<String> = (0..priorities.len()).map(|node| format!("node-{node:02}")).collect();
        let mut times = BTreeSet::new();
        let mut order = Vec::new();
        for (node, priority) in directors.iter().zip(&priorities) {
            let config = Config { priority: *priority, directors: directors.clone(), ..config() };
            let mut machine = Machine::new(identity(node), config, None, BEGIN);
            machine.handle(Event::Seen(lease(5, None, 4), Source::Read), BEGIN);
            let at = machine.next_deadline().unwrap();
            prop_assert!(at > BEGIN && at <= after(250), "{at}");
            prop_assert!(times.insert(at));
            order.push((at, *priority, node.clone()));
        }
        order.sort();
        for pair in order.windows(2) {
            let ((_, first, first_name), (_, second, second_name)) = (&pair[0], &pair[1]);
            prop_assert!(first > second || (first == second && first_name > second_name));
        }
    }
}
