//! From words to directives and their blocks.

use super::super::report::{Fate, Ledger, LineIndex};
use super::text::{Word, Words};

/// A keyword with what follows it, and its block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directive {
    /// The line on which it stands.
    pub line: LineIndex,
    /// Keyword and arguments, at least one.
    pub words: Vec<String>,
    /// What is in its block; nothing if it has none.
    pub children: Vec<Directive>,
    /// Lines of the braces.
    pub braces: Vec<LineIndex>,
}

impl Directive {
    /// The keyword.
    pub fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// An argument, counted from 0; empty where there is none.
    pub fn argument(&self, index: usize) -> &str {
        self.words.get(index + 1).map_or("", String::as_str)
    }

    /// The arguments.
    pub fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// Says something of the directive, and of everything in it that it shares its fate.
    pub fn note_all(&self, ledger: &mut Ledger, fate: Fate, field: &str, text: &str) {
        ledger.note(self.line, fate, field, text);
        let of = self.of();
        self.note_inner(ledger, fate, &of);
    }

    fn note_inner(&self, ledger: &mut Ledger, fate: Fate, of: &str) {
        for child in &self.children {
            if child.line != self.line {
                ledger.note(child.line, fate, "", of);
            }
            child.note_inner(ledger, fate, of);
        }
        for brace in self.braces.iter().filter(|brace| **brace != self.line) {
            ledger.note(*brace, fate, "", of);
        }
    }

    /// `of` and its first words.
    fn of(&self) -> String {
        let words: Vec<&str> = self.words.iter().take(3).map(String::as_str).collect();
        format!("of {}", words.join(" "))
    }

    /// Says of the braces that they belong to it.
    pub fn note_braces(&self, ledger: &mut Ledger) {
        let of = self.of();
        for brace in self.braces.iter().filter(|brace| **brace != self.line) {
            ledger.note(*brace, Fate::Translated, "", of.as_str());
        }
    }
}

/// Blocks within blocks; keepalived itself has five.
const MOST_DEPTH: usize = 32;

/// Directives of the top level.
pub fn parse(ledger: &mut Ledger, input: &[Words]) -> Vec<Directive> {
    // The directives whose blocks are open, each with those of its block that are complete.
    let mut open: Vec<Directive> = vec![Directive::default()];
    // Blocks that are not looked at, as they are too deep.
    let mut ignored = 0_usize;
    for Words { line, words } in input {
        let mut current: Option<Directive> = None;
        for word in words {
            match word {
                Word::Text(_) if ignored > 0 => too_deep(ledger, *line),
                Word::Text(text) => match &mut current {
                    Some(directive) => directive.words.push(text.clone()),
                    None => {
                        current = Some(Directive {
                            line: *line,
                            words: vec![text.clone()],
                            ..Directive::default()
                        });
                    }
                },
                Word::Open if ignored > 0 || open.len() > MOST_DEPTH => {
                    if let (Some(directive), Some(block)) = (current.take(), open.last_mut()) {
                        block.children.push(directive);
                    }
                    ignored += 1;
                    too_deep(ledger, *line);
                }
                Word::Open => {
                    // A brace on a line of its own opens the block of the directive before it.
                    let before = || {
                        open.last_mut().and_then(|block| {
                            if block
                                .children
                                .last()
                                .is_some_and(|last| last.braces.is_empty())
                            {
                                block.children.pop()
                            } else {
                                None
                            }
                        })
                    };
                    if let Some(mut directive) = current.take().or_else(before) {
                        directive.braces.push(*line);
                        open.push(directive);
                    } else {
                        ledger.note(*line, Fate::NotOffered, "", "a block without a keyword");
                        open.push(Directive {
                            line: *line,
                            words: vec![String::new()],
                            braces: vec![*line],
                            ..Directive::default()
                        });
                    }
                }
                Word::Close => {
                    if let (Some(directive), Some(block)) = (current.take(), open.last_mut()) {
                        block.children.push(directive);
                    }
                    if ignored > 0 {
                        ignored -= 1;
                        too_deep(ledger, *line);
                    } else {
                        close(ledger, &mut open, Some(*line));
                    }
                }
            }
        }
        if let (Some(directive), Some(block)) = (current, open.last_mut()) {
            block.children.push(directive);
        }
    }
    while open.len() > 1 {
        close(ledger, &mut open, None);
    }
    open.pop().map(|top| top.children).unwrap_or_default()
}

fn close(ledger: &mut Ledger, open: &mut Vec<Directive>, line: Option<LineIndex>) {
    if open.len() < 2 {
        if let Some(line) = line {
            ledger.note(line, Fate::NotOffered, "", "no block ends here");
        }
        return;
    }
    if let Some(mut directive) = open.pop()
        && let Some(block) = open.last_mut()
    {
        directive.braces.extend(line);
        block.children.push(directive);
    }
}

fn too_deep(ledger: &mut Ledger, line: LineIndex) {
    ledger.note(
        line,
        Fate::NotOffered,
        "",
        format!("blocks are more than {MOST_DEPTH} deep"),
    );
}
