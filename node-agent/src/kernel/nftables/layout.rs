//! Which chains the table has for some rules, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lvs_core::host::{PacketRules, SourceNatRule};

use super::rule::Rule;

/// `NF_IP_PRI_MANGLE`, `NF_IP_PRI_NAT_SRC`.
const MANGLE: i32 = -150;
const SOURCE_NAT: i32 = 100;
/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`, `NF_INET_POST_ROUTING`.
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// Where the kernel calls a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Type of the chain.
    pub type_: &'static str,
    /// `NF_INET_…`.
    pub number: u32,
    /// Priority.
    pub priority: i32,
}

/// A chain of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// `None` = only rules of other chains lead here.
    pub hook: Option<Hook>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// The hook of a chain by its name, if it has one.
pub fn hook(name: &str) -> Option<Hook> {
    let (type_, number, priority) = match name {
        "prerouting" => ("filter", PREROUTING, MANGLE),
        // Type route: a packet of the node itself is routed again after its mark has changed.
        "output" => ("route", OUTPUT, MANGLE),
        // Type nat: once for each connection.
        "postrouting" => ("nat", POSTROUTING, SOURCE_NAT),
        _ => return None,
    };
    Some(Hook {
        type_,
        number,
        priority,
    })
}

fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.to_owned(),
        hook: hook(name),
        rules,
    }
}

/// Chains in the order in which they can be made: first those to which others lead. A chain of type nat makes the kernel
/// keep every connection of the node in conntrack, so it is there only when it is needed.
pub fn chains(rules: &PacketRules) -> Vec<Chain> {
    let lists: BTreeSet<&[IpAddr]> = rules
        .source_nat
        .iter()
        .map(|rule| rule.source_addresses.as_slice())
        .collect();
    let names: BTreeMap<&[IpAddr], String> = lists
        .into_iter()
        .enumerate()
        .map(|(index, list)| (list, format!("sources-{index}")))
        .collect();
    let mut chains: Vec<Chain> = names
        .iter()
        .map(|(list, name)| chain(name, sources(list)))
        .collect();
    if !rules.marks.is_empty() {
        let marks: Vec<Rule> = rules.marks.iter().cloned().map(Rule::Mark).collect();
        chains.push(chain("prerouting", marks.clone()));
        chains.push(chain("output", marks));
    }
    if !rules.source_nat.is_empty() {
        let addresses: BTreeSet<IpAddr> = rules
            .source_nat
            .iter()
            .map(|rule| rule.packets.address)
            .collect();
        let own = addresses.into_iter().map(Rule::Own);
        let translated = rules.source_nat.iter().map(|rule| Rule::SourceNat {
            packets: rule.packets.clone(),
            real_server: rule.real_server,
            list: names
                .get(rule.source_addresses.as_slice())
                .cloned()
                .unwrap_or_default(),
        });
        chains.push(chain("postrouting", own.chain(translated).collect()));
    }
    chains
}

/// One of a list by chance: the first by one in all, the next by one in those that are left, the last always.
fn sources(list: &[IpAddr]) -> Vec<Rule> {
    let rest = (1..).zip(list.iter().rev());
    let mut rules: Vec<Rule> = rest
        .map(|(rest, address)| Rule::Source {
            address: *address,
            rest,
        })
        .collect();
    rules.reverse();
    rules
}

/// What some chains do, as far as it can be told. They are exactly as we write them if [`chains`] gives them again.
pub fn packet_rules(found: &BTreeMap<String, Vec<Rule>>) -> PacketRules {
    let rules = |name: &str| found.get(name).into_iter().flatten();
    let marks = rules("prerouting").filter_map(|rule| match rule {
        Rule::Mark(mark) => Some(mark.clone()),
        _ => None,
    });
    let addresses = |list: &str| -> Vec<IpAddr> {
        let sources = rules(list).filter_map(|rule| match rule {
            Rule::Source { address, .. } => Some(*address),
            _ => None,
        });
        sources.collect()
    };
    let source_nat = rules("postrouting").filter_map(|rule| match rule {
        Rule::SourceNat {
            packets,
            real_server,
            list,
        } => Some(SourceNatRule {
            packets: packets.clone(),
            real_server: *real_server,
            source_addresses: addresses(list),
        }),
        _ => None,
    });
    PacketRules {
        marks: marks.collect(),
        source_nat: source_nat.collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use lvs_core::host::{MarkRule, RealServerPorts};
    use lvs_crds::node_plan::MarkMatch;
    use lvs_crds::value::Protocol;
    use proptest::prelude::*;

    use super::*;

    fn packets(port: u16) -> MarkMatch {
        MarkMatch {
            address: "192.0.2.250".parse().unwrap(),
            protocol: Protocol::TCP,
            port,
            end_port: port,
        }
    }

    fn any_rules() -> impl Strategy<Value = PacketRules> {
        let marks = proptest::collection::vec((1..9_u16, 1..9_u32), 0..4);
        let translated = (
            1..9_u16,
            any::<bool>(),
            proptest::collection::btree_set(1..9_u8, 1..5),
        );
        let translated = proptest::collection::vec(translated, 0..5);
        (marks, translated).prop_map(|(marks, translated)| {
            let marks = marks.into_iter().map(|(port, mark)| MarkRule {
                packets: packets(port),
                mark,
            });
            let source_nat = translated
                .into_iter()
                .map(|(port, one, last)| SourceNatRule {
                    packets: packets(port),
                    real_server: one.then(|| RealServerPorts {
                        address: "198.51.100.1".parse().unwrap(),
                        port,
                        end_port: port,
                    }),
                    source_addresses: last
                        .into_iter()
                        .map(|last| [203, 0, 113, last].into())
                        .collect(),
                });
            let mut rules = PacketRules {
                marks: marks.collect(),
                source_nat: source_nat.collect(),
            };
            rules.normalise();
            rules
        })
    }

    proptest! {
        #[test]
        fn rules_are_read_back_from_their_chains(rules in any_rules()) {
            let written = chains(&rules);
            let found = written.iter().map(|chain| (chain.name.clone(), chain.rules.clone()));
            let found = found.collect();
            prop_assert_eq!(&packet_rules(&found), &rules);
        }

        /// A chain that is led to exists before the rule that leads there.
        #[test]
        fn no_rule_leads_nowhere(rules in any_rules()) {
            let mut known = BTreeSet::new();
            for chain in chains(&rules) {
                for rule in &chain.rules {
                    if let Rule::SourceNat { list, .. } = rule {
                        prop_assert!(known.contains(list));
                    }
                }
                known.insert(chain.name);
            }
        }
    }

    #[test]
    fn each_source_address_gets_an_equal_share() {
        let list: Vec<IpAddr> = (1..4_u8).map(|last| [203, 0, 113, last].into()).collect();
        let mut left = 1.0;
        for rule in sources(&list) {
            let Rule::Source { rest, .. } = rule else {
                panic!("{rule:?}");
            };
            let share = left / f64::from(rest);
            assert!((share - 1.0 / 3.0).abs() < 1e-9, "{share}");
            left -= share;
        }
    }
}
