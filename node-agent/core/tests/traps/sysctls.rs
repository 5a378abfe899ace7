use super::*;

#[test]
fn all_that_is_high_already_spares_the_devices() {
    let mut model = node();
    set(&mut model, "net/ipv4/conf/all/arp_ignore", "1");
    set(&mut model, "net/ipv4/conf/all/arp_announce", "2");
    let mut world = World::new(model, vec![direct_routing_plan("vs-web", &["192.0.2.100"])]);
    let pass = world.pass();
    assert_eq!(
        lines(&pass.diff.ops),
        "link add lvs-dr type dummy\naddr add 192.0.2.100/32 dev lvs-dr\n"
    );
}

#[test]
fn a_stricter_value_is_never_lowered() {
    let mut model = node();
    set(&mut model, "net/ipv4/conf/eth0/arp_ignore", "2");
    let mut world = World::new(model, vec![direct_routing_plan("vs-web", &["192.0.2.100"])]);
    world.pass();
    assert_eq!(value(&world.model, "net/ipv4/conf/eth0/arp_ignore"), "2");
    assert_eq!(value(&world.model, "net/ipv4/conf/eth1/arp_ignore"), "1");
}

/// arp_ignore=3 still answers for addresses of global scope, and 8 would answer for none.
#[test]
fn arp_ignore_three_keeps_the_address_away() {
    let mut model = node();
    set(&mut model, "net/ipv4/conf/eth0/arp_ignore", "3");
    let mut world = World::new(
        model,
        vec![direct_routing_plan(
            "vs-web",
            &["192.0.2.100", "2001:db8::100"],
        )],
    );
    let pass = world.pass();
    assert_eq!(pass.diff.problems[0].reason, Reason::ForeignObject);
    let text = lines(&pass.diff.ops);
    assert!(!text.contains("192.0.2.100"), "{text}");
    assert!(
        text.contains("addr add 2001:db8::100/128"),
        "IPv6 has no ARP: {text}"
    );
}

/// The key of ARP is the receiving device: a setting of `lo` alone, as many guides have it, does nothing.
#[test]
fn loopback_is_not_what_arp_looks_at() {
    let mut world = World::new(
        node(),
        vec![direct_routing_plan("vs-web", &["192.0.2.100"])],
    );
    world.pass();
    assert_eq!(value(&world.model, "net/ipv4/conf/lo/arp_ignore"), "0");
    assert_eq!(value(&world.model, "net/ipv4/conf/all/arp_ignore"), "0");
    assert_eq!(value(&world.model, "net/ipv4/conf/eth0/arp_ignore"), "1");
}

#[test]
fn a_device_that_appears_later_is_quieted_too() {
    let mut world = World::new(
        node(),
        vec![direct_routing_plan("vs-web", &["192.0.2.100"])],
    );
    world.pass();
    world.model.host.add_foreign_link("eth2", false, true);
    world
        .model
        .host
        .add_foreign_address(key("eth2", "172.16.0.10", 24));
    world.pass();
    assert_eq!(value(&world.model, "net/ipv4/conf/eth2/arp_ignore"), "1");
}

/// A lease that is renewed late takes the address off the device for a moment.
#[test]
fn an_address_that_comes_and_goes_does_not_switch_arp_back_on() {
    let mut world = World::new(
        node(),
        vec![direct_routing_plan("vs-web", &["192.0.2.100"])],
    );
    world.pass();
    world
        .model
        .host
        .remove_address(&key("eth0", "192.0.2.10", 24));
    assert_eq!(lines(&world.pass().diff.ops), "");
    assert_eq!(value(&world.model, "net/ipv4/conf/eth0/arp_ignore"), "1");
}

#[test]
fn a_value_that_someone_else_changed_since_is_left_alone() {
    let mut world = World::new(
        node(),
        vec![direct_routing_plan("vs-web", &["192.0.2.100"])],
    );
    world.pass();
    set(&mut world.model, "net/ipv4/conf/eth0/arp_ignore", "8");
    world.withdraw_all();
    world.pass();
    assert_eq!(value(&world.model, "net/ipv4/conf/eth0/arp_ignore"), "8");
    assert_eq!(value(&world.model, "net/ipv4/conf/eth1/arp_ignore"), "0");
    assert!(world.journal.is_empty());
}

/// Switching ip_forward off makes the kernel accept redirects again, whatever it was before.
#[test]
fn accept_redirects_comes_back_as_it_was() {
    let mut model = node();
    set(&mut model, "net/ipv4/conf/all/accept_redirects", "0");
    set(&mut model, "net/ipv4/conf/eth1/forwarding", "1");
    let start = model.clone();
    let mut world = World::new(model, vec![nat()]);
    world.pass();
    assert_eq!(value(&world.model, "net/ipv4/ip_forward"), "1");
    world.withdraw_all();
    world.pass();
    assert!(world.model == start);
}

/// A node that forwards already is not ours to switch off, nor are its settings to be remembered.
#[test]
fn forwarding_that_was_on_stays_on() {
    let mut model = node();
    set(&mut model, "net/ipv4/ip_forward", "1");
    let mut world = World::new(model, vec![nat()]);
    world.pass();
    world.withdraw_all();
    let text = lines(&world.pass().diff.ops);
    assert!(!text.contains("forward"), "{text}");
    assert_eq!(value(&world.model, "net/ipv4/ip_forward"), "1");
}

/// Turning IPv6 forwarding on drops the default route of router advertisements, unless accept_ra is 2 by then.
#[test]
fn router_advertisements_stay_accepted() {
    let mut world = World::new(node(), vec![nat_ipv6()]);
    let start = world.model.clone();
    let text = lines(&world.pass().diff.ops);
    let position = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("{text}"));
    assert!(
        position("net.ipv6.conf.eth0.accept_ra=2") < position("net.ipv6.conf.all.forwarding=1")
    );
    world.withdraw_all();
    let text = lines(&world.pass().diff.ops);
    let position = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("{text}"));
    assert!(
        position("net.ipv6.conf.all.forwarding=0") < position("net.ipv6.conf.eth0.accept_ra=1")
    );
    assert!(world.model == start);
}

#[test]
fn advertisements_are_not_touched_on_a_node_that_forwards_already() {
    let mut model = node();
    set(&mut model, "net/ipv6/conf/all/forwarding", "1");
    let mut world = World::new(model, vec![nat_ipv6()]);
    let text = lines(&world.pass().diff.ops);
    assert!(!text.contains("accept_ra"), "{text}");
}

/// Without the settings being known, the address stays away: unknown is not "fine".
#[test]
fn a_setting_that_was_not_read_keeps_the_address_away() {
    let world = World::new(
        node(),
        vec![direct_routing_plan("vs-web", &["192.0.2.100"])],
    );
    let wanted = world.desired();
    let observed = world.model.observe(&BTreeSet::new());
    let result = diff(&wanted, &observed, &world.journal);
    assert!(!lines(&result.ops).contains("addr add"));
    assert_eq!(result.problems[0].reason, Reason::ObservationFailed);
}

#[test]
fn without_ip_vs_the_module_is_named() {
    let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
    world
        .model
        .host
        .sysctls
        .retain(|key, _| !key.0.starts_with("net/ipv4/vs/"));
    assert!(problems(&world).contains(&("vs-web".to_owned(), Reason::KernelModuleMissing)));
}

#[test]
fn timeouts_are_put_back_unless_someone_set_them_since() {
    let mut router = plan("vr-edge");
    let timeouts = |tcp_seconds| Timeouts {
        tcp_seconds,
        tcp_fin_seconds: 60,
        udp_seconds: 30,
    };
    let leadership = |tcp_seconds| LeadershipPlan {
        timeouts: Some(timeouts(tcp_seconds)),
        ..world::leadership()
    };
    router.spec.director = Some(lvs_crds::node_plan::DirectorPlan {
        leadership: Some(leadership(600)),
        ..Default::default()
    });
    let mut other = router.clone();
    other.name = "vr-other".to_owned();
    other.spec.director.as_mut().unwrap().leadership = Some(leadership(700));
    let start = node();
    let mut world = World::new(start.clone(), vec![other, router]);
    let pass = world.pass();
    assert_eq!(lines(&pass.diff.ops), "ipvs --set 600 60 30\n");
    assert_eq!(
        problems(&world),
        [("vr-other".to_owned(), Reason::NodeSettingConflict)]
    );
    // A second change keeps the first original.
    world.plans.remove(0);
    world.plans[0].spec.director.as_mut().unwrap().leadership = Some(leadership(800));
    world.pass();
    let mut by_hand = world.clone();
    world.withdraw_all();
    world.pass();
    assert_eq!(world.model.ipvs.timeouts, start.ipvs.timeouts);
    let admins = IpvsTimeouts {
        tcp_seconds: 1,
        tcp_fin_seconds: 2,
        udp_seconds: 3,
    };
    by_hand.model.ipvs.timeouts = admins;
    by_hand.withdraw_all();
    by_hand.pass();
    assert_eq!(by_hand.model.ipvs.timeouts, admins);
}
