use super::*;

#[test]
fn hashing_schedulers_always_fall_back() {
    for (name, option, bits) in [
        (SchedulerName::Sh, None, ServiceFlags::FALLBACK),
        (SchedulerName::Mh, None, ServiceFlags::FALLBACK),
        (
            SchedulerName::Mh,
            Some(SchedulerOption::MhPort),
            ServiceFlags::FALLBACK | ServiceFlags::PORT,
        ),
        // The option of another scheduler means nothing here.
        (
            SchedulerName::Sh,
            Some(SchedulerOption::MhPort),
            ServiceFlags::FALLBACK,
        ),
        (SchedulerName::Wlc, None, 0),
    ] {
        let mut web = web(name);
        web.spec.director.as_mut().unwrap().services[0]
            .scheduler
            .options = option.into_iter().collect();
        let wanted = World::new(node(), vec![web]).desired();
        assert_eq!(
            wanted.services[&tcp("192.0.2.100", 80)].service.flags.0,
            bits,
            "{name:?} {option:?}"
        );
    }
}

#[test]
fn a_range_is_a_service_per_port_and_keeps_its_offsets() {
    let mut ranged = nat();
    let planned = &mut ranged.spec.director.as_mut().unwrap().services[0];
    planned.address.as_mut().unwrap().end_port = 82;
    let wanted = World::new(node(), vec![ranged.clone()]).desired();
    let ports: Vec<(u16, u16)> = wanted
        .services
        .iter()
        .map(|(key, state)| match key {
            ServiceKey::Address { port, .. } => (*port, state.destinations[0].0.port),
            ServiceKey::FirewallMark { .. } => (0, 0),
        })
        .collect();
    assert_eq!(ports, [(80, 8080), (81, 8081), (82, 8082)]);
    ranged.spec.director.as_mut().unwrap().services[0].real_servers[0].port = 65534;
    let world = World::new(node(), vec![ranged]);
    assert_eq!(problems(&world)[0].1, Reason::PortNotPermitted);
}

#[test]
fn persistence_uses_the_prefix_of_the_family() {
    let mut both = web(SchedulerName::Rr);
    let mut six = service(
        "2001:db8::100",
        80,
        SchedulerName::Rr,
        vec![real_server("web-1", "2001:db8::21", 80, 1, DR)],
    );
    let director = both.spec.director.as_mut().unwrap();
    let persistence = Some(Persistence {
        timeout_seconds: 50,
        ipv4_prefix_length: 24,
        ipv6_prefix_length: 64,
        engine: None,
    });
    six.persistence.clone_from(&persistence);
    director.services[0].persistence = persistence;
    director.services.push(six);
    let mut world = World::new(node(), vec![both]);
    assert_eq!(world.pass().refused, []);
    let prefixes: Vec<u8> = world
        .model
        .ipvs
        .services
        .values()
        .map(|state| state.service.prefix_length)
        .collect();
    assert_eq!(prefixes, [24, 64]);
}

#[test]
fn dr_and_tun_cannot_change_ports_and_only_tun_crosses_families() {
    let mut plan = web(SchedulerName::Rr);
    let servers = &mut plan.spec.director.as_mut().unwrap().services[0].real_servers;
    servers.push(real_server("port", "192.0.2.22", 81, 1, DR));
    servers.push(real_server("family", "2001:db8::21", 80, 1, NAT));
    servers.push(real_server(
        "across",
        "2001:db8::22",
        80,
        1,
        ForwardingType::TUN,
    ));
    let mut gue = real_server("gue", "192.0.2.23", 80, 1, ForwardingType::TUN);
    gue.forwarding.tunnel = Some(Tunnel {
        type_: TunnelType::GUE,
        port: None,
        checksum: TunnelChecksum::None,
    });
    servers.push(gue);
    servers.push(real_server("twin", "192.0.2.21", 80, 9, DR));
    let mut world = World::new(node(), vec![plan]);
    let mut reasons: Vec<Reason> = problems(&world)
        .into_iter()
        .map(|(_, reason)| reason)
        .collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            Reason::DuplicateTarget,
            Reason::AddressFamilyMismatch,
            Reason::PortNotPermitted,
            Reason::Invalid
        ]
    );
    assert_eq!(world.pass().refused, []);
    let names: Vec<String> = world.model.ipvs.services[&tcp("192.0.2.100", 80)]
        .destinations
        .iter()
        .map(|(key, destination)| format!("{key} {destination}"))
        .collect();
    // Of the twins the first by name stays.
    assert_eq!(
        names,
        ["192.0.2.21:80 -g -w 9", "[2001:db8::22]:80 -i -w 1"]
    );
}

/// Weight 0 keeps its slots in a hash table; leaving it out would move everybody's.
#[test]
fn weight_zero_stays_in_the_table() {
    let mut world = World::new(node(), vec![web(SchedulerName::Mh)]);
    world.pass();
    world.plans[0].spec.director.as_mut().unwrap().services[0].real_servers[0].weight = 0;
    assert_eq!(
        lines(&world.pass().diff.ops),
        "ipvs -e -t 192.0.2.100:80 -r 192.0.2.21:80 -g -w 0\n"
    );
}

#[test]
fn one_weight_among_ten_thousand_is_one_operation() {
    let servers: Vec<_> = (0..100)
        .map(|host| real_server("w", &format!("10.0.0.{}", host + 100), 80, 1, DR))
        .collect();
    let services = (0..100)
        .map(|index| {
            service(
                &format!("192.0.2.{}", index + 100),
                80,
                SchedulerName::Wlc,
                servers.clone(),
            )
        })
        .collect();
    let mut world = World::new(node(), vec![director_plan("vs-large", services)]);
    assert_eq!(world.pass().refused, []);
    assert!(world.diff().is_empty());
    world.plans[0].spec.director.as_mut().unwrap().services[42].real_servers[7].weight = 3;
    assert_eq!(
        lines(&world.pass().diff.ops),
        "ipvs -e -t 192.0.2.142:80 -r 10.0.0.107:80 -g -w 3\n"
    );
}

#[test]
fn a_foreign_service_is_a_conflict_of_the_plan_that_wants_it_alone() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr), nat_ipv6()]);
    let foreign = tcp("192.0.2.100", 80);
    world.model.ipvs.services.insert(foreign, foreign_service());
    let pass = world.pass();
    assert_eq!(
        problems(&world),
        [("vs-web".to_owned(), Reason::ForeignObject)]
    );
    assert_eq!(world.model.ipvs.services[&foreign], foreign_service());
    assert!(lines(&pass.diff.ops).contains("-A -t [2001:db8::100]:80"));
    let result = verdicts(
        &world.plans,
        &pass.desired,
        &world.journal,
        &[],
        &world.diff(),
    );
    assert_eq!(result.plans["vs-nat6"], Verdict::Programmed);
    assert!(matches!(
        result.plans["vs-web"],
        Verdict::NotProgrammed {
            reason: Reason::ForeignObject,
            ..
        }
    ));
    world.withdraw_all();
    world.pass();
    assert_eq!(world.model.ipvs.services[&foreign], foreign_service());
}

/// Between our dump and our write someone else adds the same service: the kernel says EEXIST, and it is theirs.
#[test]
fn a_refused_creation_is_not_owned() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    let wanted = world.desired();
    let before = world.model.observe_for(&wanted, &world.journal);
    let result = diff(&wanted, &before, &world.journal);
    let ahead = world.journal.before(&wanted, &before, &result);
    let key = tcp("192.0.2.100", 80);
    assert!(ahead.services.contains_key(&key));
    world.model.ipvs.services.insert(key, foreign_service());
    let refused: Vec<Op> = result
        .ops
        .iter()
        .filter(|op| world.model.apply(op) == Err(Errno::EEXIST))
        .cloned()
        .collect();
    assert_eq!(refused.len(), 1);
    let after = world.model.observe_for(&wanted, &ahead);
    world.journal = ahead.after(&wanted, &after, &refused);
    assert!(!world.journal.services.contains_key(&key));
    assert_eq!(problems(&world)[0].1, Reason::ForeignObject);
}

#[test]
fn of_two_plans_the_one_that_has_the_service_keeps_it() {
    let mut late = web(SchedulerName::Lc);
    late.name = "vs-a".to_owned();
    let key = tcp("192.0.2.100", 80);
    // Nobody has it: the first by name.
    let mut world = World::new(node(), vec![web(SchedulerName::Rr), late.clone()]);
    assert_eq!(world.desired().owner(&key), Some("vs-a"));
    // One has it.
    world.plans.pop();
    world.pass();
    world.plans.push(late);
    let pass = world.pass();
    assert_eq!(lines(&pass.diff.ops), "");
    assert_eq!(
        problems(&world),
        [("vs-a".to_owned(), Reason::AddressInUse)]
    );
    // It lets go.
    world.plans[0].spec.state = PlanState::Withdrawn;
    let text = lines(&world.pass().diff.ops);
    assert_eq!(
        text, "ipvs -E -t 192.0.2.100:80 -s lc\n",
        "handed over in place"
    );
    assert_eq!(world.journal.services[&key], "vs-a");
}

/// Packets that the master forwards to a backup carry the virtual address: its own IPVS would forward them again.
#[test]
fn a_backup_that_serves_does_not_balance() {
    let mut both = web(SchedulerName::Rr);
    both.spec.real_server = Some(RealServerPlan {
        direct_routing_addresses: vec![ip("192.0.2.100")],
        ..RealServerPlan::default()
    });
    let mut world = World::new(node(), vec![both]);
    world.set_role(RouterRole::Master);
    let pass = world.pass();
    let key = tcp("192.0.2.100", 80);
    assert!(world.model.ipvs.services.contains_key(&key));
    assert_eq!(pass.desired.incomplete_routers, BTreeSet::new());
    world.set_role(RouterRole::Backup);
    let pass = world.pass();
    assert!(!world.model.ipvs.services.contains_key(&key));
    // Its addresses must not come before the service is back.
    let router = world.plans[0].spec.virtual_router_name.clone();
    assert_eq!(pass.desired.incomplete_routers, [router].into());
    // If the kernel would not let go of it, the plan is not programmed.
    let failure = Failure {
        op: Op::Ipvs(IpvsOp::DeleteService(key)),
        reason: Reason::KernelError,
        message: "no".to_owned(),
    };
    let result = verdicts(
        &world.plans,
        &pass.desired,
        &world.journal,
        &[failure],
        &world.diff(),
    );
    assert!(matches!(
        result.plans["vs-web"],
        Verdict::NotProgrammed { .. }
    ));
}

/// A director that is a real server gets packets meant for itself from the holder that it is about to follow. While its table
/// was without itself, `sloppy_tcp` gave connections of its own to others, which reset them once they had them.
#[test]
fn a_new_table_has_the_node_itself_before_others() {
    let servers = [9, 10, 11].map(|last| {
        let address = format!("192.0.2.{last}");
        real_server(&format!("web-{last}"), &address, 80, 2, DR)
    });
    let table = service("192.0.2.100", 80, SchedulerName::Mh, servers.to_vec());
    let mut world = World::new(node(), vec![director_plan("vs-web", vec![table])]);
    let own = ip("192.0.2.10");
    let mut weights: BTreeMap<IpAddr, u32> = BTreeMap::new();
    let mut order = Vec::new();
    for op in &world.diff().ops {
        let Op::Ipvs(op) = op else { continue };
        match op {
            IpvsOp::AddDestination(_, key, destination) => {
                order.push(key.address);
                weights.insert(key.address, destination.weight);
            }
            IpvsOp::EditDestination(_, key, destination) => {
                weights.insert(key.address, destination.weight);
            }
            _ => continue,
        }
        let forwards = weights.values().any(|weight| *weight > 0);
        assert!(!forwards || weights.get(&own) == Some(&2), "{weights:?}");
    }
    assert_eq!(weights.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
    assert!(
        order.is_sorted(),
        "every director has this order: {order:?}"
    );
    assert_eq!(world.pass().refused, []);
    assert_eq!(world.diff().ops, []);
}

/// NAT reaches a real server on the same node with its port rewritten: nothing can be balanced twice.
#[test]
fn a_backup_that_serves_by_nat_keeps_the_service() {
    let mut both = nat();
    both.spec.real_server = Some(RealServerPlan {
        return_paths: vec![return_path(8080, &["10.0.0.1"])],
        ..RealServerPlan::default()
    });
    let wanted = World::new(node(), vec![both]).desired();
    assert_eq!(wanted.services.len(), 1);
    assert_eq!(wanted.incomplete_routers, BTreeSet::new());
}

#[test]
fn ftp_by_nat_needs_its_module() {
    let mut ftp = nat();
    let planned = &mut ftp.spec.director.as_mut().unwrap().services[0];
    let address = planned.address.as_mut().unwrap();
    (address.port, address.end_port) = (21, 21);
    let wanted = World::new(node(), vec![ftp]).desired();
    assert_eq!(
        wanted.modules["ip_vs_ftp"],
        BTreeSet::from(["vs-nat".to_owned()])
    );
    assert!(World::new(node(), vec![nat()]).desired().modules.is_empty());
}

#[test]
fn without_ipv6_only_what_is_ipv6_is_missing() {
    let mut model = Model {
        ipvs: IpvsModel {
            ipv6: false,
            ..IpvsModel::default()
        },
        host: HostModel::new(false),
    };
    model.host.add_foreign_link("eth0", false, true);
    model
        .host
        .add_foreign_address(key("eth0", "192.0.2.10", 24));
    let mut both = web(SchedulerName::Rr);
    let six = nat_ipv6().spec.director.unwrap();
    let director = both.spec.director.as_mut().unwrap();
    director.services.extend(six.services);
    director.addresses.extend(six.addresses);
    let mut world = World::new(
        model,
        vec![
            both,
            direct_routing_plan("vs-dr", &["192.0.2.101", "2001:db8::101"]),
        ],
    );
    let pass = world.pass();
    assert_eq!(pass.refused, []);
    assert!(
        problems(&world)
            .iter()
            .all(|(_, reason)| *reason == Reason::IPv6Unavailable)
    );
    assert_eq!(world.model.ipvs.services.len(), 1);
    assert!(lines(&pass.diff.ops).contains("addr add 192.0.2.101/32"));
    assert!(!lines(&pass.diff.ops).contains("2001:db8::101"));
}
