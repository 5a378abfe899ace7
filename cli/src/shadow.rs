//! `kubectl lvs import --shadow`: the tables of a director that is at work, compared with what ours would be. Nothing is
//! applied, and no kernel is touched: theirs come as text.

pub mod comparison;
pub mod ours;
pub mod saved;

use std::io::{Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::arguments::Output;
use crate::kubectl::Kubectl;
use crate::live::table::Paint;
use crate::plan;
use comparison::{Comparison, compare};

/// Exit status when tables differ.
const DIFFERENT: u8 = 2;
/// Exit status when it cannot be told.
const FAILED: u8 = 3;

/// What our tables are made from.
pub enum From<'a> {
    /// Objects that an import made, and the namespace that they are in.
    Import(&'a [Value], &'a str),
    /// The objects of the cluster.
    Cluster(&'a Kubectl),
}

/// Compares and tells. 0: equal; 2: different; 3: it cannot be told.
pub fn run(from: &From<'_>, table: &Path, output: Option<Output>) -> ExitCode {
    let told = shadow(from, table).and_then(|comparison| {
        let text = render(&comparison, output)?;
        let written = std::io::stdout().write_all(text.as_bytes());
        written.map_err(|error| format!("write to standard output: {error}"))?;
        Ok(comparison)
    });
    match told {
        Ok(comparison) if comparison.is_equal => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DIFFERENT),
        Err(error) => failed(&error),
    }
}

/// Says why it cannot be told.
pub fn failed(error: &str) -> ExitCode {
    // Nobody is there to be told that it could not be told.
    let _ = writeln!(std::io::stderr(), "kubectl lvs import --shadow: {error}");
    ExitCode::from(FAILED)
}

fn shadow(from: &From<'_>, table: &Path) -> Result<Comparison, String> {
    let live =
        saved::read(&text_of(table)?).map_err(|error| format!("{}: {error}", table.display()))?;
    let (ours, notes) = match from {
        From::Import(objects, namespace) => (ours::of_import(objects, namespace)?, Vec::new()),
        From::Cluster(kubectl) => {
            let (cluster, notes) = plan::cluster(kubectl)?;
            (ours::of_cluster(&cluster)?, notes)
        }
    };
    let mut comparison = compare(&live, &ours);
    comparison.notes.splice(0..0, notes);
    Ok(comparison)
}

fn text_of(path: &Path) -> Result<String, String> {
    if path != Path::new("-") {
        return crate::import::read(path);
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| format!("read standard input: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn render(comparison: &Comparison, output: Option<Output>) -> Result<String, String> {
    let written = |error: &dyn std::fmt::Display| format!("write the comparison: {error}");
    match output {
        None => Ok(comparison.text(Paint::default())),
        Some(Output::Json) => serde_json::to_string_pretty(comparison)
            .map(|text| format!("{text}\n"))
            .map_err(|error| written(&error)),
        Some(Output::Yaml) => serde_saphyr::to_string(comparison).map_err(|error| written(&error)),
    }
}
