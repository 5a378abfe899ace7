//! CustomResourceDefinitions as the files users install: the derived schema, made fit for the
//! API server's structural schema rules and CEL cost limits.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::{NodePlan, RealServer, VirtualRouter, VirtualService};

/// One CustomResourceDefinition as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// File name, `<group>_<plural>.yaml`.
    pub file_name: String,
    /// Contents.
    pub yaml: String,
}

/// A CustomResourceDefinition could not be written as YAML.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The derived definition is no JSON object.
    #[error("turn the CustomResourceDefinition of {plural} into JSON: {source}")]
    Json {
        /// Plural name of the kind.
        plural: &'static str,
        /// Cause.
        source: serde_json::Error,
    },
    /// The definition could not be written as YAML.
    #[error("write the CustomResourceDefinition of {plural} as YAML: {message}")]
    Yaml {
        /// Plural name of the kind.
        plural: &'static str,
        /// Cause.
        message: String,
    },
}

const FILE_HEAD: &str = "# Generated from crds/src by `make generate`; do not edit.\n";

/// Every CustomResourceDefinition of the group as JSON, by plural name.
pub fn definitions() -> Result<Vec<(&'static str, Value)>, ManifestError> {
    [
        ("virtualservices", VirtualService::crd()),
        ("realservers", RealServer::crd()),
        ("virtualrouters", VirtualRouter::crd()),
        ("nodeplans", NodePlan::crd()),
    ]
    .into_iter()
    .map(|(plural, definition)| {
        let mut json = serde_json::to_value(definition)
            .map_err(|source| ManifestError::Json { plural, source })?;
        for version in json["spec"]["versions"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            let schema = &mut version["schema"]["openAPIV3Schema"];
            make_structural(schema);
            if plural == "nodeplans" {
                drop_rules_of_values(schema);
            }
        }
        Ok((plural, json))
    })
    .collect()
}

/// Every CustomResourceDefinition of the group as a file.
pub fn manifests() -> Result<Vec<Manifest>, ManifestError> {
    definitions()?
        .into_iter()
        .map(|(plural, definition)| {
            let body =
                serde_saphyr::to_string(&definition).map_err(|error| ManifestError::Yaml {
                    plural,
                    message: error.to_string(),
                })?;
            Ok(Manifest {
                file_name: format!("{}_{plural}.yaml", crate::GROUP),
                yaml: format!("{FILE_HEAD}{body}"),
            })
        })
        .collect()
}

/// Removes from NodePlan the rules of forwarding, tunnel, scheduler and persistence. They were
/// checked in the objects a plan is made from, and in lists of this length they would exceed the
/// API server's limit of CEL cost.
fn drop_rules_of_values(schema: &mut Value) {
    for list in [
        "director/properties/services",
        "realServer/properties/tunnels",
    ] {
        let items = format!("/properties/spec/properties/{list}/items/properties");
        if let Some(values) = schema.pointer_mut(&items) {
            drop_rules(values);
        }
    }
}

fn drop_rules(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("x-kubernetes-validations");
            object.values_mut().for_each(drop_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_rules),
        _ => {}
    }
}

/// Rewrites one schema and all below it.
fn make_structural(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    fix_integer(object);
    if object.get("format").is_some_and(|format| format == "ip") {
        // The API server knows no such format. 45 = the longest textual IPv6 address.
        object.remove("format");
        object.insert("maxLength".into(), json!(45));
    }
    // An unset field is absent; the API server drops an explicit null where null is not allowed.
    object.remove("nullable");
    join_lines(object);
    if is_label_selector(object) {
        bound_label_selector(object);
    } else if is_condition(object) {
        bound_condition(object);
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            make_structural(property);
            if name == "conditions" {
                key_conditions_by_type(property);
            }
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = object.get_mut(key) {
            make_structural(child);
        }
    }
}

/// Rust's integer formats are unknown to OpenAPI: the next wider signed format with exact bounds.
fn fix_integer(object: &mut Map<String, Value>) {
    let (format, lowest, highest) = match object.get("format").and_then(Value::as_str) {
        Some("uint8") => ("int32", 0, i64::from(u8::MAX)),
        Some("uint16") => ("int32", 0, i64::from(u16::MAX)),
        Some("uint32") => ("int64", 0, i64::from(u32::MAX)),
        Some("uint64" | "uint") => ("int64", 0, i64::MAX),
        _ => {
            for bound in ["minimum", "maximum"] {
                if let Some(value) = object.get(bound).and_then(whole_number) {
                    object.insert(bound.into(), json!(value));
                }
            }
            return;
        }
    };
    let minimum = object
        .get("minimum")
        .and_then(whole_number)
        .unwrap_or(lowest);
    let maximum = object
        .get("maximum")
        .and_then(whole_number)
        .unwrap_or(highest);
    object.insert("format".into(), json!(format));
    object.insert("minimum".into(), json!(minimum));
    object.insert("maximum".into(), json!(maximum));
}

/// A bound as a whole number. Bounds are literals in this crate's attributes, all below 2^53.
#[allow(clippy::cast_possible_truncation)]
fn whole_number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        value
            .as_f64()
            .filter(|float| float.fract() == 0.0)
            .map(|float| float as i64)
    })
}

/// Doc comments are wrapped in the source; `kubectl explain` wraps for itself.
fn join_lines(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text
            .split("\n\n")
            .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n\n");
    }
}

fn has_properties(object: &Map<String, Value>, names: &[&str]) -> bool {
    object
        .get("properties")
        .and_then(Value::as_object)
        .is_some_and(|properties| names.iter().all(|name| properties.contains_key(*name)))
}

fn is_label_selector(object: &Map<String, Value>) -> bool {
    has_properties(object, &["matchLabels", "matchExpressions"])
}

fn is_condition(object: &Map<String, Value>) -> bool {
    has_properties(
        object,
        &["type", "status", "reason", "message", "lastTransitionTime"],
    )
}

/// Bounds and rules that the API server applies to selectors of its own kinds, but not to ours.
fn bound_label_selector(object: &mut Map<String, Value>) {
    let description = object.get("description").cloned();
    let label_key =
        "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$";
    let label_value = "^([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?$";
    *object = Map::from_iter([
        ("type".to_owned(), json!("object")),
        ("x-kubernetes-map-type".to_owned(), json!("atomic")),
        (
            "properties".to_owned(),
            json!({
                "matchLabels": {
                    "description": "Labels an object must have, each with exactly this value.",
                    "type": "object",
                    "maxProperties": 16,
                    "additionalProperties": {"type": "string", "maxLength": 63},
                    "x-kubernetes-validations": [{
                        "rule": format!("self.all(key, size(key) <= 317 && key.matches('{label_key}') && self[key].matches('{label_value}'))"),
                        "message": "matchLabels must hold valid labels: keys are [prefix/]name, names and values are at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit",
                    }],
                },
                "matchExpressions": {
                    "description": "Requirements on labels; all must hold.",
                    "type": "array",
                    "maxItems": 16,
                    "x-kubernetes-list-type": "atomic",
                    "items": {
                        "type": "object",
                        "required": ["key", "operator"],
                        "properties": {
                            "key": {
                                "description": "Label key the requirement is about.",
                                "type": "string",
                                "maxLength": 317,
                                "x-kubernetes-validations": [{
                                    "rule": format!("self.matches('{label_key}')"),
                                    "message": "key must be a label key: [prefix/]name, where name is at most 63 letters, digits, '-', '_' or '.'",
                                }],
                            },
                            "operator": {
                                "description": "In or NotIn (with values), Exists or DoesNotExist (without).",
                                "type": "string",
                                "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            },
                            "values": {
                                "description": "Values for In and NotIn.",
                                "type": "array",
                                "maxItems": 16,
                                "x-kubernetes-list-type": "atomic",
                                "items": {"type": "string", "maxLength": 63},
                                "x-kubernetes-validations": [{
                                    "rule": format!("self.all(value, value.matches('{label_value}'))"),
                                    "message": "values must be label values: at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit",
                                }],
                            },
                        },
                        "x-kubernetes-validations": [{
                            "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                            "message": "values are required with operator In or NotIn and refused with Exists or DoesNotExist",
                        }],
                    },
                },
            }),
        ),
    ]);
    if let Some(description) = description {
        object.insert("description".into(), description);
    }
}

/// Bounds of `metav1.Condition`, from its kubebuilder markers.
fn bound_condition(object: &mut Map<String, Value>) {
    let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, maximum) in [("type", 316), ("reason", 1024), ("message", 32768)] {
        if let Some(property) = properties.get_mut(name).and_then(Value::as_object_mut) {
            property.insert("maxLength".into(), json!(maximum));
        }
    }
    if let Some(status) = properties.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("enum".into(), json!(["True", "False", "Unknown"]));
    }
}

fn key_conditions_by_type(property: &mut Value) {
    if let Some(object) = property.as_object_mut() {
        object.insert("x-kubernetes-list-type".into(), json!("map"));
        object.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
        object.insert("maxItems".into(), json!(8));
    }
}
