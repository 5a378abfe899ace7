//! Laws of planning, over random clusters and random histories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

#[path = "laws/history.rs"]
mod history;
#[path = "laws/shape.rs"]
mod shape;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use history::{History, Step, history, step};
use lvs_crds::NodePlanSpec;
use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{PlanState, SourceKind};
use lvs_plan::input::Body;
use lvs_plan::lifecycle::is_withdrawn;
use lvs_plan::{check, resolve};
use proptest::prelude::*;
use shape::{
    NODES, RealServerShape, RouterShape, ServiceShape, TargetShape, host, router, router_shape,
};
use support::{Cluster, is_quiet};

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
