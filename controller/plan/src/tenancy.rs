//! Whose address is it? One namespace per address, the oldest claimant wins; inside a namespace
//! an address is shared by port. Allocation repeats what plans and status say before it takes
//! something new from a pool.

mod allocation;
mod claims;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use claims::Claims;
use lvs_crds::node_plan::NodePlanSpec;
use lvs_crds::virtual_service::{AssignedAddress, ServicePort};

use crate::input::{Inputs, ObjectKey, VirtualServiceObject};
use crate::report::Verdict;
use crate::router::{Router, Routers};

/// An address a VirtualService may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedAddress {
    /// The address.
    pub address: IpAddr,
    /// Pool it lies in.
    pub pool_name: String,
    /// Devices of the pool.
    pub devices: Vec<String>,
    /// Indices into `spec.ports` that it serves there.
    pub ports: BTreeSet<usize>,
}

/// What one VirtualService gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    /// Addresses in order.
    pub addresses: Vec<AcceptedAddress>,
    /// What was refused.
    pub problems: Vec<Verdict>,
}

impl Tenure {
    /// For status.
    pub fn assigned(&self) -> Vec<AssignedAddress> {
        self.addresses
            .iter()
            .map(|accepted| AssignedAddress {
                address: accepted.address.to_string(),
                address_pool_name: accepted.pool_name.clone(),
            })
            .collect()
    }
}

/// The result for the whole cluster.
#[derive(Clone, Debug, Default)]
pub struct Tenancy {
    /// By VirtualService; exactly those that were asked for.
    pub services: BTreeMap<ObjectKey, Tenure>,
    /// Additional and source addresses that a router may not have, by router.
    pub refused_additional: BTreeMap<String, BTreeMap<IpAddr, Verdict>>,
    /// Every address in use, frozen ones included.
    pub virtual_addresses: BTreeSet<IpAddr>,
}

/// A VirtualService that takes part, its router and its namespace's labels.
pub struct Claimant<'a> {
    /// The object; its spec can be read.
    pub service: &'a VirtualServiceObject,
    /// Ports of its spec.
    pub ports: &'a [ServicePort],
    /// Its router.
    pub router: &'a Router<'a>,
    /// Labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Plans stored for it.
    pub plans: Vec<&'a NodePlanSpec>,
}

/// One that claims addresses, in the order of age.
enum Turn<'b, 'a> {
    Router(&'b Router<'b>),
    Service(&'b Claimant<'a>),
}

/// Decides every claim. `frozen` are stored plans that stay as they are whatever happens: what
/// they hold is taken first.
pub fn decide<'a>(
    inputs: &'a Inputs,
    routers: &Routers<'_>,
    claimants: &[Claimant<'a>],
    frozen: &[&NodePlanSpec],
) -> Tenancy {
    let mut claims = Claims::new(inputs);
    for plan in frozen {
        claims.take_frozen(plan);
    }
    let mut tenancy = Tenancy::default();

    let mut turns: Vec<_> = routers
        .decoded
        .values()
        .map(|router| (router.meta.age(), Turn::Router(router)))
        .collect();
    turns.extend(
        claimants
            .iter()
            .map(|claimant| (claimant.service.meta.age(), Turn::Service(claimant))),
    );
    turns.sort_by_key(|(age, _)| *age);

    for (_, turn) in &turns {
        match turn {
            Turn::Router(router) => {
                let refused = claims.take_additional(router);
                tenancy
                    .refused_additional
                    .insert(router.meta.key.name.clone(), refused);
            }
            Turn::Service(claimant) => {
                let tenure = claims.take_known(claimant);
                tenancy
                    .services
                    .insert(claimant.service.meta.key.clone(), tenure);
            }
        }
    }
    for (_, turn) in &turns {
        let Turn::Service(claimant) = turn else {
            continue;
        };
        if let Some(tenure) = tenancy.services.get_mut(&claimant.service.meta.key) {
            claims.allocate_missing(claimant, tenure);
        }
    }
    tenancy.virtual_addresses = claims.into_addresses();
    tenancy
}
