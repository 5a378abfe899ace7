//! The critic is worth something only if it finds faults: each test breaks a good resolution in one way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use lvs_crds::node_plan::{
    CheckReference, NodePlanSpec, PlanState, PlannedAddress, PlannedSourceAddressPool, SourceKind,
};
use lvs_crds::value::{ForwardingType, FullNat};
use lvs_plan::resolution::{Base, Resolution};
use lvs_plan::{Checked, Finding, check, resolve};
use serde_json::json;
use support::{Cluster, node};

/// Two namespaces with a VirtualService each, one of them by mark, and a second router.
fn good() -> Resolution {
    let mut cluster = Cluster::default();
    cluster.apply(node("a", "192.168.50.11"));
    cluster.apply(node("b", "192.168.50.12"));
    for name in ["default", "edge"] {
        cluster.apply(json!({"kind": "VirtualRouter", "metadata": {"name": name}, "spec": {
            "directors": [{"nodeName": if name == "edge" { "b" } else { "a" }}],
            "additionalAddresses": [{"address": if name == "edge" { "192.168.50.240" } else { "192.168.50.250" }}],
            "addressPools": [{"name": "public", "addresses": ["172.25.0.0/24"]}],
            "grants": [{"namespaces": {"from": "All"}, "addressPoolNames": ["public"], "realServerCIDRs": ["0.0.0.0/0", "::/0"]}]}}));
    }
    for (namespace, address, grouping) in [
        ("bank", "172.25.0.1", "PerPort"),
        ("shop", "172.25.0.2", "FirewallMark"),
    ] {
        cluster.apply(json!({"kind": "VirtualService", "metadata": {"namespace": namespace, "name": "web"}, "spec": {
            "virtualRouterName": "default", "addresses": [address], "ports": [{"port": 80, "endPort": 81}],
            "grouping": grouping, "forwarding": {"type": "DR"}, "realServerSelector": {}}}));
        for number in 1..3 {
            cluster.apply(json!({"kind": "RealServer", "metadata": {"namespace": namespace, "name": format!("rs-{number}")},
                "spec": {"target": {"type": "Addresses", "addresses": [format!("10.0.0.{number}")]}}}));
        }
    }
    let resolution = resolve(&cluster.inputs);
    assert_eq!(check(&resolution), vec![]);
    resolution
}

fn spec<'a>(resolution: &'a mut Resolution, namespace: &str, router: &str) -> &'a mut NodePlanSpec {
    let mut specs = resolution
        .plans
        .values_mut()
        .map(|planned| &mut planned.spec);
    specs
        .find(|spec| spec.source.namespace == namespace && spec.virtual_router_name == router)
        .unwrap()
}

fn bank(resolution: &mut Resolution) -> &mut NodePlanSpec {
    spec(resolution, "bank", "default")
}

fn shop(resolution: &mut Resolution) -> &mut NodePlanSpec {
    spec(resolution, "shop", "default")
}

/// Breaks a good resolution; at least one finding must be of the expected kind, and nothing can be written.
fn broken(break_it: impl FnOnce(&mut Resolution), is_expected: impl Fn(&Finding) -> bool) {
    let mut resolution = good();
    break_it(&mut resolution);
    let findings = check(&resolution);
    assert!(findings.iter().any(is_expected), "{findings:?}");
    assert_eq!(Checked::new(resolution), Err(findings));
}

#[test]
fn the_same_service_twice_on_a_node() {
    broken(
        |resolution| {
            let director = bank(resolution).director.as_mut().unwrap();
            let mut overlapping = director.services[0].clone();
            overlapping.address.as_mut().unwrap().port = 81;
            director.services.push(overlapping);
        },
        |finding| matches!(finding, Finding::SameService { .. }),
    );
}

#[test]
fn a_mark_that_takes_the_packets_of_a_port() {
    broken(
        |resolution| {
            let address = bank(resolution).director.as_ref().unwrap().addresses[0].address;
            let director = shop(resolution).director.as_mut().unwrap();
            director.firewall_marks[0].matches[0].address = address;
        },
        |finding| matches!(finding, Finding::SameService { .. }),
    );
}

#[test]
fn a_check_that_the_plan_does_not_hold() {
    let missing = |finding: &Finding| matches!(finding, Finding::CheckMissing { .. });
    let forget = |resolution: &mut Resolution| {
        bank(resolution).director.as_mut().unwrap().checks.clear();
    };
    broken(forget, missing);
    broken(
        |resolution| {
            let director = bank(resolution).director.as_mut().unwrap();
            director.services[0].real_servers[0].checks = Some(vec![CheckReference {
                check_name: "gone".to_owned(),
                port: None,
            }]);
        },
        missing,
    );
}

#[test]
fn one_address_for_two_namespaces() {
    broken(
        |resolution| {
            let address = bank(resolution).director.as_ref().unwrap().addresses[0].clone();
            shop(resolution)
                .director
                .as_mut()
                .unwrap()
                .addresses
                .push(address);
        },
        |finding| matches!(finding, Finding::SharedAddress { .. }),
    );
}

#[test]
fn one_address_with_two_routers() {
    broken(
        |resolution| {
            let address = bank(resolution).director.as_ref().unwrap().addresses[0].clone();
            spec(resolution, "", "edge")
                .director
                .as_mut()
                .unwrap()
                .addresses
                .push(address);
        },
        |finding| matches!(finding, Finding::TwoRouters { .. }),
    );
}

#[test]
fn a_source_that_is_gone() {
    broken(
        |resolution| bank(resolution).source.uid = "gone".to_owned(),
        |finding| matches!(finding, Finding::SourceGone { .. }),
    );
    let mut resolution = good();
    let plan = bank(&mut resolution);
    plan.source.uid = "gone".to_owned();
    plan.state = PlanState::Withdrawn;
    assert_eq!(check(&resolution), vec![], "a withdrawn plan has no source");
}

#[test]
fn a_real_server_that_is_a_virtual_address() {
    broken(
        |resolution| {
            let address = shop(resolution).director.as_ref().unwrap().addresses[0].address;
            bank(resolution).director.as_mut().unwrap().services[0].real_servers[1].address =
                address;
        },
        |finding| matches!(finding, Finding::RealServerIsVirtual { .. }),
    );
}

#[test]
fn destinations_out_of_order_and_repeated() {
    broken(
        |resolution| {
            bank(resolution).director.as_mut().unwrap().services[0]
                .real_servers
                .reverse();
        },
        |finding| matches!(finding, Finding::DestinationOrder { .. }),
    );
    broken(
        |resolution| {
            let servers = &mut bank(resolution).director.as_mut().unwrap().services[0].real_servers;
            servers[1] = servers[0].clone();
        },
        |finding| matches!(finding, Finding::DestinationOrder { .. }),
    );
}

#[test]
fn families_mixed_without_a_tunnel() {
    let mix = |forwarding| {
        move |resolution: &mut Resolution| {
            let server =
                &mut bank(resolution).director.as_mut().unwrap().services[0].real_servers[1];
            server.address = "2001:db8::1".parse().unwrap();
            server.forwarding.type_ = forwarding;
        }
    };
    broken(mix(ForwardingType::NAT), |finding| {
        matches!(finding, Finding::MixedFamilies { .. })
    });
    let mut resolution = good();
    mix(ForwardingType::TUN)(&mut resolution);
    assert_eq!(check(&resolution), vec![]);
}

/// The service of one namespace translates sources, which the router holds.
fn with_sources(resolution: &mut Resolution) {
    let sources = [
        "192.168.50.241".parse().unwrap(),
        "2001:db8:2::1".parse().unwrap(),
    ];
    for planned in resolution.plans.values_mut() {
        if planned.spec.source.kind == SourceKind::VirtualRouter {
            let director = planned.spec.director.as_mut().unwrap();
            let held = sources.iter().map(|address| PlannedAddress {
                address: *address,
                devices: Vec::new(),
            });
            if planned.spec.virtual_router_name == "default" {
                director.addresses.extend(held);
            }
        }
    }
    let director = bank(resolution).director.as_mut().unwrap();
    director.source_address_pools = vec![PlannedSourceAddressPool {
        name: "snat".to_owned(),
        addresses: sources.to_vec(),
    }];
    let real_server = &mut director.services[0].real_servers[0];
    real_server.forwarding.type_ = ForwardingType::FullNAT;
    real_server.forwarding.full_nat = Some(FullNat {
        source_address_pool_name: "snat".to_owned(),
    });
}

#[test]
fn source_addresses_are_held_and_there_for_each_real_server() {
    let mut resolution = good();
    with_sources(&mut resolution);
    assert_eq!(check(&resolution), vec![]);
    broken(
        |resolution| {
            with_sources(resolution);
            let director = bank(resolution).director.as_mut().unwrap();
            director.source_address_pools[0].addresses.remove(0);
        },
        |finding| matches!(finding, Finding::NoSourceAddress { .. }),
    );
    broken(
        |resolution| {
            with_sources(resolution);
            let director = bank(resolution).director.as_mut().unwrap();
            director.source_address_pools[0].name = "other".to_owned();
        },
        |finding| matches!(finding, Finding::NoSourceAddress { .. }),
    );
    broken(
        |resolution| {
            with_sources(resolution);
            let director = bank(resolution).director.as_mut().unwrap();
            director.source_address_pools[0]
                .addresses
                .push("192.168.50.242".parse().unwrap());
        },
        |finding| matches!(finding, Finding::SourceAddressNotHeld { .. }),
    );
    // One that is a virtual address of another service, too.
    broken(
        |resolution| {
            with_sources(resolution);
            let source = bank(resolution).director.as_ref().unwrap();
            let address = source.source_address_pools[0].addresses[0];
            let shop = shop(resolution).director.as_mut().unwrap();
            shop.addresses[0].address = address;
        },
        |finding| matches!(finding, Finding::SharedAddress { .. }),
    );
    // One that moves with another router, too.
    broken(
        |resolution| {
            with_sources(resolution);
            let source = bank(resolution).director.as_ref().unwrap();
            let address = source.source_address_pools[0].addresses[0];
            let edge = spec(resolution, "", "edge").director.as_mut().unwrap();
            edge.addresses[0].address = address;
        },
        |finding| matches!(finding, Finding::TwoRouters { .. }),
    );
}

#[test]
fn a_service_without_its_address() {
    broken(
        |resolution| {
            bank(resolution)
                .director
                .as_mut()
                .unwrap()
                .addresses
                .clear();
        },
        |finding| matches!(finding, Finding::ServiceWithoutAddress { .. }),
    );
}

#[test]
fn a_service_by_nothing() {
    broken(
        |resolution| bank(resolution).director.as_mut().unwrap().services[0].address = None,
        |finding| matches!(finding, Finding::Unidentified { .. }),
    );
}

#[test]
fn leadership_in_the_wrong_place() {
    broken(
        |resolution| {
            spec(resolution, "", "default")
                .director
                .as_mut()
                .unwrap()
                .leadership = None;
        },
        |finding| matches!(finding, Finding::Leadership { .. }),
    );
    broken(
        |resolution| bank(resolution).source.kind = SourceKind::VirtualRouter,
        |finding| matches!(finding, Finding::Leadership { .. }),
    );
}

#[test]
fn a_director_without_a_lease() {
    broken(
        |resolution| resolution.leases.clear(),
        |finding| matches!(finding, Finding::NoLease { .. }),
    );
    broken(
        |resolution| {
            resolution
                .leases
                .values_mut()
                .for_each(|lease| lease.directors.clear());
        },
        |finding| matches!(finding, Finding::NoLease { .. }),
    );
}

#[test]
fn a_node_that_directs_no_router() {
    broken(
        |resolution| bank(resolution).node_name = "b".to_owned(),
        |finding| matches!(finding, Finding::NotADirector { .. }),
    );
}

#[test]
fn a_plan_deleted_and_kept() {
    broken(
        |resolution| {
            let name = resolution.plans.keys().next().unwrap().clone();
            let base = Base {
                uid: "u".to_owned(),
                resource_version: "1".to_owned(),
            };
            resolution.deletions.insert(name, base);
        },
        |finding| matches!(finding, Finding::DeletedAndKept { .. }),
    );
}
