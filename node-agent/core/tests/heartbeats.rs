//! The laws of heartbeats: their form on the wire, and which of them count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::time::Duration;

use lvs_core::election::{HeartbeatParts, HeartbeatTiming, Identity, Tick, Timing, TimingError};
use lvs_core::heartbeat::{
    Carriage, Echo, Exchange, Ignored, Message, MessageError, Promise, Standing,
};
use proptest::prelude::*;

const PARTS: HeartbeatParts = HeartbeatParts {
    interval: Duration::from_millis(150),
    missed: 3,
    challenge_window: Duration::from_millis(200),
};

fn timing() -> HeartbeatTiming {
    Timing::for_detection(10, Some(PARTS))
        .unwrap()
        .heartbeat()
        .unwrap()
}

fn at(milliseconds: u64) -> Tick {
    Tick::from_nanoseconds(1_000_000_000_000) + Duration::from_millis(milliseconds)
}

fn exchange(node: &str, incarnation: &str) -> Exchange {
    let me = Identity {
        node: node.to_owned(),
        incarnation: incarnation.to_owned(),
    };
    let mut exchange = Exchange::new("edge", me, timing());
    let directors = ["lb-a", "lb-b"].map(str::to_owned);
    exchange.configure(&BTreeSet::from(directors), timing());
    exchange
}

fn beat(exchange: &mut Exchange, milliseconds: u64) -> Message {
    let messages = exchange.due(&Standing::default(), Carriage::Nothing, at(milliseconds));
    assert_eq!(messages.len(), 1);
    messages.into_iter().next().unwrap()
}

/// Two directors that have proved themselves to each other by the time 450 ms.
fn acquainted() -> (Exchange, Exchange) {
    let (mut a, mut b) = (exchange("lb-a", "1"), exchange("lb-b", "1"));
    for time in [0, 150, 300] {
        let (from_a, from_b) = (beat(&mut a, time), beat(&mut b, time));
        a.receive(from_b, at(time + 1)).unwrap();
        b.receive(from_a, at(time + 1)).unwrap();
    }
    (a, b)
}

#[test]
fn the_first_heartbeat_proves_nothing_and_the_answer_to_ours_does() {
    let (mut a, mut b) = (exchange("lb-a", "1"), exchange("lb-b", "1"));
    let first = beat(&mut a, 0);
    assert!(!b.receive(first, at(1)).unwrap().fresh);
    let answer = beat(&mut b, 2);
    assert!(a.receive(answer, at(3)).unwrap().fresh);
}

#[test]
fn a_replay_does_not_count_and_neither_does_an_earlier_life() {
    let (mut a, mut b) = acquainted();
    let message = beat(&mut a, 450);
    assert!(b.receive(message.clone(), at(451)).unwrap().fresh);
    assert_eq!(b.receive(message.clone(), at(452)), Err(Ignored::Old));
    // A new agent of lb-b knows nothing; what its predecessor was told proves nothing to it.
    let mut reborn = exchange("lb-b", "2");
    beat(&mut reborn, 500);
    assert!(!reborn.receive(message, at(501)).unwrap().fresh);
}

#[test]
fn one_that_does_not_hear_us_is_silent() {
    let (mut a, mut b) = acquainted();
    for time in (450..3_000).step_by(150) {
        let from_b = beat(&mut b, time);
        beat(&mut a, time);
        let heard = a.receive(from_b, at(time + 1)).unwrap();
        assert_eq!(heard.fresh, time + 1 - 300 <= 900, "at {time}");
    }
}

#[test]
fn a_promise_counts_from_the_sending_of_the_heartbeat_that_asked() {
    let (mut a, mut b) = acquainted();
    let request = beat(&mut a, 450);
    let asked = request.sequence;
    b.receive(request, at(451)).unwrap();
    let promising = Standing {
        promise: Some(Promise {
            to: "lb-a".to_owned(),
            sequence: asked,
        }),
        ..Standing::default()
    };
    let promise = b.due(&promising, Carriage::Nothing, at(460)).remove(0);
    beat(&mut a, 600);
    let heard = a.receive(promise, at(700)).unwrap();
    assert_eq!(heard.promised_at, Some(at(450)));
    // A promise to somebody else is not on this wire.
    let elsewhere = Standing {
        promise: Some(Promise {
            to: "lb-c".to_owned(),
            sequence: asked,
        }),
        ..Standing::default()
    };
    let message = b.due(&elsewhere, Carriage::Nothing, at(710)).remove(0);
    assert_eq!(
        Message::decode(&message.encode()).unwrap().standing.promise,
        None
    );
}

#[test]
fn strangers_and_heartbeats_for_others_do_not_count() {
    let (mut a, _) = acquainted();
    let mut stranger = exchange("lb-b", "1");
    let message = beat(&mut stranger, 0);
    let changed = |change: fn(&mut Message)| {
        let mut message = message.clone();
        change(&mut message);
        message
    };
    let from_nobody = changed(|message| message.from = "web-1".to_owned());
    assert_eq!(a.receive(from_nobody, at(500)), Err(Ignored::Stranger));
    let misdirected = changed(|message| message.to = "lb-c".to_owned());
    assert_eq!(a.receive(misdirected, at(500)), Err(Ignored::NotForUs));
    let of_another = changed(|message| message.router = "other".to_owned());
    assert_eq!(a.receive(of_another, at(500)), Err(Ignored::NotForUs));
}

#[test]
fn heartbeats_are_sent_at_their_interval_and_at_once_when_there_is_news() {
    let mut a = exchange("lb-a", "1");
    assert_eq!(a.next_wake(), None);
    beat(&mut a, 0);
    assert_eq!(a.next_wake(), Some(at(150)));
    assert_eq!(a.due(&Standing::default(), Carriage::Nothing, at(149)), []);
    assert_eq!(a.due(&Standing::default(), Carriage::All, at(149)).len(), 1);
    assert_eq!(a.next_wake(), Some(at(299)));
}

#[test]
fn heartbeats_too_slow_for_the_addresses_are_refused() {
    let slow = HeartbeatParts { missed: 7, ..PARTS };
    assert!(matches!(
        Timing::for_detection(10, Some(slow)),
        Err(TimingError::Detection { .. })
    ));
    let none = HeartbeatParts { missed: 0, ..PARTS };
    assert!(matches!(
        Timing::for_detection(10, Some(none)),
        Err(TimingError::Zero(_))
    ));
}

fn messages() -> impl Strategy<Value = Message> {
    let name = "[a-z0-9.-]{1,60}";
    let echo = proptest::option::of((name, any::<u64>()));
    let carriage = prop_oneof![
        Just(Carriage::Nothing),
        Just(Carriage::Some),
        Just(Carriage::All),
        Just(Carriage::Announced)
    ];
    let names = (name, name, name, name, proptest::option::of(name));
    let numbers = (
        any::<u64>(),
        any::<u64>(),
        any::<u8>(),
        proptest::option::of(any::<u64>()),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (names, numbers, flags, echo, carriage).prop_map(
        |(
            (router, from, incarnation, to, holder),
            (sequence, epoch, priority, promise),
            flags,
            echo,
            carriage,
        )| {
            let (ready, offers, api_lost, asks) = flags;
            Message {
                router,
                from,
                incarnation,
                sequence,
                echo: echo.map(|(incarnation, sequence)| Echo {
                    incarnation,
                    sequence,
                }),
                carriage,
                standing: Standing {
                    epoch,
                    holder,
                    priority,
                    ready,
                    offers,
                    api_lost,
                    asks,
                    promise: promise.map(|sequence| Promise {
                        to: to.clone(),
                        sequence,
                    }),
                },
                to,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_nothing_shorter_or_longer(message in messages()) {
        let bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
        for length in 0..bytes.len() {
            prop_assert!(Message::decode(&bytes[..length]).is_err());
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        prop_assert_eq!(Message::decode(&longer), Err(MessageError::Trailing(1)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}
