//! The table of keywords, and what is written from it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

use kubectl_lvs::dictionary;
use kubectl_lvs::import::Fate;
use kubectl_lvs::keyword::Tool;
use lvs_crds::manifest::definitions;
use serde_json::Value;

#[test]
fn the_dictionary_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dictionary.md");
    let wanted = dictionary::markdown();
    if std::env::var_os("LVS_WRITE_GOLDENS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == wanted,
        "docs/dictionary.md is stale: run `make generate`"
    );
}

#[test]
fn a_keyword_stands_once_in_each_place_and_says_what_becomes_of_it() {
    for tool in Tool::ALL {
        let mut seen = BTreeSet::new();
        for row in tool.rows() {
            for place in row.places() {
                for word in row.words() {
                    assert!(
                        !word.is_empty() && seen.insert((place, word)),
                        "{} {place} {word} twice",
                        tool.as_str()
                    );
                }
            }
            if row.fate != Fate::Translated {
                assert!(
                    !row.remark.is_empty() || !row.field.is_empty(),
                    "{}: {:?} says not why",
                    tool.as_str(),
                    row.words().collect::<Vec<_>>()
                );
            }
        }
    }
}

/// Every field that the table names is a field of the API.
#[test]
fn fields_of_the_table_exist() {
    let schemas: Vec<(String, Value)> = definitions()
        .unwrap()
        .into_iter()
        .map(|(_, mut definition)| {
            let kind = definition["spec"]["names"]["kind"]
                .as_str()
                .unwrap()
                .to_owned();
            (
                kind,
                definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take(),
            )
        })
        .collect();
    let mut checked = 0;
    for tool in Tool::ALL {
        for row in tool.rows() {
            let mut kind = "";
            let mut last: Vec<&str> = Vec::new();
            for word in row.field.split([' ', ',']).filter(|word| !word.is_empty()) {
                if word.starts_with(char::is_uppercase) {
                    kind = word;
                    assert!(schemas.iter().any(|(known, _)| known == kind), "{kind}");
                    continue;
                }
                // A further field may leave out what it has in common with the one before it.
                let parts: Vec<&str> = word.split('.').collect();
                let path: Vec<&str> = if parts[0] == "spec" {
                    parts
                } else {
                    let common = last
                        .iter()
                        .rposition(|part| part.ends_with("[]") || *part == "persistence")
                        .unwrap()
                        + 1;
                    last[..common].iter().copied().chain(parts).collect()
                };
                let mut schema = &schemas.iter().find(|(known, _)| known == kind).unwrap().1;
                for part in &path {
                    schema = &schema["properties"][part.trim_end_matches("[]")];
                    if part.ends_with("[]") {
                        schema = &schema["items"];
                    }
                    assert!(
                        !schema.is_null(),
                        "{} {:?}: {kind} has no {}",
                        tool.as_str(),
                        row.words().collect::<Vec<_>>(),
                        path.join(".")
                    );
                }
                last = path;
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "{checked} fields");
}
