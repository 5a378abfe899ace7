//! Addresses for those who name none: what they had before, then something free.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::value::AddressFamily;

use super::claims::{Claims, granted, granted_pools};
use super::{Claimant, Tenure};
use crate::address_range::parse_address;
use crate::report::Verdict;
use crate::router::Pool;

impl Claims<'_> {
    /// Fresh addresses for the families that have none.
    pub(super) fn allocate_missing(&mut self, claimant: &Claimant<'_>, tenure: &mut Tenure) {
        let Some(spec) = claimant
            .service
            .spec()
            .filter(|spec| spec.addresses.is_empty())
        else {
            return;
        };
        for family in families(&spec.address_families) {
            if tenure
                .addresses
                .iter()
                .any(|accepted| AddressFamily::of(&accepted.address) == family)
            {
                continue;
            }
            let granted_pools = granted_pools(claimant);
            let candidates: Vec<_> = match spec.address_pool_name.as_deref() {
                Some(name) => granted_pools
                    .iter()
                    .copied()
                    .filter(|pool| pool.name == name)
                    .collect(),
                None => granted_pools
                    .iter()
                    .copied()
                    .filter(|pool| pool.is_automatic)
                    .collect(),
            };
            if candidates.is_empty() {
                let wanted = spec.address_pool_name.as_ref().map_or_else(
                    || "spec.addresses is unset and no pool with assignment Automatic".to_owned(),
                    |name| format!("spec.addressPoolName: no pool {name}"),
                );
                tenure.problems.push(Verdict::bad(
                    ConditionType::Accepted,
                    Reason::AddressPoolNotPermitted,
                    format!(
                        "{wanted} of VirtualRouter {} is granted to namespace {}; {}",
                        claimant.router.meta.key.name,
                        claimant.service.meta.key.namespace,
                        granted(&granted_pools)
                    ),
                ));
                continue;
            }
            let found = candidates.iter().find_map(|pool| {
                let ranges = pool.ranges.iter().filter(|range| range.family() == family);
                ranges
                    .into_iter()
                    .find_map(|range| range.first_free(|address| self.is_free(address)))
            });
            match found {
                Some(address) => self.take(claimant, address, tenure),
                None => tenure.problems.push(Verdict::bad(
                    ConditionType::Accepted,
                    Reason::AddressPoolExhausted,
                    format!(
                        "no free {family:?} address is left in {} of VirtualRouter {}: enlarge a pool or delete a \
                         VirtualService",
                        names(&candidates),
                        claimant.router.meta.key.name
                    ),
                )),
            }
        }
        tenure.addresses.sort_by_key(|accepted| accepted.address);
    }
}

/// One address per wanted family that the VirtualService had before.
pub(super) fn remembered(claimant: &Claimant<'_>) -> Vec<IpAddr> {
    let planned = claimant.plans.iter().flat_map(|plan| {
        plan.director
            .iter()
            .flat_map(|director| &director.addresses)
    });
    let planned: BTreeSet<_> = planned.map(|planned| planned.address).collect();
    let status = claimant
        .service
        .status
        .iter()
        .flat_map(|status| &status.addresses);
    let reported: BTreeSet<_> = status
        .filter_map(|assigned| parse_address(&assigned.address))
        .collect();
    let wanted = claimant
        .service
        .spec()
        .map(|spec| families(&spec.address_families))
        .unwrap_or_default();
    let first = |family| {
        let of_family = |address: &&IpAddr| AddressFamily::of(address) == family;
        planned
            .iter()
            .find(of_family)
            .or_else(|| reported.iter().find(of_family))
            .copied()
    };
    wanted.into_iter().filter_map(first).collect()
}

fn families(wanted: &[AddressFamily]) -> BTreeSet<AddressFamily> {
    if wanted.is_empty() {
        BTreeSet::from([AddressFamily::IPv4])
    } else {
        wanted.iter().copied().collect()
    }
}

fn names(pools: &[&Pool]) -> String {
    let names: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
    format!("pool {}", names.join(", "))
}
