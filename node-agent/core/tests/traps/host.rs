use super::*;

fn returning(path: ReturnPath) -> World {
    let mut serving = plan("vs-web");
    serving.spec.real_server = Some(RealServerPlan {
        return_paths: vec![path],
        ..RealServerPlan::default()
    });
    World::new(node(), vec![serving])
}

#[test]
fn the_way_back_is_the_first_gateway_next_door_that_is_not_this_node() {
    let mut world = returning(return_path(
        82,
        &[
            "172.16.0.1",
            "10.0.0.10",
            "2001:db8::1",
            "10.0.0.2",
            "10.0.0.1",
        ],
    ));
    let text = lines(&world.pass().diff.ops);
    assert!(text.contains("via 10.0.0.2 dev eth1 table 7600"), "{text}");
}

#[test]
fn a_way_back_that_cannot_be_told_is_a_problem() {
    for path in [
        return_path(82, &[]),
        return_path(82, &["172.16.0.1"]),
        return_path(0, &["10.0.0.1"]),
    ] {
        let world = returning(path);
        assert_eq!(problems(&world)[0].1, Reason::ReturnPathUnresolved);
        assert_eq!(world.diff().ops, []);
    }
}

/// The master is the director itself: its replies pass its own IPVS, a route to a peer would lead them astray.
#[test]
fn the_master_needs_no_way_back() {
    let mut world = returning(return_path(82, &["10.0.0.1"]));
    world.set_role(RouterRole::Master);
    assert_eq!(world.diff().ops, []);
    assert_eq!(problems(&world), []);
}

/// Two default routes cannot share a table: a new gateway gets a new table, so that there is always a way.
#[test]
fn a_new_gateway_is_there_before_the_old_one_goes() {
    let mut world = returning(return_path(82, &["10.0.0.1"]));
    world.pass();
    world.plans[0]
        .spec
        .real_server
        .as_mut()
        .unwrap()
        .return_paths[0]
        .gateways = vec![ip("10.0.0.2")];
    let pass = world.pass();
    assert_eq!(pass.refused, []);
    assert_eq!(
        lines(&pass.diff.ops),
        "route add default via 10.0.0.2 dev eth1 table 7601\n\
         rule add priority 22000 from 10.0.0.10 ipproto tcp sport 82-82 lookup 7601\n\
         rule del priority 22000 from 10.0.0.10 ipproto tcp sport 82-82 lookup 7600\n\
         route del default via 10.0.0.1 dev eth1 table 7600\n"
    );
}

#[test]
fn a_foreign_device_of_our_name_is_left_alone() {
    let mut world = World::new(
        node(),
        vec![direct_routing_plan("vs-web", &["192.0.2.100"])],
    );
    world
        .model
        .host
        .add_foreign_link(DIRECT_ROUTING_DEVICE, false, true);
    let text = lines(&world.pass().diff.ops);
    assert!(!text.contains(DIRECT_ROUTING_DEVICE), "{text}");
    assert_eq!(problems(&world)[0].1, Reason::ForeignObject);
    world.withdraw_all();
    assert!(!lines(&world.pass().diff.ops).contains(DIRECT_ROUTING_DEVICE));
}

/// A foreign tunnel of our name is not even softened.
#[test]
fn a_foreign_tunnel_of_our_name_keeps_its_settings() {
    let mut world = World::new(node(), vec![tunnel(TunnelType::IPIP, TunnelChecksum::None)]);
    let name = tunnel_device_name(LinkKind::IpIp(ip("192.0.2.10")));
    world.model.host.add_foreign_link(&name, false, true);
    assert!(!lines(&world.pass().diff.ops).contains(&name));
}

fn tunnel(type_: TunnelType, checksum: TunnelChecksum) -> PlanInput {
    let mut serving = plan("vs-web");
    serving.spec.real_server = Some(RealServerPlan {
        tunnels: vec![TunnelEndpoint {
            local_address: ip("192.0.2.10"),
            tunnel: Tunnel {
                type_,
                port: (type_ == TunnelType::GUE).then_some(6080),
                checksum,
            },
            virtual_addresses: vec![ip("192.0.2.100")],
        }],
        ..RealServerPlan::default()
    });
    serving
}

/// The kernel drops a GRE packet with a checksum at a device that expects none.
#[test]
fn gre_with_checksum_replaces_gre_without() {
    let mut world = World::new(node(), vec![tunnel(TunnelType::GRE, TunnelChecksum::None)]);
    let start = world.model.clone();
    world.pass();
    world.plans = vec![tunnel(TunnelType::GRE, TunnelChecksum::Checksum)];
    let pass = world.pass();
    assert_eq!(pass.refused, []);
    let text = lines(&pass.diff.ops);
    let name = tunnel_device_name(LinkKind::Gre(ip("192.0.2.10")));
    assert_eq!(
        text,
        format!(
            "link delete {name}\nlink add {name} type gre local 192.0.2.10 icsum\n\
             sysctl net.ipv4.conf.{name}.rp_filter=2\naddr add 192.0.2.100/32 dev {name}\n"
        )
    );
    assert!(world.diff().is_empty());
    // Both at once cannot be had.
    let mut other = tunnel(TunnelType::GRE, TunnelChecksum::None);
    other.name = "vs-x".to_owned();
    world.plans.push(other);
    assert_eq!(
        problems(&world),
        [("vs-x".to_owned(), Reason::NodeSettingConflict)]
    );
    world.withdraw_all();
    world.pass();
    assert!(world.model == start);
}

#[test]
fn a_gue_port_that_someone_has_open_is_a_conflict() {
    let mut world = World::new(node(), vec![tunnel(TunnelType::GUE, TunnelChecksum::None)]);
    let wanted = world.desired();
    world
        .model
        .host
        .state_mut()
        .fou_ports
        .extend(wanted.host.fou_ports);
    assert_eq!(problems(&world)[0].1, Reason::ForeignObject);
    world.pass();
    world.withdraw_all();
    assert!(!lines(&world.pass().diff.ops).contains("fou"));
}

#[test]
fn device_names_fit_and_last() {
    let local = ip("2001:db8::10");
    assert_eq!(tunnel_device_name(LinkKind::Ip6Gre(local)).len(), 15);
    assert_eq!(
        tunnel_device_name(LinkKind::IpIp(ip("192.0.2.10"))),
        "lvs-ipip415f5",
        "the name is how a restarted agent finds its device"
    );
}

#[test]
fn a_director_address_that_someone_else_put_there_is_not_handed_to_the_fence() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    let address = key("eth0", "192.0.2.100", 32);
    world.model.host.add_foreign_address(address.clone());
    assert_eq!(world.desired().director_addresses.get(world::ROUTER), None);
    assert_eq!(problems(&world)[0].1, Reason::ForeignObject);
    // Ours by its tag (Linux 5.18 and later) or by the journal (before).
    world.model.host.remove_address(&address);
    world.model.host.add_director_address(address.clone());
    assert_eq!(problems(&world), []);
    world.model.host.remove_address(&address);
    world.pass();
    world.model.host.add_foreign_address(address);
    assert_eq!(problems(&world), []);
}

#[test]
fn an_address_without_a_device_is_a_problem_and_the_rest_goes_on() {
    let mut lost = web(SchedulerName::Rr);
    let addresses = &mut lost.spec.director.as_mut().unwrap().addresses;
    addresses[0].devices = vec!["ens9".to_owned()];
    addresses.push(lvs_crds::node_plan::PlannedAddress {
        address: ip("203.0.113.1"),
        devices: Vec::new(),
    });
    let mut world = World::new(node(), vec![lost]);
    let reasons: Vec<Reason> = problems(&world)
        .into_iter()
        .map(|(_, reason)| reason)
        .collect();
    assert_eq!(
        reasons,
        [Reason::InterfaceNotFound, Reason::InterfaceNotFound]
    );
    world.pass();
    assert_eq!(world.model.ipvs.services.len(), 1);
}

/// A virtual address that an administrator has on a real device is answered for there, whatever we set.
#[test]
fn a_virtual_address_on_a_real_device_is_a_conflict() {
    let mut world = World::new(
        node(),
        vec![direct_routing_plan("vs-web", &["192.0.2.100"])],
    );
    world
        .model
        .host
        .add_foreign_address(key("eth0", "192.0.2.100", 24));
    assert_eq!(problems(&world)[0].1, Reason::ForeignObject);
}
