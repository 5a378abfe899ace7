//! Objects of random shape: few names and few addresses, so that they meet.

use lvs_plan::dns_name::{DnsName, LastAnswer};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::node;

pub const NODES: u8 = 4;
pub const NAMESPACES: [&str; 2] = ["bank", "shop"];
pub const ROUTERS: [&str; 2] = ["default", "edge"];

#[derive(Clone, Debug)]
pub struct ServiceShape {
    pub router: Option<u8>,
    pub addresses: Vec<u8>,
    pub families: u8,
    pub ports: Vec<(u8, u8)>,
    pub is_marked: bool,
    pub mark: Option<u8>,
    pub forwarding: u8,
    pub selects: u8,
}

#[derive(Clone, Copy, Debug)]
pub enum TargetShape {
    Addresses,
    Node,
    Service,
    Name,
}

#[derive(Clone, Debug)]
pub struct RealServerShape {
    pub target: u8,
    pub target_type: TargetShape,
    pub has_ipv6: bool,
    pub weight: u8,
    pub port: Option<u8>,
    pub forwarding: Option<u8>,
    pub label: u8,
}

#[derive(Clone, Debug)]
pub struct RouterShape {
    pub directors: Vec<(u8, u8)>,
    pub additional: Vec<u8>,
    pub granted: u8,
    pub is_default: bool,
    pub timeout: Option<u8>,
}

fn forwarding(number: u8) -> Value {
    match number % 5 {
        4 => json!({"type": "FullNAT", "fullNAT": {"sourceAddressPoolName": "snat"}}),
        0 => json!({"type": "DR"}),
        1 => json!({"type": "NAT"}),
        2 => json!({"type": "TUN"}),
        _ => json!({"type": "TUN", "tunnel": {"type": "GUE", "port": 6080}}),
    }
}

/// Virtual addresses of both families, few enough to collide.
fn virtual_address(number: u8) -> String {
    if number.is_multiple_of(3) {
        format!("2001:db8::{number}")
    } else {
        format!("172.25.0.{number}")
    }
}

pub fn service(namespace: &str, name: &str, shape: &ServiceShape) -> Value {
    let ports: Vec<Value> = shape
        .ports
        .iter()
        .enumerate()
        .map(|(index, (port, length))| {
            let first = 80 + u16::from(port % 6);
            json!({"name": format!("p{index}"), "protocol": if port % 2 == 0 { "TCP" } else { "UDP" }, "port": first,
                   "endPort": first + u16::from(length % 3)})
        })
        .collect();
    let families = match shape.families % 3 {
        0 => json!(["IPv4"]),
        1 => json!(["IPv6"]),
        _ => json!(["IPv4", "IPv6"]),
    };
    let mut spec = json!({
        "addresses": shape.addresses.iter().map(|n| virtual_address(n % 12)).collect::<Vec<_>>(),
        "addressFamilies": families,
        "ports": ports,
        "forwarding": forwarding(shape.forwarding),
        "realServerSelector": if shape.selects.is_multiple_of(3) { json!({}) } else { json!({"matchLabels": {"app": format!("a{}", shape.selects % 2)}}) },
    });
    if shape.forwarding >= 128 {
        spec["drain"] = json!({"timeoutSeconds": 300});
    }
    if let Some(router) = shape.router {
        spec["virtualRouterName"] = json!(ROUTERS[usize::from(router) % 2]);
    }
    if shape.is_marked {
        spec["grouping"] = json!("FirewallMark");
        if let Some(mark) = shape.mark {
            spec["firewallMark"] =
                json!({"marking": "External", "value": 0x2000 + u32::from(mark % 3)});
        }
    }
    json!({"kind": "VirtualService", "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

pub fn real_server(namespace: &str, name: &str, shape: &RealServerShape) -> Value {
    let number = shape.target;
    let target = match shape.target_type {
        TargetShape::Service => {
            json!({"type": "Service", "service": {"name": format!("svc-{}", number % 2)}})
        }
        TargetShape::Name => {
            json!({"type": "DNSName", "dnsName": {"name": format!("name-{}.example", number % 2)}})
        }
        TargetShape::Node => {
            json!({"type": "Node", "node": {"name": format!("node-{}", number % NODES)}})
        }
        TargetShape::Addresses => {
            let mut addresses = vec![format!("10.0.0.{}", number % 5)];
            if shape.has_ipv6 {
                addresses.push(format!("2001:db8:1::{}", number % 5));
            }
            json!({"type": "Addresses", "addresses": addresses})
        }
    };
    let mut spec = json!({"target": target, "weight": shape.weight % 3});
    if let Some(port) = shape.port {
        spec["port"] = json!(8000 + u16::from(port % 2));
    }
    if let Some(number) = shape.forwarding {
        spec["forwarding"] = forwarding(number);
    }
    let labels = json!({"app": format!("a{}", shape.label % 2)});
    json!({"kind": "RealServer", "metadata": {"namespace": namespace, "name": name, "labels": labels}, "spec": spec})
}

/// An address that a host, a virtual address or nobody may have.
fn somewhere(number: u8) -> String {
    match number % 8 {
        5 => format!("172.25.0.{}", number % 12),
        6 => "127.0.0.1".to_owned(),
        last => format!("10.0.0.{last}"),
    }
}

pub fn dns_answer(known: &mut DnsName, addresses: &[u8]) {
    if addresses.is_empty() {
        known.ipv4.last_answer = LastAnswer::Failed("no answer".to_owned());
        known.ipv6.last_answer = LastAnswer::NoSuchName;
        return;
    }
    let four = addresses
        .iter()
        .map(|number| somewhere(*number).parse().unwrap());
    let six = addresses
        .iter()
        .map(|number| format!("2001:db8:1::{}", number % 5).parse().unwrap());
    known.ipv4.addresses = Some(four.collect());
    known.ipv6.addresses = Some(six.collect());
    known.ipv4.last_answer = LastAnswer::Addresses;
    known.ipv6.last_answer = LastAnswer::Addresses;
}

/// A slice of one of two Services; endpoints may collide with hosts and virtual addresses.
pub fn slice(namespace: &str, name: &str, endpoints: &[(u8, u8)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(number, state)| {
            json!({"addresses": [somewhere(*number)],
                   "conditions": {"ready": state.is_multiple_of(2), "serving": !state.is_multiple_of(3)}})
        })
        .collect();
    let number = name.bytes().last().unwrap_or_default();
    json!({"kind": "EndpointSlice",
           "metadata": {"namespace": namespace, "name": name,
                        "labels": {"kubernetes.io/service-name": format!("svc-{}", number % 2)}},
           "addressType": "IPv4", "endpoints": endpoints,
           "ports": [{"name": "p0", "port": 8000 + u16::from(number)}, {"name": "p1", "protocol": "UDP", "port": 53}]})
}

pub fn router(name: &str, shape: &RouterShape) -> Value {
    let directors: Vec<Value> = shape
        .directors
        .iter()
        .map(|(node, priority)| json!({"nodeName": format!("node-{}", node % NODES), "priority": 1 + priority % 200}))
        .collect();
    let additional: Vec<Value> = shape
        .additional
        .iter()
        .map(|n| json!({"address": virtual_address(n % 12)}))
        .collect();
    let namespaces = match shape.granted % 3 {
        0 => json!({"from": "All"}),
        1 => json!({"from": "Selector", "selector": {}}),
        _ => json!({"from": "Selector", "selector": {"matchLabels": {"no": "body"}}}),
    };
    let mut pools = vec![json!({"name": "pool", "addresses": ["172.25.0.0/28", "2001:db8::/124"]})];
    let mut names = vec!["pool"];
    // None, one of its own, one that collides with virtual addresses and other routers, and one of real servers.
    let sources = match shape.granted / 3 % 4 {
        0 => None,
        1 => Some(json!([
            format!("172.25.{}.1-172.25.{}.2", name.len(), name.len()),
            "2001:db8:2::1"
        ])),
        2 => Some(json!(["172.25.0.7", "2001:db8::9"])),
        _ => Some(json!(["10.0.0.3-10.0.0.4"])),
    };
    if let Some(sources) = sources {
        pools.push(json!({"name": "snat", "addresses": sources, "purpose": "SourceNAT"}));
        names.push("snat");
    }
    let mut spec = json!({
        "directors": directors,
        "additionalAddresses": additional,
        "addressPools": pools,
        "grants": [{"namespaces": namespaces, "addressPoolNames": names, "realServerCIDRs": ["10.0.0.0/8", "2001:db8:1::/64"],
                    "realServerNodes": "All"}],
    });
    if let Some(timeout) = shape.timeout {
        spec["timeouts"] = json!({"tcpSeconds": 100 + u32::from(timeout % 2)});
    }
    let annotations =
        json!({"lvs.dev/is-default-router": if shape.is_default { "true" } else { "false" }});
    json!({"kind": "VirtualRouter", "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

pub fn host(number: u8, has_agent: bool) -> Value {
    let mut host = node(
        &format!("node-{number}"),
        &format!("192.168.50.{}", 10 + number),
    );
    if !has_agent {
        host["metadata"]["labels"] = json!({"agent": "none"});
    }
    host
}

pub fn service_shape() -> impl Strategy<Value = ServiceShape> {
    (
        proptest::option::weighted(0.3, any::<u8>()),
        proptest::collection::vec(any::<u8>(), 0..3),
        any::<u8>(),
        proptest::collection::vec(any::<(u8, u8)>(), 1..3),
        proptest::bool::weighted(0.3),
        proptest::option::of(any::<u8>()),
        any::<u8>(),
        any::<u8>(),
    )
        .prop_map(
            |(router, addresses, families, ports, is_marked, mark, forwarding, selects)| {
                ServiceShape {
                    router,
                    addresses,
                    families,
                    ports,
                    is_marked,
                    mark,
                    forwarding,
                    selects,
                }
            },
        )
}

pub fn real_server_shape() -> impl Strategy<Value = RealServerShape> {
    let optional = || proptest::option::weighted(0.2, any::<u8>());
    (
        any::<u8>(),
        prop_oneof![
            3 => Just(TargetShape::Addresses),
            3 => Just(TargetShape::Node),
            2 => Just(TargetShape::Service),
            2 => Just(TargetShape::Name),
        ],
        any::<bool>(),
        any::<u8>(),
        optional(),
        optional(),
        any::<u8>(),
    )
        .prop_map(
            |(target, target_type, has_ipv6, weight, port, forwarding, label)| RealServerShape {
                target,
                target_type,
                has_ipv6,
                weight,
                port,
                forwarding,
                label,
            },
        )
}

pub fn router_shape() -> impl Strategy<Value = RouterShape> {
    (
        proptest::collection::vec(any::<(u8, u8)>(), 0..4),
        proptest::collection::vec(any::<u8>(), 0..2),
        any::<u8>(),
        proptest::bool::weighted(0.7),
        proptest::option::of(any::<u8>()),
    )
        .prop_map(
            |(directors, additional, granted, is_default, timeout)| RouterShape {
                directors,
                additional,
                granted,
                is_default,
                timeout,
            },
        )
}
