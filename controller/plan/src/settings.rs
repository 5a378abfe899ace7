//! Settings of which a node has only one: where routers on one node disagree the older wins.

use std::collections::BTreeMap;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::value::Timeouts;

use crate::report::Verdict;
use crate::router::Router;

/// Timeouts per (router, node), and what each router lost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Timeouts that a router's plan sets on a node.
    pub timeouts: BTreeMap<(String, String), Timeouts>,
    /// Conflicts by router.
    pub problems: BTreeMap<String, Vec<Verdict>>,
}

/// Decides the timeouts of every node. `nodes_of` lists, per router, every node that carries one
/// of its plans, leaving directors included.
pub fn decide(
    nodes_of: &BTreeMap<String, Vec<String>>,
    routers: &BTreeMap<String, Router<'_>>,
) -> Settings {
    let mut settings = Settings::default();
    let mut by_age: Vec<_> = routers.values().collect();
    by_age.sort_by_key(|router| router.meta.age());
    let mut winners: BTreeMap<&str, (&str, &Timeouts)> = BTreeMap::new();
    for router in by_age {
        let name = router.meta.key.name.as_str();
        let Some(timeouts) = &router.spec.timeouts else {
            continue;
        };
        for node in nodes_of.get(name).into_iter().flatten() {
            match winners.get(node.as_str()) {
                Some((winner, winning)) if *winning != timeouts => {
                    settings.problems.entry(name.to_owned()).or_default().push(Verdict::bad(
                        ConditionType::Accepted,
                        Reason::NodeSettingConflict,
                        format!(
                            "spec.timeouts: node {node} has one set of IPVS timeouts and the older VirtualRouter {winner} \
                             sets it: use the same values, or directors on other nodes"
                        ),
                    ));
                }
                _ => {
                    winners.entry(node).or_insert((name, timeouts));
                    settings
                        .timeouts
                        .insert((name.to_owned(), node.clone()), timeouts.clone());
                }
            }
        }
    }
    settings
}
