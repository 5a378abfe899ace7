//! The virtual MAC: devices of ours beside those of the addresses.

use lvs_core::desired::{virtual_mac, virtual_mac_device_name};
use lvs_core::host::AddressKey;
use lvs_crds::node_plan::{DirectorPlan, PlannedAddress};
use lvs_crds::value::AddressFamily;

use super::*;
use crate::world::ROUTER;

const FOUR: AddressFamily = AddressFamily::IPv4;
const SIX: AddressFamily = AddressFamily::IPv6;

fn ethernet() -> Model {
    let mut model = node();
    for (index, name) in ["eth0", "eth1"].into_iter().enumerate() {
        let link = model.host.state_mut().links.get_mut(name).unwrap();
        link.hardware_address = vec![2, 0, 0, 0, 0, u8::try_from(index).unwrap()];
    }
    model
}

/// A router with an address of each family on eth0 and one on eth1.
fn edge(virtual_router_id: Option<u8>) -> PlanInput {
    let mut result = plan("vr-edge");
    let addresses = ["192.0.2.250", "2001:db8::250", "10.0.0.250"];
    result.spec.director = Some(DirectorPlan {
        leadership: Some(LeadershipPlan {
            directors: vec!["node-a".to_owned(), "node-b".to_owned()],
            virtual_router_id,
            ..world::leadership()
        }),
        addresses: addresses
            .iter()
            .map(|text| PlannedAddress {
                address: ip(text),
                devices: Vec::new(),
            })
            .collect(),
        ..DirectorPlan::default()
    });
    result
}

fn set_virtual_router_id(world: &mut World, virtual_router_id: Option<u8>) {
    world.plans = vec![edge(virtual_router_id)];
}

fn handed(world: &World) -> BTreeSet<AddressKey> {
    let desired = world.desired();
    desired
        .director_addresses
        .get(ROUTER)
        .cloned()
        .unwrap_or_default()
}

fn names() -> [String; 3] {
    [
        virtual_mac_device_name(51, FOUR, "eth0"),
        virtual_mac_device_name(51, SIX, "eth0"),
        virtual_mac_device_name(51, FOUR, "eth1"),
    ]
}

fn on_virtual_macs() -> BTreeSet<AddressKey> {
    let [four, six, inside] = names();
    [
        key(&four, "192.0.2.250", 32),
        key(&six, "2001:db8::250", 128),
        key(&inside, "10.0.0.250", 32),
    ]
    .into()
}

#[test]
fn addresses_and_names_are_as_the_rfc_and_the_kernel_have_them() {
    assert_eq!(virtual_mac(51, FOUR), [0, 0, 0x5e, 0, 1, 0x33]);
    assert_eq!(virtual_mac(255, SIX), [0, 0, 0x5e, 0, 2, 0xff]);
    assert_eq!(
        virtual_mac_device_name(51, FOUR, "eth0"),
        "lvs-v51-47b851",
        "the name is how a restarted agent finds its device"
    );
    assert_eq!(virtual_mac_device_name(255, SIX, "eth0").len(), 15);
}

#[test]
fn each_link_and_family_gets_a_device_that_waits_for_the_fence() {
    let mut world = World::new(ethernet(), vec![edge(Some(51))]);
    let text = lines(&world.pass().diff.ops);
    for name in names() {
        let link = &world.model.host.state().links[&name];
        assert!(!link.up, "{name}: a backup must not hear the MAC");
        assert!(world.journal.links.contains_key(&name));
        // Made, then quietened, then handed over.
        assert!(text.contains(&format!(
            "link add {name} type macvlan mode private link if"
        )));
        for (setting, expected) in [
            ("arp_ignore", "1"),
            ("arp_announce", "2"),
            ("rp_filter", "2"),
        ] {
            let path = format!("net/ipv4/conf/{name}/{setting}");
            assert_eq!(value(&world.model, &path), expected, "{path}");
        }
        assert_eq!(
            value(&world.model, &format!("net/ipv6/conf/{name}/accept_ra")),
            "0"
        );
        assert_eq!(
            value(&world.model, &format!("net/ipv6/conf/{name}/addr_gen_mode")),
            "1"
        );
    }
    for device in ["eth0", "eth1"] {
        assert_eq!(
            value(&world.model, &format!("net/ipv4/conf/{device}/arp_ignore")),
            "1"
        );
        assert_eq!(
            value(
                &world.model,
                &format!("net/ipv4/conf/{device}/arp_announce")
            ),
            "2"
        );
    }
    assert_eq!(handed(&world), on_virtual_macs());
    assert_eq!(problems(&world), []);
    // What the fence does with the device is no drift, up or down.
    assert_eq!(world.pass().diff.ops, []);
    for name in names() {
        world
            .model
            .host
            .state_mut()
            .links
            .get_mut(&name)
            .unwrap()
            .up = true;
    }
    assert_eq!(world.pass().diff.ops, []);
    world.withdraw_all();
    world.pass();
    assert_eq!(world.model.host, ethernet().host);
    assert!(world.journal.links.is_empty());
}

#[test]
fn the_link_below_counts_for_fitness() {
    let mut world = World::new(ethernet(), vec![edge(Some(51))]);
    world.pass();
    assert!(
        world.desired().fitness.is_empty(),
        "down devices of ours are no fault"
    );
    world
        .model
        .host
        .state_mut()
        .links
        .get_mut("eth1")
        .unwrap()
        .carrier = false;
    let fitness = &world.desired().fitness[ROUTER];
    let messages: Vec<&str> = fitness
        .faults
        .iter()
        .map(|fault| fault.message.as_str())
        .collect();
    assert_eq!(messages, ["device eth1 of 10.0.0.250 has no carrier"]);
}

/// On the holder: an address that is in use is put elsewhere before its device goes, and stays while there is nowhere to
/// go.
#[test]
fn switching_it_on_and_off_takes_no_address_away() {
    let mut world = World::new(ethernet(), vec![edge(None)]);
    world.set_role(RouterRole::Master);
    world.pass();
    let own: BTreeSet<AddressKey> = handed(&world);
    let carry = |world: &mut World, keys: &BTreeSet<AddressKey>| {
        let addresses = &mut world.model.host.state_mut().addresses;
        addresses.retain(|(_, attributes)| attributes.protocol != lvs_core::host::OWNER_PROTOCOL);
        for key in keys {
            world.model.host.add_director_address(key.clone());
        }
    };
    carry(&mut world, &own);
    set_virtual_router_id(&mut world, Some(51));
    assert_eq!(handed(&world), own, "before there are devices");
    world.pass();
    assert_eq!(handed(&world), on_virtual_macs(), "once they are there");
    world.pass();
    carry(&mut world, &on_virtual_macs());
    world.pass();

    set_virtual_router_id(&mut world, None);
    world.pass();
    assert_eq!(handed(&world), own);
    for name in names() {
        assert!(
            world.model.host.state().links.contains_key(&name),
            "{name} carries one"
        );
    }
    carry(&mut world, &own);
    world.pass();
    assert!(world.journal.links.is_empty());
    for name in names() {
        assert!(!world.model.host.state().links.contains_key(&name));
    }
}

/// The fence takes the address away; until then the plan is not withdrawn, whoever else has plans of the router.
#[test]
fn a_withdrawn_plan_waits_for_the_device_of_its_address() {
    let inside = || {
        let mut result = plan("vs-inside");
        result.spec.director = Some(DirectorPlan {
            addresses: vec![PlannedAddress {
                address: ip("10.0.0.251"),
                devices: Vec::new(),
            }],
            ..DirectorPlan::default()
        });
        result
    };
    let mut router = edge(Some(51));
    let planned = &mut router.spec.director.as_mut().unwrap().addresses;
    planned.retain(|planned| planned.address != ip("10.0.0.250"));
    let mut world = World::new(ethernet(), vec![router, inside()]);
    world.pass();
    let name = virtual_mac_device_name(51, FOUR, "eth1");
    let carried = key(&name, "10.0.0.251", 32);
    assert!(handed(&world).contains(&carried));
    world.model.host.add_director_address(carried.clone());
    world.plans[1].spec.state = PlanState::Withdrawn;
    world.pass();
    assert!(world.model.host.state().links.contains_key(&name));
    assert_eq!(
        problems(&world),
        [("vs-inside".to_owned(), Reason::Pending)]
    );
    world.model.host.remove_address(&carried);
    world.pass();
    assert_eq!(problems(&world), []);
    assert!(!world.model.host.state().links.contains_key(&name));
}

#[test]
fn a_device_that_is_no_ethernet_keeps_its_addresses_and_says_so() {
    let world = World::new(node(), vec![edge(Some(51))]);
    assert!(
        handed(&world)
            .iter()
            .all(|key| !key.device.starts_with("lvs-"))
    );
    assert!(
        problems(&world)
            .iter()
            .all(|(_, reason)| *reason == Reason::Invalid)
    );
    assert_eq!(problems(&world).len(), 3);
}
