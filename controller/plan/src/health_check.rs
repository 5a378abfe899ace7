//! Which checks directors make, and which port each asks.

use lvs_crds::VirtualServiceSpec;
use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use lvs_crds::node_plan::CheckReference;
use lvs_crds::value::Protocol;
use lvs_crds::virtual_service::ServicePort;

/// Name of the check that is made where the user names none.
const DEFAULT_CHECK: &str = "tcp";

/// Checks of a VirtualService, sorted by name, without what [`references`] says: their ports.
pub fn definitions(spec: &VirtualServiceSpec) -> Vec<HealthCheck> {
    let mut checks: Vec<HealthCheck> = if spec.health_checks.is_empty() {
        let has_one = spec.ports.iter().any(has_default);
        let check = || HealthCheck::new(DEFAULT_CHECK.to_owned(), HealthCheckType::TCP);
        has_one.then(check).into_iter().collect()
    } else {
        spec.health_checks
            .iter()
            .filter(|check| check.type_ != HealthCheckType::None)
            .map(|check| HealthCheck {
                port_name: None,
                port: None,
                ..check.clone()
            })
            .collect()
    };
    checks.sort_by(|left, right| left.name.cmp(&right.name));
    checks
}

/// Checks that count for one port. `None` as the port to ask stands for the one that serves.
pub fn references(spec: &VirtualServiceSpec, port: &ServicePort) -> Vec<CheckReference> {
    let mut references: Vec<CheckReference> = if spec.health_checks.is_empty() {
        let reference = || CheckReference {
            check_name: DEFAULT_CHECK.to_owned(),
            port: None,
        };
        has_default(port).then(reference).into_iter().collect()
    } else {
        spec.health_checks
            .iter()
            .filter(|check| check.type_ != HealthCheckType::None)
            .filter(|check| check.port_name.is_none() || check.port_name == port.name)
            .map(|check| CheckReference {
                check_name: check.name.clone(),
                port: check.port,
            })
            .collect()
    };
    references.sort();
    references
}

/// Checks that count for all ports together, which have one real server: each names the port it asks.
pub fn references_of_all<'a>(
    spec: &VirtualServiceSpec,
    ports: impl Iterator<Item = &'a ServicePort>,
) -> Vec<CheckReference> {
    let asks_the_host = |name: &str| {
        let mut checks = spec.health_checks.iter();
        checks.any(|check| check.name == name && check.type_ == HealthCheckType::Ping)
    };
    let mut all: Vec<CheckReference> = ports
        .flat_map(|port| {
            let of_port = references(spec, port).into_iter();
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

fn has_default(port: &ServicePort) -> bool {
    port.protocol == Protocol::TCP && port.port != 0
}
