//! The rules of the schema against the table, without an API server, and the generated files
//! against the types.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use case::{Case, cases, crate_directory};
use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use lvs_crds::manifest::{definitions, manifests};
use lvs_crds::{NodePlan, RealServer, VirtualRouter, VirtualService};
use serde_json::Value;

/// Schemas by plural name, with their rules compiled.
fn schemas() -> &'static [(&'static str, Value, CompiledSchema)] {
    static SCHEMAS: OnceLock<Vec<(&'static str, Value, CompiledSchema)>> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        definitions()
            .unwrap()
            .into_iter()
            .map(|(plural, definition)| {
                let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
                let compiled = compile_schema(&schema);
                (plural, schema, compiled)
            })
            .collect()
    })
}

fn schema_of(plural: &str) -> (&'static Value, &'static CompiledSchema) {
    schemas()
        .iter()
        .find(|(name, ..)| *name == plural)
        .map_or_else(
            || panic!("no definition of {plural}"),
            |(_, schema, compiled)| (schema, compiled),
        )
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

/// What the rules say of an object.
fn refusals(case: &Case) -> Vec<String> {
    Validator::new()
        .validate_compiled(schema_of(case.plural).1, &case.object, case.before.as_ref())
        .err()
        .map(|errors| errors.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

/// The words of a refusal that come from a rule: those after the API server's own
/// `path: Invalid value: …: `.
fn rule_words(message: &str) -> &str {
    message
        .rsplit_once("\": ")
        .map_or(message, |(_, words)| words)
}

#[test]
fn accepted_objects_pass_every_rule() {
    for case in cases().iter().filter(|case| case.message.is_none()) {
        assert_eq!(refusals(case), Vec::<String>::new(), "{}", case.name);
    }
}

#[test]
fn accepted_objects_decode() {
    for case in cases().into_iter().filter(|case| case.message.is_none()) {
        let result = match case.plural {
            "virtualservices" => serde_json::from_value::<VirtualService>(case.object).map(drop),
            "realservers" => serde_json::from_value::<RealServer>(case.object).map(drop),
            "virtualrouters" => serde_json::from_value::<VirtualRouter>(case.object).map(drop),
            "nodeplans" => serde_json::from_value::<NodePlan>(case.object).map(drop),
            other => panic!("unknown kind {other}"),
        };
        result.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

#[test]
fn refused_objects_break_the_rule_they_are_about() {
    let mut checked = 0;
    for case in cases() {
        let Some(message) = case.message.as_deref().map(rule_words) else {
            continue;
        };
        let mut known = BTreeSet::new();
        rule_messages(schema_of(case.plural).0, &mut known);
        if !known.iter().any(|known| known.contains(message)) {
            continue; // Refused by structure (bounds, enums, list keys): tests/apiserver.rs.
        }
        let refusals = refusals(&case);
        assert!(
            refusals.iter().any(|refusal| refusal.contains(message)),
            "{}: expected \"{message}\", got {refusals:?}",
            case.name
        );
        checked += 1;
    }
    assert!(checked > 0, "the table holds no case about a rule");
}

#[test]
fn every_rule_has_a_refused_case_with_its_whole_message() {
    for (_, plural) in case::KINDS {
        let mut rules = BTreeSet::new();
        rule_messages(schema_of(plural).0, &mut rules);
        let messages: Vec<String> = cases()
            .into_iter()
            .filter(|case| case.plural == plural)
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
    for directory in ["generated", "../charts/lvs-operator/crds"] {
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
    for (plural, schema, _) in schemas() {
        check_bounds(schema, plural);
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
