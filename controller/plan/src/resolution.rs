//! The whole decision, step by step.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::lease_name;
use lvs_crds::node_plan::{NodePlanSpec, PlanState, SourceKind};

use crate::hold::{self, Held};
use crate::input::{Body, ExistingPlan, Inputs, ObjectKey, VirtualServiceObject};
use crate::lifecycle::{self, Holdings, Membership};
use crate::mark;
use crate::report::Verdict;
use crate::router::{self, Choice, Routers};
use crate::router_plan;
use crate::service;
use crate::service_plan;
use crate::settings;
use crate::status::{self, Report};
use crate::target::Targets;
use crate::tenancy::{self, Claimant, Tenancy};

/// What shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// Every plan that shall exist, by name.
    pub plans: BTreeMap<String, PlannedNodePlan>,
    /// Plans whose removal the agent has acknowledged.
    pub deletions: BTreeMap<String, Base>,
    /// Leases that shall exist, by name.
    pub leases: BTreeMap<String, PlannedLease>,
    /// Leases of routers that are gone and have no plan left.
    pub lease_deletions: BTreeSet<String>,
    /// What to tell the users.
    pub report: Report,
    /// UIDs of objects that exist: only their plans may be other than Withdrawn.
    pub sources: BTreeSet<String>,
    /// Plans that stay although their source is gone, because a mass removal waits.
    pub held_plans: BTreeSet<String>,
}

/// A plan that shall exist.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedNodePlan {
    /// Spec.
    pub spec: NodePlanSpec,
    /// UID of its Node, which owns it.
    pub owner_uid: String,
    /// Stored version to write from; `None` creates.
    pub base: Option<Base>,
    /// Whether it differs from what is stored.
    pub is_changed: bool,
}

/// A stored version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// UID.
    pub uid: String,
    /// Resource version.
    pub resource_version: String,
}

/// A Lease that shall exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLease {
    /// Its router.
    pub virtual_router_name: String,
    /// Nodes that may update it, sorted.
    pub directors: Vec<String>,
    /// Whether it differs from what is stored.
    pub is_changed: bool,
}

/// What became of one VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Disposition {
    /// Planned on this router.
    Planned(String),
    /// Keeps the plans it has.
    Frozen(Verdict),
    /// Gets none.
    Refused(Verdict),
}

/// Everything decided about one VirtualService, for its report.
pub(crate) struct ServiceDecision {
    pub disposition: Disposition,
    pub problems: Vec<Verdict>,
    pub waiting: Vec<Verdict>,
    pub targets: Targets,
    pub mark: Option<u32>,
}

/// Everything decided, for the report.
pub(crate) struct Decisions<'a> {
    pub inputs: &'a Inputs,
    pub routers: Routers<'a>,
    pub tenancy: Tenancy,
    pub memberships: BTreeMap<String, Membership>,
    pub router_problems: BTreeMap<String, Vec<Verdict>>,
    pub services: BTreeMap<ObjectKey, ServiceDecision>,
    pub plans: BTreeMap<String, PlannedNodePlan>,
    /// Plans that cannot be read and therefore not be written.
    pub unreadable_plans: BTreeSet<String>,
    pub held: Held,
}

/// Decides everything. Total and deterministic; fed its own result back it changes nothing.
pub fn resolve(inputs: &Inputs) -> Resolution {
    let mut held = Held::default();
    loop {
        let decisions = decide(inputs, held.clone());
        // What is held claims addresses of its own, which can take them from others: look again
        // until nothing more is held. Each round holds more of finitely many plans.
        if !held.extend(hold::find(inputs, &decisions.plans)) {
            return finish(decisions);
        }
    }
}

fn decide(inputs: &Inputs, held: Held) -> Decisions<'_> {
    let routers = router::read(inputs);
    let stored = Stored::read(inputs);
    let dispositions = dispositions(inputs, &routers, &stored, &held);

    let frozen = frozen_plans(inputs, &routers, &dispositions, &held);
    let claimants = claimants(inputs, &routers, &stored, &dispositions);
    let tenancy = tenancy::decide(inputs, &routers, &claimants, &frozen);
    let marks = mark::decide(&inputs.firewall_mark_range, &claimants, &frozen);

    let memberships: BTreeMap<String, Membership> = routers
        .decoded
        .iter()
        .map(|(name, router)| (name.clone(), lifecycle::membership(inputs, router)))
        .collect();
    let nodes_of = memberships
        .iter()
        .map(|(name, m)| (name.clone(), m.nodes().cloned().collect()))
        .collect();
    let settings = settings::decide(&nodes_of, &routers.decoded);
    let holdings = Holdings::read(inputs);

    let mut decisions = Decisions {
        inputs,
        tenancy,
        memberships,
        router_problems: settings.problems.clone(),
        services: BTreeMap::new(),
        plans: BTreeMap::new(),
        unreadable_plans: BTreeSet::new(),
        held,
        routers,
    };
    let mut wanted: BTreeMap<String, NodePlanSpec> = BTreeMap::new();
    router_plan::add(&mut decisions, &settings, &holdings, &mut wanted);
    service_plan::add(
        &mut decisions,
        &dispositions,
        &stored,
        &marks,
        &holdings,
        &mut wanted,
    );
    settle(&mut decisions, &dispositions, wanted);
    decisions
}

/// Stored plans by where they come from.
pub(crate) struct Stored<'a> {
    by_uid: BTreeMap<&'a str, Vec<&'a NodePlanSpec>>,
    by_key: BTreeMap<ObjectKey, Vec<&'a NodePlanSpec>>,
}

impl<'a> Stored<'a> {
    fn read(inputs: &'a Inputs) -> Self {
        let mut stored = Self {
            by_uid: BTreeMap::new(),
            by_key: BTreeMap::new(),
        };
        for (spec, _) in lifecycle::plans_on_nodes(inputs) {
            stored
                .by_uid
                .entry(&spec.source.uid)
                .or_default()
                .push(spec);
            if spec.source.kind == SourceKind::VirtualService {
                let key = ObjectKey::new(spec.source.namespace.clone(), spec.source.name.clone());
                stored.by_key.entry(key).or_default().push(spec);
            }
        }
        stored
    }

    /// Plans of exactly this object.
    pub(crate) fn of(&self, service: &VirtualServiceObject) -> &[&'a NodePlanSpec] {
        self.by_uid
            .get(service.meta.uid.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Plans that remember decisions about this object; after a restore it has another uid.
    fn remembering(&self, service: &VirtualServiceObject) -> Vec<&'a NodePlanSpec> {
        let own = self.of(service);
        if own.is_empty() {
            self.by_key
                .get(&service.meta.key)
                .cloned()
                .unwrap_or_default()
        } else {
            own.to_vec()
        }
    }
}

fn dispositions(
    inputs: &Inputs,
    routers: &Routers<'_>,
    stored: &Stored<'_>,
    held: &Held,
) -> BTreeMap<ObjectKey, Disposition> {
    let live = inputs
        .virtual_services
        .iter()
        .filter(|(_, object)| !object.meta.deleting);
    live.map(|(key, object)| {
        (
            key.clone(),
            disposition(inputs, routers, stored, held, object),
        )
    })
    .collect()
}

fn disposition(
    inputs: &Inputs,
    routers: &Routers<'_>,
    stored: &Stored<'_>,
    held: &Held,
    object: &VirtualServiceObject,
) -> Disposition {
    let spec = match &object.body {
        Body::Decoded(spec) => spec,
        Body::Undecodable(error) => return Disposition::Frozen(router::undecodable(error)),
    };
    if let Some(message) = held.service_uids.get(&object.meta.uid) {
        return Disposition::Frozen(Verdict::bad(
            ConditionType::Accepted,
            Reason::MassRemovalHeld,
            message,
        ));
    }
    if let Err(message) = service::validate(spec) {
        let message = format!("{message}; until then it keeps what it has");
        return Disposition::Frozen(Verdict::bad(
            ConditionType::Accepted,
            Reason::Invalid,
            message,
        ));
    }
    if !inputs.namespaces.contains_key(&object.meta.key.namespace) {
        let message = format!(
            "namespace {} has not been seen yet",
            object.meta.key.namespace
        );
        return Disposition::Frozen(Verdict::unknown(
            ConditionType::Accepted,
            Reason::Pending,
            message,
        ));
    }
    let planned_on: BTreeSet<&str> = stored
        .remembering(object)
        .iter()
        .filter(|plan| plan.state != PlanState::Withdrawn)
        .map(|plan| plan.virtual_router_name.as_str())
        .collect();
    match routers.choose(object, planned_on.first().copied()) {
        Choice::Router(name) => Disposition::Planned(name),
        Choice::Refused(verdict) => Disposition::Refused(verdict),
        Choice::Frozen(name) => {
            let why = routers
                .frozen
                .get(&name)
                .map(|verdict| verdict.message.as_str())
                .unwrap_or_default();
            Disposition::Frozen(Verdict::bad(
                ConditionType::ResolvedRefs,
                Reason::Undecodable,
                format!("VirtualRouter {name}: {why}"),
            ))
        }
    }
}

fn claimants<'a>(
    inputs: &'a Inputs,
    routers: &'a Routers<'a>,
    stored: &Stored<'a>,
    dispositions: &BTreeMap<ObjectKey, Disposition>,
) -> Vec<Claimant<'a>> {
    let planned = dispositions
        .iter()
        .filter_map(|(key, disposition)| match disposition {
            Disposition::Planned(router) => Some((key, router)),
            Disposition::Frozen(_) | Disposition::Refused(_) => None,
        });
    planned
        .filter_map(|(key, router)| {
            let service = inputs.virtual_services.get(key)?;
            Some(Claimant {
                service,
                ports: &service.spec()?.ports,
                router: routers.decoded.get(router)?,
                namespace_labels: inputs.namespaces.get(&key.namespace)?,
                plans: stored.remembering(service),
            })
        })
        .collect()
}

/// Plans that stay as they are.
fn frozen_plans<'a>(
    inputs: &'a Inputs,
    routers: &Routers<'_>,
    dispositions: &BTreeMap<ObjectKey, Disposition>,
    held: &Held,
) -> Vec<&'a NodePlanSpec> {
    let uids = frozen_uids(inputs, routers, dispositions);
    lifecycle::plans_on_nodes(inputs)
        .filter(|(spec, plan)| {
            uids.contains(spec.source.uid.as_str())
                || held.plan_names.contains_key(&plan.object.meta.key.name)
        })
        .map(|(spec, _)| spec)
        .collect()
}

fn frozen_uids<'a>(
    inputs: &'a Inputs,
    routers: &Routers<'_>,
    dispositions: &BTreeMap<ObjectKey, Disposition>,
) -> BTreeSet<&'a str> {
    let services = inputs
        .virtual_services
        .iter()
        .filter(|(key, _)| matches!(dispositions.get(key), Some(Disposition::Frozen(_))))
        .map(|(_, object)| object.meta.uid.as_str());
    let frozen = inputs
        .virtual_routers
        .iter()
        .filter(|(name, _)| routers.frozen.contains_key(*name));
    services
        .chain(frozen.map(|(_, object)| object.meta.uid.as_str()))
        .collect()
}

/// Puts what is wanted and what is stored together.
fn settle(
    decisions: &mut Decisions<'_>,
    dispositions: &BTreeMap<ObjectKey, Disposition>,
    wanted: BTreeMap<String, NodePlanSpec>,
) {
    let inputs = decisions.inputs;
    let frozen = frozen_uids(inputs, &decisions.routers, dispositions);
    for (name, stored) in &inputs.node_plans {
        let Some(spec) = stored.object.spec() else {
            decisions.unreadable_plans.insert(name.clone());
            continue;
        };
        let Some(node) = inputs.nodes.get(&spec.node_name) else {
            continue;
        };
        let stays = frozen.contains(spec.source.uid.as_str())
            || decisions.held.plan_names.contains_key(name);
        let planned = if stays {
            PlannedNodePlan {
                spec: spec.clone(),
                owner_uid: stored.owner_uid.clone().unwrap_or_else(|| node.uid.clone()),
                base: Some(base(stored)),
                is_changed: false,
            }
        } else {
            let new = match wanted.get(name) {
                // Another router's address is given up and acknowledged before the plan changes sides.
                Some(new)
                    if new.virtual_router_name == spec.virtual_router_name
                        || lifecycle::is_withdrawn(stored) =>
                {
                    new.clone()
                }
                _ => NodePlanSpec {
                    state: PlanState::Withdrawn,
                    ..spec.clone()
                },
            };
            PlannedNodePlan {
                is_changed: new != *spec || stored.owner_uid.as_deref() != Some(node.uid.as_str()),
                spec: new,
                owner_uid: node.uid.clone(),
                base: Some(base(stored)),
            }
        };
        decisions.plans.insert(name.clone(), planned);
    }
    for (name, spec) in wanted {
        if decisions.plans.contains_key(&name) || decisions.unreadable_plans.contains(&name) {
            continue;
        }
        let Some(node) = inputs.nodes.get(&spec.node_name) else {
            continue;
        };
        let planned = PlannedNodePlan {
            spec,
            owner_uid: node.uid.clone(),
            base: None,
            is_changed: true,
        };
        decisions.plans.insert(name, planned);
    }
}

fn base(stored: &ExistingPlan) -> Base {
    Base {
        uid: stored.object.meta.uid.clone(),
        resource_version: stored.resource_version.clone(),
    }
}

fn finish(mut decisions: Decisions<'_>) -> Resolution {
    let inputs = decisions.inputs;
    let mut deletions = BTreeMap::new();
    for (name, planned) in &decisions.plans {
        let stored = inputs
            .node_plans
            .get(name)
            .filter(|_| planned.spec.state == PlanState::Withdrawn);
        if let Some(stored) = stored.filter(|stored| lifecycle::is_withdrawn(stored)) {
            deletions.insert(name.clone(), base(stored));
        }
    }
    for name in deletions.keys() {
        decisions.plans.remove(name);
    }
    let (leases, lease_deletions) = leases(&decisions);
    let report = status::report(&decisions);
    let live_services = inputs
        .virtual_services
        .values()
        .filter(|object| !object.meta.deleting);
    let live_routers = inputs
        .virtual_routers
        .values()
        .filter(|object| !object.meta.deleting);
    Resolution {
        deletions,
        leases,
        lease_deletions,
        report,
        sources: live_services
            .map(|object| object.meta.uid.clone())
            .chain(live_routers.map(|object| object.meta.uid.clone()))
            .collect(),
        held_plans: decisions.held.plan_names.keys().cloned().collect(),
        plans: decisions.plans,
    }
}

fn leases(decisions: &Decisions<'_>) -> (BTreeMap<String, PlannedLease>, BTreeSet<String>) {
    let inputs = decisions.inputs;
    let mut leases = BTreeMap::new();
    for (router, membership) in &decisions.memberships {
        let name = lease_name(router);
        let directors: Vec<String> = membership.known.iter().cloned().collect();
        let stored = inputs.leases.get(&name);
        let is_changed = stored.is_none_or(|lease| {
            lease.directors.as_deref() != Some(directors.join(",").as_str())
                || lease.virtual_router_name.as_deref() != Some(router)
        });
        leases.insert(
            name,
            PlannedLease {
                virtual_router_name: router.clone(),
                directors,
                is_changed,
            },
        );
    }
    // A Lease is ours if its label and its name agree. It outlives the router until no plan of it
    // is left, also none that cannot be read.
    let deletions = inputs
        .leases
        .values()
        .filter(|lease| {
            lease.virtual_router_name.as_ref().is_some_and(|router| {
                let has_plan = inputs
                    .node_plans
                    .values()
                    .any(|plan| match plan.object.spec() {
                        Some(spec) => spec.virtual_router_name == *router,
                        None => {
                            plan.object.meta.labels.get(lvs_crds::VIRTUAL_ROUTER_LABEL)
                                == Some(router)
                        }
                    });
                lease.name == lease_name(router)
                    && !inputs.virtual_routers.contains_key(router)
                    && !has_plan
            })
        })
        .map(|lease| lease.name.clone())
        .collect();
    (leases, deletions)
}
