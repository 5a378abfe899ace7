//! Which checks directors make, and which port each asks.

use std::net::IpAddr;

use lvs_crds::VirtualServiceSpec;
use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use lvs_crds::node_plan::CheckReference;
use lvs_crds::value::Protocol;
use lvs_crds::virtual_service::ServicePort;

use crate::address_range::parse_address;
use crate::report::Verdict;
use crate::target::{self, Context};

/// Name of the check that is made where the user names none.
const DEFAULT_CHECK: &str = "tcp";

/// Checks as they count for the real servers of a VirtualService, or for one of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checks {
    entries: Vec<Entry>,
    /// Whether the user names none: then each counts for TCP ports alone, unless it says for which.
    is_default: bool,
}

/// A check, and its name in the plan.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    plan_name: String,
    check: HealthCheck,
}

impl Checks {
    /// What a VirtualService says, or the default.
    pub fn of_service(spec: &VirtualServiceSpec) -> Self {
        let is_default = spec.health_checks.is_empty();
        let default = is_default
            .then(|| HealthCheck::new(DEFAULT_CHECK.to_owned(), HealthCheckType::TCP))
            .into_iter();
        let checks = spec.health_checks.iter().cloned().chain(default);
        let entries = checks.map(|check| Entry {
            plan_name: check.name.clone(),
            check,
        });
        Self {
            entries: entries.collect(),
            is_default,
        }
    }

    /// Whether one has this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.check.name == name)
    }

    /// Whether a check in the place of one of these would find no port to ask on some port.
    pub fn lacks_port(&self, check: &HealthCheck, ports: &[ServicePort]) -> bool {
        let asks_a_port = !matches!(check.type_, HealthCheckType::None | HealthCheckType::Ping);
        let mut ports = ports.iter();
        asks_a_port
            && check.port.is_none()
            && ports.any(|port| port.port == 0 && self.counts_for(check, port))
    }

    /// Leaves out those that may not be asked, and says why.
    pub fn keep_permitted(&mut self, context: &Context<'_>, problems: &mut Vec<Verdict>) {
        self.entries.retain(|entry| {
            let obstacle = obstacle(context, &entry.check, ConditionType::ResolvedRefs);
            let is_permitted = obstacle.is_none();
            problems.extend(obstacle);
            is_permitted
        });
    }

    /// These with `check` in the place of the one of its name, called `plan_name` in the plan.
    pub fn replace(&mut self, plan_name: &str, check: &HealthCheck) {
        self.entries.retain(|entry| entry.check.name != check.name);
        self.entries.push(Entry {
            plan_name: plan_name.to_owned(),
            check: check.clone(),
        });
    }

    /// The questions, by their names in the plan, without what references say: their ports.
    pub fn definitions(&self) -> impl Iterator<Item = HealthCheck> {
        self.asking().map(|entry| HealthCheck {
            name: entry.plan_name.clone(),
            ..question(&entry.check)
        })
    }

    /// Checks that count for one port. `None` as the port to ask stands for the one that serves.
    pub fn references(&self, port: &ServicePort) -> Vec<CheckReference> {
        let counting = self
            .asking()
            .filter(|entry| self.counts_for(&entry.check, port));
        let mut references: Vec<CheckReference> = counting
            .map(|entry| CheckReference {
                check_name: entry.plan_name.clone(),
                port: entry.check.port,
            })
            .collect();
        references.sort();
        references
    }

    /// Checks that count for all ports together, which have one real server: each names the port it asks.
    pub fn references_of_all<'a>(
        &self,
        ports: impl Iterator<Item = &'a ServicePort>,
    ) -> Vec<CheckReference> {
        let asks_the_host = |name: &str| {
            let mut entries = self.entries.iter();
            entries
                .any(|entry| entry.plan_name == name && entry.check.type_ == HealthCheckType::Ping)
        };
        let mut all: Vec<CheckReference> = ports
            .flat_map(|port| {
                let of_port = self.references(port).into_iter();
                of_port.map(|reference| CheckReference {
                    port: Some(reference.port.unwrap_or(port.port))
                        .filter(|_| !asks_the_host(&reference.check_name)),
                    ..reference
                })
            })
            // Of all ports there is none to ask.
            .filter(|reference| reference.port != Some(0))
            .collect();
        all.sort();
        all.dedup();
        all
    }

    fn asking(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.check.type_ != HealthCheckType::None)
    }

    fn counts_for(&self, check: &HealthCheck, port: &ServicePort) -> bool {
        match &check.port_name {
            Some(name) => port.name.as_ref() == Some(name),
            None if self.is_default => port.protocol == Protocol::TCP && port.port != 0,
            None => true,
        }
    }
}

/// A check without what says for which ports it counts and which it asks.
pub fn question(check: &HealthCheck) -> HealthCheck {
    HealthCheck {
        port_name: None,
        port: None,
        ..check.clone()
    }
}

/// What keeps the namespace from asking what a check says.
pub fn obstacle(
    context: &Context<'_>,
    check: &HealthCheck,
    condition: ConditionType,
) -> Option<Verdict> {
    let of_field = |field: &str, text: &str, why: fn(&Context<'_>, &IpAddr) -> Option<String>| {
        let refuse = |reason, why: String| {
            let message = format!("spec.healthChecks[{}].{field}: {why}", check.name);
            Verdict::bad(condition, reason, message)
        };
        let Some(address) = parse_address(text) else {
            let why = format!("{text:?} is no IP address in its plain spelling");
            return Some(refuse(Reason::Invalid, why));
        };
        why(context, &address).map(|why| refuse(Reason::TargetNotPermitted, why))
    };
    // That of a judge is looked at where he is found.
    let address = check.address.as_deref();
    let address = address.filter(|_| check.external_http.is_none());
    let source_address = check.source_address.as_deref();
    let of_address = address.and_then(|text| of_field("address", text, target::obstacle));
    of_address.or_else(|| {
        source_address.and_then(|text| of_field("sourceAddress", text, source_obstacle))
    })
}

/// Addresses that move are somebody's business, and only one director has them.
fn source_obstacle(context: &Context<'_>, address: &IpAddr) -> Option<String> {
    context.virtual_addresses.contains(address).then(|| {
        format!("{address} is a virtual address: name one that each director has for itself")
    })
}
