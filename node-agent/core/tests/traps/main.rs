//! One test per trap: what went wrong elsewhere, or would in a simpler version of this.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says what is wrong by failing.
#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::default_trait_access
)]

#[path = "../world/mod.rs"]
mod world;

mod apply_failure;
mod fitness;
mod host;
mod journal;
mod paths;
mod services;
mod source_nat;
mod sysctls;
mod verdict;
mod virtual_mac;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_core::desired::{PlanInput, RouterRole, desired, tunnel_device_name};
use lvs_core::diff::diff;
use lvs_core::drift::repairs;
use lvs_core::host::{DIRECT_ROUTING_DEVICE, LinkKind, SysctlKey};
use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, IpvsTimeouts, Service, ServiceFlags,
    ServiceKey, ServiceState,
};
use lvs_core::journal::{Journal, JournalError};
use lvs_core::model::{Errno, HostModel, IpvsModel, Model};
use lvs_core::object::{Object, blocked_by};
use lvs_core::op::{HostOp, IpvsOp, Op};
use lvs_core::verdict::{Failure, Verdict, blocked, verdicts};
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{LeadershipPlan, PlanState, RealServerPlan, ReturnPath, TunnelEndpoint};
use lvs_crds::value::{
    ForwardingType, Persistence, Protocol, SchedulerName, SchedulerOption, Timeouts, Tunnel,
    TunnelChecksum, TunnelType,
};
use world::{
    BOOT, World, direct_routing_plan, director_plan, ip, key, lines, node, plan, real_server,
    service,
};

const DR: ForwardingType = ForwardingType::DR;
const NAT: ForwardingType = ForwardingType::NAT;

fn tcp(address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        address: ip(address),
        protocol: Protocol::TCP,
        port,
    }
}

fn sysctl(path: &str) -> SysctlKey {
    SysctlKey(path.to_owned())
}

fn set(model: &mut Model, path: &str, value: &str) {
    let op = HostOp::SetSysctl {
        key: sysctl(path),
        value: value.to_owned(),
    };
    model.host.apply(&op).unwrap();
}

fn value<'a>(model: &'a Model, path: &str) -> &'a str {
    &model.host.sysctls[&sysctl(path)]
}

fn web(scheduler: SchedulerName) -> PlanInput {
    director_plan(
        "vs-web",
        vec![service(
            "192.0.2.100",
            80,
            scheduler,
            vec![real_server("web-1", "192.0.2.21", 80, 1, DR)],
        )],
    )
}

fn nat() -> PlanInput {
    director_plan(
        "vs-nat",
        vec![service(
            "192.0.2.100",
            80,
            SchedulerName::Rr,
            vec![real_server("w1", "10.0.0.21", 8080, 1, NAT)],
        )],
    )
}

fn nat_ipv6() -> PlanInput {
    director_plan(
        "vs-nat6",
        vec![service(
            "2001:db8::100",
            80,
            SchedulerName::Rr,
            vec![real_server("w1", "2001:db8::21", 8080, 1, NAT)],
        )],
    )
}

fn foreign_service() -> ServiceState {
    ServiceState {
        service: Service {
            scheduler: "lc".to_owned(),
            flags: ServiceFlags(0),
            timeout_seconds: 0,
            prefix_length: 32,
            persistence_engine: None,
        },
        destinations: Vec::new(),
    }
}

fn problems(world: &World) -> Vec<(String, Reason)> {
    let desired = world.desired();
    let diff = world.diff();
    desired
        .problems
        .iter()
        .chain(&diff.problems)
        .map(|problem| (problem.plan.clone(), problem.reason))
        .collect()
}

fn return_path(port: u16, gateways: &[&str]) -> ReturnPath {
    ReturnPath {
        source_address: ip("10.0.0.10"),
        protocol: Protocol::TCP,
        port,
        end_port: port,
        gateways: gateways.iter().map(|text| ip(text)).collect(),
    }
}

/// Where an operation failed, what depends on it is skipped and nothing else.
#[test]
fn operations_wait_for_what_they_need() {
    let host = Op::Host;
    let arp = || {
        host(HostOp::SetSysctl {
            key: sysctl("net/ipv4/conf/eth0/arp_ignore"),
            value: "1".to_owned(),
        })
    };
    let address = |text| host(HostOp::AddAddress(key(DIRECT_ROUTING_DEVICE, text, 32)));
    let removal = || {
        host(HostOp::DeleteAddress(key(
            DIRECT_ROUTING_DEVICE,
            "192.0.2.100",
            32,
        )))
    };
    let device = || {
        host(HostOp::AddLink {
            name: DIRECT_ROUTING_DEVICE.to_owned(),
            kind: LinkKind::Dummy,
        })
    };
    let service = tcp("192.0.2.100", 80);
    let add = |key| Op::Ipvs(IpvsOp::AddService(key, foreign_service().service));
    let destination = |key| {
        Op::Ipvs(IpvsOp::AddDestination(
            key,
            DestinationKey {
                address: ip("192.0.2.21"),
                port: 80,
            },
            Destination {
                forwarding: DestinationForwarding::DirectRoute,
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            },
        ))
    };
    for (later, failed, expected) in [
        (address("192.0.2.100"), arp(), true),
        (address("2001:db8::100"), arp(), false),
        (address("192.0.2.100"), device(), true),
        (arp(), removal(), true),
        (arp(), device(), false),
        (
            host(HostOp::DeleteLink {
                name: DIRECT_ROUTING_DEVICE.to_owned(),
            }),
            removal(),
            true,
        ),
        (
            device(),
            host(HostOp::DeleteLink {
                name: DIRECT_ROUTING_DEVICE.to_owned(),
            }),
            true,
        ),
        (destination(service), add(service), true),
        (destination(tcp("192.0.2.100", 81)), add(service), false),
        (add(tcp("192.0.2.100", 81)), add(service), false),
        (add(service), arp(), false),
    ] {
        assert_eq!(
            blocked_by(&later, &failed),
            expected,
            "{later} after {failed}"
        );
        let failures = [Failure {
            op: failed,
            reason: Reason::KernelError,
            message: String::new(),
        }];
        assert_eq!(blocked(&later, &failures).is_some(), expected);
    }
}

/// The errors by which the kernel refuses, as the codec's fake and the differential test rely on them.
#[test]
fn the_model_refuses_as_the_kernel_does() {
    let mut ipvs = IpvsModel::default();
    let key = tcp("192.0.2.100", 80);
    let service = foreign_service().service;
    let destination = DestinationKey {
        address: ip("192.0.2.21"),
        port: 80,
    };
    let attributes = Destination {
        forwarding: DestinationForwarding::Masquerade,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let add = IpvsOp::AddService(key, service.clone());
    let add_destination = IpvsOp::AddDestination(key, destination, attributes);
    assert_eq!(ipvs.apply(&IpvsOp::DeleteService(key)), Err(Errno::ESRCH));
    assert_eq!(ipvs.apply(&add_destination), Err(Errno::ESRCH));
    let unknown = Service {
        scheduler: "twos".to_owned(),
        ..service.clone()
    };
    assert_eq!(
        ipvs.apply(&IpvsOp::AddService(key, unknown.clone())),
        Err(Errno::ENOENT)
    );
    assert_eq!(ipvs.apply(&add), Ok(()));
    assert_eq!(ipvs.apply(&add), Err(Errno::EEXIST));
    assert_eq!(
        ipvs.apply(&IpvsOp::EditService(key, unknown)),
        Err(Errno::ENOENT)
    );
    let edit = IpvsOp::EditDestination(key, destination, attributes);
    assert_eq!(ipvs.apply(&edit), Err(Errno::ENOENT));
    assert_eq!(
        ipvs.apply(&IpvsOp::DeleteDestination(key, destination)),
        Err(Errno::ENOENT)
    );
    assert_eq!(ipvs.apply(&add_destination), Ok(()));
    assert_eq!(ipvs.apply(&add_destination), Err(Errno::EEXIST));
    assert_eq!(ipvs.apply(&edit), Ok(()));
    let thresholds = Destination {
        lower_threshold: 2,
        upper_threshold: 1,
        ..attributes
    };
    assert_eq!(
        ipvs.apply(&IpvsOp::EditDestination(key, destination, thresholds)),
        Err(Errno::ERANGE)
    );
    let six = DestinationKey {
        address: ip("2001:db8::21"),
        port: 80,
    };
    assert_eq!(
        ipvs.apply(&IpvsOp::AddDestination(key, six, attributes)),
        Err(Errno::EINVAL)
    );
    assert_eq!(Errno::EEXIST.code(), 17);
    assert_eq!(
        Object::Service(key).to_string(),
        "IPVS service -t 192.0.2.100:80"
    );
    // A timeout that does not fit into 32 bits of ticks comes back as another one.
    let long = Service {
        timeout_seconds: 31_536_000,
        ..service
    };
    assert_eq!(ipvs.apply(&IpvsOp::EditService(key, long)), Ok(()));
    assert_ne!(ipvs.services[&key].service.timeout_seconds, 31_536_000);
    // Zero keeps a timeout, and ticks are signed here.
    let timeouts = |tcp_seconds| {
        IpvsOp::SetTimeouts(IpvsTimeouts {
            tcp_seconds,
            tcp_fin_seconds: 0,
            udp_seconds: 0,
        })
    };
    assert_eq!(ipvs.apply(&timeouts(100)), Ok(()));
    assert_eq!(ipvs.timeouts.tcp_fin_seconds, 120);
    assert_eq!(ipvs.apply(&timeouts(31_536_000)), Err(Errno::EINVAL));
}

/// Nothing known of any plan is nothing to do, never "remove all".
#[test]
fn no_plans_and_an_empty_journal_touch_nothing() {
    let mut model = node();
    model
        .ipvs
        .services
        .insert(tcp("192.0.2.100", 80), foreign_service());
    let wanted = desired(
        &[],
        &Default::default(),
        &Default::default(),
        model.host.state(),
        &Journal::new(BOOT),
    );
    let observed = model.observe(&BTreeSet::new());
    assert!(diff(&wanted, &observed, &Journal::new(BOOT)).is_empty());
}
