//! The codec against bytes that are not ours: what ipvsadm sent and what a real kernel answered, captured by
//! `goldens/capture.sh`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects"
)]

#[path = "support/ipvsadm.rs"]
mod ipvsadm;

use std::collections::BTreeMap;

use lvs_core::ipvs::{DestinationKey, ServiceKey, ServiceState, Services};
use lvs_core::op::IpvsOp;
use lvs_ipvs::attribute::{Attribute, Attributes};
use lvs_ipvs::decode::{self, DumpedService};
use lvs_ipvs::encode;
use lvs_ipvs::message::{Envelope, HEADER_LENGTH};
use lvs_ipvs::uapi::{command, destination, service, top};

/// One run of ipvsadm.
#[derive(Default)]
struct Run {
    arguments: String,
    sent: Vec<Vec<u8>>,
    received: Vec<(usize, Vec<u8>)>,
    printed: Vec<String>,
}

fn runs() -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for line in include_str!("../goldens/ipvsadm.txt").lines() {
        if let Some(arguments) = line.strip_prefix("# ipvsadm ") {
            runs.push(Run {
                arguments: arguments.to_owned(),
                ..Run::default()
            });
            continue;
        }
        let run = runs.last_mut().expect("a run before its lines");
        if let Some(printed) = line.strip_prefix("print ") {
            run.printed.push(printed.to_owned());
            continue;
        }
        let fields: Vec<&str> = line.split(' ').collect();
        let [direction, _flags, hex] = fields.as_slice() else {
            panic!("{line}")
        };
        let bytes = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
            .collect();
        match *direction {
            "send" => run.sent.push(bytes),
            "receive" => run.received.push((run.sent.len() - 1, bytes)),
            _ => panic!("{line}"),
        }
    }
    runs
}

/// The one message of a run that changes something.
fn write_of(run: &Run) -> Option<&[u8]> {
    let writes: Vec<&Vec<u8>> = run
        .sent
        .iter()
        .filter(|bytes| matches!(bytes[0], 1..=3 | 5..=7 | 9 | 10 | 12))
        .collect();
    assert!(writes.len() <= 1, "{}", run.arguments);
    writes.first().map(|bytes| bytes.as_slice())
}

fn ours(write: impl FnOnce(&mut Vec<u8>, Envelope)) -> Vec<u8> {
    let mut buffer = Vec::new();
    write(
        &mut buffer,
        Envelope {
            family: 0x20,
            flags: 5,
            sequence: 1,
        },
    );
    buffer.split_off(HEADER_LENGTH)
}

/// What ipvsadm asks for is read as the operation whose text is ipvsadm's own arguments.
#[test]
fn arguments_of_ipvsadm_are_the_text_of_its_messages() {
    let mut compared = 0;
    for run in runs() {
        let Some(bytes) = write_of(&run) else {
            continue;
        };
        let operation = decode::operation(bytes[0], &bytes[4..]).expect("decodes");
        assert_eq!(operation.to_string(), run.arguments);
        compared += 1;
    }
    assert_eq!(
        compared,
        // And the two that stop the daemons.
        include_str!("../goldens/commands.txt").lines().count() + 2
    );
}

/// Attributes of a message by (nest, type).
fn attributes(bytes: &[u8]) -> BTreeMap<(u16, u16), Vec<u8>> {
    let mut found = BTreeMap::new();
    for attribute in Attributes::new(&bytes[4..]) {
        let attribute: Attribute<'_> = attribute.expect("well formed");
        if bytes[0] == command::SET_CONFIG {
            found.insert((0, attribute.kind), attribute.payload.to_vec());
            continue;
        }
        for inner in attribute.nested() {
            let inner = inner.expect("well formed");
            found.insert((attribute.kind, inner.kind), inner.payload.to_vec());
        }
    }
    found
}

/// For the same operation we send the same attributes, less those that the kernel does not look at.
#[test]
fn our_messages_say_what_ipvsadms_say() {
    for run in runs() {
        let Some(bytes) = write_of(&run) else {
            continue;
        };
        let operation = decode::operation(bytes[0], &bytes[4..]).expect("decodes");
        let ours = ours(|buffer, envelope| encode::operation(buffer, envelope, &operation));
        assert_eq!(ours[..2], bytes[..2], "command and version of {operation}");
        let (ours, theirs) = (attributes(&ours), attributes(bytes));
        for (name, value) in &ours {
            let their_value = theirs
                .get(name)
                .unwrap_or_else(|| panic!("{operation}: {name:?} is ours alone"));
            let compared = match *name {
                // Four bytes of flags; after them our mask leaves alone what is not ours.
                (top::SERVICE, service::FLAGS) => 4,
                // Behind an IPv4 address ipvsadm leaves what was there.
                (top::SERVICE, service::ADDR) | (top::DEST, destination::ADDR)
                    if is_ipv4(&operation, name.0) =>
                {
                    4
                }
                _ => value.len().max(their_value.len()),
            };
            assert_eq!(
                value[..compared],
                their_value[..compared],
                "{operation}: {name:?}"
            );
        }
        for name in theirs.keys().filter(|name| !ours.contains_key(name)) {
            let needless = match (&operation, *name) {
                // A service is only named where it is not made or edited.
                (IpvsOp::AddService(..) | IpvsOp::EditService(..), (top::SERVICE, _)) => false,
                (_, (top::SERVICE, kind)) => {
                    matches!(
                        kind,
                        service::SCHED_NAME | service::FLAGS | service::TIMEOUT | service::NETMASK
                    )
                }
                // A daemon is only named where it is stopped, a destination where it is deleted; tunnel attributes are zero
                // unless they are ours.
                (IpvsOp::StopSyncDaemon(_), (top::DAEMON, _))
                | (IpvsOp::DeleteDestination(..), (top::DEST, _)) => true,
                (
                    _,
                    (
                        top::DEST,
                        destination::TUN_TYPE | destination::TUN_PORT | destination::TUN_FLAGS,
                    ),
                ) => theirs[name].iter().all(|byte| *byte == 0),
                _ => false,
            };
            assert!(needless, "{operation}: {name:?} is theirs alone");
        }
    }
}

fn is_ipv4(operation: &IpvsOp, nest: u16) -> bool {
    let (IpvsOp::AddService(service, _)
    | IpvsOp::EditService(service, _)
    | IpvsOp::DeleteService(service)
    | IpvsOp::AddDestination(service, ..)
    | IpvsOp::EditDestination(service, ..)
    | IpvsOp::DeleteDestination(service, _)) = operation
    else {
        return false;
    };
    match (nest, service, target(operation)) {
        (top::DEST, _, Some(target)) => target.address.is_ipv4(),
        (_, ServiceKey::Address { address, .. }, _) => address.is_ipv4(),
        _ => false,
    }
}

fn target(operation: &IpvsOp) -> Option<&DestinationKey> {
    match operation {
        IpvsOp::AddDestination(_, target, _)
        | IpvsOp::EditDestination(_, target, _)
        | IpvsOp::DeleteDestination(_, target) => Some(target),
        _ => None,
    }
}

/// The kernel's answers to a dump are read as what ipvsadm printed, and our questions are byte for byte ipvsadm's.
#[test]
fn a_dump_reads_as_ipvsadm_prints_it() {
    let runs = runs();
    let run = runs
        .iter()
        .find(|run| run.arguments == "-Sn")
        .expect("a dump");
    let mut services = Services::new();
    for (question, bytes) in &run.received {
        let question = run.sent[*question].as_slice();
        match question[0] {
            command::GET_INFO => {
                assert_eq!(
                    decode::info(&bytes[4..]).expect("decodes").version,
                    (1, 2, 1)
                );
            }
            command::GET_SERVICE => {
                assert_eq!(
                    question,
                    ours(|buffer, envelope| encode::bare(buffer, envelope, command::GET_SERVICE))
                );
                match decode::service(&bytes[4..]).expect("decodes") {
                    DumpedService::Named(key, service) => {
                        services.insert(
                            key,
                            ServiceState {
                                service,
                                destinations: Vec::new(),
                            },
                        );
                    }
                    DumpedService::Unnameable(line) => panic!("{line}"),
                }
            }
            command::GET_DEST => {
                let key = *services
                    .keys()
                    .find(|key| {
                        question
                            == ours(|buffer, envelope| {
                                encode::service_only(buffer, envelope, command::GET_DEST, key);
                            })
                    })
                    .expect("a question of ours is ipvsadm's");
                let state = services.get_mut(&key).expect("dumped");
                let found = decode::destination(&bytes[4..], key.family()).expect("decodes");
                assert_eq!(found.connections, Some(0), "nobody was connected");
                state.destinations.push((found.key, found.state));
            }
            other => panic!("command {other}"),
        }
    }
    for state in services.values_mut() {
        state.destinations.sort();
    }
    let mut printed = run.printed.clone();
    printed.sort();
    assert_eq!(ipvsadm::saved(&services), printed);
    let thresholds: Vec<_> = services
        .values()
        .flat_map(|state| &state.destinations)
        .filter(|(_, destination)| destination.upper_threshold != 0)
        .map(|(_, destination)| (destination.upper_threshold, destination.lower_threshold))
        .collect();
    assert_eq!(thresholds, [(1000, 10)], "which ipvsadm does not save");
}

#[test]
fn timeouts_are_read() {
    let runs = runs();
    let run = runs
        .iter()
        .find(|run| run.arguments == "-L --timeout")
        .expect("timeouts");
    let (_, answer) = run.received.last().expect("an answer");
    let timeouts = decode::timeouts(&answer[4..]).expect("decodes");
    assert_eq!(
        (
            timeouts.tcp_seconds,
            timeouts.tcp_fin_seconds,
            timeouts.udp_seconds
        ),
        (600, 60, 200)
    );
    assert_eq!(run.printed, ["Timeout (tcp tcpfin udp): 600 60 200"]);
}

#[test]
fn sync_daemons_are_read() {
    let runs = runs();
    let run = runs
        .iter()
        .find(|run| run.arguments == "-L --daemon")
        .expect("daemons");
    let question = run.sent.last().expect("a question");
    assert_eq!(
        *question,
        ours(|buffer, envelope| encode::bare(buffer, envelope, command::GET_DAEMON))
    );
    let printed: Vec<String> = run
        .received
        .iter()
        .filter(|(question, _)| run.sent[*question][0] == command::GET_DAEMON)
        .map(|(_, bytes)| {
            let (role, daemon) = decode::sync_daemon(&bytes[4..]).expect("decodes");
            format!(
                "{role} sync daemon (mcast={}, syncid={}, maxlen={}, group={}, port={}, ttl={})",
                daemon.device,
                daemon.sync_id,
                daemon.maximum_length.expect("a length"),
                daemon.group,
                daemon.port,
                daemon.ttl
            )
        })
        .collect();
    assert_eq!(printed.len(), 2);
    let theirs: Vec<&str> = run.printed.iter().map(|line| line.trim()).collect();
    assert_eq!(printed, theirs);
}
