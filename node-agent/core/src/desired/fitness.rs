//! Whether a director can hold every address of a router: they move as one, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::LeadershipPlan;
use lvs_crds::tracking::Deduction;

use super::{Builder, PlanInput, Problem};

/// What keeps a director from holding every address of a router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Reason, as in the condition.
    pub reason: Reason,
    /// What, with values.
    pub message: String,
}

/// How fit this node is to direct one router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// Faults: with any of them the node does not take the addresses over, and gives them to a director without.
    pub faults: BTreeSet<Fault>,
    /// What makes the node worth less: each is added to its priority, and one of 0 makes it give way to any other.
    pub deductions: BTreeSet<Deduction>,
}

/// Lowest and highest priority of a director (RFC 9568 §5.2.4: 0 and 255 mean something else).
const PRIORITIES: (i32, i32) = (1, 254);

impl Fitness {
    /// Whether the node may take the addresses over.
    pub fn is_fit(&self) -> bool {
        self.faults.is_empty()
    }

    /// The priority that counts, 1..254, of a configured one; 0, which gives way to any, where either says so.
    pub fn priority(&self, configured: u8) -> u8 {
        let deltas = self
            .deductions
            .iter()
            .map(|deduction| deduction.priority_delta);
        if configured == 0 || deltas.clone().any(|delta| delta == 0) {
            return 0;
        }
        let sum = deltas.fold(i32::from(configured), i32::saturating_add);
        u8::try_from(sum.clamp(PRIORITIES.0, PRIORITIES.1)).unwrap_or(configured)
    }
}

impl Builder<'_> {
    /// An address of the plan at hand cannot be held here: a fault of the router, unless no director can.
    pub(super) fn unholdable(&mut self, address: IpAddr, reason: Reason, message: String) {
        let router = &self.plan.spec.virtual_router_name;
        let unavailable = self.state.unavailable.entry(router.clone()).or_default();
        unavailable.insert(address);
        let set_aside = self
            .leaderships
            .get(router.as_str())
            .is_some_and(|(_, leadership)| leadership.addresses_set_aside.contains(&address));
        if !set_aside {
            let fitness = self.state.fitness.entry(router.clone()).or_default();
            fitness.faults.insert(Fault {
                reason,
                message: message.clone(),
            });
        }
        self.problem(reason, message);
    }

    /// Judges the links that the routers need, and tells every fault in the plan of its router if it is one of these.
    pub(super) fn judge_links(&mut self, plans: &[&PlanInput]) {
        let mut down: Vec<(String, String)> = Vec::new();
        for (router, keys) in &self.state.director_addresses {
            let mut carried: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for key in keys {
                let device = self.state.underlying_device(self.host, &key.device);
                let addresses = carried.entry(device).or_default();
                addresses.push(key.address.to_string());
            }
            for (device, addresses) in carried {
                if let Some(obstacle) = self.obstacle(device) {
                    let shown = addresses.len().min(ADDRESSES_SHOWN);
                    let mut list = addresses[..shown].join(", ");
                    if addresses.len() > shown {
                        list = format!("{list} and {} more", addresses.len() - shown);
                    }
                    down.push((
                        router.clone(),
                        format!("device {device} of {list} {obstacle}"),
                    ));
                }
            }
        }
        let leaderships = self.leaderships;
        for (router, (_, leadership)) in leaderships {
            for tracked in &leadership.tracked_interfaces {
                let obstacle = match self.host.first_present(&tracked.devices) {
                    None => Some(format!(
                        "none of the devices {} is on this node",
                        tracked.devices.join(", ")
                    )),
                    Some(device) => self
                        .obstacle(device)
                        .map(|obstacle| format!("device {device} {obstacle}")),
                };
                let Some(obstacle) = obstacle else { continue };
                let text = format!("tracked interface {}: {obstacle}", tracked.interface_name);
                if tracked.priority_delta == 0 {
                    down.push(((*router).to_owned(), text));
                } else {
                    let fitness = self.state.fitness.entry((*router).to_owned()).or_default();
                    fitness.deductions.insert(Deduction {
                        priority_delta: tracked.priority_delta,
                        reason: Reason::LinkDown.as_str().to_owned(),
                        message: text,
                    });
                }
            }
        }
        for (router, message) in down {
            let fitness = self.state.fitness.entry(router).or_default();
            fitness.faults.insert(Fault {
                reason: Reason::LinkDown,
                message,
            });
        }
        for (router, fitness) in &self.state.fitness {
            let Some((plan, _)) = leaderships.get(router.as_str()) else {
                continue;
            };
            // One that was withdrawn has nothing to direct any more.
            if !plans.iter().any(|held| held.name == **plan) {
                continue;
            }
            let problems = fitness.faults.iter().map(|fault| Problem {
                plan: (*plan).to_owned(),
                reason: fault.reason,
                message: fault.message.clone(),
            });
            self.state.problems.extend(problems);
        }
    }

    fn obstacle(&self, device: &str) -> Option<&'static str> {
        self.host.links.get(device)?.obstacle()
    }
}

/// Addresses that a message names of one device.
const ADDRESSES_SHOWN: usize = 3;

/// Leadership by router, and the name of the plan that carries it.
pub(super) type Leaderships<'a> = BTreeMap<&'a str, (&'a str, &'a LeadershipPlan)>;

/// The leadership of each router; of several, the last.
pub(super) fn leaderships<'a>(plans: impl Iterator<Item = &'a PlanInput>) -> Leaderships<'a> {
    plans
        .filter_map(|plan| {
            let leadership = plan.spec.director.as_ref()?.leadership.as_ref()?;
            let router = plan.spec.virtual_router_name.as_str();
            Some((router, (plan.name.as_str(), leadership)))
        })
        .collect()
}
