//! What tells one check from another: each is made once, however many services want it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lvs_crds::health_check::{HealthCheck, HealthCheckPath, HealthCheckType};
use lvs_crds::node_plan::{NodePlanSpec, PlanState, PlannedRealServer, PlannedService};
use lvs_crds::traffic_policy::AdministrativeState;
use lvs_crds::value::AddressFamily;

use super::checks::Cadence;
use super::machine::Thresholds;
use super::passage::Passage;
use crate::desired::PlanInput;

/// Whom is asked what. How often is part of it: two services that want to know with different patience ask twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// Where the question is sent: who is asked, or with a passage the virtual address.
    pub target: SocketAddr,
    /// How it gets from there to the real server; `None` = it is there.
    pub passage: Option<Passage>,
    /// Real server and port about which a judge is asked, who is the target then; `None` = the one who is asked.
    pub subject: Option<SocketAddr>,
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
    /// Certificate authorities that alone are trusted, in PEM; `None` where the question names none, or the plan has none of that name.
    pub authorities: Option<String>,
}

/// `192.0.2.21:80`, `192.0.2.21 through 192.0.2.1:80`, or `192.0.2.21:80 by judge 198.51.100.7:8080`.
impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Passage { real_server, .. }) = self.passage {
            write!(formatter, "{real_server} through ")?;
        }
        if let Some(subject) = self.subject {
            write!(formatter, "{subject} by judge ")?;
        }
        self.target.fmt(formatter)
    }
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
pub(super) struct Questions<'a> {
    by_name: BTreeMap<&'a str, Asked>,
    /// Virtual addresses of the plan.
    addresses: Vec<IpAddr>,
}

/// What is asked with what, and whom where that is not the real server.
struct Asked {
    question: Arc<HealthCheck>,
    means: Arc<Means>,
    address: Option<IpAddr>,
    /// Port of a judge.
    judge_port: Option<u16>,
}

/// A judge of whom it is not known where he is.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl<'a> Questions<'a> {
    pub(super) fn of(plan: &'a NodePlanSpec) -> Self {
        let checks = plan.director.iter().flat_map(|director| &director.checks);
        let asking = checks.filter(|check| check.type_ != HealthCheckType::None);
        let by_name = asking
            .map(|check| {
                let question = HealthCheck {
                    name: String::new(),
                    port_name: None,
                    port: None,
                    address: None,
                    ..check.clone()
                };
                let authorities = authorities_of(plan, check);
                let means = Means {
                    authorities: authorities.map(String::from),
                    namespace: if check.names_credentials() {
                        plan.source.namespace.clone()
                    } else {
                        String::new()
                    },
                };
                let address = check.address.as_ref();
                let judge = check.external_http.as_ref();
                let asked = Asked {
                    question: Arc::new(question),
                    means: Arc::new(means),
                    address: address.and_then(|text| text.parse().ok()),
                    judge_port: judge.map(|judge| judge.judge().map_or(0, |judge| judge.port)),
                };
                (check.name.as_str(), asked)
            })
            .collect();
        let addresses = plan
            .director
            .iter()
            .flat_map(|director| &director.addresses);
        Self {
            by_name,
            addresses: addresses.map(|one| one.address).collect(),
        }
    }

    /// The checks that a service makes of one of its real servers. Where there is no port to ask there is none, but of the
    /// types that ask the host itself. Through the virtual address of the service; with a firewall mark through each of the
    /// plan that has its family.
    pub(super) fn checks(
        &self,
        service: &PlannedService,
        real_server: &PlannedRealServer,
    ) -> Vec<Check> {
        let mut checks = Vec::new();
        for reference in service.checks_of(real_server) {
            let Some(asked) = self.by_name.get(reference.check_name.as_str()) else {
                continue;
            };
            let Asked {
                question,
                means,
                address,
                judge_port,
            } = asked;
            let has_port = question.type_ != HealthCheckType::Ping;
            let port = reference.port.unwrap_or(real_server.port);
            let port = if has_port { port } else { 0 };
            if has_port && port == 0 {
                continue;
            }
            if let Some(judge_port) = judge_port {
                checks.push(Check {
                    target: SocketAddr::new(address.unwrap_or(NOWHERE), *judge_port),
                    passage: None,
                    subject: Some(SocketAddr::new(real_server.address, port)),
                    question: Arc::clone(question),
                    means: Arc::clone(means),
                });
                continue;
            }
            let check = |address, passage| Check {
                target: SocketAddr::new(address, port),
                passage,
                subject: None,
                question: Arc::clone(question),
                means: Arc::clone(means),
            };
            match question.path {
                HealthCheckPath::RealServer => {
                    checks.push(check(address.unwrap_or(real_server.address), None));
                }
                HealthCheckPath::VirtualAddress => {
                    let through = self.virtual_addresses(service).filter_map(|address| {
                        let passage = Passage::to(real_server, AddressFamily::of(&address))?;
                        Some(check(address, Some(passage)))
                    });
                    checks.extend(through);
                }
            }
        }
        checks
    }

    /// The same of all of them, those that are switched off excepted.
    pub(super) fn of_service(&self, service: &PlannedService) -> Vec<Check> {
        let serving = service.real_servers.iter().filter(|real_server| {
            real_server.administrative_state != AdministrativeState::Disabled
        });
        serving
            .flat_map(|real_server| self.checks(service, real_server))
            .collect()
    }

    fn virtual_addresses(&self, service: &PlannedService) -> impl Iterator<Item = IpAddr> {
        let own = service.address.as_ref().map(|address| address.address);
        let mark = service.firewall_mark.as_ref();
        let family = mark.map(|mark| mark.address_family);
        let of_family = self
            .addresses
            .iter()
            .copied()
            .filter(move |address| Some(AddressFamily::of(address)) == family);
        own.into_iter().chain(of_family)
    }
}

/// Certificate authorities that a check names, if the plan has them.
fn authorities_of<'a>(plan: &'a NodePlanSpec, check: &HealthCheck) -> Option<&'a str> {
    let name = check.tls.as_ref()?.ca_config_map_name.as_ref()?;
    let mut known = plan.director.as_ref()?.certificate_authorities.iter();
    let known = known.find(|known| known.config_map_name == *name)?;
    Some(&known.certificates)
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
            for check in questions.of_service(service) {
                let cadence = check.cadence();
                wanted.insert(check, cadence);
            }
        }
    }
    wanted
}
