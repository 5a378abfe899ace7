//! Objects against the definitions that the API server has, its rules in CEL aside.

use std::collections::BTreeSet;

use lvs_crds::manifest::definitions;
use lvs_crds::{RealServer, VirtualRouter, VirtualService};
use serde_json::Value;

/// Asserts that every object decodes, keeps to the schema of its kind, and has a name of its own.
pub fn objects_are_valid(objects: &[Value]) {
    let mut names = BTreeSet::new();
    for object in objects {
        let kind = object["kind"].as_str().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(names.insert((kind, name)), "{kind} {name} twice");
        assert!(is_subdomain(name), "{name} is no name of an object");
        for (key, _) in object["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten()
        {
            let (_, label) = key.split_once('/').unwrap();
            assert!(
                label.len() <= 63 && is_subdomain(label),
                "{key} is no label"
            );
        }
        let plural = match kind {
            "VirtualService" => {
                serde_json::from_value::<VirtualService>(object.clone())
                    .map_or_else(|error| panic!("{error}: {object:#}"), drop);
                "virtualservices"
            }
            "RealServer" => {
                serde_json::from_value::<RealServer>(object.clone())
                    .map_or_else(|error| panic!("{error}: {object:#}"), drop);
                "realservers"
            }
            "VirtualRouter" => {
                assert!(name.len() <= 48, "{name}");
                serde_json::from_value::<VirtualRouter>(object.clone())
                    .map_or_else(|error| panic!("{error}: {object:#}"), drop);
                "virtualrouters"
            }
            other => panic!("kind {other}"),
        };
        SCHEMAS.with(|schemas| {
            let (_, schema) = schemas.iter().find(|(known, _)| *known == plural).unwrap();
            let mut path = format!("{kind} {name}: spec");
            valid(&schema["properties"]["spec"], &object["spec"], &mut path);
        });
    }
}

thread_local! {
    static SCHEMAS: Vec<(&'static str, Value)> = definitions()
        .unwrap()
        .into_iter()
        .map(|(plural, mut definition)| (plural, definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()))
        .collect();
}

fn is_subdomain(name: &str) -> bool {
    let end = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (1..=253).contains(&name.len())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
        })
        && end(name.bytes().next())
        && end(name.bytes().last())
}

fn valid(schema: &Value, value: &Value, path: &mut String) {
    if let Some(choices) = schema["enum"].as_array() {
        assert!(
            choices.contains(value),
            "{path}: {value} is none of {choices:?}"
        );
    }
    match value {
        Value::Object(object) => {
            assert_eq!(schema["type"], "object", "{path}");
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(
                    object.contains_key(required.as_str().unwrap()),
                    "{path}: {required} is missing"
                );
            }
            for (key, inner) in object {
                let known = &schema["properties"][key];
                let known = if known.is_null() {
                    &schema["additionalProperties"]
                } else {
                    known
                };
                assert!(!known.is_null(), "{path}: {key} is unknown");
                within(path, key, |path| valid(known, inner, path));
            }
        }
        Value::Array(items) => {
            assert_eq!(schema["type"], "array", "{path}");
            let count = items.len() as u64;
            assert!(
                schema["maxItems"].as_u64().is_none_or(|most| count <= most),
                "{path}: {count} items"
            );
            assert!(
                schema["minItems"]
                    .as_u64()
                    .is_none_or(|least| count >= least),
                "{path}: {count} items"
            );
            let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let identity = match schema["x-kubernetes-list-type"].as_str() {
                    Some("set") => Some(item.to_string()),
                    Some("map") => Some(
                        keys.iter()
                            .map(|key| {
                                let default = &schema["items"]["properties"][key]["default"];
                                if item[key].is_null() {
                                    default.to_string()
                                } else {
                                    item[key].to_string()
                                }
                            })
                            .collect::<Vec<_>>()
                            .join("/"),
                    ),
                    _ => None,
                };
                assert!(
                    identity.is_none_or(|identity| seen.insert(identity)),
                    "{path}: {item} twice"
                );
                within(path, &index.to_string(), |path| {
                    valid(&schema["items"], item, path);
                });
            }
        }
        Value::String(text) => {
            assert_eq!(schema["type"], "string", "{path}");
            let length = text.chars().count() as u64;
            assert!(
                schema["maxLength"]
                    .as_u64()
                    .is_none_or(|most| length <= most),
                "{path}: {length} characters"
            );
            assert!(
                schema["minLength"]
                    .as_u64()
                    .is_none_or(|least| length >= least),
                "{path}: {length} characters"
            );
        }
        Value::Number(number) => {
            assert_eq!(schema["type"], "integer", "{path}");
            let number = number.as_f64().unwrap();
            assert!(
                schema["maximum"].as_f64().is_none_or(|most| number <= most),
                "{path}: {number}"
            );
            assert!(
                schema["minimum"]
                    .as_f64()
                    .is_none_or(|least| number >= least),
                "{path}: {number}"
            );
        }
        Value::Bool(_) | Value::Null => panic!("{path}: {value}"),
    }
}

fn within(path: &mut String, key: &str, check: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('.');
    path.push_str(key);
    check(path);
    path.truncate(length);
}
