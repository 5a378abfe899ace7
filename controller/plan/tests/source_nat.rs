//! Forwarding type FullNAT: which source addresses a VirtualService may use, who holds them, and what stands against it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::DirectorPlan;
use lvs_crds::value::ForwardingType;
use lvs_plan::report::Truth;
use serde_json::{Value, json};
use support::Cluster;
use support::four_nodes::{
    at, expect_bad, of_real_server, of_router, of_service, on_node, service,
};

/// A cluster whose default router has a pool of source addresses, granted to all.
fn cluster(sources: &[&str]) -> Cluster {
    let mut cluster = support::four_nodes::cluster();
    cluster.apply(router(sources, &["public", "snat"]));
    cluster
}

fn router(sources: &[&str], granted: &[&str]) -> Value {
    let mut router = support::four_nodes::router("default", &["a", "b"]);
    router["spec"]["addressPools"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "snat", "addresses": sources, "purpose": "SourceNAT"}));
    router["spec"]["grants"][0]["addressPoolNames"] = json!(granted);
    router["spec"]["grants"][0]["realServerCIDRs"] = json!(["10.0.0.0/8", "2001:db8:1::/64"]);
    router
}

fn full_nat() -> Value {
    json!({"type": "FullNAT", "fullNAT": {"sourceAddressPoolName": "snat"}})
}

fn director(cluster: &Cluster, source: &str) -> DirectorPlan {
    cluster.plan("a", source).unwrap().director.unwrap()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_router_holds_what_its_services_use_and_real_servers_are_left_alone() {
    let mut cluster = cluster(&["192.168.50.240/30", "192.168.50.250"]);
    let more = json!({"forwarding": full_nat(), "ports": [{"port": 80, "realServerPort": 8080}]});
    cluster.apply(service("web", more));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.apply(at("out", "10.0.0.1", json!({"port": 82})));
    cluster.settle();
    // Of the network not the first and last, as of any pool.
    let sources = addresses(&["192.168.50.241", "192.168.50.242", "192.168.50.250"]);
    let held = director(&cluster, "default").addresses;
    assert!(
        held.iter()
            .map(|planned| planned.address)
            .eq(sources.clone())
    );
    let plan = director(&cluster, "web");
    assert_eq!(plan.addresses.len(), 1);
    assert_eq!(plan.source_address_pools.len(), 1);
    assert_eq!(plan.source_address_pools[0].addresses, sources);
    let real_servers = &plan.services[0].real_servers;
    assert_eq!(real_servers.len(), 2);
    assert!(real_servers.iter().all(|one| one.weight == 1));
    assert!(
        real_servers
            .iter()
            .all(|one| one.forwarding.type_ == ForwardingType::FullNAT)
    );
    assert_eq!(cluster.plan("c", "web"), None);
    let status = &cluster.pass().report.virtual_routers;
    let pools = &status.values().next().unwrap().status.address_pools;
    assert_eq!((pools[1].name.as_str(), pools[1].allocated), ("snat", 3));
}

#[test]
fn no_virtual_service_gets_a_source_address() {
    let mut cluster = cluster(&["172.25.0.1"]);
    // Allocation passes it over, though it lies in the public pool, too.
    cluster.apply(service("any", json!({"addresses": []})));
    cluster.apply(service("wanted", json!({"addresses": ["172.25.0.1"]})));
    cluster.apply(service(
        "pool",
        json!({"addresses": [], "addressPoolName": "snat"}),
    ));
    let resolution = cluster.settle();
    assert!(director(&cluster, "any").addresses[0].address != addresses(&["172.25.0.1"])[0]);
    expect_bad(
        &of_service(&resolution, "wanted", ConditionType::Accepted),
        Reason::AddressInUse,
        &["172.25.0.1", "source address"],
    );
    expect_bad(
        &of_service(&resolution, "pool", ConditionType::Accepted),
        Reason::AddressPoolNotPermitted,
        &["spec.addressPoolName", "snat"],
    );
}

#[test]
fn a_pool_that_may_not_be_used_is_told_with_those_that_may() {
    let mut cluster = cluster(&["192.168.50.240"]);
    cluster.apply(at("out", "10.0.0.1", json!({})));
    let of_pool = |name: &str| json!({"forwarding": {"type": "FullNAT", "fullNAT": {"sourceAddressPoolName": name}}});
    let field = "spec.forwarding.fullNAT.sourceAddressPoolName";
    // One of virtual addresses, and none at all.
    for name in ["public", "nowhere"] {
        cluster.apply(service("web", of_pool(name)));
        let resolution = cluster.settle();
        expect_bad(
            &of_service(&resolution, "web", ConditionType::Accepted),
            Reason::AddressPoolNotPermitted,
            &[field, name, "granted are: snat"],
        );
        let plan = director(&cluster, "web");
        assert!(plan.services[0].real_servers.is_empty() && plan.source_address_pools.is_empty());
    }
    // One that works, and is then no longer granted.
    cluster.apply(service("web", of_pool("snat")));
    let resolution = cluster.settle();
    let accepted = of_service(&resolution, "web", ConditionType::Accepted);
    assert_eq!(accepted.truth, Truth::True, "{}", accepted.message);
    assert_eq!(director(&cluster, "web").services[0].real_servers.len(), 1);
    cluster.apply(router(&["192.168.50.240"], &["public"]));
    let resolution = cluster.settle();
    expect_bad(
        &of_service(&resolution, "web", ConditionType::Accepted),
        Reason::AddressPoolNotPermitted,
        &[field, "spec.grants"],
    );
    assert!(
        director(&cluster, "web").services[0]
            .real_servers
            .is_empty()
    );
}

#[test]
fn a_family_without_a_source_address_has_no_real_servers() {
    let mut cluster = cluster(&["192.168.50.240"]);
    let both = json!({"addresses": ["172.25.0.100", "2001:db8::100"], "forwarding": full_nat()});
    cluster.apply(service("web", both));
    let mut target = at("out", "10.0.0.1", json!({}));
    target["spec"]["target"]["addresses"] = json!(["10.0.0.1", "2001:db8:1::1"]);
    cluster.apply(target);
    let resolution = cluster.settle();
    expect_bad(
        &of_service(&resolution, "web", ConditionType::Accepted),
        Reason::AddressFamilyMismatch,
        &[
            "spec.forwarding.fullNAT.sourceAddressPoolName",
            "IPv6",
            "2001:db8::100",
            "spec.addressPools",
        ],
    );
    let served = |cluster: &Cluster| -> Vec<usize> {
        let services = director(cluster, "web").services;
        services
            .iter()
            .map(|service| service.real_servers.len())
            .collect()
    };
    assert_eq!(served(&cluster), [1, 0]);
    cluster.apply(router(
        &["192.168.50.240", "2001:db8:2::1"],
        &["public", "snat"],
    ));
    let resolution = cluster.settle();
    let accepted = of_service(&resolution, "web", ConditionType::Accepted);
    assert_eq!(accepted.truth, Truth::True, "{}", accepted.message);
    assert_eq!(served(&cluster), [1, 1]);
}

#[test]
fn a_real_server_may_be_translated_otherwise_than_its_service() {
    let mut cluster = cluster(&["192.168.50.240"]);
    cluster.apply(service("web", json!({"forwarding": full_nat()})));
    cluster.apply(at(
        "direct",
        "10.0.0.1",
        json!({"forwarding": {"type": "DR"}}),
    ));
    cluster.apply(at("full", "10.0.0.2", json!({})));
    cluster.settle();
    let plan = director(&cluster, "web");
    let types = plan.services[0]
        .real_servers
        .iter()
        .map(|one| one.forwarding.type_);
    assert!(types.eq([ForwardingType::DR, ForwardingType::FullNAT]));

    // The reverse, where the service cannot: the RealServer says so and the others serve.
    let each = json!({"ports": [{"port": 53, "protocol": "UDP"}], "packetScheduling": "OnePacket"});
    cluster.apply(service("web", each));
    cluster.apply(at("full", "10.0.0.2", json!({"forwarding": full_nat()})));
    let resolution = cluster.settle();
    expect_bad(
        &of_real_server(&resolution, "full", ConditionType::Accepted),
        Reason::PortNotPermitted,
        &["spec.forwarding.type FullNAT", "OnePacket"],
    );
    let plan = director(&cluster, "web");
    assert_eq!(plan.services[0].real_servers.len(), 1);
    assert!(plan.source_address_pools.is_empty());
}

#[test]
fn a_sorry_server_needs_a_source_address_as_a_real_server_does() {
    let mut cluster = cluster(&["192.168.50.240"]);
    let sorry = |address: &str, forwarding: Value| {
        json!({"addresses": ["172.25.0.100", "2001:db8::100"],
               "sorryServer": {"type": "Address", "address": {"address": address, "forwarding": forwarding}}})
    };
    cluster.apply(service("web", sorry("10.0.0.9", full_nat())));
    cluster.settle();
    let plan = director(&cluster, "web");
    let planned = plan.services[0].sorry_server.as_ref().unwrap();
    assert_eq!(planned.forwarding.type_, ForwardingType::FullNAT);
    assert_eq!(plan.source_address_pools.len(), 1);
    for (address, pool, reason) in [
        ("2001:db8:1::9", "snat", Reason::AddressFamilyMismatch),
        ("10.0.0.9", "public", Reason::AddressPoolNotPermitted),
    ] {
        let forwarding = json!({"type": "FullNAT", "fullNAT": {"sourceAddressPoolName": pool}});
        cluster.apply(service("web", sorry(address, forwarding)));
        let resolution = cluster.settle();
        expect_bad(
            &of_service(&resolution, "web", ConditionType::Accepted),
            reason,
            &[
                "spec.sorryServer.address.forwarding.fullNAT.sourceAddressPoolName",
                pool,
            ],
        );
        let plan = director(&cluster, "web");
        assert!(
            plan.services
                .iter()
                .all(|service| service.sorry_server.is_none())
        );
    }
}

#[test]
fn what_stands_against_source_addresses_is_told_of_the_router() {
    // One of a node is left out; more than the bound leave everything as it is.
    let mut cluster = cluster(&["192.168.50.13", "192.168.50.240"]);
    cluster.apply(service("web", json!({"forwarding": full_nat()})));
    cluster.apply(at("out", "10.0.0.1", json!({})));
    let resolution = cluster.settle();
    expect_bad(
        &of_router(&resolution, "default", ConditionType::Accepted),
        Reason::AddressNotPermitted,
        &["purpose SourceNAT", "192.168.50.13", "node c"],
    );
    let sources = |cluster: &Cluster| {
        director(cluster, "web").source_address_pools[0]
            .addresses
            .clone()
    };
    assert_eq!(sources(&cluster), addresses(&["192.168.50.240"]));
    cluster.apply(router(&["10.1.0.0/24"], &["public", "snat"]));
    let resolution = cluster.settle();
    expect_bad(
        &of_router(&resolution, "default", ConditionType::Accepted),
        Reason::Invalid,
        &["spec.addressPools", "more than 64", "stays as it is"],
    );
    assert_eq!(sources(&cluster), addresses(&["192.168.50.240"]));
    // The gateway of NAT real servers is another address.
    let mut twice = router(&["192.168.50.240"], &["public", "snat"]);
    twice["spec"]["additionalAddresses"] = json!([{"address": "192.168.50.240"}]);
    cluster.apply(twice);
    let resolution = cluster.settle();
    expect_bad(
        &of_router(&resolution, "default", ConditionType::Accepted),
        Reason::Invalid,
        &["spec.additionalAddresses[192.168.50.240]", "SourceNAT"],
    );
}

#[test]
fn a_source_address_is_nobodys_real_server_and_no_gateway() {
    let mut cluster = cluster(&["10.0.0.1"]);
    cluster.apply(service("web", json!({"forwarding": {"type": "NAT"}})));
    cluster.apply(at("out", "10.0.0.1", json!({})));
    cluster.apply(on_node("c", "c", json!({})));
    let resolution = cluster.settle();
    expect_bad(
        &of_real_server(&resolution, "out", ConditionType::Accepted),
        Reason::TargetNotPermitted,
        &["10.0.0.1", "is a virtual address"],
    );
    // With two directors only an additional address leads back.
    expect_bad(
        &of_service(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::ReturnPathUnresolved,
        &["spec.additionalAddresses"],
    );
}
