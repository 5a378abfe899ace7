//! What became of every line of the files that were read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What becomes of a keyword or of a line, from the least to the most that its user must look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    /// A field says the same, or it is always so.
    Translated,
    /// Something else does what it was for.
    Replaced,
    /// A field says something near to it.
    Changed,
    /// Nothing does it.
    NotOffered,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Translated,
        Self::Changed,
        Self::Replaced,
        Self::NotOffered,
    ];

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::Replaced => "replaced",
            Self::Changed => "changed",
            Self::NotOffered => "not offered",
        }
    }
}

/// Number of a line among all lines that were read.
pub type LineIndex = usize;

/// One line of a file.
#[derive(Clone, Debug)]
struct Line {
    file: usize,
    number: usize,
    text: String,
    notes: Vec<Note>,
}

/// What became of a part of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// What became of it.
    pub fate: Fate,
    /// Kind, name and field that say it now, or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Why, in words, or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// Every line that was read, with what became of it. A line of which nobody says anything is not offered.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    files: Vec<PathBuf>,
    lines: Vec<Line>,
    /// What must be so for the objects to work, in words.
    pub requirements: Vec<String>,
}

impl Ledger {
    /// Takes up the lines of a file; their numbers come one after the other.
    pub fn add_file(&mut self, path: &Path, text: &str) -> std::ops::Range<LineIndex> {
        let first = self.lines.len();
        let file = self.files.len();
        self.files.push(path.to_owned());
        self.lines
            .extend(text.lines().enumerate().map(|(index, line)| Line {
                file,
                number: index + 1,
                text: line.to_owned(),
                notes: Vec::new(),
            }));
        first..self.lines.len()
    }

    /// Text of a line.
    pub fn text(&self, line: LineIndex) -> &str {
        self.lines.get(line).map_or("", |line| line.text.as_str())
    }

    /// Number of a line in its file.
    pub fn number(&self, line: LineIndex) -> usize {
        self.lines.get(line).map_or(0, |line| line.number)
    }

    /// A number that was read from a part of a line and perhaps kept within its range: says what became of it, and gives it.
    pub fn kept(&mut self, line: LineIndex, text: &str, found: Option<(u32, bool)>) -> Option<u32> {
        match found {
            Some((value, true)) => {
                let words = format!("{value} instead of {text}");
                self.note(line, Fate::Changed, "", words);
            }
            Some((_, false)) => {}
            None => {
                let words = format!("{text:?} is no number");
                self.note(line, Fate::NotOffered, "", words);
            }
        }
        found.map(|(value, _)| value)
    }

    /// Says what became of a part of a line; what was said already is not said twice.
    pub fn note(
        &mut self,
        line: LineIndex,
        fate: Fate,
        field: impl Into<String>,
        text: impl Into<String>,
    ) {
        let note = Note {
            fate,
            field: field.into(),
            text: text.into(),
        };
        if let Some(line) = self.lines.get_mut(line)
            && !line.notes.contains(&note)
        {
            line.notes.push(note);
        }
    }

    /// Keeps a password of a line out of the report: its last occurrence is written as `…`.
    pub fn hide(&mut self, line: LineIndex, password: &str) {
        if let Some(line) = self.lines.get_mut(line)
            && !password.is_empty()
            && let Some(at) = line.text.rfind(password)
        {
            line.text.replace_range(at..at + password.len(), "…");
        }
    }

    /// A check of a VirtualService logs in.
    pub fn credentials(&mut self, namespace: &str, service: &str, secret: bool) {
        let keys = if secret {
            ".username, .password and .secret"
        } else {
            ".username and .password"
        };
        self.require(format!("the Secret of the chart's agent.healthCheckCredentials has the keys {namespace}.{service}{keys}"));
    }

    /// Something that must be so for the objects to work.
    pub fn require(&mut self, text: String) {
        if !self.requirements.contains(&text) {
            self.requirements.push(text);
        }
    }

    /// The report, without blank lines and comments.
    pub fn report(self, comment: &[char]) -> Report {
        let mut files: Vec<FileReport> = self
            .files
            .into_iter()
            .map(|path| FileReport {
                path: path.display().to_string(),
                lines: Vec::new(),
            })
            .collect();
        for line in self.lines {
            let text = line.text.trim();
            if text.is_empty() || text.starts_with(comment) {
                continue;
            }
            let mut notes = line.notes;
            if notes.is_empty() {
                notes.push(Note {
                    fate: Fate::NotOffered,
                    field: String::new(),
                    text: "not understood".to_owned(),
                });
            }
            let fate = notes
                .iter()
                .map(|note| note.fate)
                .max()
                .unwrap_or(Fate::NotOffered);
            if let Some(file) = files.get_mut(line.file) {
                file.lines.push(LineReport {
                    number: line.number,
                    text: text.to_owned(),
                    fate,
                    notes,
                });
            }
        }
        Report {
            files,
            requirements: self.requirements,
        }
    }
}

/// What became of every line, blank lines and comments aside.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The files in the order in which they were read, included ones after those that include them.
    pub files: Vec<FileReport>,
    /// What must be so for the objects to work, in words.
    pub requirements: Vec<String>,
}

/// The lines of one file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileReport {
    /// Its path as it was opened.
    pub path: String,
    /// Its lines, from first to last.
    pub lines: Vec<LineReport>,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LineReport {
    /// Number, from 1.
    pub number: usize,
    /// Text without white space around it.
    pub text: String,
    /// The most serious fate of its parts.
    pub fate: Fate,
    /// What became of its parts, one at least.
    pub notes: Vec<Note>,
}

impl Report {
    /// Lines with this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.lines().filter(|line| line.fate == fate).count()
    }

    /// All lines of all files.
    pub fn lines(&self) -> impl Iterator<Item = &LineReport> {
        self.files.iter().flat_map(|file| &file.lines)
    }

    /// As text: one line for each line of the files, what is required, and a sum.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            for line in &file.lines {
                let notes: Vec<String> = line
                    .notes
                    .iter()
                    .map(note_text)
                    .filter(|note| !note.is_empty())
                    .collect();
                let separator = if notes.is_empty() { "" } else { ": " };
                // Writing to a string does not fail.
                let _ = writeln!(
                    text,
                    "{}:{}: {}: {}{separator}{}",
                    file.path,
                    line.number,
                    line.fate.as_str(),
                    line.text,
                    notes.join("; ")
                );
            }
        }
        for requirement in &self.requirements {
            let _ = writeln!(text, "required: {requirement}");
        }
        let counts: Vec<String> = Fate::ALL
            .into_iter()
            .map(|fate| format!("{} {}", self.count(fate), fate.as_str()))
            .collect();
        let _ = writeln!(
            text,
            "{} lines: {}",
            self.lines().count(),
            counts.join(", ")
        );
        text
    }
}

fn note_text(note: &Note) -> String {
    match (note.field.as_str(), note.text.as_str()) {
        (field, "") => field.to_owned(),
        ("", text) => text.to_owned(),
        (field, text) => format!("{field}: {text}"),
    }
}
