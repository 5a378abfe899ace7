//! The reference of the API as a document, from the definitions that users install.

use std::fmt::Write;

use serde_json::Value;

const HEAD: &str = "# Reference of the API\n\n\
    Generated from `crds/src` by `make generate`; do not edit. The same texts: `kubectl explain virtualservices.lvs.dev.spec.forwarding`. Fields in \
    **bold** are required. A list is written `[]`, an object with keys of the user's choice `{}`.\n";

/// Kinds that people write; NodePlans are the controller's own.
const KINDS: [&str; 3] = ["virtualservices", "realservers", "virtualrouters"];

/// The document in Markdown: each kind that people write with its fields, what they may hold, and the rules among them.
pub fn reference(definitions: &[(&str, Value)]) -> String {
    let mut text = HEAD.to_owned();
    for plural in KINDS {
        let definition = definitions.iter().find(|(name, _)| *name == plural);
        if let Some((_, definition)) = definition {
            write_kind(&mut text, definition);
        }
    }
    text
}

fn write_kind(text: &mut String, definition: &Value) {
    let names = &definition["spec"]["names"];
    let version = &definition["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let (group, kind) = (string(&definition["spec"]["group"]), string(&names["kind"]));
    let short: Vec<&str> = names["shortNames"]
        .as_array()
        .into_iter()
        .flatten()
        .map(string)
        .collect();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "\n## {kind}\n\n`apiVersion: {group}/{}`, {}, `kubectl get {}` (short: {}). {}",
        string(&version["name"]),
        string(&definition["spec"]["scope"]).to_lowercase(),
        string(&names["plural"]),
        short.join(", "),
        string(&schema["description"]),
    );
    for part in ["spec", "status"] {
        let mut table = Table::default();
        table.walk(part, &schema["properties"][part]);
        if table.rows.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "\n### {kind}.{part}\n\n| field | holds | meaning |\n|---|---|---|\n{}",
            table.rows.join("\n")
        );
        if !table.rules.is_empty() {
            let _ = writeln!(
                text,
                "\nRules; each is told in these words when it is broken:\n\n{}",
                table.rules.join("\n")
            );
        }
    }
}

/// Fields and rules of a schema and of all below it.
#[derive(Default)]
struct Table {
    rows: Vec<String>,
    rules: Vec<String>,
}

impl Table {
    fn walk(&mut self, path: &str, schema: &Value) {
        self.note_rules(path, schema);
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .map(string)
            .collect();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let (path, inner) = entered(path, property);
            // The first step is the heading.
            let shown = path.split_once('.').map_or(&*path, |(_, rest)| rest);
            let shown = if required.contains(&&**name) {
                format!("**`{shown}`**")
            } else {
                format!("`{shown}`")
            };
            let meaning = [property, inner]
                .map(|schema| string(&schema["description"]))
                .into_iter()
                .find(|meaning| !meaning.is_empty())
                .unwrap_or_default();
            self.rows.push(format!(
                "| {shown} | {} | {} |",
                cell(&holds(property, inner)),
                cell(meaning)
            ));
            if !std::ptr::eq(inner, property) {
                self.note_rules(&path, property);
            }
            self.walk(&path, inner);
        }
    }

    fn note_rules(&mut self, path: &str, schema: &Value) {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let message = cell(string(&rule["message"]));
            let line = format!("- `{path}`: {message}");
            if !message.is_empty() && !self.rules.contains(&line) {
                self.rules.push(line);
            }
        }
    }
}

/// Into the items of a list or the values of a map, however deep.
fn entered(path: String, schema: &Value) -> (String, &Value) {
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            return entered(path + mark, inner);
        }
    }
    (path, schema)
}

/// What a field may hold, in few words; `inner` is what its list or map is of.
fn holds(schema: &Value, inner: &Value) -> String {
    let mut words = Vec::new();
    if let Some(values) = inner["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .map(|value| format!("`{}`", string(value)))
            .collect();
        words.push(values.join(", "));
    } else {
        let type_ = inner["type"].as_str();
        let type_ = type_.unwrap_or(if inner["x-kubernetes-int-or-string"] == true {
            "integer or string"
        } else {
            "anything"
        });
        let type_ = match inner["format"].as_str() {
            Some("date-time") => "time",
            _ => type_,
        };
        words.push(type_.to_owned() + &range(inner, "minimum", "maximum", ""));
    }
    let bounds = [
        range(inner, "minLength", "maxLength", " characters"),
        if std::ptr::eq(schema, inner) {
            String::new()
        } else {
            range(schema, "minItems", "maxItems", " items")
                + &range(schema, "minProperties", "maxProperties", " keys")
        },
    ];
    words.extend(bounds.into_iter().map(|bound| bound.trim().to_owned()));
    if let Some(default) = schema.get("default") {
        words.push(format!("default `{}`", shown(default)));
    }
    words.retain(|word| !word.is_empty());
    words.join("; ")
}

fn range(schema: &Value, least: &str, most: &str, unit: &str) -> String {
    match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) if least == most => format!(" {most}{unit}"),
        (Some(least), Some(most)) => format!(" {least}..{most}{unit}"),
        (Some(least), None) => format!(" {least} or more{unit}"),
        (None, Some(most)) => format!(" up to {most}{unit}"),
        (None, None) => String::new(),
    }
}

fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// How many fields a schema has, with all below it.
#[cfg(test)]
fn count(schema: &Value) -> usize {
    if !schema.is_object() {
        return 0;
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    let own: usize = properties.map(|(_, property)| 1 + count(property)).sum();
    let inner = ["items", "additionalProperties"].map(|key| count(&schema[key]));
    own + inner.into_iter().sum::<usize>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::definitions;

    #[test]
    fn every_field_has_its_row_and_its_meaning() {
        let definitions = definitions().unwrap();
        let text = reference(&definitions);
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| `") || line.starts_with("| **`"))
            .collect();
        let fields: usize = definitions
            .iter()
            .filter(|(plural, _)| KINDS.contains(plural))
            .map(|(_, definition)| {
                let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
                ["spec", "status"]
                    .map(|part| count(&schema["properties"][part]))
                    .into_iter()
                    .sum::<usize>()
            })
            .sum();
        assert_eq!(rows.len(), fields);
        let bare: Vec<&&str> = rows.iter().filter(|row| row.ends_with("|  |")).collect();
        assert!(bare.is_empty(), "{bare:#?}");
    }
}
