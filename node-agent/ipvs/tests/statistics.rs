//! Statistics as the kernel tells them, in bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expects"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use lvs_core::ipvs::{Destination, DestinationForwarding, DestinationKey, Service, ServiceKey};
use lvs_core::op::IpvsOp;
use lvs_core::statistics::{Counters, DestinationStatistics, Rates, ServiceStatistics};
use lvs_crds::value::Protocol;
use lvs_ipvs::attribute::AttributeWriter;
use lvs_ipvs::message::{Content, Envelope, Messages};
use lvs_ipvs::socket::Transport;
use lvs_ipvs::uapi::{command, destination, service, statistics};
use lvs_ipvs::{Client, ClientOptions, DumpError, TransportError, Wanted, encode};

const FAMILY: u16 = 0x1d;
const MULTI: u16 = 0x2;
const DUMP_INTERRUPTED: u16 = 0x10;

fn key(port: u16) -> ServiceKey {
    ServiceKey::Address {
        address: "192.0.2.1".parse().unwrap(),
        protocol: Protocol::TCP,
        port,
    }
}

fn target(last: u8) -> DestinationKey {
    DestinationKey {
        address: [192, 0, 2, last].into(),
        port: 80,
    }
}

fn counters(seed: u64) -> Counters {
    Counters {
        connections: seed,
        incoming_packets: seed + 1,
        outgoing_packets: seed + 2,
        // More than 32 bits hold.
        incoming_bytes: (seed << 32) + 3,
        outgoing_bytes: (seed << 32) + 4,
    }
}

/// The message of a dump that an operation looks like, and further attributes in its last nest.
fn dumped(
    operation: &IpvsOp,
    sequence: u32,
    more: impl FnOnce(&mut AttributeWriter<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let envelope = Envelope {
        family: FAMILY,
        flags: MULTI,
        sequence,
    };
    encode::operation(&mut bytes, envelope, operation);
    let length_at = |bytes: &[u8], at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let mut nest = 20;
    while nest + usize::from(length_at(&bytes, nest)) < bytes.len() {
        nest += usize::from(length_at(&bytes, nest));
    }
    more(&mut AttributeWriter::new(&mut bytes));
    let length = u16::try_from(bytes.len() - nest).unwrap();
    bytes[nest..nest + 2].copy_from_slice(&length.to_ne_bytes());
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

fn stats64(writer: &mut AttributeWriter<'_>, kind: u16, counters: &Counters) {
    let half = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
    writer.nested(kind, |writer| {
        for (kind, value) in [
            (statistics::CONNS, counters.connections),
            (statistics::INPKTS, counters.incoming_packets),
            (statistics::OUTPKTS, counters.outgoing_packets),
            (statistics::INBYTES, counters.incoming_bytes),
            (statistics::OUTBYTES, counters.outgoing_bytes),
            (statistics::CPS, 77),
            (statistics::INPPS, 78),
            (statistics::OUTPPS, 79),
            (statistics::INBPS, 80),
            (statistics::OUTBPS, 81),
        ] {
            let bytes = value.to_ne_bytes();
            let (first, second) = bytes.split_at(4);
            writer.u32_pair(kind, half(first), half(second));
        }
    });
}

fn service_message(port: u16, sequence: u32) -> Vec<u8> {
    let attributes = Service {
        scheduler: "rr".into(),
        flags: lvs_core::ipvs::ServiceFlags(0),
        timeout_seconds: 0,
        prefix_length: 32,
        persistence_engine: None,
    };
    dumped(
        &IpvsOp::AddService(key(port), attributes),
        sequence,
        |writer| {
            stats64(writer, service::STATS64, &counters(u64::from(port)));
        },
    )
}

fn destination_message(last: u8, sequence: u32) -> Vec<u8> {
    let attributes = Destination {
        forwarding: DestinationForwarding::Masquerade,
        weight: 5,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let operation = IpvsOp::AddDestination(key(80), target(last), attributes);
    dumped(&operation, sequence, |writer| {
        writer.u32(destination::ACTIVE_CONNS, 3);
        writer.u32(destination::INACT_CONNS, 2);
        writer.u32(destination::PERSIST_CONNS, 1);
        stats64(writer, destination::STATS64, &counters(u64::from(last)));
    })
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + payload.len())
        .unwrap()
        .to_ne_bytes()
        .to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// A kernel with services at ports 80 and 81, the former with destinations, each told twice.
#[derive(Debug)]
struct Line {
    answers: VecDeque<Vec<u8>>,
    asked: Arc<Mutex<Vec<u8>>>,
    /// Without the counters of services.
    is_old: bool,
}

impl Transport for Line {
    fn send(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        for message_ in Messages::new(bytes) {
            let message_ = message_.unwrap();
            let sequence = message_.sequence;
            if message_.kind == 0x10 {
                let mut payload = vec![1, 1, 0, 0];
                AttributeWriter::new(&mut payload).u16(1, FAMILY);
                self.answers.push_back(message(0x10, 0, sequence, &payload));
                continue;
            }
            let Ok(Content::Data { command, .. }) = message_.content() else {
                panic!("{message_:?}")
            };
            self.asked.lock().unwrap().push(command);
            let mut answer = match command {
                command::GET_SERVICE if self.is_old => {
                    let attributes = Service {
                        scheduler: "rr".into(),
                        flags: lvs_core::ipvs::ServiceFlags(0),
                        timeout_seconds: 0,
                        prefix_length: 32,
                        persistence_engine: None,
                    };
                    dumped(&IpvsOp::AddService(key(80), attributes), sequence, |_| {})
                }
                command::GET_SERVICE => [80, 81, 80]
                    .map(|port| service_message(port, sequence))
                    .concat(),
                command::GET_DEST => [11, 10, 11]
                    .map(|last| destination_message(last, sequence))
                    .concat(),
                command::ZERO => {
                    // The acknowledgement that was asked for, or the refusal of a service that is not there.
                    let is_there = !message_.content().is_ok_and(|content| {
                        matches!(content, Content::Data { attributes, .. }
                            if attributes.windows(2).any(|two| two == 99_u16.to_be_bytes()))
                    });
                    let errno = if is_there { 0_i32 } else { -3 };
                    let mut payload = errno.to_ne_bytes().to_vec();
                    payload.extend([0; 16]);
                    self.answers
                        .push_back(message(2, 0x100, sequence, &payload));
                    continue;
                }
                other => panic!("command {other} is not for reading statistics"),
            };
            answer.extend(message(3, MULTI | DUMP_INTERRUPTED, sequence, &[0; 4]));
            self.answers.push_back(answer);
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, TransportError> {
        let bytes = self.answers.pop_front().unwrap();
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

fn client(is_old: bool) -> (Client, Arc<Mutex<Vec<u8>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let line = Arc::clone(&asked);
    let client = Client::with_transport(ClientOptions::default(), move |_| {
        Ok(Box::new(Line {
            answers: VecDeque::new(),
            asked: Arc::clone(&line),
            is_old,
        }))
    });
    (client, asked)
}

#[test]
fn counters_are_read_whole_and_each_thing_once() {
    let (mut client, asked) = client(false);
    let read = client.statistics(|service| {
        if *service == key(80) {
            Wanted::Destinations
        } else {
            Wanted::Service
        }
    });
    let destination = |last: u8| DestinationStatistics {
        key: target(last),
        counters: counters(last.into()),
        weight: 5,
        active_connections: 3,
        inactive_connections: 2,
        persistent_connections: 1,
    };
    let expected = [
        ServiceStatistics {
            key: key(80),
            counters: counters(80),
            destinations: vec![destination(10), destination(11)],
        },
        ServiceStatistics {
            key: key(81),
            counters: counters(81),
            destinations: vec![],
        },
    ];
    assert_eq!(read.unwrap(), expected);
    assert_eq!(
        *asked.lock().unwrap(),
        [command::GET_SERVICE, command::GET_DEST]
    );
}

#[test]
fn what_is_somebody_elses_is_not_asked_for() {
    let (mut client, asked) = client(false);
    assert_eq!(client.statistics(|_| Wanted::Nothing).unwrap(), []);
    assert_eq!(*asked.lock().unwrap(), [command::GET_SERVICE]);
}

#[test]
fn a_kernel_without_counters_of_64_bits_is_an_error_not_zero() {
    let (mut client, _) = client(true);
    let error = client.statistics(|_| Wanted::Service).unwrap_err();
    assert!(matches!(error, DumpError::Undecodable { .. }), "{error:?}");
    assert!(format!("{error:?}").contains("IPVS_SVC_ATTR_STATS64"));
}

const RATES: Rates = Rates {
    connections_per_second: 77,
    incoming_packets_per_second: 78,
    outgoing_packets_per_second: 79,
    incoming_bytes_per_second: 80,
    outgoing_bytes_per_second: 81,
};

#[test]
fn what_people_are_shown_is_read_whole_and_each_thing_once() {
    let (mut client, asked) = client(false);
    let (services, unnameable) = client.readings().unwrap();
    assert_eq!(unnameable, [""; 0]);
    let keys: Vec<_> = services.iter().map(|service| service.key).collect();
    assert_eq!(keys, [key(80), key(81)]);
    let first = &services[0];
    assert_eq!((first.counters, first.rates), (counters(80), RATES));
    assert_eq!(first.service.scheduler, "rr");
    // In the kernel's order.
    let targets: Vec<_> = first
        .destinations
        .iter()
        .map(|one| (one.statistics.key, one.statistics.active_connections))
        .collect();
    assert_eq!(targets, [(target(11), 3), (target(10), 3)]);
    let one = &first.destinations[0];
    assert_eq!((one.statistics.counters, one.rates), (counters(11), RATES));
    assert_eq!(one.state.forwarding, DestinationForwarding::Masquerade);
    assert_eq!(
        *asked.lock().unwrap(),
        [command::GET_SERVICE, command::GET_DEST, command::GET_DEST]
    );
}

#[test]
fn counters_are_zeroed_of_one_service_or_of_all_and_a_refusal_is_told() {
    let (mut client, asked) = client(false);
    client.zero(Some(&key(80))).unwrap();
    client.zero(None).unwrap();
    assert_eq!(*asked.lock().unwrap(), [command::ZERO, command::ZERO]);
    let error = client.zero(Some(&key(99))).unwrap_err();
    assert!(matches!(error, DumpError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("-t 192.0.2.1:99"), "{error}");
}
