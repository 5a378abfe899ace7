//! Laws of planning, over random clusters and random histories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lvs_crds::NodePlanSpec;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{PlanState, SourceKind};
use lvs_plan::dns_name::{DnsName, LastAnswer};
use lvs_plan::input::Body;
use lvs_plan::lifecycle::is_withdrawn;
use lvs_plan::{check, resolve};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Cluster, is_quiet, node};

const NODES: u8 = 4;
const NAMESPACES: [&str; 2] = ["bank", "shop"];
const ROUTERS: [&str; 2] = ["default", "edge"];

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
enum Step {
    Service {
        namespace: u8,
        name: u8,
        shape: ServiceShape,
    },
    DeleteService {
        namespace: u8,
        name: u8,
    },
    RealServer {
        namespace: u8,
        name: u8,
        shape: RealServerShape,
    },
    DeleteRealServer {
        namespace: u8,
        name: u8,
    },
    Slice {
        namespace: u8,
        name: u8,
        endpoints: Vec<(u8, u8)>,
    },
    DeleteSlice {
        namespace: u8,
        name: u8,
    },
    /// The DNS answers with addresses; without any it fails.
    DnsAnswer {
        name: u8,
        addresses: Vec<u8>,
    },
    /// The controller starts anew and knows no name.
    ForgetDns,
    Router {
        name: u8,
        shape: RouterShape,
    },
    DeleteRouter {
        name: u8,
    },
    Node {
        name: u8,
        has_agent: bool,
    },
    RemoveNode {
        name: u8,
    },
    Elect {
        router: u8,
        node: u8,
    },
    Acknowledge {
        node: u8,
    },
    AcknowledgeAll,
}

#[derive(Clone, Debug)]
struct ServiceShape {
    router: Option<u8>,
    addresses: Vec<u8>,
    families: u8,
    ports: Vec<(u8, u8)>,
    is_marked: bool,
    mark: Option<u8>,
    forwarding: u8,
    selects: u8,
}

#[derive(Clone, Copy, Debug)]
enum TargetShape {
    Addresses,
    Node,
    Service,
    Name,
}

#[derive(Clone, Debug)]
struct RealServerShape {
    target: u8,
    target_type: TargetShape,
    has_ipv6: bool,
    weight: u8,
    port: Option<u8>,
    forwarding: Option<u8>,
    label: u8,
}

#[derive(Clone, Debug)]
struct RouterShape {
    directors: Vec<(u8, u8)>,
    additional: Vec<u8>,
    granted: u8,
    is_default: bool,
    timeout: Option<u8>,
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

impl Step {
    fn take(&self, cluster: &mut Cluster) {
        let key = |namespace: &u8, name: &u8, kind: &str| {
            (
                NAMESPACES[usize::from(*namespace) % 2].to_owned(),
                format!("{kind}-{}", name % 4),
            )
        };
        match self {
            Self::Service {
                namespace,
                name,
                shape,
            } => {
                let (namespace, name) = key(namespace, name, "vs");
                cluster.apply(service(&namespace, &name, shape));
            }
            Self::DeleteService { namespace, name } => {
                let (namespace, name) = key(namespace, name, "vs");
                cluster
                    .inputs
                    .virtual_services
                    .remove(&lvs_plan::input::ObjectKey::new(namespace, name));
            }
            Self::RealServer {
                namespace,
                name,
                shape,
            } => {
                let (namespace, name) = key(namespace, name, "rs");
                cluster.apply(real_server(&namespace, &name, shape));
            }
            Self::DeleteRealServer { namespace, name } => {
                let (namespace, name) = key(namespace, name, "rs");
                cluster
                    .inputs
                    .real_servers
                    .remove(&lvs_plan::input::ObjectKey::new(namespace, name));
            }
            Self::Slice {
                namespace,
                name,
                endpoints,
            } => {
                let (namespace, name) = key(namespace, name, "slice");
                cluster.apply(slice(&namespace, &name, endpoints));
            }
            Self::DeleteSlice { namespace, name } => {
                let (namespace, name) = key(namespace, name, "slice");
                cluster
                    .inputs
                    .endpoint_slices
                    .remove(&lvs_plan::input::ObjectKey::new(namespace, name));
            }
            Self::DnsAnswer { name, addresses } => {
                let names = &mut cluster.inputs.dns_names;
                let known = names.entry(format!("name-{}.example", name % 2));
                dns_answer(Arc::make_mut(known.or_default()), addresses);
            }
            Self::ForgetDns => cluster.inputs.dns_names.clear(),
            Self::Router { name, shape } => {
                cluster.apply(router(ROUTERS[usize::from(*name) % 2], shape));
            }
            Self::DeleteRouter { name } => {
                cluster
                    .inputs
                    .virtual_routers
                    .remove(ROUTERS[usize::from(*name) % 2]);
            }
            Self::Node { name, has_agent } => cluster.apply(host(name % NODES, *has_agent)),
            Self::RemoveNode { name } => cluster.remove_node(&format!("node-{}", name % NODES)),
            Self::Elect { router, node } => {
                cluster.elect(
                    ROUTERS[usize::from(*router) % 2],
                    &format!("node-{}", node % NODES),
                );
            }
            Self::Acknowledge { node } => cluster.acknowledge(&format!("node-{}", node % NODES)),
            Self::AcknowledgeAll => cluster.acknowledge_all(),
        }
    }
}

fn service(namespace: &str, name: &str, shape: &ServiceShape) -> Value {
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

fn real_server(namespace: &str, name: &str, shape: &RealServerShape) -> Value {
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

fn dns_answer(known: &mut DnsName, addresses: &[u8]) {
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
fn slice(namespace: &str, name: &str, endpoints: &[(u8, u8)]) -> Value {
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

fn router(name: &str, shape: &RouterShape) -> Value {
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

fn host(number: u8, has_agent: bool) -> Value {
    let mut host = node(
        &format!("node-{number}"),
        &format!("192.168.50.{}", 10 + number),
    );
    if !has_agent {
        host["metadata"]["labels"] = json!({"agent": "none"});
    }
    host
}

fn service_shape() -> impl Strategy<Value = ServiceShape> {
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

fn real_server_shape() -> impl Strategy<Value = RealServerShape> {
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

fn router_shape() -> impl Strategy<Value = RouterShape> {
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

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>(), service_shape())
            .prop_map(|(namespace, name, shape)| Step::Service { namespace, name, shape }),
        2 => any::<(u8, u8)>().prop_map(|(namespace, name)| Step::DeleteService { namespace, name }),
        6 => (any::<u8>(), any::<u8>(), real_server_shape())
            .prop_map(|(namespace, name, shape)| Step::RealServer { namespace, name, shape }),
        2 => any::<(u8, u8)>().prop_map(|(namespace, name)| Step::DeleteRealServer { namespace, name }),
        3 => (any::<u8>(), any::<u8>(), proptest::collection::vec(any::<(u8, u8)>(), 0..4))
            .prop_map(|(namespace, name, endpoints)| Step::Slice { namespace, name, endpoints }),
        1 => any::<(u8, u8)>().prop_map(|(namespace, name)| Step::DeleteSlice { namespace, name }),
        3 => (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(name, addresses)| Step::DnsAnswer { name, addresses }),
        1 => Just(Step::ForgetDns),
        4 => (any::<u8>(), router_shape()).prop_map(|(name, shape)| Step::Router { name, shape }),
        1 => any::<u8>().prop_map(|name| Step::DeleteRouter { name }),
        2 => (any::<u8>(), proptest::bool::weighted(0.8)).prop_map(|(name, has_agent)| Step::Node { name, has_agent }),
        1 => any::<u8>().prop_map(|name| Step::RemoveNode { name }),
        3 => any::<(u8, u8)>().prop_map(|(router, node)| Step::Elect { router, node }),
        4 => any::<u8>().prop_map(|node| Step::Acknowledge { node }),
        3 => Just(Step::AcknowledgeAll),
    ]
}

/// What happened to a cluster.
#[derive(Clone, Debug)]
struct History {
    router: RouterShape,
    steps: Vec<Step>,
}

impl History {
    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        for number in 0..NODES {
            cluster.apply(host(number, true));
        }
        let shape = RouterShape {
            is_default: true,
            granted: 0,
            ..self.router.clone()
        };
        cluster.apply(router("default", &shape));
        for step in &self.steps {
            step.take(&mut cluster);
            cluster.pass();
        }
        cluster
    }
}

fn history() -> impl Strategy<Value = History> {
    let steps = proptest::collection::vec(step(), 4..28);
    (router_shape(), steps).prop_map(|(router, steps)| History { router, steps })
}

/// What a plan serves, without the generation it was made from.
fn substance(spec: &NodePlanSpec) -> NodePlanSpec {
    let mut spec = spec.clone();
    spec.source.generation = 0;
    spec
}

/// Whether a mass removal waits: then what goes on depends on how large the set is by now.
fn is_held(cluster: &Cluster) -> bool {
    let report = resolve(&cluster.inputs).report;
    let routers = report
        .virtual_routers
        .values()
        .flat_map(|report| &report.verdicts);
    let services = report
        .virtual_services
        .values()
        .flat_map(|report| &report.verdicts);
    let mut verdicts = routers.chain(services);
    let named_router_is_gone = !resolve(&cluster.inputs).held_plans.is_empty();
    named_router_is_gone || verdicts.any(|verdict| verdict.reason == Reason::MassRemovalHeld)
}

/// What stays on the other nodes when this one is removed.
fn moves_only_the_share_of(mut cluster: Cluster, number: u8) -> Result<(), TestCaseError> {
    let gone = format!("node-{number}");
    // By address, not by name: a RealServer that was aimed at the node and now has a name without an answer keeps the address while
    // there is the node, and one that was made anew, aimed at the node, has its old address yet in a plan that stands still.
    let addresses_of_gone = cluster.inputs.nodes.get(&gone);
    let addresses_of_gone = addresses_of_gone
        .map(|node| node.addresses.clone())
        .unwrap_or_default();
    // A younger RealServer with the same target would take over: that is no share of the node's.
    let before = cluster.stored();
    cluster.remove_node(&gone);
    let after = resolve(&cluster.inputs).plans;
    for (name, old) in before.iter().filter(|(_, spec)| spec.node_name != gone) {
        let new = after.get(name).map(|planned| &planned.spec);
        prop_assert!(new.is_some(), "{} vanished", name);
        // The way back of a NAT real server leads to the only director: without it there is none.
        let led_to_gone = old
            .real_server
            .iter()
            .any(|part| !part.return_paths.is_empty());
        if let Some(new) =
            new.filter(|_| old.source.kind == SourceKind::VirtualService && !led_to_gone)
        {
            prop_assert_eq!(
                new.state == PlanState::Withdrawn,
                old.state == PlanState::Withdrawn
            );
            let mut expected = old.director.clone();
            for service in expected
                .iter_mut()
                .flat_map(|director| &mut director.services)
            {
                service
                    .real_servers
                    .retain(|d| !addresses_of_gone.contains(&d.address));
            }
            if let Some(director) = &mut expected {
                let staying = director
                    .services
                    .iter()
                    .flat_map(|service| &service.real_servers);
                let used: BTreeSet<String> = staying
                    .filter_map(|d| {
                        Some(
                            d.forwarding
                                .full_nat
                                .as_ref()?
                                .source_address_pool_name
                                .clone(),
                        )
                    })
                    .collect();
                director
                    .source_address_pools
                    .retain(|pool| used.contains(&pool.name));
            }
            prop_assert_eq!(&new.director, &expected);
        }
    }
    Ok(())
}

/// A history that the law once took for a loss: the service cannot be as it was edited last, so its plan stands still, and one of
/// its hosts is made anew, aimed at the node that goes.
#[test]
fn a_host_in_a_plan_that_stands_still_stays_when_the_node_of_its_name_goes() {
    let real_server = |target, target_type| Step::RealServer {
        namespace: 0,
        name: 2,
        shape: RealServerShape {
            target,
            target_type,
            has_ipv6: false,
            weight: 0,
            port: None,
            forwarding: None,
            label: 0,
        },
    };
    let service = |forwarding, families, selects, mark: Option<u8>| Step::Service {
        namespace: 0,
        name: 0,
        shape: ServiceShape {
            router: None,
            addresses: vec![],
            families,
            ports: vec![(0, 0)],
            is_marked: mark.is_some(),
            mark,
            forwarding,
            selects,
        },
    };
    let history = History {
        router: RouterShape {
            directors: vec![],
            additional: vec![],
            granted: 0,
            is_default: false,
            timeout: None,
        },
        steps: vec![
            real_server(0, TargetShape::Addresses),
            service(0, 62, 56, None),
            service(224, 0, 0, Some(0)),
            real_server(1, TargetShape::Node),
        ],
    };
    let mut cluster = history.cluster();
    cluster.settle();
    assert!(!is_held(&cluster));
    let stays = cluster.stored().into_values().any(|spec| {
        let services = spec
            .director
            .into_iter()
            .flat_map(|director| director.services);
        let mut hosts = services.flat_map(|service| service.real_servers);
        hosts.any(|host| host.name == "rs-2" && host.address.to_string() == "10.0.0.0")
    });
    assert!(stays, "its old address is there yet");
    moves_only_the_share_of(cluster, 1).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// At every step of every history the critic finds nothing (asserted by `pass`), a plan is deleted only
    /// after its agent answered, and a plan of a live source never loses its Node.
    #[test]
    fn histories_are_free_of_contradiction(shape in router_shape(), steps in proptest::collection::vec(step(), 1..40)) {
        let mut cluster = Cluster::default();
        for number in 0..NODES {
            cluster.apply(host(number, true));
        }
        cluster.apply(router("default", &shape));
        for step in &steps {
            step.take(&mut cluster);
            let resolution = resolve(&cluster.inputs);
            prop_assert_eq!(check(&resolution), vec![]);
            for name in resolution.deletions.keys() {
                prop_assert!(is_withdrawn(&cluster.inputs.node_plans[name]), "{} is deleted unanswered", name);
            }
            for (name, stored) in &cluster.inputs.node_plans {
                let goes_on = resolution.plans.contains_key(name) || resolution.deletions.contains_key(name);
                let node_is_there = cluster.inputs.nodes.contains_key(&stored.object.spec().unwrap().node_name);
                prop_assert!(goes_on || !node_is_there, "{} vanishes without having been withdrawn", name);
            }
            cluster.write(&resolution);
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_result(history in history()) {
        let cluster = history.cluster();
        prop_assert_eq!(resolve(&cluster.inputs), resolve(&cluster.inputs));
    }

    /// Fed its own plans back, before and after the agents answered, planning comes to rest.
    #[test]
    fn own_plans_fed_back_change_nothing(history in history()) {
        let mut cluster = history.cluster();
        cluster.pass();
        let again = resolve(&cluster.inputs);
        prop_assert!(again.plans.values().all(|planned| !planned.is_changed), "without a new answer nothing changes");
        cluster.settle();
        let stored = cluster.stored();
        let resolution = cluster.pass();
        prop_assert!(is_quiet(&resolution));
        prop_assert_eq!(&cluster.stored(), &stored);
        for planned in resolution.plans.values() {
            prop_assert!(planned.spec.state != PlanState::Withdrawn, "what was acknowledged is deleted");
        }
    }

    /// The order in which lists without order are written does not matter.
    #[test]
    fn permuted_lists_give_the_same_plans(history in history()) {
        let cluster = history.cluster();
        let mut permuted = cluster.clone();
        for object in permuted.inputs.virtual_services.values_mut() {
            if let Body::Decoded(spec) = &mut Arc::make_mut(object).body {
                spec.addresses.reverse();
                spec.address_families.reverse();
            }
        }
        for object in permuted.inputs.real_servers.values_mut() {
            if let Body::Decoded(spec) = &mut Arc::make_mut(object).body {
                spec.target.addresses.reverse();
                spec.ports.reverse();
            }
        }
        for object in permuted.inputs.virtual_routers.values_mut() {
            if let Body::Decoded(spec) = &mut Arc::make_mut(object).body {
                spec.grants.reverse();
                spec.additional_addresses.reverse();
            }
        }
        prop_assert_eq!(resolve(&cluster.inputs).plans, resolve(&permuted.inputs).plans);
    }

    /// A node that goes takes its own share along: on the other nodes the services lose the real servers
    /// that were that node, and nothing else.
    #[test]
    fn removing_a_node_moves_only_its_share(history in history(), number in 0..NODES) {
        let mut cluster = history.cluster();
        cluster.settle();
        prop_assume!(!is_held(&cluster));
        moves_only_the_share_of(cluster, number)?;
    }

    /// Whatever object becomes unreadable: no plan is withdrawn, no address, service or real server goes.
    #[test]
    fn an_undecodable_object_removes_nothing(history in history(), victim in any::<prop::sample::Index>()) {
        let mut cluster = history.cluster();
        cluster.settle();
        prop_assume!(!is_held(&cluster));
        let before = cluster.stored();
        let inputs = &mut cluster.inputs;
        let count = inputs.virtual_services.len() + inputs.real_servers.len() + inputs.endpoint_slices.len()
            + inputs.virtual_routers.len();
        prop_assume!(count > 0);
        let mut index = victim.index(count);
        let broken = || "spec: unknown variant".to_owned();
        if let Some(object) = inputs.virtual_services.values_mut().nth(index) {
            Arc::make_mut(object).body = Body::Undecodable(broken());
        } else {
            index -= inputs.virtual_services.len();
            if let Some(object) = inputs.real_servers.values_mut().nth(index) {
                Arc::make_mut(object).body = Body::Undecodable(broken());
            } else {
                index -= inputs.real_servers.len();
                if let Some(slice) = inputs.endpoint_slices.values_mut().nth(index) {
                    Arc::make_mut(slice).body = Body::Undecodable(broken());
                } else {
                    index -= inputs.endpoint_slices.len();
                    let object = inputs.virtual_routers.values_mut().nth(index).unwrap();
                    Arc::make_mut(object).body = Body::Undecodable(broken());
                }
            }
        }
        for _ in 0..3 {
            cluster.pass();
            cluster.acknowledge_all();
        }
        let after = cluster.stored();
        for (name, old) in &before {
            let new = after.get(name);
            prop_assert!(new.is_some_and(|new| new.state == old.state), "{} changed its state", name);
            let (Some(new), Some(old_director)) = (new, &old.director) else { continue };
            let director = new.director.clone().unwrap_or_default();
            for planned in &old_director.addresses {
                prop_assert!(director.addresses.contains(planned), "{} lost {:?}", name, planned);
            }
            for service in &old_director.services {
                let found = director.services.iter()
                    .find(|other| other.address == service.address && other.firewall_mark == service.firewall_mark);
                prop_assert!(found.is_some(), "{} lost {:?}", name, service.address);
                for destination in &service.real_servers {
                    let kept = found.unwrap().real_servers.iter()
                        .any(|d| (d.address, d.port) == (destination.address, destination.port));
                    prop_assert!(kept, "{} lost {}", name, destination.name);
                }
            }
            let old_virtual = old.real_server.iter().flat_map(|part| &part.direct_routing_addresses);
            for address in old_virtual {
                let kept = new.real_server.iter().any(|part| part.direct_routing_addresses.contains(address));
                prop_assert!(kept, "{} lost {}", name, address);
            }
        }
    }

    /// An unreadable stored plan is neither written nor deleted.
    #[test]
    fn an_undecodable_plan_is_left_alone(history in history(), victim in any::<prop::sample::Index>()) {
        let mut cluster = history.cluster();
        cluster.settle();
        prop_assume!(!cluster.inputs.node_plans.is_empty());
        let index = victim.index(cluster.inputs.node_plans.len());
        let name = cluster.inputs.node_plans.keys().nth(index).unwrap().clone();
        let plan = cluster.inputs.node_plans.get_mut(&name).unwrap();
        Arc::make_mut(plan).object.body = Body::Undecodable("spec: unknown variant".to_owned());
        let resolution = resolve(&cluster.inputs);
        prop_assert!(!resolution.plans.contains_key(&name));
        prop_assert!(!resolution.deletions.contains_key(&name));
    }

    /// Allocation is repeated after a restore: new uids, no plans, but status.
    #[test]
    fn allocation_survives_a_restore(history in history()) {
        let mut cluster = history.cluster();
        cluster.settle();
        prop_assume!(!is_held(&cluster));
        let report = resolve(&cluster.inputs).report;
        // What stands still since it cannot be read may hold by its plans alone what no status has ever said.
        let verdicts = report.virtual_services.values().flat_map(|service| &service.verdicts);
        let mut verdicts = verdicts.chain(report.virtual_routers.values().flat_map(|router| &router.verdicts));
        prop_assume!(!verdicts.any(|verdict| matches!(verdict.reason, Reason::Invalid | Reason::Undecodable)));
        let before = report.virtual_services;
        let mut restored = cluster.clone();
        restored.inputs.node_plans.clear();
        for (index, object) in restored.inputs.virtual_services.values_mut().enumerate() {
            Arc::make_mut(object).meta.uid = format!("restored-{index}");
        }
        let after = resolve(&restored.inputs).report.virtual_services;
        for (key, old) in &before {
            prop_assert_eq!(&after[key].status.addresses, &old.status.addresses);
            prop_assert_eq!(after[key].status.firewall_mark, old.status.firewall_mark);
        }
    }

    /// A plan's content does not depend on which pass made it: a fresh controller with the same objects and
    /// the same stored plans finds nothing to do.
    #[test]
    fn content_is_independent_of_generation(history in history()) {
        let mut cluster = history.cluster();
        cluster.settle();
        let before: BTreeMap<_, _> = cluster.stored().iter().map(|(name, spec)| (name.clone(), substance(spec))).collect();
        for object in cluster.inputs.virtual_services.values_mut() {
            Arc::make_mut(object).meta.generation += 1;
        }
        let after = resolve(&cluster.inputs).plans;
        for (name, planned) in after {
            prop_assert_eq!(&substance(&planned.spec), &before[&name]);
        }
    }
}
