//! Operation lists of the stories, as text. `UPDATE_GOLDENS=1 cargo test -p lvs-core --test goldens` writes them anew.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says what is wrong by failing.
#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::default_trait_access
)]

mod world;

use std::path::PathBuf;

use lvs_core::desired::{PlanInput, RouterRole};
use lvs_crds::node_plan::{
    MarkMatch, PlannedFirewallMark, RealServerPlan, ReturnPath, ServiceFirewallMark, TunnelEndpoint,
};
use lvs_crds::value::{
    AddressFamily, ForwardingType, Persistence, Protocol, SchedulerName, Tunnel, TunnelChecksum,
    TunnelType,
};
use world::{
    World, direct_routing_plan, director_plan, ip, lines, node, plan, real_server, service,
    with_sources,
};

fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens")
        .join(format!("{name}.txt"));
    #[allow(clippy::disallowed_methods)] // A test reads its expectation.
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    #[allow(clippy::disallowed_methods)]
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(expected, text, "golden {name}");
}

/// Set-up, a second pass that must do nothing, then tear-down to the node as it was.
fn story(name: &str, world: &mut World) {
    let start = world.model.clone();
    let mut text = String::from("# apply\n");
    let pass = world.pass();
    assert_eq!(pass.refused, [], "{name}");
    assert_eq!(pass.desired.problems, [], "{name}");
    assert_eq!(pass.diff.problems, [], "{name}");
    text += &lines(&pass.diff.ops);
    assert!(
        world.diff().is_empty(),
        "{name}: a second pass must do nothing"
    );
    text += "# delete\n";
    world.withdraw_all();
    let pass = world.pass();
    assert_eq!(pass.refused, [], "{name}");
    text += &lines(&pass.diff.ops);
    assert!(world.model == start, "{name}: the node is not as it was");
    assert!(world.journal.is_empty(), "{name}: {:?}", world.journal);
    golden(name, &text);
}

fn master(plans: Vec<PlanInput>) -> World {
    let mut world = World::new(node(), plans);
    world.set_role(RouterRole::Master);
    world
}

#[test]
fn s2_nat_director() {
    let nat = ForwardingType::NAT;
    story(
        "s2-nat-director",
        &mut master(vec![director_plan(
            "vs-web",
            vec![service(
                "192.0.2.100",
                80,
                SchedulerName::Wrr,
                vec![
                    real_server("w153", "10.0.0.153", 83, 1, nat),
                    real_server("w151", "10.0.0.151", 82, 3, nat),
                ],
            )],
        )]),
    );
}

#[test]
fn s6_full_nat() {
    let full_nat = ForwardingType::FullNAT;
    story(
        "s6-full-nat",
        &mut master(vec![with_sources(director_plan(
            "vs-web",
            vec![service(
                "192.0.2.100",
                80,
                SchedulerName::Rr,
                vec![
                    real_server("w151", "10.0.0.151", 8080, 1, full_nat),
                    real_server("w153", "10.0.0.153", 82, 1, full_nat),
                ],
            )],
        ))]),
    );
}

#[test]
fn s2_nat_real_server() {
    let mut web = plan("vs-web");
    web.spec.real_server = Some(RealServerPlan {
        return_paths: vec![ReturnPath {
            source_address: ip("10.0.0.10"),
            protocol: Protocol::TCP,
            port: 82,
            end_port: 82,
            gateways: vec![ip("172.16.0.1"), ip("10.0.0.1")],
        }],
        ..RealServerPlan::default()
    });
    story("s2-nat-real-server", &mut World::new(node(), vec![web]));
}

#[test]
fn s3_direct_routing_director() {
    let dr = ForwardingType::DR;
    story(
        "s3-direct-routing-director",
        &mut master(vec![director_plan(
            "vs-web",
            vec![service(
                "192.0.2.100",
                80,
                SchedulerName::Mh,
                vec![
                    real_server("web-1", "192.0.2.21", 80, 1, dr),
                    real_server("web-2", "192.0.2.22", 80, 1, dr),
                ],
            )],
        )]),
    );
}

#[test]
fn s3_direct_routing_real_server() {
    story(
        "s3-direct-routing-real-server",
        &mut World::new(
            node(),
            vec![direct_routing_plan(
                "vs-web",
                &["192.0.2.100", "2001:db8::100"],
            )],
        ),
    );
}

#[test]
fn s5_tunnel_director() {
    let mut gue = real_server("gue", "198.51.100.22", 80, 1, ForwardingType::TUN);
    gue.forwarding.tunnel = Some(Tunnel {
        type_: TunnelType::GUE,
        port: Some(6080),
        checksum: TunnelChecksum::RemoteChecksum,
    });
    let mut gre = real_server("gre", "198.51.100.23", 80, 1, ForwardingType::TUN);
    gre.forwarding.tunnel = Some(Tunnel {
        type_: TunnelType::GRE,
        port: None,
        checksum: TunnelChecksum::Checksum,
    });
    story(
        "s5-tunnel-director",
        &mut master(vec![director_plan(
            "vs-web",
            vec![
                service(
                    "192.0.2.100",
                    80,
                    SchedulerName::Wlc,
                    vec![
                        real_server("ipip", "198.51.100.21", 80, 1, ForwardingType::TUN),
                        gue,
                        gre,
                    ],
                ),
                service(
                    "2001:db8::100",
                    80,
                    SchedulerName::Wlc,
                    vec![real_server(
                        "six",
                        "198.51.100.21",
                        80,
                        1,
                        ForwardingType::TUN,
                    )],
                ),
            ],
        )]),
    );
}

#[test]
fn s5_tunnel_real_server() {
    let endpoint = |type_, port, virtual_addresses: &[&str]| TunnelEndpoint {
        local_address: ip("192.0.2.10"),
        tunnel: Tunnel {
            type_,
            port,
            checksum: TunnelChecksum::None,
        },
        virtual_addresses: virtual_addresses.iter().map(|text| ip(text)).collect(),
    };
    let mut web = plan("vs-web");
    web.spec.real_server = Some(RealServerPlan {
        tunnels: vec![
            endpoint(TunnelType::IPIP, None, &["192.0.2.100", "2001:db8::100"]),
            endpoint(TunnelType::GUE, Some(6080), &["192.0.2.101"]),
            endpoint(TunnelType::GRE, None, &["192.0.2.102"]),
        ],
        ..RealServerPlan::default()
    });
    story("s5-tunnel-real-server", &mut World::new(node(), vec![web]));
}

/// A node that is director and DR real server of one service: as backup it only serves, as master it also balances.
#[test]
fn s9_director_that_serves() {
    let dr = ForwardingType::DR;
    let mut web = director_plan(
        "vs-web",
        vec![service(
            "192.0.2.100",
            80,
            SchedulerName::Rr,
            vec![
                real_server("self", "192.0.2.10", 80, 1, dr),
                real_server("peer", "192.0.2.11", 80, 1, dr),
            ],
        )],
    );
    web.spec.real_server = direct_routing_plan("", &["192.0.2.100"]).spec.real_server;
    let mut world = World::new(node(), vec![web]);
    let start = world.model.clone();
    let mut text = String::new();
    for (title, role) in [
        ("start as backup", RouterRole::Backup),
        ("become master", RouterRole::Master),
        ("become backup", RouterRole::Backup),
    ] {
        world.set_role(role);
        let pass = world.pass();
        assert_eq!(pass.refused, []);
        assert_eq!(pass.diff.problems, []);
        text += &format!("# {title}\n{}", lines(&pass.diff.ops));
    }
    world.withdraw_all();
    text += &format!("# delete\n{}", lines(&world.pass().diff.ops));
    assert!(world.model == start);
    golden("s9-director-that-serves", &text);
}

/// 80 and 443 of one address as one persistent service by mark.
#[test]
fn s11_firewall_mark() {
    let mut shop = director_plan("vs-shop", Vec::new());
    let packets = |port| MarkMatch {
        address: ip("192.0.2.100"),
        protocol: Protocol::TCP,
        port,
        end_port: port,
    };
    let mut by_mark = service(
        "192.0.2.100",
        0,
        SchedulerName::Wlc,
        vec![real_server(
            "shop-1",
            "192.0.2.21",
            0,
            1,
            ForwardingType::DR,
        )],
    );
    by_mark.address = None;
    by_mark.firewall_mark = Some(ServiceFirewallMark {
        mark: 0x4c01,
        address_family: AddressFamily::IPv4,
    });
    by_mark.persistence = Some(Persistence {
        timeout_seconds: 360,
        ipv4_prefix_length: 24,
        ipv6_prefix_length: 128,
        engine: None,
    });
    let director = shop.spec.director.as_mut().unwrap();
    director.services = vec![by_mark];
    director.firewall_marks = vec![PlannedFirewallMark {
        mark: 0x4c01,
        matches: vec![packets(443), packets(80)],
    }];
    story("s11-firewall-mark", &mut master(vec![shop]));
}
