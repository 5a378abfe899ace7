//! What holds for every set of plans on every node.
#![allow(clippy::unwrap_used, clippy::panic)] // A test says what is wrong by failing.
#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::default_trait_access
)]

mod world;

use std::collections::BTreeSet;

use lvs_core::desired::{DesiredState, PlanInput, desired};
use lvs_core::diff::diff;
use lvs_core::host::{DIRECT_ROUTING_DEVICE, PacketRules, SysctlKey, is_our_device};
use lvs_core::ipvs::{DestinationKey, ServiceKey, Services};
use lvs_core::journal::Journal;
use lvs_core::model::Model;
use lvs_core::object::Object;
use lvs_core::op::{HostOp, IpvsOp, Op};
use lvs_crds::node_plan::{DirectorPlan, LeadershipPlan, PlanState};
use proptest::prelude::*;
use world::generate::{any_node, plans, role};
use world::{World, plan};

fn cases(number: u32) -> ProptestConfig {
    ProptestConfig {
        // For a longer run, set when compiling.
        cases: option_env!("LVS_LAW_CASES")
            .and_then(|text| text.parse().ok())
            .unwrap_or(number),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Whether what is wanted and can be had is there. (A conflict with something foreign is a problem, not a difference.)
fn in_force(desired: &DesiredState, model: &Model, journal: &Journal) -> Result<(), String> {
    let foreign = |object: &Object, journal: &Journal| match object {
        Object::Service(key) => !journal.services.contains_key(key),
        _ => false,
    };
    for (key, wanted) in &desired.services {
        let found = model.ipvs.services.get(key);
        if found != Some(wanted) && !foreign(&Object::Service(*key), journal) {
            return Err(format!("{key}: wanted {wanted:?}, found {found:?}"));
        }
    }
    for key in journal.services.keys() {
        if !desired.services.contains_key(key) {
            return Err(format!("{key} is left"));
        }
    }
    let host = model.host.state();
    let links: BTreeSet<&String> = host
        .links
        .keys()
        .filter(|name| is_our_device(name) && *name != "lvs-other")
        .collect();
    if links != desired.host.links.keys().collect() {
        return Err(format!("devices {links:?}"));
    }
    let addresses: BTreeSet<_> = host
        .addresses
        .iter()
        .map(|(key, _)| key)
        .filter(|key| is_our_device(&key.device) && key.device != "lvs-other")
        .collect();
    if addresses != desired.host.addresses.iter().collect() {
        return Err(format!("addresses {addresses:?}"));
    }
    if host.fou_ports != desired.host.fou_ports
        || host.routes != desired.host.routes
        || host.policy_rules != desired.host.policy_rules
    {
        return Err(format!("ports, routes or rules {host:?}"));
    }
    let rules = host.packet_rules.as_ref().map(|found| found.rules.clone());
    if rules.unwrap_or_default() != desired.host.packet_rules {
        return Err("packet rules".to_owned());
    }
    Ok(())
}

/// ARP tells nobody of an address on a device of ours.
fn arp_is_quiet(model: &Model) -> Result<(), String> {
    let host = model.host.state();
    let silent = host.addresses.iter().any(|(key, _)| {
        is_our_device(&key.device) && key.device != "lvs-other" && key.address.is_ipv4()
    });
    if !silent {
        return Ok(());
    }
    for device in ["eth0", "eth1"] {
        let effective = ["all", device]
            .iter()
            .filter_map(|name| {
                let key = SysctlKey(format!("net/ipv4/conf/{name}/arp_ignore"));
                model.host.sysctls.get(&key)?.parse::<u32>().ok()
            })
            .max();
        if effective < Some(1) {
            return Err(format!("{device} answers ARP for silent addresses"));
        }
    }
    Ok(())
}

/// Every device that unwraps IPv4 has an IPv4 address: without any, the source check drops all it unwraps.
fn tunnels_have_addresses(desired: &DesiredState) -> bool {
    desired.host.sysctls.keys().all(|key| {
        let unwraps = key.name() == "rp_filter";
        !unwraps
            || desired.host.addresses.iter().any(|address| {
                Some(address.device.as_str()) == key.device() && address.address.is_ipv4()
            })
    })
}

fn destinations(services: &Services) -> BTreeSet<(ServiceKey, DestinationKey)> {
    services
        .iter()
        .flat_map(|(key, state)| state.destinations.iter().map(|(dest, _)| (*key, *dest)))
        .collect()
}

/// Change something of ours as others may: `ipvsadm -C`, `ip link delete`, `nft flush`, `sysctl -w`.
fn damage(model: &mut Model, journal: &Journal, which: u8) {
    match which {
        0 => model
            .ipvs
            .services
            .retain(|key, _| !journal.services.contains_key(key)),
        1 => {
            for (key, state) in &mut model.ipvs.services {
                if journal.services.contains_key(key) {
                    "fo".clone_into(&mut state.service.scheduler);
                    state.destinations.pop();
                    if let Some((_, destination)) = state.destinations.first_mut() {
                        destination.weight += 100;
                    }
                }
            }
        }
        2 => {
            let op = HostOp::DeleteLink {
                name: DIRECT_ROUTING_DEVICE.to_owned(),
            };
            let _absent = model.host.apply(&op);
        }
        3 => {
            if let Some(rules) = &mut model.host.state_mut().packet_rules {
                rules.rules = PacketRules::default();
                rules.damaged = true;
            }
        }
        4 => {
            for key in journal.sysctls.keys().filter(|key| key.is_arp()) {
                model.host.sysctls.insert(key.clone(), "0".to_owned());
            }
        }
        5 => {
            let state = model.host.state_mut();
            state.routes.clear();
            state.policy_rules.clear();
            state.fou_ports.clear();
        }
        _ => {
            for (name, link) in &mut model.host.state_mut().links {
                if journal.links.contains_key(name) {
                    link.up = false;
                }
            }
        }
    }
}

/// A plan that carries the leadership of the router of all plans.
fn router_plan() -> PlanInput {
    let mut result = plan("vr-edge");
    result.spec.director = Some(DirectorPlan {
        leadership: Some(LeadershipPlan {
            ..world::leadership()
        }),
        ..DirectorPlan::default()
    });
    result
}

proptest! {
    #![proptest_config(cases(192))]

    /// A node is fit to direct a router exactly when every address of it can be held, each on a device whose link is
    /// up: there is no director with a part of them.
    #[test]
    fn addresses_move_as_one(
        mut model in any_node(), plans in plans(), role in role(), links in prop::collection::vec((any::<bool>(), any::<bool>()), 2),
        taken in prop::option::of(0..4_usize),
    ) {
        for (name, (up, carrier)) in ["eth0", "eth1"].into_iter().zip(links) {
            let link = model.host.state_mut().links.get_mut(name).unwrap();
            (link.up, link.carrier) = (up, carrier);
        }
        if let Some(last) = taken {
            model.host.add_foreign_address(world::key("eth0", &format!("192.0.2.{}", 100 + last), 32));
        }
        let mut world = World::new(model, plans);
        world.plans.push(router_plan());
        world.set_role(role);
        let desired = world.desired();
        let handed = desired.director_addresses.get(world::ROUTER).cloned().unwrap_or_default();
        let all_can_be_held = world
            .plans
            .iter()
            .filter(|plan| plan.spec.state != PlanState::Withdrawn)
            .filter_map(|plan| plan.spec.director.as_ref())
            .flat_map(|director| &director.addresses)
            .all(|planned| {
                let has_device = if planned.devices.is_empty() {
                    planned.address != world::ip("203.0.113.1")
                } else {
                    planned.devices.iter().any(|device| device == "eth0")
                };
                has_device && handed.iter().any(|key| {
                    let link = &world.model.host.state().links[&key.device];
                    key.address == planned.address && link.up && link.carrier
                })
            });
        let fitness = desired.fitness.get(world::ROUTER).cloned().unwrap_or_default();
        prop_assert_eq!(fitness.is_fit(), all_can_be_held, "{:?}", fitness);
        // What is a fault is told in the router's own plan.
        let told = desired.problems.iter().any(|problem| problem.plan == "vr-edge");
        prop_assert_eq!(told, !fitness.is_fit());
    }

    /// Applying the diff gives what is wanted; then there is nothing more to do; the kernel accepts every operation;
    /// everything that gets created was in the journal before.
    #[test]
    fn apply_gives_desired(model in any_node(), first in plans(), second in plans(), roles in (role(), role())) {
        let mut world = World::new(model, first);
        world.set_role(roles.0);
        for _ in 0..2 {
            let pass = world.pass();
            prop_assert_eq!(&pass.refused, &[]);
            prop_assert!(tunnels_have_addresses(&pass.desired));
            for op in &pass.diff.ops {
                let covered = match op {
                    Op::Ipvs(IpvsOp::AddService(key, _)) => pass.written_ahead.services.contains_key(key),
                    Op::Host(HostOp::AddLink { name, .. }) => pass.written_ahead.links.contains_key(name),
                    Op::Host(HostOp::AddAddress(key)) => pass.written_ahead.addresses.contains(key),
                    Op::Host(HostOp::AddFouPort(fou)) => pass.written_ahead.fou_ports.contains(fou),
                    Op::Host(HostOp::SetSysctl { key, .. }) => {
                        key.device().is_some_and(is_our_device) || pass.written_ahead.sysctls.contains_key(key)
                    }
                    _ => true,
                };
                prop_assert!(covered, "{} is not in the journal beforehand", op);
            }
            for addresses in pass.desired.director_addresses.values() {
                prop_assert!(addresses.is_subset(&pass.written_ahead.director_addresses));
            }
            let verified = in_force(&pass.desired, &world.model, &world.journal);
            prop_assert!(verified.is_ok(), "{:?}", verified);
            prop_assert_eq!(world.diff().ops, vec![]);
            world.plans.clone_from(&second);
            world.set_role(roles.1);
        }
    }

    /// What is not ours is neither named nor changed, whatever happens.
    #[test]
    fn foreign_things_stay(model in any_node(), rounds in prop::collection::vec((plans(), role(), 0..8_u8), 1..4)) {
        let foreign = model.ipvs.services.clone();
        let mut world = World::new(model, Vec::new());
        for (plans, role, harm) in rounds {
            world.plans = plans;
            world.set_role(role);
            damage(&mut world.model, &world.journal, harm);
            let pass = world.pass();
            for op in &pass.diff.ops {
                match op.object() {
                    Object::Service(key) => prop_assert!(!foreign.contains_key(&key), "{}", op),
                    Object::Link(name) => prop_assert!(name != "lvs-other" && is_our_device(&name), "{}", op),
                    Object::Address(key) => prop_assert!(key.device != "lvs-other" && is_our_device(&key.device), "{}", op),
                    _ => {}
                }
            }
            for (key, state) in &foreign {
                prop_assert_eq!(world.model.ipvs.services.get(key), Some(state));
            }
            // A plan that wants a foreign key is told so.
            for key in pass.desired.services.keys().filter(|key| foreign.contains_key(key)) {
                for plan in pass.desired.claimants(&Object::Service(*key)) {
                    prop_assert!(pass.diff.problems.iter().any(|problem| problem.plan == plan));
                }
            }
        }
    }

    /// After every single operation: a destination that was there and stays is there, a service that had destinations
    /// and will have some has some, and ARP tells nobody of a silent address.
    #[test]
    fn every_prefix_is_safe(model in any_node(), first in plans(), second in plans(), roles in (role(), role())) {
        let mut world = World::new(model, first);
        world.set_role(roles.0);
        let mut loud = Ok(());
        world.pass_watched(|model, op| {
            loud = loud.clone().and(arp_is_quiet(model).map_err(|text| format!("{op}: {text}")));
        });
        let before = destinations(&world.model.ipvs.services);
        world.plans = second;
        world.set_role(roles.1);
        let goal = {
            let mut ahead = world.clone();
            ahead.pass();
            destinations(&ahead.model.ipvs.services)
        };
        let staying: BTreeSet<_> = before.intersection(&goal).copied().collect();
        let live = |all: &BTreeSet<(ServiceKey, DestinationKey)>| -> BTreeSet<ServiceKey> {
            all.iter().map(|(key, _)| *key).collect()
        };
        let serving: BTreeSet<_> = live(&before).intersection(&live(&goal)).copied().collect();
        let mut lost = Vec::new();
        world.pass_watched(|model, op| {
            loud = loud.clone().and(arp_is_quiet(model).map_err(|text| format!("{op}: {text}")));
            let now = destinations(&model.ipvs.services);
            if !staying.is_subset(&now) {
                lost.push(format!("{op}: a destination that stays was away"));
            }
            if !serving.is_subset(&live(&now)) {
                lost.push(format!("{op}: a service had no destination"));
            }
        });
        prop_assert_eq!(loud, Ok(()));
        prop_assert_eq!(lost, Vec::<String>::new());
    }

    /// A connection of a client never goes on with the client's address where it is to have another: what sees to that is
    /// there before the destination.
    #[test]
    fn no_destination_comes_before_its_source_addresses(model in any_node(), first in plans(), second in plans(), role in role()) {
        let mut world = World::new(model, first);
        world.set_role(role);
        world.pass();
        world.plans = second;
        let wanted = world.desired().host.packet_rules.source_nat;
        let mut early = Vec::new();
        world.pass_watched(|model, op| {
            let Op::Ipvs(IpvsOp::AddDestination(ServiceKey::Address { address, protocol, port }, destination, _)) = op else {
                return;
            };
            let table = model.host.state().packet_rules.clone().unwrap_or_default().rules;
            let needed = wanted.iter().filter(|rule| {
                rule.packets.address == *address
                    && rule.packets.protocol == *protocol
                    && (rule.packets.port..=rule.packets.end_port).contains(port)
                    && rule.real_server.is_none_or(|real_server| real_server.address == destination.address)
            });
            for rule in needed {
                if !table.source_nat.contains(rule) {
                    early.push(format!("{op} before {rule:?}"));
                }
            }
        });
        prop_assert_eq!(early, Vec::<String>::new());
    }

    /// The order in which plans arrive changes nothing.
    #[test]
    fn order_of_plans_is_irrelevant(model in any_node(), (sorted, shuffled) in plans().prop_flat_map(|plans| (Just(plans.clone()), Just(plans).prop_shuffle())), role in role()) {
        let mut left = World::new(model.clone(), sorted);
        let mut right = World::new(model, shuffled);
        left.set_role(role);
        right.set_role(role);
        prop_assert_eq!(left.desired(), right.desired());
        prop_assert_eq!(left.diff(), right.diff());
    }

    /// After any history, with the agent dying in the middle of passes, withdrawing everything leaves the node exactly
    /// as it was, sysctls included, and nothing in the journal.
    #[test]
    fn withdrawal_leaves_no_trace(
        model in any_node(),
        rounds in prop::collection::vec((plans(), role(), prop::option::of(0..40_usize)), 1..4),
    ) {
        let start = model.clone();
        let mut world = World::new(model, Vec::new());
        let mut known: Vec<PlanInput> = Vec::new();
        for (plans, role, crash) in rounds {
            known.clone_from(&plans);
            world.plans = plans;
            world.set_role(role);
            match crash {
                Some(operations) => world.crash_after(operations),
                None => {
                    world.pass();
                }
            }
            // Across a restart the journal is text.
            world.journal = Journal::from_text(&world.journal.to_text().unwrap(), world::BOOT).unwrap();
        }
        world.plans = known;
        world.withdraw_all();
        world.pass();
        prop_assert_eq!(world.diff().ops, vec![]);
        prop_assert_eq!(&world.model.host.sysctls, &start.host.sysctls);
        prop_assert!(world.model == start);
        prop_assert!(world.journal.is_empty(), "{:?}", world.journal);
    }

    /// Damage done by others is repaired in one pass.
    #[test]
    fn drift_is_repaired(model in any_node(), plans in plans(), role in role(), harm in 0..8_u8) {
        let mut world = World::new(model, plans);
        world.set_role(role);
        let verified = world.pass().desired;
        damage(&mut world.model, &world.journal, harm);
        let pass = world.pass();
        prop_assert_eq!(&pass.refused, &[]);
        let repaired = in_force(&pass.desired, &world.model, &world.journal);
        prop_assert!(repaired.is_ok(), "{:?}", repaired);
        prop_assert_eq!(arp_is_quiet(&world.model), Ok(()));
        // All of it counts as drift, as nobody asked for anything else.
        prop_assert_eq!(&verified.services, &pass.desired.services);
        prop_assert_eq!(&verified.host, &pass.desired.host);
        let repairs = lvs_core::drift::repairs(&pass.diff.ops, Some(&verified), &pass.desired).count();
        prop_assert_eq!(repairs, pass.diff.ops.len());
    }

    /// A diff against the state that is in force already has nothing to do, and neither has one of a plan that another
    /// plan with the same content replaces.
    #[test]
    fn restart_writes_nothing(model in any_node(), plans in plans(), role in role()) {
        let mut world = World::new(model, plans);
        world.set_role(role);
        world.pass();
        let text = world.journal.to_text().unwrap();
        let journal = Journal::from_text(&text, world::BOOT).unwrap();
        let wanted = desired(&world.plans, &world.roles, &world.serving, world.model.host.state(), &journal);
        let observed = world.model.observe_for(&wanted, &journal);
        prop_assert_eq!(diff(&wanted, &observed, &journal).ops, vec![]);
    }

    /// A plan that is withdrawn takes nothing from the others.
    #[test]
    fn withdrawal_is_private(model in any_node(), plans in plans(), role in role(), index in 0..4_usize) {
        let mut with = World::new(model.clone(), plans.clone());
        with.set_role(role);
        with.pass();
        if let Some(plan) = with.plans.get_mut(index) {
            plan.spec.state = PlanState::Withdrawn;
        }
        let remaining = with.plans.clone();
        let pass = with.pass();
        prop_assert_eq!(&pass.refused, &[]);
        let verified = in_force(&pass.desired, &with.model, &with.journal);
        prop_assert!(verified.is_ok(), "{:?}", verified);
        // The same node without that plan from the start wants the same.
        let mut without = World::new(model, remaining.into_iter().filter(|plan| plan.spec.state != PlanState::Withdrawn).collect());
        without.set_role(role);
        let wanted = without.desired();
        prop_assert_eq!(wanted.services.keys().collect::<Vec<_>>(), pass.desired.services.keys().collect::<Vec<_>>());
        prop_assert_eq!(&wanted.host.addresses, &pass.desired.host.addresses);
        prop_assert_eq!(&wanted.host.packet_rules, &pass.desired.host.packet_rules);
    }
}
