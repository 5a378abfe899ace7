//! The table of accepted and refused objects in crds/tests/cases, one file per kind.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Names of the files and of the plural names they are about.
pub const KINDS: [(&str, &str); 4] = [
    ("virtual_service", "virtualservices"),
    ("real_server", "realservers"),
    ("virtual_router", "virtualrouters"),
    ("node_plan", "nodeplans"),
];

/// Label of every object of the table.
pub const LABEL: &str = "lvs.dev/test=crds";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    base: Value,
    accepted: Vec<Row>,
    refused: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    patch: Value,
    before: Option<Value>,
    message: Option<String>,
}

/// One object, or one update of an object, and what must come of it.
pub struct Case {
    /// Kind and name, for failures.
    pub name: String,
    /// Plural name of the kind.
    pub plural: &'static str,
    /// Object that is stored before.
    pub before: Option<Value>,
    /// Object that is sent.
    pub object: Value,
    /// Words of the refusal; none if the object is accepted.
    pub message: Option<String>,
}

/// The directory of this crate.
pub fn crate_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every case, each object with a name of its own unless the case is about names.
pub fn cases() -> Vec<Case> {
    KINDS
        .into_iter()
        .flat_map(|(file, plural)| cases_of(file, plural))
        .collect()
}

fn cases_of(file: &str, plural: &'static str) -> Vec<Case> {
    let path: PathBuf = crate_directory().join(format!("tests/cases/{file}.yaml"));
    let text = std::fs::read_to_string(&path).expect("the table is readable");
    let File {
        base,
        accepted,
        refused,
    } = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        accepted.iter().all(|row| row.message.is_none()),
        "{file}: accepted with a message"
    );
    assert!(
        refused.iter().all(|row| row.message.is_some()),
        "{file}: refused without a message"
    );
    accepted
        .into_iter()
        .chain(refused)
        .enumerate()
        .map(|(index, row)| {
            let object = |patch: &Value| {
                let mut object = base.clone();
                let (key, value) = LABEL.split_once('=').unwrap_or((LABEL, ""));
                let metadata =
                    serde_json::json!({"name": format!("case-{index}"), "labels": {key: value}});
                merge(&mut object, &serde_json::json!({"metadata": metadata}));
                merge(&mut object, patch);
                object
            };
            Case {
                name: format!("{file}: {}", row.name),
                plural,
                before: row.before.as_ref().map(object),
                object: object(&row.patch),
                message: row.message,
            }
        })
        .collect()
}

/// JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
