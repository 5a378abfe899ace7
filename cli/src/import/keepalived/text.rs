//! From the text of keepalived.conf to words: includes, conditions, parameters, sequences, quotes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::files::Files;
use super::super::report::{Fate, Ledger, LineIndex};

/// Words of one line after everything was put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// The line that they come from.
    pub line: LineIndex,
    /// The words; `{` and `}` are words of their own.
    pub words: Vec<Word>,
}

/// A word, or a brace that opens or closes a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A word without its quotes.
    Text(String),
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Files within files.
const MOST_INCLUDES: usize = 16;
/// Parameters within parameters.
const MOST_DEPTH: usize = 16;
/// Lines that parameters and sequences may make.
const MOST_LINES: usize = 50_000;
/// Bytes of one line after parameters were put in.
const MOST_BYTES: usize = 65_536;

/// One physical line, or one line of a definition.
#[derive(Clone, Debug)]
struct Piece {
    line: LineIndex,
    text: String,
}

pub struct Reader<'a> {
    ledger: &'a mut Ledger,
    files: &'a dyn Files,
    config_id: &'a str,
    parameters: BTreeMap<String, Parameter>,
    output: Vec<Words>,
    /// Lines made so far.
    made: usize,
}

#[derive(Clone, Debug)]
struct Parameter {
    pieces: Vec<Piece>,
    used: bool,
}

/// Every line of a file and of those that it includes, as words.
pub fn read(
    ledger: &mut Ledger,
    files: &dyn Files,
    path: &Path,
    text: &str,
    config_id: &str,
) -> Vec<Words> {
    let mut reader = Reader {
        ledger,
        files,
        config_id,
        parameters: BTreeMap::new(),
        output: Vec::new(),
        made: 0,
    };
    reader.file(path, text, 0);
    for (name, parameter) in std::mem::take(&mut reader.parameters) {
        reader.end_parameter(&name, &parameter);
    }
    reader.output
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, text: &str, depth: usize) {
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        let lines = self.ledger.add_file(path, text);
        let mut lines = lines.into_iter();
        while let Some(line) = lines.next() {
            let text = without_comment(self.ledger.text(line));
            if let Some(pattern) = include(&text) {
                self.include(line, &folder, &pattern, depth);
                continue;
            }
            let mut pieces = vec![Piece { line, text }];
            // A definition goes on as long as its lines end with a backslash.
            if definition(&pieces[0].text).is_some() || is_conditional_definition(&pieces[0].text) {
                while pieces
                    .last()
                    .is_some_and(|piece| piece.text.trim_end().ends_with('\\'))
                {
                    let Some(next) = lines.next() else { break };
                    let text = without_comment(self.ledger.text(next));
                    pieces.push(Piece { line: next, text });
                }
                let count = pieces.len();
                for piece in &mut pieces {
                    let text = piece.text.trim_end();
                    piece.text = if count > 1 {
                        text.strip_suffix('\\').unwrap_or(text).to_owned()
                    } else {
                        text.to_owned()
                    };
                }
            }
            self.pieces(pieces, &folder, 0);
        }
    }

    fn end_parameter(&mut self, name: &str, parameter: &Parameter) {
        for piece in &parameter.pieces {
            if parameter.used {
                self.ledger.note(
                    piece.line,
                    Fate::Translated,
                    "",
                    format!("parameter {name}"),
                );
            } else {
                self.ledger.note(
                    piece.line,
                    Fate::NotOffered,
                    "",
                    format!("parameter {name} is not used"),
                );
            }
        }
    }

    fn include(&mut self, line: LineIndex, folder: &Path, pattern: &str, depth: usize) {
        if depth == MOST_INCLUDES {
            self.ledger.note(
                line,
                Fate::NotOffered,
                "",
                format!("files include each other more than {MOST_INCLUDES} deep"),
            );
            return;
        }
        match self.files.matching(folder, pattern) {
            Ok(files) if files.is_empty() => self.ledger.note(
                line,
                Fate::NotOffered,
                "",
                format!("no file matches {pattern}"),
            ),
            Ok(files) => {
                let count = files.len();
                let what = if count == 1 {
                    "1 file is".to_owned()
                } else {
                    format!("{count} files are")
                };
                self.ledger.note(
                    line,
                    Fate::Translated,
                    "",
                    format!("{what} read in its place"),
                );
                for (path, text) in files {
                    self.file(&path, &text, depth + 1);
                }
            }
            Err(error) => self.ledger.note(line, Fate::NotOffered, "", error),
        }
    }

    /// Lines that belong together: one line, or a definition.
    fn pieces(&mut self, mut pieces: Vec<Piece>, folder: &Path, depth: usize) {
        let Some(first) = pieces.first_mut() else {
            return;
        };
        let line = first.line;
        self.made += 1;
        if self.made > MOST_LINES {
            self.ledger.note(
                line,
                Fate::NotOffered,
                "",
                format!("parameters and sequences make more than {MOST_LINES} lines"),
            );
            return;
        }
        let text = self.substituted(first.text.trim_start(), folder);
        // A condition may stand before anything else, before a definition too.
        let text = match condition(&text) {
            Some((id, negated, rest)) => {
                if (id == self.config_id) == negated {
                    let why = if negated {
                        format!("not for configuration id {id}")
                    } else {
                        format!("for configuration id {id}, see --config-id")
                    };
                    for piece in pieces {
                        self.ledger
                            .note(piece.line, Fate::NotOffered, "", why.clone());
                    }
                    return;
                }
                rest.to_owned()
            }
            None => text,
        };
        if let Some((name, value)) = definition(&text) {
            value.clone_into(&mut first.text);
            let name = name.to_owned();
            if let Some(before) = self.parameters.insert(
                name.clone(),
                Parameter {
                    pieces,
                    used: false,
                },
            ) {
                self.end_parameter(&name, &before);
            }
            return;
        }
        if let Some((before, name, after)) = multiline(&text, &self.parameters) {
            self.ledger.note(
                line,
                Fate::Translated,
                "",
                format!("parameter {name} is put in"),
            );
            if depth == MOST_DEPTH {
                self.ledger.note(
                    line,
                    Fate::NotOffered,
                    "",
                    format!("parameters hold each other more than {MOST_DEPTH} deep"),
                );
                return;
            }
            let inner = match self.parameters.get_mut(&name) {
                Some(parameter) => {
                    parameter.used = true;
                    parameter.pieces.clone()
                }
                None => Vec::new(),
            };
            self.pieces(vec![Piece { line, text: before }], folder, depth + 1);
            self.definitions_within(inner, folder, depth + 1);
            self.pieces(vec![Piece { line, text: after }], folder, depth + 1);
            return;
        }
        if let Some(sequence) = Sequence::parse(&text) {
            self.ledger.note(
                line,
                Fate::Translated,
                "",
                format!("once for each {}", sequence.name),
            );
            for value in sequence.values() {
                if self.made > MOST_LINES || depth == MOST_DEPTH {
                    self.ledger.note(
                        line,
                        Fate::NotOffered,
                        "",
                        format!(
                            "more than {MOST_LINES} lines, or sequences more than {MOST_DEPTH} deep"
                        ),
                    );
                    return;
                }
                let rest = sequence
                    .rest
                    .replace(&format!("${{{}}}", sequence.name), &value);
                self.pieces(vec![Piece { line, text: rest }], folder, depth + 1);
            }
            return;
        }
        let words = words(&text);
        if !words.is_empty() {
            self.output.push(Words { line, words });
        }
    }

    /// Lines of a definition; one that defines something within ends where the line ends.
    fn definitions_within(&mut self, pieces: Vec<Piece>, folder: &Path, depth: usize) {
        for piece in pieces {
            self.pieces(vec![piece], folder, depth);
        }
    }

    /// Text with its parameters of one line put in. `$name` ends with white space, `${name}` with its brace.
    fn substituted(&mut self, text: &str, folder: &Path) -> String {
        let mut text = text.to_owned();
        for _ in 0..MOST_DEPTH {
            let Some(next) = self.substituted_once(&text, folder) else {
                break;
            };
            if next.len() > MOST_BYTES {
                break;
            }
            text = next;
        }
        text
    }

    fn substituted_once(&mut self, text: &str, folder: &Path) -> Option<String> {
        let mut output = String::new();
        let mut rest = text;
        let mut changed = false;
        let own_definition = definition(text).is_some();
        while let Some(at) = rest.find('$') {
            output.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let (name, length) = if let Some((name, _)) = after
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
            {
                (name, name.len() + 2)
            } else {
                let length = after
                    .bytes()
                    .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
                    .count();
                let ends = after[length..]
                    .chars()
                    .next()
                    .is_none_or(char::is_whitespace);
                if ends {
                    (&after[..length], length)
                } else {
                    ("", 0)
                }
            };
            let value = match name {
                "" => None,
                "_PWD" => Some(folder.display().to_string()),
                "_INSTANCE" => Some(self.config_id.to_owned()),
                "_HASH" => Some("\u{1}".to_owned()),
                "_BANG" => Some("\u{2}".to_owned()),
                name => match self.parameters.get_mut(name) {
                    Some(parameter) if parameter.pieces.len() == 1 && !own_definition => {
                        parameter.used = true;
                        parameter
                            .pieces
                            .first()
                            .map(|piece| piece.text.trim().to_owned())
                    }
                    Some(_) | None => None,
                },
            };
            if let Some(value) = value {
                output.push_str(&value);
                changed = true;
            } else {
                output.push('$');
                output.push_str(&after[..length]);
            }
            rest = &after[length..];
        }
        output.push_str(rest);
        changed.then_some(output)
    }
}

/// Text before the first `#` or `!` outside quotes.
fn without_comment(text: &str) -> String {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match (quote, character) {
            (_, '\\') => escaped = true,
            (None, '#' | '!') => return text[..at].to_owned(),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), other) if open == other => quote = None,
            _ => {}
        }
    }
    text.to_owned()
}

/// The pattern of an include.
fn include(text: &str) -> Option<String> {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace)?;
    let known = matches!(
        word,
        "include" | "includer" | "includem" | "includew" | "includeb" | "includea"
    );
    known
        .then(|| rest.trim().trim_matches(['"', '\'']).to_owned())
        .filter(|pattern| !pattern.is_empty())
}

/// `@id rest` or `@^id rest`.
fn condition(text: &str) -> Option<(&str, bool, &str)> {
    let text = text.strip_prefix('@')?;
    let (id, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match id.strip_prefix('^') {
        Some(id) => Some((id, true, rest.trim_start())),
        None => Some((id, false, rest.trim_start())),
    }
}

/// `$NAME=value`
fn definition(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.trim_start().strip_prefix('$')?.split_once('=')?;
    let first = name.bytes().next()?;
    let valid = !first.is_ascii_digit()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    valid.then_some((name, value))
}

fn is_conditional_definition(text: &str) -> bool {
    condition(text.trim_start()).is_some_and(|(_, _, rest)| definition(rest).is_some())
}

/// The first parameter of several lines that a line names: what stands before it, its name, what stands after it.
fn multiline(
    text: &str,
    parameters: &BTreeMap<String, Parameter>,
) -> Option<(String, String, String)> {
    let mut from = 0;
    while let Some(at) = text[from..].find('$').map(|at| at + from) {
        let after = &text[at + 1..];
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let (name, end) = if let Some((name, _)) = braced {
            (name, at + 1 + name.len() + 2)
        } else {
            let length = after
                .bytes()
                .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
                .count();
            (&after[..length], at + 1 + length)
        };
        if parameters
            .get(name)
            .is_some_and(|parameter| parameter.pieces.len() > 1)
        {
            return Some((
                text[..at].to_owned(),
                name.to_owned(),
                text[end..].to_owned(),
            ));
        }
        from = at + 1;
    }
    None
}

/// `~SEQ(name, start, step, end) rest`, `~SEQx(…)` in hexadecimal.
struct Sequence {
    name: String,
    start: i64,
    step: i64,
    end: i64,
    hexadecimal: bool,
    rest: String,
}

impl Sequence {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_start().strip_prefix("~SEQ")?;
        let (hexadecimal, text) = match text.strip_prefix('x') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (arguments, rest) = text.strip_prefix('(')?.split_once(')')?;
        let mut arguments = arguments.split(',').map(str::trim);
        let name = arguments.next().filter(|name| !name.is_empty())?.to_owned();
        let numbers: Option<Vec<i64>> = arguments.map(number).collect();
        let numbers = numbers?;
        let (start, step, end) = match numbers.as_slice() {
            [end] => (if *end > 0 { 1 } else { -1 }, None, *end),
            [start, end] => (*start, None, *end),
            [start, step, end] => (*start, Some(*step), *end),
            _ => return None,
        };
        let step = step.unwrap_or(if end >= start { 1 } else { -1 });
        (step != 0).then(|| Self {
            name,
            start,
            step,
            end,
            hexadecimal,
            rest: rest.to_owned(),
        })
    }

    fn values(&self) -> impl Iterator<Item = String> + '_ {
        let within = |value: &i64| {
            if self.step > 0 {
                *value <= self.end
            } else {
                *value >= self.end
            }
        };
        std::iter::successors(Some(self.start), |value| value.checked_add(self.step))
            .take_while(within)
            .map(|value| {
                if self.hexadecimal {
                    format!("{value:x}")
                } else {
                    value.to_string()
                }
            })
    }
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Words of a line. Quotes keep white space together; a brace outside quotes is a word, but not as part of `${…}`.
pub fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut begun = false;
    let mut quote: Option<char> = None;
    let mut characters = text.chars().peekable();
    let mut in_parameter = false;
    let end = |words: &mut Vec<Word>, word: &mut String, begun: &mut bool| {
        if std::mem::take(begun) {
            words.push(Word::Text(std::mem::take(word)));
        }
    };
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), '\\') => {
                if let Some(next) = characters.next() {
                    // What is escaped for a regular expression keeps its backslash.
                    if !matches!(next, '"' | '\'' | '\\') {
                        word.push('\\');
                    }
                    word.push(next);
                }
            }
            (Some(_), other) => word.push(other),
            (None, '"' | '\'') => {
                quote = Some(character);
                begun = true;
            }
            (None, '{') if word.ends_with('$') => {
                in_parameter = true;
                word.push('{');
            }
            (None, '}') if in_parameter => {
                in_parameter = false;
                word.push('}');
            }
            (None, '{' | '}') => {
                end(&mut words, &mut word, &mut begun);
                words.push(if character == '{' {
                    Word::Open
                } else {
                    Word::Close
                });
            }
            (None, space) if space.is_whitespace() => end(&mut words, &mut word, &mut begun),
            (None, '\u{1}') => {
                word.push('#');
                begun = true;
            }
            (None, '\u{2}') => {
                word.push('!');
                begun = true;
            }
            (None, other) => {
                word.push(other);
                begun = true;
            }
        }
    }
    end(&mut words, &mut word, &mut begun);
    words
}
