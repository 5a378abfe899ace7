//! FullNAT: connections that go on with a source address of the director.

use lvs_core::host::{PacketRules, RealServerPorts, SourceNatRule};
use lvs_crds::node_plan::{MarkMatch, PlannedFirewallMark, ServiceFirewallMark};
use lvs_crds::traffic_policy::PlannedSorryServer;
use lvs_crds::value::AddressFamily;

use super::world::{forwarding, with_sources};
use super::*;

const FULL_NAT: ForwardingType = ForwardingType::FullNAT;
const CONNTRACK: &str = "net/ipv4/vs/conntrack";

fn full_nat() -> PlanInput {
    mixed(&[("w1", "10.0.0.21", 8080, FULL_NAT)])
}

fn mixed(real_servers: &[(&str, &str, u16, ForwardingType)]) -> PlanInput {
    let real_servers = real_servers
        .iter()
        .map(|(name, address, port, type_)| real_server(name, address, *port, 1, *type_));
    with_sources(director_plan(
        "vs-web",
        vec![service(
            "192.0.2.100",
            80,
            SchedulerName::Rr,
            real_servers.collect(),
        )],
    ))
}

fn packets(address: &str, port: u16) -> MarkMatch {
    MarkMatch {
        address: ip(address),
        protocol: Protocol::TCP,
        port,
        end_port: port,
    }
}

fn rule(real_server: Option<(&str, u16)>) -> SourceNatRule {
    SourceNatRule {
        packets: packets("192.0.2.100", 80),
        real_server: real_server.map(|(address, port)| RealServerPorts {
            address: ip(address),
            port,
            end_port: port,
        }),
        source_addresses: vec![ip("10.0.0.240"), ip("10.0.0.241")],
    }
}

fn master(plan: PlanInput) -> World {
    let mut world = World::new(node(), vec![plan]);
    world.set_role(RouterRole::Master);
    world
}

fn rules(world: &World) -> Vec<SourceNatRule> {
    let host = world.model.host.state();
    let table = host.packet_rules.clone().unwrap_or_default();
    table.rules.source_nat
}

#[test]
fn conntrack_is_on_while_sources_are_translated_and_then_as_before() {
    let mut world = master(full_nat());
    world.pass();
    assert_eq!(value(&world.model, CONNTRACK), "1");
    // NAT alone does without.
    world.plans = vec![nat()];
    world.pass();
    assert_eq!(value(&world.model, CONNTRACK), "0");
    // One that was on already is not ours to switch off.
    let mut world = master(full_nat());
    set(&mut world.model, CONNTRACK, "1");
    world.pass();
    world.withdraw_all();
    world.pass();
    assert_eq!(value(&world.model, CONNTRACK), "1");
    assert!(world.model.host.state().packet_rules.is_none());
}

#[test]
fn real_servers_come_and_go_without_a_new_table() {
    let mut world = master(full_nat());
    world.pass();
    assert_eq!(rules(&world), [rule(None)]);
    world.plans = vec![mixed(&[
        ("w1", "10.0.0.21", 8080, FULL_NAT),
        ("w2", "10.0.0.22", 82, FULL_NAT),
        // Its packets stay addressed to the virtual address, which no rule takes.
        ("w3", "192.0.2.23", 80, DR),
    ])];
    let pass = world.pass();
    let is_table = |op: &&Op| matches!(op, Op::Host(HostOp::ReplacePacketRules(_)));
    assert_eq!(pass.diff.ops.iter().find(is_table), None);
    assert_eq!(rules(&world), [rule(None)]);
}

#[test]
fn who_is_to_see_the_client_beside_others_sees_the_client() {
    let mut world = master(mixed(&[
        ("w1", "10.0.0.21", 8080, FULL_NAT),
        // The same host once more by its other port.
        ("w2", "10.0.0.21", 8081, NAT),
        ("w3", "10.0.0.22", 82, FULL_NAT),
    ]));
    world.pass();
    let each = [
        rule(Some(("10.0.0.21", 8080))),
        rule(Some(("10.0.0.22", 82))),
    ];
    assert_eq!(rules(&world), each);
}

#[test]
fn marks_are_translated_by_what_is_marked() {
    let mut plan = full_nat();
    let director = plan.spec.director.as_mut().unwrap();
    director.services[0].address = None;
    director.services[0].firewall_mark = Some(ServiceFirewallMark {
        mark: 7,
        address_family: AddressFamily::IPv4,
    });
    director.services[0].real_servers[0].port = 0;
    director.firewall_marks = vec![
        PlannedFirewallMark {
            mark: 7,
            matches: vec![packets("192.0.2.100", 80), packets("2001:db8::100", 80)],
        },
        PlannedFirewallMark {
            mark: 8,
            matches: vec![packets("192.0.2.100", 443)],
        },
    ];
    let mut world = master(plan);
    world.pass();
    assert_eq!(rules(&world), [rule(None)]);
}

#[test]
fn a_real_server_without_a_source_address_is_left_out() {
    let mut plan = full_nat();
    plan.spec.director.as_mut().unwrap().source_address_pools[0]
        .addresses
        .retain(IpAddr::is_ipv6);
    let mut world = master(plan);
    assert_eq!(problems(&world), [("vs-web".to_owned(), Reason::Invalid)]);
    world.pass();
    let service = &world.model.ipvs.services[&tcp("192.0.2.100", 80)];
    assert!(service.destinations.is_empty());
    assert_eq!(rules(&world), []);
    assert_eq!(value(&world.model, CONNTRACK), "0");
}

#[test]
fn a_sorry_server_on_another_host_is_translated_beside_nat() {
    let mut plan = mixed(&[("w1", "10.0.0.21", 8080, NAT)]);
    let sorry_server = PlannedSorryServer {
        address: Some(ip("10.0.0.29")),
        port: 8080,
        forwarding: forwarding(FULL_NAT),
    };
    plan.spec.director.as_mut().unwrap().services[0].sorry_server = Some(sorry_server);
    let mut world = master(plan);
    world.pass();
    // Before it is needed, so that it serves at once.
    assert_eq!(rules(&world), [rule(Some(("10.0.0.29", 8080)))]);
}

#[test]
fn destinations_wait_for_a_table_that_was_refused() {
    let world = master(full_nat());
    let diff = world.diff();
    let table = diff
        .ops
        .iter()
        .find(|op| matches!(op, Op::Host(HostOp::ReplacePacketRules(_))))
        .unwrap();
    let waiting: Vec<&Op> = diff.ops.iter().filter(|op| blocked_by(op, table)).collect();
    assert!(
        matches!(waiting[..], [Op::Ipvs(IpvsOp::AddDestination(..))]),
        "{waiting:?}"
    );
    // Of services that do not need it, none does.
    let other = World::new(node(), vec![nat_ipv6()]).diff();
    assert!(!other.ops.iter().any(|op| blocked_by(op, table)));
}

#[test]
fn ftp_needs_no_helper_that_could_not_help() {
    let ftp = |type_| {
        let real_servers = vec![real_server("w1", "10.0.0.21", 21, 1, type_)];
        let service = service("192.0.2.100", 21, SchedulerName::Rr, real_servers);
        master(with_sources(director_plan("vs-ftp", vec![service]))).desired()
    };
    assert!(ftp(NAT).modules.contains_key("ip_vs_ftp"));
    assert!(ftp(FULL_NAT).modules.is_empty());
}

#[test]
fn damage_is_repaired_and_other_addresses_replace_the_old_ones_at_once() {
    let mut world = master(full_nat());
    world.pass();
    let table = world.model.host.state_mut().packet_rules.as_mut().unwrap();
    table.rules = PacketRules::default();
    table.damaged = true;
    world.pass();
    assert_eq!(rules(&world), [rule(None)]);
    let director = world.plans[0].spec.director.as_mut().unwrap();
    director.source_address_pools[0].addresses = vec![ip("10.0.0.250")];
    let pass = world.pass();
    let is_table = |op: &&Op| matches!(op, Op::Host(HostOp::ReplacePacketRules(_)));
    assert_eq!(pass.diff.ops.iter().filter(is_table).count(), 1);
    assert_eq!(rules(&world)[0].source_addresses, [ip("10.0.0.250")]);
}
