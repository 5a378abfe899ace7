//! What would change: conditions, plans, operations of each node, and who serves the clients.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::lease_name;
use lvs_crds::node_plan::{NodePlanSpec, PlanState, SourceKind};
use lvs_plan::Inputs;
use lvs_plan::input::ObjectKey;
use lvs_plan::rehearsal::Rehearsal;
use lvs_plan::report::{Truth, Verdict};
use lvs_plan::status::Report;
use serde::Serialize;
use serde_json::Value;

use super::clients::{self, ClientChange};
use super::node::NodeUnderPlans;

/// Fields of a plan that are named; of more there are as many.
const FIELDS_MAXIMUM: usize = 6;

/// What becomes of an object of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fate {
    /// There was none.
    Created,
    /// It is another afterwards.
    Changed,
    /// It is so already.
    Unchanged,
    /// It goes.
    Deleted,
    /// It is to go and is not there.
    Absent,
    /// Planning does not look at its kind.
    NotLookedAt,
}

impl Fate {
    /// Whether anything happens.
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Created | Self::Changed | Self::Deleted)
    }
}

/// An object of the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// Kind.
    pub kind: String,
    /// Namespace; empty where it has none.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What becomes of it.
    pub change: Fate,
}

/// A condition that has another status, reason or message afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionChange {
    /// Kind of the object.
    pub kind: &'static str,
    /// Its namespace; empty where it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Type of the condition.
    #[serde(rename = "type")]
    pub type_: &'static str,
    /// As it is now; `None` of what is new.
    pub before: Option<ConditionText>,
    /// As it would be.
    pub after: ConditionText,
}

/// Status, reason and message of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionText {
    /// True, False or Unknown.
    pub status: &'static str,
    /// Reason.
    pub reason: &'static str,
    /// Message.
    pub message: String,
}

impl ConditionText {
    fn of(verdict: &Verdict) -> Self {
        Self {
            status: verdict.truth.as_str(),
            reason: verdict.reason.as_str(),
            message: verdict.message.clone(),
        }
    }
}

/// A NodePlan that is another afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanChange {
    /// Kind of the object that it is made from.
    pub source_kind: String,
    /// That object: namespace and name, or name.
    pub source: String,
    /// What becomes of it.
    pub change: Fate,
    /// Fields that differ, as paths in spec.
    pub fields: Vec<String>,
}

/// What changes on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Node.
    pub node_name: String,
    /// Plans.
    pub plans: Vec<PlanChange>,
    /// Operations in their order, each one line.
    pub operations: Vec<String>,
    /// What would then stand in the way.
    pub problems: Vec<String>,
}

/// A router whose addresses go to another node, or to a first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterChange {
    /// VirtualRouter.
    pub virtual_router_name: String,
    /// Who has them now.
    pub before: Option<String>,
    /// Who would.
    pub after: Option<String>,
}

/// Addresses of a VirtualService.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressChange {
    /// VirtualService.
    pub virtual_service: String,
    /// Those it has now.
    pub before: Vec<String>,
    /// Those it would have.
    pub after: Vec<String>,
}

/// All that would change.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Objects of the files.
    pub objects: Vec<ObjectChange>,
    /// Addresses of VirtualServices.
    pub addresses: Vec<AddressChange>,
    /// Conditions.
    pub conditions: Vec<ConditionChange>,
    /// Removals that would wait for a word: the messages, with the command that confirms.
    pub held: Vec<String>,
    /// Routers.
    pub masters: Vec<MasterChange>,
    /// Nodes.
    pub nodes: Vec<NodeReport>,
    /// Virtual services whose real servers change.
    pub clients: Vec<ClientChange>,
    /// What has to be said beside.
    pub notes: Vec<String>,
}

impl Difference {
    /// Whether anything would change.
    pub fn is_empty(&self) -> bool {
        !self.objects.iter().any(|object| object.change.is_change())
            && self.addresses.is_empty()
            && self.conditions.is_empty()
            && self.held.is_empty()
            && self.masters.is_empty()
            && self.nodes.is_empty()
            && self.clients.is_empty()
    }
}

/// What becomes of a cluster that comes to rest as `before` when it comes to rest as `after`.
pub fn difference(before: &Rehearsal, after: &Rehearsal) -> Difference {
    let (then, now) = (&after.resolution.report, &before.resolution.report);
    let mut conditions = Vec::new();
    add_conditions(&mut conditions, now, then);
    let held_before: BTreeSet<&str> = held(now).collect();
    let held: BTreeSet<&str> = held(then)
        .filter(|message| !held_before.contains(message))
        .collect();
    let mut difference = Difference {
        addresses: addresses(now, then),
        conditions,
        held: held.into_iter().map(str::to_owned).collect(),
        masters: masters(&before.inputs, &after.inputs),
        ..Difference::default()
    };
    let inputs = [&before.inputs, &after.inputs];
    let plans = inputs.iter().flat_map(|inputs| specs(inputs));
    let names: BTreeSet<&str> = plans.map(|(_, spec)| spec.node_name.as_str()).collect();
    let mut desired = BTreeMap::new();
    for node in names {
        let mut under_plans = NodeUnderPlans::settled(&before.inputs, &after.inputs, node);
        let old = (under_plans.desired.clone(), under_plans.roles.clone());
        let change = under_plans.go_over_to(&after.inputs, node);
        let plans = plan_changes(&before.inputs, &after.inputs, node);
        if !plans.is_empty() || !change.operations.is_empty() || !change.problems.is_empty() {
            difference.nodes.push(NodeReport {
                node_name: node.to_owned(),
                plans,
                operations: change.operations,
                problems: change.problems,
            });
        }
        let new = (under_plans.desired, under_plans.roles);
        desired.insert(node.to_owned(), [old, new]);
    }
    difference.clients = clients::changes(&before.inputs, &after.inputs, &desired);
    difference.notes = notes(before, after);
    difference
}

fn notes(before: &Rehearsal, after: &Rehearsal) -> Vec<String> {
    let mut notes = Vec::new();
    for (when, rehearsal) in [("now", before), ("then", after)] {
        for finding in &rehearsal.findings {
            notes.push(format!(
                "the planner contradicts itself {when} and the controller would write nothing: {finding}"
            ));
        }
        if !rehearsal.is_settled && rehearsal.findings.is_empty() {
            notes.push(format!(
                "{when} the cluster does not come to rest within the steps that were looked at; what is shown is how far it got"
            ));
        }
    }
    let known: BTreeSet<&str> = names(&before.inputs).collect();
    for name in names(&after.inputs).collect::<BTreeSet<_>>() {
        if !known.contains(name) && !after.inputs.dns_names.contains_key(name) {
            notes.push(format!(
                "the DNS would have to be asked for {name}: its real servers are not in what is shown"
            ));
        }
    }
    notes
}

/// Names in the DNS that RealServers have as targets.
fn names(inputs: &Inputs) -> impl Iterator<Item = &str> {
    let real_servers = inputs.real_servers.values();
    real_servers.filter_map(|object| {
        let target = object.spec()?.target.dns_name.as_ref()?;
        Some(target.name.as_str())
    })
}

fn specs(inputs: &Inputs) -> impl Iterator<Item = (&String, &NodePlanSpec)> {
    let plans = inputs.node_plans.iter();
    plans.filter_map(|(name, plan)| Some((name, plan.object.spec()?)))
}

/// Every object of a report with its conditions.
fn verdicts(report: &Report) -> BTreeMap<(&'static str, &ObjectKey), &[Verdict]> {
    let services = report.virtual_services.iter();
    let services = services.map(|(key, one)| (("VirtualService", key), one.verdicts.as_slice()));
    let real_servers = report.real_servers.iter();
    let real_servers = real_servers.map(|(key, one)| (("RealServer", key), &one.verdicts[..]));
    let routers = report.virtual_routers.iter();
    let routers = routers.map(|(key, one)| (("VirtualRouter", key), &one.verdicts[..]));
    services.chain(real_servers).chain(routers).collect()
}

/// Conditions that planning decides. What the nodes say of their kernels and whom they hear is not known beforehand.
fn is_decided(verdict: &Verdict) -> bool {
    matches!(
        verdict.condition,
        ConditionType::Accepted | ConditionType::ResolvedRefs
    )
}

/// What stands against objects, each with kind, name, condition and reason.
pub fn problems(report: &Report) -> Vec<String> {
    let mut problems = Vec::new();
    for ((kind, key), verdicts) in verdicts(report) {
        let unmet = verdicts
            .iter()
            .filter(|verdict| is_decided(verdict) && verdict.truth != Truth::True);
        for verdict in unmet {
            let ConditionText {
                status,
                reason,
                message,
            } = ConditionText::of(verdict);
            let type_ = verdict.condition.as_str();
            problems.push(format!(
                "{kind} {key}: {type_}={status} {reason}: {message}"
            ));
        }
    }
    problems
}

fn add_conditions(changes: &mut Vec<ConditionChange>, now: &Report, then: &Report) {
    let before = verdicts(now);
    for ((kind, key), after) in verdicts(then) {
        let before = before.get(&(kind, key)).copied();
        for verdict in after.iter().filter(|verdict| is_decided(verdict)) {
            let known = before.and_then(|before| {
                let mut before = before.iter();
                before.find(|known| known.condition == verdict.condition)
            });
            if known != Some(verdict) {
                changes.push(ConditionChange {
                    kind,
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    type_: verdict.condition.as_str(),
                    before: known.map(ConditionText::of),
                    after: ConditionText::of(verdict),
                });
            }
        }
    }
}

/// Messages of removals that wait.
fn held(report: &Report) -> impl Iterator<Item = &str> {
    let verdicts = verdicts(report).into_values().flatten();
    let waiting = verdicts.filter(|verdict| verdict.reason == Reason::MassRemovalHeld);
    waiting.map(|verdict| verdict.message.as_str())
}

fn addresses(now: &Report, then: &Report) -> Vec<AddressChange> {
    let of = |report: &Report, key: &ObjectKey| -> Vec<String> {
        let known = report.virtual_services.get(key);
        let addresses = known.into_iter().flat_map(|one| &one.status.addresses);
        addresses.map(|one| one.address.clone()).collect()
    };
    let keys = now.virtual_services.keys();
    let keys: BTreeSet<&ObjectKey> = keys.chain(then.virtual_services.keys()).collect();
    keys.into_iter()
        .map(|key| AddressChange {
            virtual_service: key.to_string(),
            before: of(now, key),
            after: of(then, key),
        })
        .filter(|change| change.before != change.after)
        .collect()
}

/// Who holds the addresses of a router.
pub fn master<'a>(inputs: &'a Inputs, router: &str) -> Option<&'a str> {
    let lease = inputs.leases.get(&lease_name(router))?;
    lease.holder_node.as_deref()
}

fn masters(before: &Inputs, after: &Inputs) -> Vec<MasterChange> {
    let routers: BTreeSet<&String> = before
        .virtual_routers
        .keys()
        .chain(after.virtual_routers.keys())
        .collect();
    let changes = routers.into_iter().map(|router| MasterChange {
        virtual_router_name: router.clone(),
        before: master(before, router).map(str::to_owned),
        after: master(after, router).map(str::to_owned),
    });
    changes
        .filter(|change| change.before != change.after)
        .collect()
}

fn plan_changes(before: &Inputs, after: &Inputs, node: &str) -> Vec<PlanChange> {
    let of_node = |inputs| -> BTreeMap<&String, &NodePlanSpec> {
        let held = specs(inputs)
            .filter(|(_, spec)| spec.node_name == node && spec.state != PlanState::Withdrawn);
        held.collect()
    };
    let (old, new) = (of_node(before), of_node(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).copied().collect();
    let mut changes = Vec::new();
    for name in names {
        let (old, new) = (old.get(name).copied(), new.get(name).copied());
        let (change, fields) = match (old, new) {
            (Some(old), Some(new)) => (Fate::Changed, fields(old, new)),
            (None, _) => (Fate::Created, Vec::new()),
            (_, None) => (Fate::Deleted, Vec::new()),
        };
        let Some(spec) = old.or(new) else { continue };
        if change == Fate::Changed && fields.is_empty() {
            continue;
        }
        changes.push(PlanChange {
            source_kind: match spec.source.kind {
                SourceKind::VirtualService => "VirtualService",
                SourceKind::VirtualRouter => "VirtualRouter",
            }
            .to_owned(),
            source: ObjectKey::new(spec.source.namespace.clone(), spec.source.name.clone())
                .to_string(),
            change,
            fields,
        });
    }
    changes
}

/// Paths of the fields in which two specs differ. Which generation a plan was made from is none of what it says.
fn fields(old: &NodePlanSpec, new: &NodePlanSpec) -> Vec<String> {
    let mut new = new.clone();
    new.source.generation = old.source.generation;
    if *old == new {
        return Vec::new();
    }
    let values = [old, &new].map(|spec| serde_json::to_value(spec).unwrap_or_default());
    let mut found = Vec::new();
    let [old, new] = &values;
    collect_fields("", old, new, &mut found);
    let hidden = found.len().saturating_sub(FIELDS_MAXIMUM);
    found.truncate(FIELDS_MAXIMUM);
    found.extend((hidden > 0).then(|| format!("and {hidden} more")));
    found
}

fn collect_fields(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let separator = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{separator}{key}");
                collect_fields(&path, &old[key.as_str()], &new[key.as_str()], found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                collect_fields(&format!("{path}[{index}]"), left, right, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}
