//! The table of keywords for people: docs/dictionary.md, and the answer to `explain-keyword`.

use std::fmt::Write as _;

use crate::keyword::{Row, Tool};

const HEAD: &str = "# From keepalived, ldirectord and ipvsadm to lvs-operator

Written by `make generate` from the table that `kubectl lvs import` goes by; do not edit. [import.md](import.md) has the command.
*translated*: the field says the same, or it is always so. *changed*: the field says something near to it. *replaced*: something else
does what it was for. *not offered*: nothing does it. `kubectl lvs explain-keyword keepalived:quorum` says one row.
";

/// docs/dictionary.md.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for tool in Tool::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\n## {}\n\n| in | keyword | becomes | here |\n|---|---|---|---|",
            tool.as_str()
        );
        for row in tool.rows() {
            let words: Vec<String> = row.words().map(|word| format!("`{word}`")).collect();
            let places: Vec<&str> = row.places().collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                places.join(", "),
                words.join(" "),
                row.fate.as_str(),
                here(row).replace('|', "\\|")
            );
        }
    }
    text
}

/// Field and remark of a row.
fn here(row: &Row) -> String {
    match (row.field, row.remark) {
        ("", remark) => remark.to_owned(),
        (field, "") => field.to_owned(),
        (field, remark) => format!("{field}: {remark}"),
    }
}

/// What becomes of a keyword, a line for each place in which it stands; nothing if no tool has it.
pub fn explain(keyword: &str) -> String {
    let (tool, word) = match keyword.split_once(':') {
        Some((tool, word)) => (Some(tool), word),
        None => (None, keyword),
    };
    let mut text = String::new();
    for known in Tool::ALL
        .into_iter()
        .filter(|known| tool.is_none_or(|tool| tool == known.as_str()))
    {
        for row in known
            .rows()
            .iter()
            .filter(|row| row.words().any(|known| known == word))
        {
            let places: Vec<&str> = row.places().collect();
            let here = here(row);
            let separator = if here.is_empty() { "" } else { ": " };
            let _ = writeln!(
                text,
                "{} {word} (in {}): {}{separator}{here}",
                known.as_str(),
                places.join(", "),
                row.fate.as_str()
            );
        }
    }
    text
}
