//! Certificate authorities that checks name, from ConfigMaps into plans.

use std::collections::BTreeMap;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::health_check::HealthCheck;
use lvs_crds::node_plan::{
    DirectorPlan, NodePlanSpec, PLANNED_AUTHORITIES_MAXIMUM, PlannedAuthorities,
};

use crate::ca_bundle::{CA_BUNDLE_LABEL, CA_BUNDLE_LABEL_VALUE};
use crate::input::{Inputs, ObjectKey};
use crate::report::Verdict;

/// Puts the authorities that the checks of a plan name into it, from ConfigMaps of this namespace. Where one is missing or wrong
/// the check stays as it is `stored`, so that nothing that works is lost, and `problems` has why.
pub fn resolve(
    plan: &mut DirectorPlan,
    inputs: &Inputs,
    namespace: &str,
    stored: &[&NodePlanSpec],
    problems: &mut Vec<Verdict>,
) {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut missing = Vec::new();
    for check in &mut plan.checks {
        let Some(name) = named(check).map(String::from) else {
            continue;
        };
        let is_one_too_many =
            !found.contains_key(&name) && found.len() >= PLANNED_AUTHORITIES_MAXIMUM;
        let certificates = if is_one_too_many {
            Err(format!(
                "is one more than the {PLANNED_AUTHORITIES_MAXIMUM} that a plan can hold: let checks share one"
            ))
        } else {
            certificates(inputs, namespace, &name)
        };
        match certificates {
            Ok(certificates) => {
                found.insert(name, certificates.to_owned());
            }
            Err(fault) => {
                let message = format!(
                    "spec.healthChecks[{}].tls.caConfigMapName: ConfigMap {namespace}/{name} {fault}; until then the check stays as it was",
                    check.name
                );
                problems.push(Verdict::bad(
                    ConditionType::ResolvedRefs,
                    Reason::CertificateAuthoritiesNotFound,
                    message,
                ));
                missing.push((check, name));
            }
        }
    }
    let stored = stored.iter().filter_map(|plan| plan.director.as_ref());
    let stored: Vec<&DirectorPlan> = stored.collect();
    let known = |name: &str| {
        let mut all = stored.iter().flat_map(|plan| &plan.certificate_authorities);
        let known = all.find(|known| known.config_map_name == name)?;
        Some(known.certificates.clone())
    };
    for (check, mut name) in missing {
        if known(&name).is_none() {
            let mut before = stored.iter().flat_map(|plan| &plan.checks);
            let Some(before) = before.find(|before| before.name == check.name) else {
                continue;
            };
            *check = before.clone();
            name = named(check).map(String::from).unwrap_or_default();
        }
        if let Some(certificates) = known(&name)
            && found.len() < PLANNED_AUTHORITIES_MAXIMUM
        {
            found.entry(name).or_insert(certificates);
        }
    }
    let found = found.into_iter();
    plan.certificate_authorities = found
        .map(|(config_map_name, certificates)| PlannedAuthorities {
            config_map_name,
            certificates,
        })
        .collect();
}

/// The certificates of a ConfigMap, or what is wrong with it.
fn certificates<'a>(inputs: &'a Inputs, namespace: &str, name: &str) -> Result<&'a str, String> {
    let bundle = inputs.ca_bundles.get(&ObjectKey::new(namespace, name));
    let bundle = bundle.ok_or_else(|| {
        format!("does not exist or has no label {CA_BUNDLE_LABEL}: create it, or label it {CA_BUNDLE_LABEL}={CA_BUNDLE_LABEL_VALUE}")
    })?;
    bundle.certificates().map_err(String::from)
}

/// Name of the ConfigMap whose authorities alone a check trusts.
fn named(check: &HealthCheck) -> Option<&str> {
    check.tls.as_ref()?.ca_config_map_name.as_deref()
}
