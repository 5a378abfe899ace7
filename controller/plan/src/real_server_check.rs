//! Checks that RealServers have instead of those of their VirtualServices.
//!
//! A plan holds each question once, named after what it says: real servers that say the same share it, and the name stays
//! what it is while others come and go, as a destination that is kept goes on naming it.

use std::collections::{BTreeMap, BTreeSet};

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::health_check::HealthCheck;
use lvs_crds::node_plan::{CheckReference, DirectorPlan, NodePlanSpec};
use lvs_crds::real_server::RealServerSpec;
use lvs_crds::value::AddressFamily;
use lvs_crds::virtual_service::Grouping;

use crate::health_check::{self, Checks};
use crate::input::{Inputs, ObjectKey};
use crate::name::check_name;
use crate::report::Verdict;
use crate::resolution::{Disposition, ServiceDecision};
use crate::selector;
use crate::target::{Context, Targets};

/// Most checks of a plan (`crds/src/node_plan/director.rs`).
const CHECKS_MAXIMUM: usize = 200;
/// Most checks of real servers in a plan; what is left is for those of the VirtualService and of destinations that are kept.
const OVERRIDES_MAXIMUM: usize = 128;
/// Most bytes that they and what refers to them take in a plan, which the API server stores only up to 1.5 MiB.
const BYTES_MAXIMUM: usize = 256 * 1024;

/// Checks of one VirtualService's real servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlannedChecks {
    /// Of those that do not say otherwise.
    pub of_service: Checks,
    /// Of those that do, by RealServer.
    pub of_real_servers: BTreeMap<String, Checks>,
}

impl PlannedChecks {
    /// Every check, each once, by its name in the plan.
    pub fn definitions(&self) -> Vec<HealthCheck> {
        let all = [&self.of_service]
            .into_iter()
            .chain(self.of_real_servers.values());
        let by_name: BTreeMap<String, HealthCheck> = all
            .flat_map(Checks::definitions)
            .map(|check| (check.name.clone(), check))
            .collect();
        by_name.into_values().collect()
    }
}

/// Decides which checks count for `targets`. What may not be asked, or does not fit, is left out and told: of the VirtualService in
/// `problems`, of a RealServer in its own, where the VirtualService's check goes on.
pub fn plan(context: &Context<'_>, targets: &mut Targets, problems: &mut Vec<Verdict>) {
    let all = Checks::of_service(context.spec);
    let mut of_service = all.clone();
    of_service.keep_permitted(context, problems);
    let mut destinations: BTreeMap<&str, usize> = BTreeMap::new();
    for target in &targets.targets {
        *destinations.entry(target.name.as_str()).or_default() += 1;
    }
    let mut room = Room::default();
    let mut of_real_servers = BTreeMap::new();
    // Older ones first, as their plans are there already.
    for target in &targets.targets {
        let Some(count) = destinations.remove(target.name.as_str()) else {
            continue;
        };
        let key = ObjectKey::new(context.key.namespace.clone(), target.name.clone());
        let spec = spec_of(context.inputs, &key);
        let Some(spec) = spec.filter(|spec| !spec.health_checks.is_empty()) else {
            continue;
        };
        let mut verdicts = Vec::new();
        let named: Vec<&HealthCheck> = spec
            .health_checks
            .iter()
            .filter(|check| all.has(&check.name))
            .filter(|check| match misfit(context, &all, check) {
                None => true,
                Some(verdict) => {
                    verdicts.push(verdict);
                    false
                }
            })
            .collect();
        if !named.is_empty() {
            let mut checks = of_service.clone();
            for check in named {
                checks.replace(&plan_name(check), check);
            }
            if room.take(context, &checks, &of_service, count) {
                of_real_servers.insert(target.name.clone(), checks);
            } else {
                verdicts.push(Verdict::bad(
                    ConditionType::Accepted,
                    Reason::TooManyHealthChecks,
                    format!(
                        "spec.healthChecks: the plan of VirtualService {} holds {OVERRIDES_MAXIMUM} different checks of \
                         RealServers and {BYTES_MAXIMUM} bytes of them, and has no room for these; its own count here: let \
                         RealServers have equal checks, or spread them over several VirtualServices",
                        context.key.name
                    ),
                ));
            }
        }
        targets.problems.entry(key).or_default().extend(verdicts);
    }
    targets.checks = PlannedChecks {
        of_service,
        of_real_servers,
    };
}

fn spec_of<'a>(inputs: &'a Inputs, key: &ObjectKey) -> Option<&'a RealServerSpec> {
    inputs
        .real_servers
        .get(key)
        .and_then(|object| object.spec())
}

/// Name in the plan of a check of a RealServer.
fn plan_name(check: &HealthCheck) -> String {
    let question = HealthCheck {
        name: String::new(),
        ..health_check::question(check)
    };
    check_name(&serde_json::to_string(&question).unwrap_or_default())
}

/// Why a check of a RealServer cannot stand in the place of the VirtualService's.
fn misfit(context: &Context<'_>, all: &Checks, check: &HealthCheck) -> Option<Verdict> {
    let service = &context.key.name;
    let ports = &context.spec.ports;
    if let Some(name) = &check.port_name
        && !ports.iter().any(|port| port.name.as_ref() == Some(name))
    {
        let message = format!(
            "spec.healthChecks[{}].portName: VirtualService {service} has no port {name}, its own check counts: correct the \
             name, or remove it",
            check.name
        );
        return Some(Verdict::bad(
            ConditionType::ResolvedRefs,
            Reason::PortNotFound,
            message,
        ));
    }
    if all.lacks_port(check, ports) {
        let message = format!(
            "spec.healthChecks[{}].port: VirtualService {service} has all ports, which names none to ask, and its own check \
             counts: set port",
            check.name
        );
        return Some(Verdict::bad(
            ConditionType::Accepted,
            Reason::PortNotPermitted,
            message,
        ));
    }
    health_check::obstacle(context, check, ConditionType::Accepted)
}

/// What checks of real servers have taken in a plan so far.
#[derive(Default)]
struct Room {
    bytes: usize,
    names: BTreeSet<String>,
}

impl Room {
    /// Takes what these checks of a RealServer with so many addresses need, if that much is left.
    fn take(
        &mut self,
        context: &Context<'_>,
        checks: &Checks,
        of_service: &Checks,
        destinations: usize,
    ) -> bool {
        let length =
            |text: serde_json::Result<String>| text.map_or(BYTES_MAXIMUM, |text| text.len());
        let known: BTreeSet<String> = of_service.definitions().map(|check| check.name).collect();
        let mut bytes = self.bytes;
        let mut names = self.names.clone();
        for check in checks.definitions() {
            if !known.contains(&check.name) && names.insert(check.name.clone()) {
                bytes += length(serde_json::to_string(&check));
            }
        }
        let each = context.addresses.iter().flat_map(|accepted| {
            let ports = accepted.ports.iter();
            ports.filter_map(|index| context.spec.ports.get(*index))
        });
        let references: Vec<Vec<CheckReference>> = match context.spec.grouping {
            Grouping::PerPort => each.map(|port| checks.references(port)).collect(),
            Grouping::FirewallMark => {
                let families: BTreeSet<AddressFamily> = context
                    .addresses
                    .iter()
                    .map(|accepted| AddressFamily::of(&accepted.address))
                    .collect();
                let of_all = checks.references_of_all(each);
                families.iter().map(|_| of_all.clone()).collect()
            }
        };
        bytes += destinations * length(serde_json::to_string(&references));
        let fits = bytes <= BYTES_MAXIMUM && names.len() <= OVERRIDES_MAXIMUM;
        if fits {
            (self.bytes, self.names) = (bytes, names);
        }
        fits
    }
}

/// Leaves the plan the checks that it names: those of destinations which are kept as they were stored are taken from there;
/// where there is no room, or they are gone, the service's own count.
pub fn hold_what_is_named(director: &mut DirectorPlan, stored: &[&NodePlanSpec]) {
    let known: BTreeMap<&str, &HealthCheck> = stored
        .iter()
        .filter_map(|plan| plan.director.as_ref())
        .flat_map(|director| &director.checks)
        .map(|check| (check.name.as_str(), check))
        .collect();
    let mut checks: BTreeMap<String, HealthCheck> = std::mem::take(&mut director.checks)
        .into_iter()
        .map(|check| (check.name.clone(), check))
        .collect();
    let services = director.services.iter_mut();
    for destination in services.flat_map(|service| &mut service.real_servers) {
        let is_kept = destination.checks.iter().flatten().all(|reference| {
            let name = &reference.check_name;
            let found = checks.contains_key(name).then_some(());
            let found = found.or_else(|| {
                let check = known.get(name.as_str())?;
                (checks.len() < CHECKS_MAXIMUM)
                    .then(|| drop(checks.insert(name.clone(), (*check).clone())))
            });
            found.is_some()
        });
        if !is_kept {
            destination.checks = None;
        }
    }
    let services = director.services.iter();
    let named: BTreeSet<&str> = services
        .flat_map(|service| {
            let of_real_servers = service.real_servers.iter();
            let of_real_servers = of_real_servers.flat_map(|one| one.checks.iter().flatten());
            service.checks.iter().chain(of_real_servers)
        })
        .map(|reference| reference.check_name.as_str())
        .collect();
    checks.retain(|name, _| named.contains(name.as_str()));
    director.checks = checks.into_values().collect();
}

/// What each RealServer is told whose checks have names that no VirtualService has which selects it. Where one of those
/// cannot be read, or names what cannot be known now, nothing is said.
pub(crate) fn unknown_names(
    inputs: &Inputs,
    services: &BTreeMap<ObjectKey, ServiceDecision>,
) -> BTreeMap<ObjectKey, Vec<Verdict>> {
    let naming = inputs.real_servers.iter().filter_map(|(key, object)| {
        let spec = object.spec()?;
        (!spec.health_checks.is_empty()).then_some((key, &object.meta.labels, spec))
    });
    let mut told = BTreeMap::new();
    let mut selecting: BTreeMap<&ObjectKey, Vec<Checks>> = BTreeMap::new();
    let mut unplanned: BTreeMap<&str, Vec<&ObjectKey>> = BTreeMap::new();
    for (key, decision) in services {
        let spec = inputs
            .virtual_services
            .get(key)
            .and_then(|object| object.spec());
        match (&decision.disposition, spec) {
            (Disposition::Planned(_), Some(spec)) => {
                let checks = Checks::of_service(spec);
                let selected = decision.targets.selected.iter().filter(|selected| {
                    let spec = spec_of(inputs, selected);
                    spec.is_some_and(|spec| !spec.health_checks.is_empty())
                });
                for selected in selected {
                    selecting.entry(selected).or_default().push(checks.clone());
                }
            }
            _ => unplanned.entry(&key.namespace).or_default().push(key),
        }
    }
    for (key, labels, spec) in naming {
        let Some(selecting) = selecting.get(key) else {
            continue;
        };
        // Those that are not planned may select it too.
        let mut others = Vec::new();
        let mut is_unknown = false;
        for other in unplanned.get(key.namespace.as_str()).into_iter().flatten() {
            let object = inputs.virtual_services.get(*other);
            match object.and_then(|object| object.spec()) {
                None => is_unknown = true,
                Some(other) => {
                    if selector::matches(&other.real_server_selector, labels) != Some(false) {
                        others.push(Checks::of_service(other));
                    }
                }
            }
        }
        if is_unknown {
            continue;
        }
        let verdicts: Vec<Verdict> = spec
            .health_checks
            .iter()
            .filter(|check| {
                let mut all = selecting.iter().chain(&others);
                !all.any(|checks| checks.has(&check.name))
            })
            .map(|check| {
                let message = format!(
                    "spec.healthChecks[{}]: no VirtualService that selects it has a health check of this name: correct the \
                     name (without healthChecks it is tcp), or remove the entry",
                    check.name
                );
                Verdict::bad(
                    ConditionType::ResolvedRefs,
                    Reason::HealthCheckNotFound,
                    message,
                )
            })
            .collect();
        if !verdicts.is_empty() {
            told.insert(key.clone(), verdicts);
        }
    }
    told
}
