//! Heartbeats of other directors: what is read is written the same, and no sequence of them confuses an exchange.
#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use lvs_core::election::{HeartbeatParts, Identity, Tick, Timing};
use lvs_core::heartbeat::{Carriage, Exchange, Message, Standing};

fuzz_target!(|bytes: &[u8]| {
    let parts = HeartbeatParts {
        interval: Duration::from_millis(150),
        missed: 3,
        challenge_window: Duration::from_millis(200),
    };
    let timing = Timing::for_detection(10, Some(parts)).ok().and_then(|timing| timing.heartbeat());
    let Some(timing) = timing else { return };
    let me = Identity {
        node: "a".to_owned(),
        incarnation: "1".to_owned(),
    };
    let mut exchange = Exchange::new("r", me, timing);
    exchange.configure(&BTreeSet::from(["a".to_owned(), "b".to_owned()]), timing);
    let mut now = Tick::from_nanoseconds(1);
    for datagram in bytes.split(|byte| *byte == 0xff) {
        now = now + Duration::from_millis(10);
        exchange.due(&Standing::default(), Carriage::Nothing, now);
        if let Ok(message) = Message::decode(datagram) {
            assert_eq!(message.encode(), datagram);
            let sequence = message.sequence;
            if let Ok(heard) = exchange.receive(message.clone(), now) {
                assert_eq!(heard.sequence, sequence);
                assert!(exchange.receive(message, now).is_err(), "a replay counts");
            }
        }
    }
});
