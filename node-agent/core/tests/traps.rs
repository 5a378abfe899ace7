//! One test per trap: what went wrong elsewhere, or would in a simpler version of this.

mod world;

use std::collections::BTreeSet;

use lvs_core::desired::{PlanInput, RouterRole, desired, tunnel_device_name};
use lvs_core::diff::diff;
use lvs_core::drift::repairs;
use lvs_core::host::{DIRECT_ROUTING_DEVICE, LinkKind, SysctlKey};
use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, IpvsTimeouts, Service, ServiceFlags,
    ServiceKey, ServiceState,
};
use lvs_core::journal::{Journal, JournalError};
use lvs_core::model::{Errno, HostModel, IpvsModel, Model};
use lvs_core::object::{Object, blocked_by};
use lvs_core::op::{HostOp, IpvsOp, Op};
use lvs_core::verdict::{Failure, Verdict, blocked, verdicts};
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{
    Candidacy, LeadershipPlan, PlanState, RealServerPlan, ReturnPath, TunnelEndpoint,
};
use lvs_crds::value::{
    ForwardingType, Persistence, Protocol, SchedulerName, SchedulerOption, Timeouts, Tunnel,
    TunnelChecksum, TunnelType,
};
use world::{
    BOOT, World, direct_routing_plan, director_plan, ip, key, lines, node, plan, real_server,
    service,
};

const DR: ForwardingType = ForwardingType::DR;
const NAT: ForwardingType = ForwardingType::NAT;

fn tcp(address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        address: ip(address),
        protocol: Protocol::TCP,
        port,
    }
}

fn sysctl(path: &str) -> SysctlKey {
    SysctlKey(path.to_owned())
}

fn set(model: &mut Model, path: &str, value: &str) {
    let op = HostOp::SetSysctl {
        key: sysctl(path),
        value: value.to_owned(),
    };
    model.host.apply(&op).unwrap();
}

fn value<'a>(model: &'a Model, path: &str) -> &'a str {
    &model.host.sysctls[&sysctl(path)]
}

fn web(scheduler: SchedulerName) -> PlanInput {
    director_plan(
        "vs-web",
        vec![service(
            "192.0.2.100",
            80,
            scheduler,
            vec![real_server("web-1", "192.0.2.21", 80, 1, DR)],
        )],
    )
}

fn nat() -> PlanInput {
    director_plan(
        "vs-nat",
        vec![service(
            "192.0.2.100",
            80,
            SchedulerName::Rr,
            vec![real_server("w1", "10.0.0.21", 8080, 1, NAT)],
        )],
    )
}

fn nat_ipv6() -> PlanInput {
    director_plan(
        "vs-nat6",
        vec![service(
            "2001:db8::100",
            80,
            SchedulerName::Rr,
            vec![real_server("w1", "2001:db8::21", 8080, 1, NAT)],
        )],
    )
}

fn foreign_service() -> ServiceState {
    ServiceState {
        service: Service {
            scheduler: "lc".to_owned(),
            flags: ServiceFlags(0),
            timeout_seconds: 0,
            prefix_length: 32,
            persistence_engine: None,
        },
        destinations: Vec::new(),
    }
}

fn problems(world: &World) -> Vec<(String, Reason)> {
    let desired = world.desired();
    let diff = world.diff();
    desired
        .problems
        .iter()
        .chain(&diff.problems)
        .map(|problem| (problem.plan.clone(), problem.reason))
        .collect()
}

mod sysctls {
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
            lease_name: "lvs-router-edge".to_owned(),
            priority: 100,
            candidacy: Candidacy::Permitted,
            directors: vec!["node-a".to_owned()],
            lease_duration_seconds: 10,
            announcement: serde_json::from_str("{}").unwrap(),
            timeouts: Some(timeouts(tcp_seconds)),
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
}

mod services {
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
        world.pass();
        let key = tcp("192.0.2.100", 80);
        assert!(world.model.ipvs.services.contains_key(&key));
        world.set_role(RouterRole::Backup);
        let pass = world.pass();
        assert!(!world.model.ipvs.services.contains_key(&key));
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
}

fn return_path(port: u16, gateways: &[&str]) -> ReturnPath {
    ReturnPath {
        source_address: ip("10.0.0.10"),
        protocol: Protocol::TCP,
        port,
        end_port: port,
        gateways: gateways.iter().map(|text| ip(text)).collect(),
    }
}

mod host {
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
                 sysctl net.ipv4.conf.{name}.rp_filter=2\n"
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
}

mod journal {
    use super::*;

    #[test]
    fn an_unknown_version_is_an_error_not_an_empty_journal() {
        let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
        world.pass();
        let text = world.journal.to_text().unwrap();
        assert_eq!(Journal::from_text(&text, BOOT).unwrap(), world.journal);
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert!(matches!(
            Journal::from_text(&newer, BOOT),
            Err(JournalError::UnknownVersion { found: 2 })
        ));
        for damaged in ["", "{}", "null", "{\"version\":1}", &text[..text.len() - 9]] {
            assert!(matches!(
                Journal::from_text(damaged, BOOT),
                Err(JournalError::Malformed(_))
            ));
        }
    }

    #[test]
    fn another_boot_voids_it() {
        let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
        world.pass();
        let text = world.journal.to_text().unwrap();
        let next = Journal::from_text(&text, "another-boot").unwrap();
        assert_eq!(next, Journal::new("another-boot"));
    }

    /// The fence thread may add an address at any time after it was handed over.
    #[test]
    fn director_addresses_are_kept_while_wanted_or_present() {
        let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
        world.pass();
        let address = key("eth0", "192.0.2.100", 32);
        assert!(world.journal.director_addresses.contains(&address));
        world.model.host.add_director_address(address.clone());
        world.withdraw_all();
        world.pass();
        assert!(
            world.journal.director_addresses.contains(&address),
            "still there"
        );
        world.model.host.remove_address(&address);
        world.pass();
        assert!(world.journal.is_empty());
    }
}

mod verdict {
    use super::*;

    fn failure(op: Op) -> Failure {
        Failure {
            op,
            reason: Reason::SysctlReadOnly,
            message: "read-only file system".to_owned(),
        }
    }

    #[test]
    fn a_failure_is_that_of_the_plans_that_want_the_thing() {
        let world = World::new(
            node(),
            vec![
                direct_routing_plan("vs-dr", &["192.0.2.101"]),
                web(SchedulerName::Rr),
            ],
        );
        let wanted = world.desired();
        let failures = [failure(Op::Host(HostOp::SetSysctl {
            key: sysctl("net/ipv4/conf/eth0/arp_ignore"),
            value: "1".to_owned(),
        }))];
        let result = verdicts(
            &world.plans,
            &wanted,
            &world.journal,
            &failures,
            &Default::default(),
        );
        assert_eq!(
            result.plans["vs-dr"],
            Verdict::NotProgrammed {
                reason: Reason::SysctlReadOnly,
                message: "sysctl net.ipv4.conf.eth0.arp_ignore=1: read-only file system".to_owned()
            }
        );
        assert_eq!(result.plans["vs-web"], Verdict::Programmed);
        assert_eq!(result.unattributed, Vec::<String>::new());
    }

    #[test]
    fn a_withdrawal_is_not_acknowledged_while_something_is_left() {
        let mut world = World::new(
            node(),
            vec![
                direct_routing_plan("vs-dr", &["192.0.2.101"]),
                direct_routing_plan("vs-other", &["192.0.2.102"]),
            ],
        );
        world.pass();
        world.plans[0].spec.state = PlanState::Withdrawn;
        let wanted = world.desired();
        let address = key(DIRECT_ROUTING_DEVICE, "192.0.2.101", 32);
        let stuck = [failure(Op::Host(HostOp::DeleteAddress(address)))];
        let result = verdicts(&world.plans, &wanted, &world.journal, &stuck, &world.diff());
        assert!(matches!(
            result.plans["vs-dr"],
            Verdict::NotProgrammed { .. }
        ));
        // A failure about what another plan still wants is not the leaving plan's.
        let shared = [failure(Op::Host(HostOp::SetLinkUp {
            name: DIRECT_ROUTING_DEVICE.to_owned(),
        }))];
        world.pass();
        let wanted = world.desired();
        let result = verdicts(
            &world.plans,
            &wanted,
            &world.journal,
            &shared,
            &world.diff(),
        );
        assert_eq!(result.plans["vs-dr"], Verdict::Withdrawn);
        assert!(matches!(
            result.plans["vs-other"],
            Verdict::NotProgrammed { .. }
        ));
    }

    /// A port that was edited away has no plan that wants it; the plan that had it answers.
    #[test]
    fn what_a_plan_no_longer_wants_is_still_its_affair() {
        let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
        world.pass();
        world.plans[0]
            .spec
            .director
            .as_mut()
            .unwrap()
            .services
            .clear();
        let wanted = world.desired();
        let stuck = [failure(Op::Ipvs(IpvsOp::DeleteService(tcp(
            "192.0.2.100",
            80,
        ))))];
        let result = verdicts(
            &world.plans,
            &wanted,
            &world.journal,
            &stuck,
            &Default::default(),
        );
        assert!(matches!(
            result.plans["vs-web"],
            Verdict::NotProgrammed { .. }
        ));
    }

    #[test]
    fn what_differs_again_at_once_is_told() {
        let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
        let pass = world.pass();
        world
            .model
            .ipvs
            .services
            .get_mut(&tcp("192.0.2.100", 80))
            .unwrap()
            .destinations
            .clear();
        let result = verdicts(
            &world.plans,
            &pass.desired,
            &world.journal,
            &[],
            &world.diff(),
        );
        assert!(matches!(
            result.plans["vs-web"],
            Verdict::NotProgrammed {
                reason: Reason::VerificationFailed,
                ..
            }
        ));
    }

    /// A changed plan is not drift; the same difference with the same plan is.
    #[test]
    fn a_changed_plan_is_not_drift() {
        let mut world = World::new(node(), vec![web(SchedulerName::Rr)]);
        let verified = world.pass().desired;
        world.plans[0].spec.director.as_mut().unwrap().services[0].real_servers[0].weight = 5;
        let edited = world.diff().ops;
        assert_eq!(edited.len(), 1);
        assert_eq!(
            repairs(&edited, Some(&verified), &world.desired()).count(),
            0
        );
        assert_eq!(repairs(&edited, None, &world.desired()).count(), 0);
        let verified = world.pass().desired;
        world.model.ipvs.services.clear();
        let ops = world.diff().ops;
        assert_eq!(
            repairs(&ops, Some(&verified), &world.desired()).count(),
            ops.len()
        );
        assert_eq!(ops.len(), 2);
    }
}

/// Where an operation failed, what depends on it is skipped and nothing else.
#[test]
fn operations_wait_for_what_they_need() {
    let host = Op::Host;
    let arp = || {
        host(HostOp::SetSysctl {
            key: sysctl("net/ipv4/conf/eth0/arp_ignore"),
            value: "1".to_owned(),
        })
    };
    let address = |text| host(HostOp::AddAddress(key(DIRECT_ROUTING_DEVICE, text, 32)));
    let removal = || {
        host(HostOp::DeleteAddress(key(
            DIRECT_ROUTING_DEVICE,
            "192.0.2.100",
            32,
        )))
    };
    let device = || {
        host(HostOp::AddLink {
            name: DIRECT_ROUTING_DEVICE.to_owned(),
            kind: LinkKind::Dummy,
        })
    };
    let service = tcp("192.0.2.100", 80);
    let add = |key| Op::Ipvs(IpvsOp::AddService(key, foreign_service().service));
    let destination = |key| {
        Op::Ipvs(IpvsOp::AddDestination(
            key,
            DestinationKey {
                address: ip("192.0.2.21"),
                port: 80,
            },
            Destination {
                forwarding: DestinationForwarding::DirectRoute,
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            },
        ))
    };
    for (later, failed, expected) in [
        (address("192.0.2.100"), arp(), true),
        (address("2001:db8::100"), arp(), false),
        (address("192.0.2.100"), device(), true),
        (arp(), removal(), true),
        (arp(), device(), false),
        (
            host(HostOp::DeleteLink {
                name: DIRECT_ROUTING_DEVICE.to_owned(),
            }),
            removal(),
            true,
        ),
        (destination(service), add(service), true),
        (destination(tcp("192.0.2.100", 81)), add(service), false),
        (add(tcp("192.0.2.100", 81)), add(service), false),
        (add(service), arp(), false),
    ] {
        assert_eq!(
            blocked_by(&later, &failed),
            expected,
            "{later} after {failed}"
        );
        let failures = [Failure {
            op: failed,
            reason: Reason::KernelError,
            message: String::new(),
        }];
        assert_eq!(blocked(&later, &failures).is_some(), expected);
    }
}

/// The errors by which the kernel refuses, as the codec's fake and the differential test rely on them.
#[test]
fn the_model_refuses_as_the_kernel_does() {
    let mut ipvs = IpvsModel::default();
    let key = tcp("192.0.2.100", 80);
    let service = foreign_service().service;
    let destination = DestinationKey {
        address: ip("192.0.2.21"),
        port: 80,
    };
    let attributes = Destination {
        forwarding: DestinationForwarding::Masquerade,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let add = IpvsOp::AddService(key, service.clone());
    let add_destination = IpvsOp::AddDestination(key, destination, attributes);
    assert_eq!(ipvs.apply(&IpvsOp::DeleteService(key)), Err(Errno::ESRCH));
    assert_eq!(ipvs.apply(&add_destination), Err(Errno::ESRCH));
    let unknown = Service {
        scheduler: "twos".to_owned(),
        ..service.clone()
    };
    assert_eq!(
        ipvs.apply(&IpvsOp::AddService(key, unknown.clone())),
        Err(Errno::ENOENT)
    );
    assert_eq!(ipvs.apply(&add), Ok(()));
    assert_eq!(ipvs.apply(&add), Err(Errno::EEXIST));
    assert_eq!(
        ipvs.apply(&IpvsOp::EditService(key, unknown)),
        Err(Errno::ENOENT)
    );
    let edit = IpvsOp::EditDestination(key, destination, attributes);
    assert_eq!(ipvs.apply(&edit), Err(Errno::ENOENT));
    assert_eq!(
        ipvs.apply(&IpvsOp::DeleteDestination(key, destination)),
        Err(Errno::ENOENT)
    );
    assert_eq!(ipvs.apply(&add_destination), Ok(()));
    assert_eq!(ipvs.apply(&add_destination), Err(Errno::EEXIST));
    assert_eq!(ipvs.apply(&edit), Ok(()));
    let thresholds = Destination {
        lower_threshold: 2,
        upper_threshold: 1,
        ..attributes
    };
    assert_eq!(
        ipvs.apply(&IpvsOp::EditDestination(key, destination, thresholds)),
        Err(Errno::ERANGE)
    );
    let six = DestinationKey {
        address: ip("2001:db8::21"),
        port: 80,
    };
    assert_eq!(
        ipvs.apply(&IpvsOp::AddDestination(key, six, attributes)),
        Err(Errno::EINVAL)
    );
    assert_eq!(Errno::EEXIST.code(), 17);
    assert_eq!(
        Object::Service(key).to_string(),
        "IPVS service -t 192.0.2.100:80"
    );
    // A timeout that does not fit into 32 bits of ticks comes back as another one.
    let long = Service {
        timeout_seconds: 31_536_000,
        ..service
    };
    assert_eq!(ipvs.apply(&IpvsOp::EditService(key, long)), Ok(()));
    assert_ne!(ipvs.services[&key].service.timeout_seconds, 31_536_000);
    // Zero keeps a timeout, and ticks are signed here.
    let timeouts = |tcp_seconds| {
        IpvsOp::SetTimeouts(IpvsTimeouts {
            tcp_seconds,
            tcp_fin_seconds: 0,
            udp_seconds: 0,
        })
    };
    assert_eq!(ipvs.apply(&timeouts(100)), Ok(()));
    assert_eq!(ipvs.timeouts.tcp_fin_seconds, 120);
    assert_eq!(ipvs.apply(&timeouts(31_536_000)), Err(Errno::EINVAL));
}

/// Nothing known of any plan is nothing to do, never "remove all".
#[test]
fn no_plans_and_an_empty_journal_touch_nothing() {
    let mut model = node();
    model
        .ipvs
        .services
        .insert(tcp("192.0.2.100", 80), foreign_service());
    let wanted = desired(
        &[],
        &Default::default(),
        model.host.state(),
        &Journal::new(BOOT),
    );
    let observed = model.observe(&BTreeSet::new());
    assert!(diff(&wanted, &observed, &Journal::new(BOOT)).is_empty());
}
