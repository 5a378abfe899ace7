//! Which router has which virtual MAC. Two routers with one would take each other's packets wherever they share a link,
//! and which links there are the controller does not know: a VRID is given once.

use std::collections::BTreeMap;

use lvs_crds::VirtualRouterSpec;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::virtual_router::VirtualMac;

use crate::input::Inputs;
use crate::lifecycle::plans_on_nodes;
use crate::report::Verdict;
use crate::router::Routers;

/// The VRID whose virtual MAC a router asks for.
pub(crate) fn asked_for(spec: &VirtualRouterSpec) -> Option<u8> {
    match spec.virtual_mac {
        VirtualMac::Enabled => spec.virtual_router_id,
        VirtualMac::Disabled => None,
    }
}

/// Leaves each VRID to the oldest router that asks for it. The others go on with the addresses of their devices, and
/// say why. A router that cannot be read keeps what its plans have.
pub(crate) fn assign(inputs: &Inputs, routers: &mut Routers<'_>) {
    let mut taken: BTreeMap<u8, String> = BTreeMap::new();
    for (spec, _) in plans_on_nodes(inputs) {
        let leadership = spec.director.as_ref().and_then(|d| d.leadership.as_ref());
        if let Some(id) = leadership.and_then(|leadership| leadership.virtual_router_id)
            && routers.frozen.contains_key(&spec.virtual_router_name)
        {
            taken.insert(id, spec.virtual_router_name.clone());
        }
    }
    let mut by_age: Vec<_> = routers.decoded.values_mut().collect();
    by_age.sort_by(|left, right| left.meta.age().cmp(&right.meta.age()));
    for router in by_age {
        let Some(id) = router.virtual_router_id else {
            continue;
        };
        let Some(older) = taken.get(&id) else {
            taken.insert(id, router.meta.key.name.clone());
            continue;
        };
        router.virtual_router_id = None;
        router.problems.push(Verdict::bad(
            ConditionType::Accepted,
            Reason::VirtualRouterIDInUse,
            format!(
                "spec.virtualRouterID {id} with its virtual MAC belongs to VirtualRouter {older}, which is older: choose \
                 another; until then the addresses have the MAC of their devices"
            ),
        ));
    }
}
