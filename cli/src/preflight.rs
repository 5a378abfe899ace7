//! `kubectl lvs check`: what of a cluster and its nodes would keep the operator from working, before it is installed and
//! afterwards.

mod external_address;
mod judge;
mod kube_proxy;
mod look;
mod nodes;

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

pub use judge::judge;
pub use look::{KubeProxy, Seen, SeenAgent, look};

use crate::kubectl::Kubectl;

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArguments {
    /// Namespace in which the operator is, or is to be. Default: where it is found, else lvs-system.
    #[arg(long)]
    pub operator_namespace: Option<String>,
    /// Findings that are as they should be, too.
    #[arg(long)]
    pub all: bool,
    /// Format.
    #[arg(long, short, value_enum, default_value_t = CheckOutput::Text)]
    pub output: CheckOutput,
}

/// Format of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// For people.
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    /// It will not work.
    Problem,
    /// It may not work, or not always.
    Warning,
    /// Good to know.
    Note,
    /// As it should be.
    Ok,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "PROBLEM",
            Self::Warning => "WARNING",
            Self::Note => "NOTE",
            Self::Ok => "OK",
        }
    }
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at, such as kube-proxy or node lb-a.
    pub subject: String,
    /// How it is.
    pub what: String,
    /// Why that matters; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What to do; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cure: String,
}

impl Finding {
    fn ok(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            subject: subject.into(),
            what: what.into(),
            why: String::new(),
            cure: String::new(),
        }
    }

    fn new(
        level: Level,
        subject: impl Into<String>,
        what: impl Into<String>,
        why: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            level,
            subject: subject.into(),
            what: what.into(),
            why: why.into(),
            cure: cure.into(),
        }
    }
}

/// Nodes that are named of those that are all the same.
const SUBJECTS_MAXIMUM: usize = 8;

/// Findings for people, the worst first. What is the same of several is said once.
pub fn text(findings: &[Finding], all: bool) -> String {
    let mut text = String::new();
    let mut shown: Vec<(&Finding, Vec<&str>)> = Vec::new();
    for finding in findings {
        let said = |one: &Finding| {
            (one.level, &one.what, &one.why, &one.cure)
                == (finding.level, &finding.what, &finding.why, &finding.cure)
        };
        let known = shown.iter_mut().find(|(one, _)| said(one));
        match known {
            Some((_, subjects)) => subjects.push(&finding.subject),
            None if all || finding.level != Level::Ok => {
                shown.push((finding, vec![&finding.subject]));
            }
            None => {}
        }
    }
    shown.sort_by_key(|(finding, _)| finding.level);
    for (finding, mut subjects) in shown {
        let Finding {
            level,
            what,
            why,
            cure,
            ..
        } = finding;
        let hidden = subjects.len().saturating_sub(SUBJECTS_MAXIMUM);
        subjects.truncate(SUBJECTS_MAXIMUM);
        let subjects = subjects.join(", ");
        let hidden = if hidden > 0 {
            format!(" and {hidden} more")
        } else {
            String::new()
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{:<8} {subjects}{hidden}: {what}", level.as_str());
        for (head, words) in [("why", why), ("do", cure)] {
            if !words.is_empty() {
                let _ = writeln!(text, "         {head}: {words}");
            }
        }
    }
    let count = |level| findings.iter().filter(|one| one.level == level).count();
    let _ = writeln!(
        text,
        "{} problems, {} warnings, {} notes; {} as they should be",
        count(Level::Problem),
        count(Level::Warning),
        count(Level::Note),
        count(Level::Ok)
    );
    text
}

/// Does it. 0: no problem; 1: some, or it cannot be told.
pub fn run(kubectl: &Kubectl, arguments: &CheckArguments) -> ExitCode {
    let findings = judge(&look(kubectl, arguments.operator_namespace.as_deref()));
    let rendered = match arguments.output {
        CheckOutput::Text => Ok(text(&findings, arguments.all)),
        CheckOutput::Json => serde_json::to_string_pretty(&findings)
            .map(|text| format!("{text}\n"))
            .map_err(|error| error.to_string()),
        CheckOutput::Yaml => serde_saphyr::to_string(&findings).map_err(|error| error.to_string()),
    };
    let written = rendered.and_then(|text| {
        let written = std::io::stdout().write_all(text.as_bytes());
        written.map_err(|error| error.to_string())
    });
    if let Err(error) = written {
        // Nobody is there to be told that it could not be told.
        let _ = writeln!(std::io::stderr(), "kubectl lvs check: write: {error}");
        return ExitCode::FAILURE;
    }
    let is_bad = findings.iter().any(|one| one.level == Level::Problem);
    ExitCode::from(u8::from(is_bad))
}
