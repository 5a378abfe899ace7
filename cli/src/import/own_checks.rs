//! Real servers that are checked each in another way: what is asked of all as `healthChecks` of the VirtualService, and
//! what of one alone as those of its RealServer, which stand in the place of the VirtualService's of the same name.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::draft::Server;
use super::report::{Fate, Ledger, LineIndex};

/// Checks that a VirtualService or a RealServer may have.
const CHECKS_MAXIMUM: usize = 8;
/// Different checks of RealServers that the plan of one VirtualService holds.
const DIFFERENT_CHECKS_MAXIMUM: usize = 128;

/// One check, without its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The line that says it.
    pub line: LineIndex,
    /// The check.
    pub value: Value,
}

/// Checks of a VirtualService and of its real servers, with names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spread {
    of_service: Vec<Value>,
    /// What each real server has in the place of those, in the order of the real servers.
    of_servers: Vec<Vec<Value>>,
    /// Checks for which there was no room.
    left_out: Vec<LineIndex>,
}

/// Gives each server its own checks, says of its lines where they are now, and returns those of the VirtualService
/// `service`. `lists` has the checks of each of `servers`, in their order.
pub fn assign(
    ledger: &mut Ledger,
    service: &str,
    servers: &mut [Server],
    lists: &[Vec<Check>],
) -> Vec<Value> {
    let spread = spread(lists);
    for line in &spread.left_out {
        let words = format!("there are {CHECKS_MAXIMUM} checks already");
        ledger.note(*line, Fate::NotOffered, "", words);
    }
    let is_none = lists.iter().all(Vec::is_empty);
    for ((server, own), list) in servers.iter_mut().zip(spread.of_servers).zip(lists) {
        if is_none {
            ledger.note(
                server.line,
                Fate::Translated,
                "VirtualService spec.healthChecks",
                "no checker: type None",
            );
        } else if list.is_empty() {
            ledger.note(
                server.line,
                Fate::Translated,
                "RealServer spec.healthChecks",
                "no checker: type None",
            );
        } else {
            tell(ledger, server.line, &own, list);
        }
        server.checks = own;
    }
    let own = servers.iter().flat_map(|server| &server.checks);
    let different: BTreeSet<String> = own.map(ToString::to_string).collect();
    if different.len() > DIFFERENT_CHECKS_MAXIMUM {
        ledger.require(format!(
            "VirtualService {service}: its real servers have {} different checks of their own, and a plan holds {DIFFERENT_CHECKS_MAXIMUM}: \
             spread them over several VirtualServices",
            different.len()
        ));
    }
    spread.of_service
}

/// Says of the lines of a real server what is its own.
fn tell(ledger: &mut Ledger, line: LineIndex, own: &[Value], list: &[Check]) {
    let field = "RealServer spec.healthChecks";
    let without_name = |check: &Value| {
        let mut check = check.clone();
        if let Some(fields) = check.as_object_mut() {
            fields.remove("name");
        }
        check
    };
    for check in list {
        if own.iter().any(|own| without_name(own) == check.value) {
            let words = "another than that of the VirtualService";
            ledger.note(check.line, Fate::Translated, field, words);
        }
    }
    let off = own.iter().filter(|check| check["type"] == "None");
    let off: Vec<&str> = off.filter_map(|check| check["name"].as_str()).collect();
    if !off.is_empty() {
        let words = format!("{}: type None, as no checker here asks it", off.join(", "));
        ledger.note(line, Fate::Translated, field, words);
    }
}

/// What most real servers are asked is asked by the VirtualService; of several that are equally many, by the first.
fn spread(lists: &[Vec<Check>]) -> Spread {
    let values =
        |list: &[Check]| -> Vec<Value> { list.iter().map(|check| check.value.clone()).collect() };
    let mut kinds: Vec<(Vec<Value>, usize)> = Vec::new();
    for list in lists.iter().filter(|list| !list.is_empty()) {
        let list = values(list);
        match kinds.iter_mut().find(|(known, _)| *known == list) {
            Some((_, count)) => *count += 1,
            None => kinds.push((list, 1)),
        }
    }
    let most = kinds.iter().map(|(_, count)| *count).max();
    let common = kinds.into_iter().find(|(_, count)| Some(*count) == most);
    let Some((mut slots, _)) = common else {
        return Spread {
            of_service: vec![json!({"name": "none", "type": "None"})],
            of_servers: vec![Vec::new(); lists.len()],
            left_out: Vec::new(),
        };
    };
    slots.truncate(CHECKS_MAXIMUM);
    let mut left_out = Vec::new();
    let places: Vec<Vec<Option<Value>>> = lists
        .iter()
        .map(|list| place(list, &mut slots, &mut left_out))
        .collect();
    let names = names(&slots);
    let with_name = |value: &Value, name: &str| {
        let mut value = value.clone();
        value["name"] = json!(name);
        value
    };
    let of_servers = places.iter().map(|places| {
        let own = slots.iter().zip(&names).enumerate();
        own.filter_map(|(index, (slot, name))| match places.get(index) {
            Some(Some(value)) if value == slot => None,
            Some(Some(value)) => Some(with_name(value, name)),
            Some(None) | None => Some(json!({"name": name, "type": "None"})),
        })
        .collect()
    });
    Spread {
        of_servers: of_servers.collect(),
        of_service: slots
            .iter()
            .zip(&names)
            .map(|(slot, name)| with_name(slot, name))
            .collect(),
        left_out,
    }
}

/// Which check of a real server stands in the place of which of the service: of equal ones, else of the same type, else of
/// any that is left; where none is left the service gets one more.
fn place(
    list: &[Check],
    slots: &mut Vec<Value>,
    left_out: &mut Vec<LineIndex>,
) -> Vec<Option<Value>> {
    let mut places: Vec<Option<Value>> = vec![None; slots.len()];
    let mut rest: Vec<&Check> = list.iter().collect();
    let tests: [fn(&Value, &Value) -> bool; 3] = [
        |slot, value| slot == value,
        |slot, value| slot["type"] == value["type"],
        |_, _| true,
    ];
    for test in tests {
        rest.retain(|check| {
            let mut free = places
                .iter_mut()
                .zip(slots.iter())
                .filter(|(place, slot)| place.is_none() && test(slot, &check.value));
            match free.next() {
                Some((place, _)) => {
                    *place = Some(check.value.clone());
                    false
                }
                None => true,
            }
        });
    }
    for check in rest {
        if slots.len() < CHECKS_MAXIMUM {
            slots.push(check.value.clone());
            places.push(Some(check.value.clone()));
        } else {
            left_out.push(check.line);
        }
    }
    places
}

/// Names by type: http, http-2.
fn names(checks: &[Value]) -> Vec<String> {
    let mut names = Vec::new();
    for (index, check) in checks.iter().enumerate() {
        let before = checks.iter().take(index);
        let count = before
            .filter(|other| other["type"] == check["type"])
            .count();
        let type_ = check["type"].as_str().unwrap_or_default();
        let type_ = type_.to_ascii_lowercase();
        names.push(match count {
            0 => type_,
            count => format!("{type_}-{}", count + 1),
        });
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list() -> impl Strategy<Value = Vec<Check>> {
        let check = (
            prop::sample::select(vec!["TCP", "HTTP", "Ping"]),
            1_u16..4,
            0_usize..50,
        );
        prop::collection::vec(check, 0..5).prop_map(|checks| {
            let checks = checks.into_iter();
            checks
                .map(|(type_, period, line)| Check {
                    line,
                    value: json!({"type": type_, "periodSeconds": period}),
                })
                .collect()
        })
    }

    /// What directors ask of a real server: the service's checks, each replaced by its own of the same name.
    fn asked(of_service: &[Value], own: &[Value]) -> Vec<String> {
        let checks = of_service.iter().map(|check| {
            let mut own = own.iter();
            own.find(|other| other["name"] == check["name"])
                .unwrap_or(check)
        });
        let mut asked: Vec<String> = checks
            .filter(|check| check["type"] != "None")
            .map(|check| {
                let mut check = check.clone();
                check["name"] = Value::Null;
                check.to_string()
            })
            .collect();
        asked.sort();
        asked
    }

    proptest! {
        #[test]
        fn each_is_asked_what_its_checkers_ask(lists in prop::collection::vec(list(), 0..6)) {
            let spread = spread(&lists);
            prop_assert_eq!(spread.of_servers.len(), lists.len());
            prop_assert!((1..=CHECKS_MAXIMUM).contains(&spread.of_service.len()));
            let names: BTreeSet<String> = spread.of_service.iter().map(|check| check["name"].to_string()).collect();
            prop_assert_eq!(names.len(), spread.of_service.len());
            let mut missing = 0;
            for (list, own) in lists.iter().zip(&spread.of_servers) {
                let mut wanted: Vec<String> = list.iter().map(|check| {
                    let mut value = check.value.clone();
                    value["name"] = Value::Null;
                    value.to_string()
                }).collect();
                wanted.sort();
                let asked = asked(&spread.of_service, own);
                missing += wanted.len() - asked.len();
                if spread.left_out.is_empty() {
                    prop_assert_eq!(asked, wanted);
                }
                for check in own {
                    prop_assert!(names.contains(&check["name"].to_string()));
                    prop_assert!(!spread.of_service.contains(check), "{} is no other", check);
                }
            }
            prop_assert_eq!(missing, spread.left_out.len());
        }

        #[test]
        fn who_is_asked_the_same_has_nothing_of_its_own(one in list(), count in 1_usize..5) {
            let spread = spread(&vec![one; count]);
            prop_assert!(spread.of_servers.iter().all(Vec::is_empty));
        }
    }

    #[test]
    fn what_most_are_asked_is_the_services() {
        let of = |type_: &str| {
            vec![Check {
                line: 0,
                value: json!({"type": type_}),
            }]
        };
        let spread = spread(&[of("HTTP"), of("TCP"), Vec::new(), of("TCP")]);
        assert_eq!(spread.of_service, [json!({"name": "tcp", "type": "TCP"})]);
        let http = json!({"name": "tcp", "type": "HTTP"});
        let none = json!({"name": "tcp", "type": "None"});
        assert_eq!(spread.of_servers, [vec![http], vec![], vec![none], vec![]]);
    }
}
