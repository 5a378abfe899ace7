//! What tells one check from another: each is made once, however many services want it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lvs_crds::health_check::{HealthCheck, HealthCheckType};
use lvs_crds::node_plan::{NodePlanSpec, PlanState, PlannedRealServer, PlannedService};
use lvs_crds::traffic_policy::AdministrativeState;

use super::checks::Cadence;
use super::machine::Thresholds;
use crate::desired::PlanInput;

/// Whom is asked what. How often is part of it: two services that want to know with different patience ask twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// Who is asked.
    pub target: SocketAddr,
    /// What, without what only a service says, name and ports, and without whom. Shared by all targets.
    pub question: Arc<HealthCheck>,
    /// With what, as far as the question does not say it itself. Shared by all targets.
    pub means: Arc<Means>,
}

/// What a question needs of the VirtualService that wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Means {
    /// Namespace whose credentials are used; empty where the question names none.
    pub namespace: String,
}

impl Check {
    /// When it is made, and when its results count.
    pub fn cadence(&self) -> Cadence {
        let seconds = |seconds: u16| Duration::from_secs(u64::from(seconds));
        let question = &self.question;
        let retry_period_seconds = question.retry_period_seconds;
        Cadence {
            period: seconds(question.period_seconds),
            retry_period: seconds(retry_period_seconds.unwrap_or(question.period_seconds)),
            timeout: seconds(question.timeout_seconds),
            thresholds: Thresholds {
                failure: question.failure_threshold,
                success: question.success_threshold,
            },
        }
    }
}

/// The questions of a director's plan, by the name of the check.
pub(super) struct Questions<'a>(BTreeMap<&'a str, Asked>);

/// What is asked with what, and whom where that is not the real server.
struct Asked {
    question: Arc<HealthCheck>,
    means: Arc<Means>,
    address: Option<IpAddr>,
}

impl<'a> Questions<'a> {
    pub(super) fn of(plan: &'a NodePlanSpec) -> Self {
        let checks = plan.director.iter().flat_map(|director| &director.checks);
        let asking = checks.filter(|check| check.type_ != HealthCheckType::None);
        Self(
            asking
                .map(|check| {
                    let question = HealthCheck {
                        name: String::new(),
                        port_name: None,
                        port: None,
                        address: None,
                        ..check.clone()
                    };
                    let means = Means {
                        namespace: if check.names_credentials() {
                            plan.source.namespace.clone()
                        } else {
                            String::new()
                        },
                    };
                    let address = check.address.as_ref();
                    let asked = Asked {
                        question: Arc::new(question),
                        means: Arc::new(means),
                        address: address.and_then(|text| text.parse().ok()),
                    };
                    (check.name.as_str(), asked)
                })
                .collect(),
        )
    }

    /// The checks that a service makes of one of its real servers. Where there is no port to ask there is none, but of the
    /// types that ask the host itself.
    pub(super) fn checks<'b>(
        &'b self,
        service: &'b PlannedService,
        real_server: &'b PlannedRealServer,
    ) -> impl Iterator<Item = Check> + use<'a, 'b> {
        let references = service.checks_of(real_server).iter();
        references.filter_map(|reference| {
            let asked = self.0.get(reference.check_name.as_str())?;
            let Asked {
                question,
                means,
                address,
            } = asked;
            let has_port = question.type_ != HealthCheckType::Ping;
            let port = reference.port.unwrap_or(real_server.port);
            let port = if has_port { port } else { 0 };
            (port != 0 || !has_port).then(|| Check {
                target: SocketAddr::new(address.unwrap_or(real_server.address), port),
                question: Arc::clone(question),
                means: Arc::clone(means),
            })
        })
    }
}

/// Every check that plans want, those of real servers that are switched off excepted.
pub fn wanted_checks(plans: &[PlanInput]) -> BTreeMap<Check, Cadence> {
    let mut wanted = BTreeMap::new();
    let held = plans
        .iter()
        .filter(|plan| plan.spec.state != PlanState::Withdrawn);
    for (plan, director) in held.filter_map(|plan| Some((plan, plan.spec.director.as_ref()?))) {
        let questions = Questions::of(&plan.spec);
        for service in &director.services {
            let serving = service.real_servers.iter().filter(|real_server| {
                real_server.administrative_state != AdministrativeState::Disabled
            });
            for check in serving.flat_map(|real_server| questions.checks(service, real_server)) {
                let cadence = check.cadence();
                wanted.insert(check, cadence);
            }
        }
    }
    wanted
}
