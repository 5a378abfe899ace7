//! Laws of what is said of a kernel: nothing where it holds what its plan says, something for whatever it holds otherwise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expects"
)]

use kubectl_lvs::live::comparison::differences;
use lvs_core::shown::ShownServices;
use lvs_crds::node_plan::{CheckedRealServer, NodePlanSpec, RealServerPlan, Role};
use proptest::prelude::*;
use serde_json::{Value, json};

/// One service: its first port, how many follow, and its real servers: weight of the plan, and what the agent reports, if it does.
#[derive(Clone, Debug)]
struct Given {
    ports: u16,
    real_servers: Vec<(u16, Option<u16>)>,
}

fn given() -> impl Strategy<Value = Vec<Given>> {
    let real_server = (1..5_u16, proptest::option::of(0..3_u16));
    let service = (1..4_u16, proptest::collection::vec(real_server, 0..4));
    let service = service.prop_map(|(ports, real_servers)| Given {
        ports,
        real_servers,
    });
    proptest::collection::vec(service, 1..4)
}

const fn first_port(index: usize) -> usize {
    1000 * (index + 1)
}

fn plan(services: &[Given]) -> NodePlanSpec {
    let services = services.iter().enumerate().map(|(index, service)| {
        let first = first_port(index);
        let real_servers = service.real_servers.iter().enumerate();
        let real_servers = real_servers.map(|(host, (weight, _))| {
            json!({"name": format!("rs-{host}"), "address": format!("192.0.2.{host}"), "port": first + 1,
                   "weight": weight, "forwarding": {"type": "NAT"}})
        });
        json!({
            "address": {"address": "198.51.100.1", "protocol": "TCP", "port": first,
                        "endPort": first + usize::from(service.ports) - 1},
            "portName": format!("p{index}"), "scheduler": {"name": "rr"},
            "packetScheduling": "PerConnection", "realServers": real_servers.collect::<Vec<_>>(),
        })
    });
    let spec = json!({
        "nodeName": "node-1", "state": "Active", "virtualRouterName": "default",
        "source": {"kind": "VirtualService", "namespace": "shop", "name": "web", "uid": "u", "generation": 1},
        "director": {"services": services.collect::<Vec<_>>()},
    });
    serde_json::from_value(spec).unwrap()
}

fn reported(services: &[Given]) -> Vec<CheckedRealServer> {
    let of_service = services.iter().enumerate().flat_map(|(index, service)| {
        let real_servers = service.real_servers.iter().enumerate();
        real_servers.filter_map(move |(host, (_, reported))| {
            let weight = (*reported)?;
            let value = json!({
                "name": format!("rs-{host}"), "portName": format!("p{index}"), "address": format!("192.0.2.{host}"),
                "port": first_port(index) + 1, "state": if weight == 0 { "Down" } else { "Up" }, "effectiveWeight": weight,
            });
            Some(serde_json::from_value(value).unwrap())
        })
    });
    of_service.collect()
}

/// The kernel that holds exactly this. `resting` is whether it keeps with weight 0 what gets no new connections.
fn kernel(services: &[Given], resting: bool) -> Value {
    let counters = json!({"connections": 0, "incomingPackets": 0, "outgoingPackets": 0, "incomingBytes": 0, "outgoingBytes": 0});
    let rates = json!({"connectionsPerSecond": 0, "incomingPacketsPerSecond": 0, "outgoingPacketsPerSecond": 0,
                       "incomingBytesPerSecond": 0, "outgoingBytesPerSecond": 0});
    let mut shown = Vec::new();
    for (index, service) in services.iter().enumerate() {
        for offset in 0..usize::from(service.ports) {
            let mut destinations = Vec::new();
            for (host, (planned, reported)) in service.real_servers.iter().enumerate() {
                let weight = reported.unwrap_or(*planned);
                if weight > 0 || resting {
                    destinations.push(json!({
                        "address": format!("192.0.2.{host}"), "port": first_port(index) + 1 + offset,
                        "forwarding": "NAT", "weight": weight, "realServer": format!("rs-{host}"),
                        "activeConnections": 0, "inactiveConnections": 0, "persistentConnections": 0,
                        "counters": counters, "rates": rates,
                    }));
                }
            }
            shown.push(json!({
                "address": "198.51.100.1", "protocol": "TCP", "port": first_port(index) + offset,
                "addressFamily": "IPv4", "scheduler": "rr",
                "owner": {"planName": "vs-web", "namespace": "shop", "name": "web", "purpose": "Clients"},
                "counters": counters, "rates": rates, "destinations": destinations,
            }));
        }
    }
    json!({"agentVersion": "0.1.0", "ownershipKnown": true, "services": shown})
}

fn said(services: &[Given], kernel: &Value) -> Vec<String> {
    let kernel: ShownServices = serde_json::from_value(kernel.clone()).unwrap();
    differences(
        "vs-web",
        &plan(services),
        Some(Role::Master),
        &reported(services),
        &kernel,
    )
}

proptest! {
    #[test]
    fn a_kernel_that_holds_what_it_should_is_not_complained_of(services in given(), resting: bool) {
        prop_assert_eq!(said(&services, &kernel(&services, resting)), Vec::<String>::new());
    }

    #[test]
    fn whatever_is_otherwise_is_said_once(services in given(), which: prop::sample::Index, host: prop::sample::Index) {
        let whole = kernel(&services, true);
        let count = whole["services"].as_array().unwrap().len();
        let at = which.index(count);
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut changed = whole.clone();
            change(&mut changed["services"]);
            said(&services, &changed).len()
        };
        prop_assert_eq!(changed(&|all| { all.as_array_mut().unwrap().remove(at); }), 1);
        prop_assert_eq!(changed(&|all| all[at]["scheduler"] = "wlc".into()), 1);
        prop_assert_eq!(changed(&|all| { all[at].as_object_mut().unwrap().remove("owner"); }), 1);
        prop_assert_eq!(changed(&|all| {
            let mut more = all[at].clone();
            more["port"] = 9.into();
            all.as_array_mut().unwrap().push(more);
        }), 1);
        let destinations = whole["services"][at]["destinations"].as_array().unwrap();
        if !destinations.is_empty() {
            let host = host.index(destinations.len());
            let is_in = destinations[host]["weight"] != 0;
            prop_assert_eq!(changed(&|all| all[at]["destinations"][host]["weight"] = 77.into()), 1);
            let without = changed(&|all| { all[at]["destinations"].as_array_mut().unwrap().remove(host); });
            prop_assert_eq!(without, usize::from(is_in));
            prop_assert_eq!(changed(&|all| {
                let mut more = all[at]["destinations"][host].clone();
                more["address"] = "203.0.113.9".into();
                more["weight"] = 1.into();
                all[at]["destinations"].as_array_mut().unwrap().push(more);
            }), 1);
        }
    }
}

#[test]
fn what_the_agent_does_not_know_to_be_its_own_is_not_called_somebody_elses() {
    let services = [Given {
        ports: 1,
        real_servers: vec![],
    }];
    let mut unknown = kernel(&services, true);
    unknown["ownershipKnown"] = false.into();
    unknown["services"][0]
        .as_object_mut()
        .unwrap()
        .remove("owner");
    assert_eq!(said(&services, &unknown), [""; 0]);
}

/// Regression: such a standby leaves its services out, so that packets for itself are not balanced again.
#[test]
fn a_standby_that_is_a_real_server_itself_is_not_missed_anything() {
    let services = [Given {
        ports: 1,
        real_servers: vec![(1, None)],
    }];
    let mut plan = plan(&services);
    plan.director.as_mut().unwrap().services[0].real_servers[0].forwarding =
        serde_json::from_value(json!({"type": "DR"})).unwrap();
    plan.real_server = Some(RealServerPlan {
        direct_routing_addresses: vec!["198.51.100.1".parse().unwrap()],
        ..RealServerPlan::default()
    });
    let empty = ShownServices {
        ownership_known: true,
        ..ShownServices::default()
    };
    let said = |role| differences("vs-web", &plan, Some(role), &[], &empty).len();
    assert_eq!((said(Role::Backup), said(Role::Master)), (0, 1));
}
