//! Settings of which a node has only one: where routers on one node disagree the older wins.

use std::collections::BTreeMap;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::connection_sync::{PlannedConnectionSync, PlannedSyncDaemon};
use lvs_crds::value::Timeouts;

use crate::report::Verdict;
use crate::router::Router;

/// Settings per (router, node), and what each router lost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Timeouts that a router's plan sets on a node.
    pub timeouts: BTreeMap<(String, String), Timeouts>,
    /// Connection sync that a router's plan asks of a node.
    pub connection_sync: BTreeMap<(String, String), PlannedConnectionSync>,
    /// Conflicts by router.
    pub problems: BTreeMap<String, Vec<Verdict>>,
}

/// Who sets one setting on each node, and to what.
type Winners<'a, T> = BTreeMap<&'a str, (&'a str, &'a T)>;

/// Decides the settings of every node. `nodes_of` lists, per router, every node that carries one
/// of its plans, leaving directors included.
pub fn decide(
    nodes_of: &BTreeMap<String, Vec<String>>,
    routers: &BTreeMap<String, Router<'_>>,
) -> Settings {
    let mut settings = Settings::default();
    let mut by_age: Vec<_> = routers.values().collect();
    by_age.sort_by_key(|router| router.meta.age());
    let mut timeouts: Winners<'_, Timeouts> = BTreeMap::new();
    let mut daemons: Winners<'_, PlannedSyncDaemon> = BTreeMap::new();
    for router in by_age {
        let name = router.meta.key.name.as_str();
        for node in nodes_of.get(name).into_iter().flatten() {
            if let Some(wanted) = &router.spec.timeouts {
                if let Err(winner) = claim(&mut timeouts, node, name, wanted) {
                    settings.conflict(name, "timeouts", "set of IPVS timeouts", node, winner);
                } else {
                    let key = (name.to_owned(), node.clone());
                    settings.timeouts.insert(key, wanted.clone());
                }
            }
            if let Some(wanted) = &router.connection_sync {
                // Only daemons can disagree.
                let refused = wanted
                    .daemon
                    .as_ref()
                    .and_then(|daemon| claim(&mut daemons, node, name, daemon).err());
                if let Some(winner) = refused {
                    let what = "set-up of the IPVS sync daemons";
                    settings.conflict(name, "connectionSync.daemon", what, node, winner);
                } else {
                    let key = (name.to_owned(), node.clone());
                    settings.connection_sync.insert(key, wanted.clone());
                }
            }
        }
    }
    settings
}

/// Takes a setting of a node, or tells which older router has set it to something else.
fn claim<'a, T: PartialEq>(
    winners: &mut Winners<'a, T>,
    node: &'a str,
    name: &'a str,
    wanted: &'a T,
) -> Result<(), &'a str> {
    let (winner, winning) = *winners.entry(node).or_insert((name, wanted));
    if winning == wanted {
        Ok(())
    } else {
        Err(winner)
    }
}

impl Settings {
    fn conflict(&mut self, name: &str, field: &str, what: &str, node: &str, winner: &str) {
        self.problems.entry(name.to_owned()).or_default().push(Verdict::bad(
            ConditionType::Accepted,
            Reason::NodeSettingConflict,
            format!(
                "spec.{field}: node {node} has one {what} and the older VirtualRouter {winner} sets it: use the same \
                 values, or directors on other nodes"
            ),
        ));
    }
}
