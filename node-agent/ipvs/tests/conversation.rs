//! The client against a kernel in memory that answers in bytes, rightly and wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects"
)]

#[path = "conversation/played_kernel.rs"]
mod played_kernel;
#[path = "support/strategies.rs"]
mod strategies;

use std::sync::{Arc, Mutex};

use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, Service, ServiceKey,
    Services,
};
use lvs_core::op::IpvsOp;
use lvs_core::sync_daemon::{SyncDaemon, SyncRole};
use lvs_crds::condition::Reason;
use lvs_ipvs::attribute::AttributeWriter;
use lvs_ipvs::message::Envelope;
use lvs_ipvs::uapi::{command, top};
use lvs_ipvs::{
    Client, DumpError, FakeKernel, IpvsKernel, OpError, OpFailure, TransportError, decode, encode,
};
use nix::errno::Errno;
use played_kernel::{ACK, DUMP, FAMILY, Fault, Kernel, client, kernel};
use proptest::prelude::*;

fn service(last: u8) -> ServiceKey {
    format!("192.0.2.{last}")
        .parse()
        .map(|address| ServiceKey::Address {
            address,
            protocol: lvs_crds::value::Protocol::TCP,
            port: 80,
        })
        .unwrap()
}

fn target(last: u8) -> DestinationKey {
    DestinationKey {
        address: format!("198.51.100.{last}").parse().unwrap(),
        port: 80,
    }
}

const DESTINATION: Destination = Destination {
    forwarding: lvs_core::ipvs::DestinationForwarding::DirectRoute,
    weight: 1,
    upper_threshold: 0,
    lower_threshold: 0,
};

fn attributes(scheduler: &str) -> Service {
    Service {
        scheduler: scheduler.to_owned(),
        flags: lvs_core::ipvs::ServiceFlags::default(),
        timeout_seconds: 0,
        prefix_length: 32,
        persistence_engine: None,
    }
}

/// Two services with three destinations each.
fn operations() -> Vec<IpvsOp> {
    [1, 2]
        .into_iter()
        .flat_map(|number| {
            let add =
                move |last| IpvsOp::AddDestination(service(number), target(last), DESTINATION);
            [
                IpvsOp::AddService(service(number), attributes("rr")),
                add(1),
                add(2),
                add(3),
            ]
        })
        .collect()
}

fn loaded() -> (Arc<Mutex<Kernel>>, Client) {
    let kernel = kernel();
    let mut client = client(&kernel);
    assert!(client.apply(&operations()).iter().all(Result::is_ok));
    kernel.lock().unwrap().seen.clear();
    (kernel, client)
}

fn services(kernel: &Arc<Mutex<Kernel>>) -> Services {
    kernel.lock().unwrap().model.services.clone()
}

#[test]
fn what_is_applied_is_dumped() {
    let (kernel, mut client) = loaded();
    let dump = client.dump().unwrap();
    assert_eq!(dump.services, services(&kernel));
    assert_eq!(dump.services.len(), 2);
    assert_eq!(dump.timeouts.tcp_seconds, 900);
    assert_eq!(kernel.lock().unwrap().connections, 1);
}

fn sync_daemon() -> SyncDaemon {
    SyncDaemon {
        device: "eth1".to_owned(),
        sync_id: 51,
        group: "224.0.0.81".parse().unwrap(),
        port: 8848,
        ttl: 1,
        maximum_length: None,
    }
}

#[test]
fn daemons_are_started_read_back_and_stopped() {
    let (_kernel, mut client) = loaded();
    let start = |role| IpvsOp::StartSyncDaemon(role, sync_daemon());
    let operations = [
        start(SyncRole::Backup),
        start(SyncRole::Master),
        start(SyncRole::Backup),
        IpvsOp::StopSyncDaemon(SyncRole::Backup),
        IpvsOp::StopSyncDaemon(SyncRole::Backup),
    ];
    let errors: Vec<Option<String>> = client
        .apply(&operations)
        .iter()
        .map(|result| result.as_ref().err().map(ToString::to_string))
        .collect();
    assert_eq!(
        errors,
        [
            None,
            None,
            Some("ipvs --start-daemon backup --mcast-interface eth1 --syncid 51 --mcast-group 224.0.0.81 --mcast-port 8848 --mcast-ttl 1: EEXIST: File exists: such a daemon runs already".to_owned()),
            None,
            Some("ipvs --stop-daemon backup: ESRCH: No such process: no such daemon runs".to_owned()),
        ]
    );
    let found = client.dump().unwrap().sync_daemons;
    assert_eq!(found.keys().collect::<Vec<_>>(), [&SyncRole::Master]);
    assert!(
        sync_daemon().is_met_by(&found[&SyncRole::Master]),
        "{found:?}"
    );
}

/// Each excludes the other, and says so.
#[test]
fn daemons_and_real_servers_of_the_other_family_are_refused_with_the_cause() {
    let (_kernel, mut client) = loaded();
    let start = IpvsOp::StartSyncDaemon(SyncRole::Backup, sync_daemon());
    let mut other = target(1);
    other.address = "2001:db8::11".parse().unwrap();
    let tunnel = Destination {
        forwarding: DestinationForwarding::Tunnel(DestinationTunnel::IpIp),
        ..DESTINATION
    };
    let add = IpvsOp::AddDestination(service(1), other, tunnel);
    assert!(client.apply(std::slice::from_ref(&add))[0].is_ok());
    let refused = client
        .apply(std::slice::from_ref(&start))
        .remove(0)
        .unwrap_err();
    assert_eq!(refused.reason(), Reason::ConnectionSyncExcluded);
    let delete = IpvsOp::DeleteDestination(service(1), other);
    assert!(client.apply(&[delete, start]).iter().all(Result::is_ok));
    let refused = client.apply(&[add]).remove(0).unwrap_err();
    assert!(
        refused.to_string().contains("sync daemon runs"),
        "{refused}"
    );
}

/// The order in which the kernel lists destinations is told where a hash depends on it and it is not the usual one.
#[test]
fn an_order_that_matters_is_told() {
    let kernel = kernel();
    let mut client = client(&kernel);
    let operations: Vec<IpvsOp> = [(1, "mh"), (2, "sh"), (3, "rr")]
        .into_iter()
        .flat_map(|(number, scheduler)| {
            let add =
                move |last| IpvsOp::AddDestination(service(number), target(last), DESTINATION);
            [
                IpvsOp::AddService(service(number), attributes(scheduler)),
                add(1),
                if number == 1 { add(3) } else { add(2) },
                if number == 1 { add(2) } else { add(3) },
            ]
        })
        .collect();
    assert!(client.apply(&operations).iter().all(Result::is_ok));
    let dump = client.dump().unwrap();
    let expected =
        lvs_core::table::Disorder::from([(service(1), vec![target(2), target(3), target(1)])]);
    assert_eq!(dump.disorder, expected);
}

#[test]
fn idle_is_what_has_weight_0_and_no_connection() {
    let (kernel, mut client) = loaded();
    assert!(client.dump().unwrap().idle.is_empty(), "all have a weight");
    let quiet = Destination {
        weight: 0,
        ..DESTINATION
    };
    let edit = |last| IpvsOp::EditDestination(service(1), target(last), quiet);
    assert!(client.apply(&[edit(1), edit(2)]).iter().all(Result::is_ok));
    let busy = (service(1), target(2));
    kernel.lock().unwrap().model.connected.insert(busy);
    let expected = lvs_core::ipvs::Idle::from([(service(1), target(1))]);
    assert_eq!(client.dump().unwrap().idle, expected);
    let mut bytes = Vec::new();
    let envelope = Envelope {
        family: FAMILY,
        flags: 0,
        sequence: 1,
    };
    encode::operation(&mut bytes, envelope, &edit(1));
    let silent = decode::destination(&bytes[20..], lvs_crds::value::AddressFamily::IPv4).unwrap();
    assert!(!silent.is_idle(), "what is not said is not none");
}

#[test]
fn only_the_last_of_a_batch_asks_for_an_acknowledgement() {
    let kernel = kernel();
    let mut client = client(&kernel);
    let mut operations = vec![IpvsOp::AddService(service(1), attributes("rr"))];
    operations
        .extend((0..200).map(|last| IpvsOp::AddDestination(service(1), target(last), DESTINATION)));
    assert!(client.apply(&operations).iter().all(Result::is_ok));
    let seen = kernel.lock().unwrap().seen.clone();
    let acknowledged: Vec<usize> = seen
        .iter()
        .enumerate()
        .filter(|(_, (_, flags))| flags & ACK != 0)
        .map(|(index, _)| index)
        .collect();
    assert_eq!((seen.len(), acknowledged), (201, vec![127, 200]));
}

#[test]
fn refusals_find_their_operation() {
    let (_kernel, mut client) = loaded();
    let operations = [
        IpvsOp::EditDestination(service(1), target(9), DESTINATION),
        IpvsOp::EditDestination(
            service(1),
            target(1),
            Destination {
                weight: 7,
                ..DESTINATION
            },
        ),
        IpvsOp::AddService(service(1), attributes("rr")),
        IpvsOp::DeleteService(service(9)),
        IpvsOp::AddService(service(3), attributes("twos")),
    ];
    let results = client.apply(&operations);
    let errors: Vec<Option<String>> = results
        .iter()
        .map(|result| result.as_ref().err().map(ToString::to_string))
        .collect();
    assert_eq!(
        errors,
        [
            Some("ipvs -e -t 192.0.2.1:80 -r 198.51.100.9:80 -g -w 1: ENOENT: No such file or directory: there is no such destination".to_owned()),
            None,
            Some("ipvs -A -t 192.0.2.1:80 -s rr: EEXIST: File exists: the service exists already".to_owned()),
            Some("ipvs -D -t 192.0.2.9:80: ESRCH: No such process: there is no such service".to_owned()),
            Some("ipvs -A -t 192.0.2.3:80 -s twos: ENOENT: No such file or directory: module ip_vs_twos is missing and could not be loaded".to_owned()),
        ]
    );
    let wants: Vec<bool> = results
        .iter()
        .map(|result| result.as_ref().is_err_and(OpError::wants_dump))
        .collect();
    assert_eq!(wants, [true, false, true, true, false]);
    assert_eq!(
        results[4].as_ref().unwrap_err().reason(),
        Reason::KernelModuleMissing
    );
}

#[test]
fn a_lost_answer_makes_the_batch_unknown_and_stops() {
    for fault in [
        Fault::Overflow,
        Fault::Silence,
        Fault::WrongSequence,
        Fault::Cut,
    ] {
        let kernel = kernel();
        let mut client = client(&kernel);
        // The last of the first batch is the 128th: an edit, the only one.
        let mut operations = vec![IpvsOp::AddService(service(1), attributes("rr"))];
        operations.extend(
            (0..126).map(|last| IpvsOp::AddDestination(service(1), target(last), DESTINATION)),
        );
        operations.push(IpvsOp::EditDestination(service(1), target(0), DESTINATION));
        operations.extend(
            (126..200).map(|last| IpvsOp::AddDestination(service(1), target(last), DESTINATION)),
        );
        kernel
            .lock()
            .unwrap()
            .faults
            .push((command::SET_DEST, fault));
        let results = client.apply(&operations);
        let kinds: Vec<char> = results
            .iter()
            .map(
                |result| match result.as_ref().map_err(|error| &error.failure) {
                    Err(OpFailure::Unknown(_)) => 'u',
                    Err(OpFailure::NotSent(_)) => 'n',
                    other => panic!("{fault:?}: {other:?}"),
                },
            )
            .collect();
        assert_eq!(kinds, [vec!['u'; 128], vec!['n'; 74]].concat(), "{fault:?}");
        assert!(
            results
                .iter()
                .all(|result| result.as_ref().is_err_and(OpError::wants_dump))
        );
        // A new connection tells what happened: the whole first batch.
        let dump = client.dump().unwrap();
        assert_eq!(dump.services[&service(1)].destinations.len(), 126);
        assert_eq!(kernel.lock().unwrap().connections, 2);
    }
}

#[test]
fn a_disturbed_dump_is_begun_again() {
    for (command, fault) in [
        (command::GET_SERVICE, Fault::Overflow),
        (command::GET_SERVICE, Fault::Interrupted),
        (command::GET_SERVICE, Fault::WrongSequence),
        (command::GET_DEST, Fault::Overflow),
        (command::GET_DEST, Fault::Interrupted),
        (command::GET_DEST, Fault::Twice),
        (command::GET_DEST, Fault::Vanishes),
        (command::GET_CONFIG, Fault::Overflow),
        (command::GET_DAEMON, Fault::Overflow),
        (command::GET_DAEMON, Fault::Interrupted),
    ] {
        let (kernel, mut client) = loaded();
        kernel.lock().unwrap().faults.push((command, fault));
        let dump = client.dump().unwrap();
        assert_eq!(dump.services, services(&kernel), "{fault:?}");
        assert_eq!(
            dump.services.len(),
            if fault == Fault::Vanishes { 1 } else { 2 }
        );
        let dumps = kernel
            .lock()
            .unwrap()
            .seen
            .iter()
            .filter(|(command, flags)| *command == command::GET_SERVICE && flags & DUMP != 0)
            .count();
        assert_eq!(dumps, 2, "{fault:?}");
    }
}

#[test]
fn a_dump_that_never_holds_still_is_given_up() {
    let (kernel, mut client) = loaded();
    kernel
        .lock()
        .unwrap()
        .faults
        .extend([(command::GET_DEST, Fault::Interrupted); 4]);
    let error = client.dump().unwrap_err();
    assert_eq!(
        error,
        DumpError::Unstable {
            what: "the destinations of IPVS service -t 192.0.2.1:80".to_owned(),
            attempts: 4
        }
    );
    assert_eq!(error.reason(), Reason::ObservationFailed);
    assert_eq!(client.dump().unwrap().services, services(&kernel));
}

#[test]
fn silence_and_damage_are_errors_not_empty_sets() {
    for fault in [Fault::Silence, Fault::Cut] {
        for command in [
            command::GET_SERVICE,
            command::GET_DEST,
            command::GET_CONFIG,
            command::GET_DAEMON,
        ] {
            let (kernel, mut client) = loaded();
            kernel.lock().unwrap().faults.push((command, fault));
            assert!(
                matches!(client.dump(), Err(DumpError::Transport { .. })),
                "{fault:?}"
            );
            assert_eq!(
                client.dump().unwrap().services,
                services(&kernel),
                "{fault:?}"
            );
        }
    }
}

#[test]
fn a_kernel_without_ipvs_names_the_module_and_is_asked_again() {
    let kernel = Arc::new(Mutex::new(Kernel::default()));
    let mut client = client(&kernel);
    let error = client.dump().unwrap_err();
    assert_eq!(error.reason(), Reason::KernelModuleMissing);
    assert_eq!(
        error.to_string(),
        "cannot read the IPVS services: the kernel has no generic netlink family IPVS: module ip_vs is missing"
    );
    let results = client.apply(&operations());
    assert_eq!(results.len(), 8);
    assert!(results.iter().all(|result| {
        result
            .as_ref()
            .is_err_and(|e| e.reason() == Reason::KernelModuleMissing)
    }));
    kernel.lock().unwrap().has_family = true;
    assert!(client.dump().unwrap().services.is_empty());
}

#[test]
fn an_empty_service_is_asked_whether_it_is_there() {
    let kernel = kernel();
    let mut client = client(&kernel);
    assert!(client.apply(&[IpvsOp::AddService(service(1), attributes("rr"))])[0].is_ok());
    let dump = client.dump().unwrap();
    assert!(dump.services[&service(1)].destinations.is_empty());
    let asked = |flags_wanted| {
        kernel
            .lock()
            .unwrap()
            .seen
            .iter()
            .filter(|(command, flags)| {
                *command == command::GET_SERVICE && flags & DUMP == flags_wanted
            })
            .count()
    };
    assert_eq!((asked(DUMP), asked(0)), (1, 1));
}

#[test]
fn a_service_no_key_can_name_is_told_and_left_out() {
    // Protocol 50 is ESP, which IPVS can balance and we do not.
    let mut bytes = Vec::new();
    AttributeWriter::new(&mut bytes).nested(top::SERVICE, |nest| {
        nest.u16(1, 2);
        nest.u16(2, 50);
        nest.address(3, "192.0.2.1".parse().unwrap());
        nest.be16(4, 0);
    });
    assert_eq!(
        decode::service(&bytes),
        Ok(decode::DumpedService::Unnameable(
            "protocol 50 192.0.2.1:0".to_owned()
        ))
    );
}

proptest! {
    /// The fake above the wire and the kernel below it are one and the same to who uses them.
    #[test]
    fn the_fake_is_the_client_on_a_kernel(operations in prop::collection::vec(small_operation(), 1..60)) {
        let kernel = kernel();
        let mut client = client(&kernel);
        let mut fake = FakeKernel::default();
        prop_assert_eq!(client.apply(&operations), fake.apply(&operations));
        prop_assert_eq!(client.dump().unwrap(), fake.dump().unwrap());
    }
}

/// Operations that meet each other: few services, few destinations.
fn small_operation() -> impl Strategy<Value = IpvsOp> {
    let key = (1_u8..4).prop_map(service);
    let target = (1_u8..5).prop_map(target);
    (
        strategies::operation(),
        key,
        target,
        prop_oneof![Just("rr"), Just("wlc"), Just("twos")],
    )
        .prop_map(|(operation, key, target, scheduler)| match operation {
            IpvsOp::AddService(..) => IpvsOp::AddService(key, attributes(scheduler)),
            IpvsOp::EditService(..) => IpvsOp::EditService(key, attributes(scheduler)),
            IpvsOp::DeleteService(_) => IpvsOp::DeleteService(key),
            IpvsOp::AddDestination(_, _, state) => {
                IpvsOp::AddDestination(key, target, halved(state))
            }
            IpvsOp::EditDestination(_, _, state) => {
                IpvsOp::EditDestination(key, target, halved(state))
            }
            IpvsOp::DeleteDestination(..) => IpvsOp::DeleteDestination(key, target),
            other @ (IpvsOp::SetTimeouts(_)
            | IpvsOp::StartSyncDaemon(..)
            | IpvsOp::StopSyncDaemon(_)) => other,
        })
}

/// Half of random weights and thresholds are out of range; of these fewer.
fn halved(state: Destination) -> Destination {
    Destination {
        weight: state.weight / 2 + 1,
        lower_threshold: state.lower_threshold / 4,
        ..state
    }
}

#[test]
fn the_fake_fails_where_it_is_told() {
    let mut fake = FakeKernel::default();
    let operations = operations();
    fake.faults.push((
        operations[1].clone(),
        lvs_ipvs::fake::Fault::Refused(Errno::ENOMEM),
    ));
    let results = fake.apply(&operations);
    let failed: Vec<usize> = results
        .iter()
        .enumerate()
        .filter(|(_, result)| result.is_err())
        .map(|(index, _)| index)
        .collect();
    assert_eq!(failed, [1]);
    assert_eq!(fake.carried_out.len(), 7);
    let lost = TransportError::Overflow;
    fake.faults.push((
        operations[1].clone(),
        lvs_ipvs::fake::Fault::AnswerLost(lost.clone()),
    ));
    let results = fake.apply(&operations[1..2]);
    assert_eq!(
        results[0].as_ref().unwrap_err().failure,
        OpFailure::Unknown(lost)
    );
    assert_eq!(
        fake.model.services[&service(1)].destinations.len(),
        3,
        "it happened all the same"
    );
}
