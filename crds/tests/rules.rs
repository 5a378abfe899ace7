//! What holds of the schema without an API server: every rule is in the table, everything is
//! bounded and documented, and the generated files are those of the types. Whether the rules
//! accept and refuse what they should, a real API server says: tests/apiserver.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;

use std::collections::BTreeSet;

use case::{Case, cases, crate_directory};
use lvs_crds::manifest::{definitions, manifests};
use lvs_crds::{NodePlan, RealServer, VirtualRouter, VirtualService};
use serde_json::Value;

/// Schemas by plural name.
fn schemas() -> Vec<(&'static str, Value)> {
    definitions()
        .unwrap()
        .into_iter()
        .map(|(plural, mut definition)| {
            let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
            (plural, schema)
        })
        .collect()
}

/// Every CEL message below a schema.
fn rule_messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                if key == "x-kubernetes-validations" {
                    for rule in value.as_array().unwrap() {
                        found.insert(
                            rule["message"]
                                .as_str()
                                .expect("a rule has a message")
                                .to_owned(),
                        );
                    }
                } else {
                    rule_messages(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| rule_messages(item, found)),
        _ => {}
    }
}

#[test]
fn what_is_stored_decodes() {
    for case in cases() {
        let accepted = case.message.is_none().then_some(case.object);
        for object in accepted.into_iter().chain(case.before) {
            let result = match case.plural {
                "virtualservices" => serde_json::from_value::<VirtualService>(object).map(drop),
                "realservers" => serde_json::from_value::<RealServer>(object).map(drop),
                "virtualrouters" => serde_json::from_value::<VirtualRouter>(object).map(drop),
                "nodeplans" => serde_json::from_value::<NodePlan>(object).map(drop),
                other => panic!("unknown kind {other}"),
            };
            result.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
    }
}

/// Whether a case is of a health check, which RealServers have as VirtualServices do.
fn asks(case: &Case, plural: &str) -> bool {
    plural == "realservers"
        && case.plural == "virtualservices"
        && case.object["spec"]["healthChecks"].is_array()
}

#[test]
fn every_rule_has_a_refused_case_with_its_whole_message() {
    for (plural, schema) in schemas() {
        let mut rules = BTreeSet::new();
        rule_messages(&schema, &mut rules);
        assert!(!rules.is_empty(), "{plural} has no rule");
        let messages: Vec<String> = cases()
            .into_iter()
            // A NodePlan holds parts of the kinds that users write; their rules have their cases there. So have those of
            // health checks with VirtualServices.
            .filter(|case| case.plural == plural || plural == "nodeplans" || asks(case, plural))
            .filter_map(|case| case.message)
            .collect();
        let missing: Vec<_> = rules
            .iter()
            .filter(|rule| !messages.iter().any(|message| message.ends_with(*rule)))
            .collect();
        assert!(
            missing.is_empty(),
            "{plural}: no refused case for {missing:#?}"
        );
    }
}

#[test]
fn generated_files_are_fresh() {
    let wanted = manifests().unwrap();
    for directory in ["generated", "../charts/lvs-operator/charts/crds/crds"] {
        let directory = crate_directory().join(directory);
        for manifest in &wanted {
            let path = directory.join(&manifest.file_name);
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                stored == manifest.yaml,
                "{} is stale: run `make generate`",
                path.display()
            );
        }
        let files: BTreeSet<String> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let names: BTreeSet<String> = wanted
            .iter()
            .map(|manifest| manifest.file_name.clone())
            .collect();
        assert_eq!(
            files,
            names,
            "{} holds other files: remove them",
            directory.display()
        );
    }
}

#[test]
fn yaml_says_what_the_definition_says() {
    for ((plural, definition), manifest) in
        definitions().unwrap().into_iter().zip(manifests().unwrap())
    {
        let read: Value = serde_saphyr::from_str(&manifest.yaml).unwrap();
        assert_eq!(read, definition, "{plural}");
    }
}

/// What the API server bounds the cost of CEL by, and what it would warn of or not know.
#[test]
fn every_list_map_and_text_is_bounded_and_every_format_known() {
    for (plural, schema) in schemas() {
        check_bounds(&schema, plural);
    }
}

fn check_bounds(schema: &Value, path: &str) {
    let bounded = |bound: &str| assert!(schema[bound].is_number(), "{path} has no {bound}");
    match schema["type"].as_str() {
        Some("array") => bounded("maxItems"),
        Some("object") if schema.get("additionalProperties").is_some() => bounded("maxProperties"),
        Some("string") if schema.get("enum").is_none() && schema.get("format").is_none() => {
            bounded("maxLength");
        }
        _ => {}
    }
    if let Some(format) = schema["format"].as_str() {
        assert!(
            ["int32", "int64", "date-time"].contains(&format),
            "{path}: unknown format {format}"
        );
    }
    assert!(schema.get("nullable").is_none(), "{path} is nullable");
    for bound in ["minimum", "maximum"] {
        assert!(
            schema.get(bound).is_none_or(Value::is_i64),
            "{path}: {bound} is no whole number"
        );
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        assert!(
            property["description"].is_string(),
            "{path}.{name} is not documented"
        );
        check_bounds(property, &format!("{path}.{name}"));
    }
    for child in ["items", "additionalProperties"] {
        if schema.get(child).is_some() {
            check_bounds(&schema[child], &format!("{path}[]"));
        }
    }
}

/// `kubectl explain` shows the words of an enum, but not what they mean: the field must say it.
#[test]
fn every_choice_of_a_user_is_explained() {
    for (plural, schema) in schemas() {
        if plural != "nodeplans" {
            check_choices(&schema["properties"]["spec"], plural);
        }
    }
}

fn check_choices(schema: &Value, path: &str) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let text = property["description"].as_str().unwrap_or_default();
        let choices = property["enum"]
            .as_array()
            .or(property["items"]["enum"].as_array());
        for choice in choices.into_iter().flatten() {
            let choice = choice.as_str().unwrap();
            assert!(
                text.contains(choice),
                "{path} does not explain {choice}: {text}"
            );
        }
        check_choices(property, &path);
        check_choices(&property["items"], &path);
    }
}

#[test]
fn every_reason_has_its_row_for_people_in_trouble() {
    let page = include_str!("../../docs/troubleshooting.md");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let explained = |word: &str| {
        let quoted = format!("`{word}`");
        rows.iter()
            .filter_map(|row| row.split('|').nth(1))
            .any(|reasons| reasons.contains(&quoted))
    };
    let missing: Vec<&str> = lvs_crds::condition::Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .filter(|word| !explained(word))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/troubleshooting.md has no row for {missing:?}"
    );
}
