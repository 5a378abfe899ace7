//! Where answers are written.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::Outcome;
use super::arguments::{Display, Structured};
use super::table::{Paint, Tone};
use crate::yaml;

/// Cursor to the first line, and nothing left on the screen.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Colours are for terminals, unless NO_COLOR (<https://no-color.org>) or a TERM of dumb says otherwise.
pub fn paint(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Paint {
    let refused = no_color.is_some_and(|value| !value.is_empty());
    Paint {
        on: is_terminal && !refused && term != Some(OsStr::new("dumb")),
    }
}

/// An answer: the value, what it looks like, and whether it is all.
#[derive(Clone, Debug)]
pub struct Answer {
    /// For programs.
    pub value: serde_json::Value,
    /// For people.
    pub text: String,
    /// What could not be asked, a line each; said on standard error beside values, and below a table.
    pub missing: Vec<String>,
}

impl Answer {
    /// A value and its table.
    ///
    /// # Errors
    /// When the value cannot be represented.
    pub fn new(value: &impl Serialize, text: String, missing: Vec<String>) -> anyhow::Result<Self> {
        Ok(Self {
            value: serde_json::to_value(value).context("represent the answer")?,
            text,
            missing,
        })
    }

    /// Whether it is all.
    pub const fn outcome(&self) -> Outcome {
        Outcome::of(self.missing.is_empty())
    }

    fn written(&self, output: Option<Structured>) -> anyhow::Result<String> {
        Ok(match output {
            None => self.text.clone(),
            Some(Structured::Json) => format!("{:#}\n", self.value),
            Some(Structured::Yaml) => yaml::stream(std::slice::from_ref(&self.value))?,
        })
    }
}

/// Gives an answer once, or again and again until it cannot be written.
///
/// # Errors
/// When there is no answer to the first question, or an answer cannot be written.
pub fn show(
    display: &Display,
    mut ask: impl FnMut(Paint) -> anyhow::Result<Answer>,
) -> anyhow::Result<Outcome> {
    let stdout = std::io::stdout();
    let is_terminal = stdout.is_terminal();
    let paint = paint(
        is_terminal && display.output.is_none(),
        std::env::var_os("NO_COLOR").as_deref(),
        std::env::var_os("TERM").as_deref(),
    );
    let mut is_first = true;
    loop {
        let mut text = String::new();
        let answer = match ask(paint) {
            Err(error) if is_first => return Err(error),
            Err(error) => {
                text.push_str(&paint.text(Tone::Bad, &format!("kubectl lvs: {error:#}")));
                text.push('\n');
                None
            }
            Ok(answer) => {
                text.push_str(&answer.written(display.output)?);
                Some(answer)
            }
        };
        if display.watch && is_terminal {
            text.insert_str(0, CLEAR);
        } else if !is_first {
            let apart = match display.output {
                Some(Structured::Yaml) => "---\n",
                Some(Structured::Json) => "",
                None => "\n",
            };
            text.insert_str(0, apart);
        }
        let mut out = stdout.lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .context("write to standard output")?;
        drop(out);
        if let Some(answer) = &answer {
            for line in &answer.missing {
                tell(line);
            }
        }
        if let (false, Some(answer)) = (display.watch, answer) {
            return Ok(answer.outcome());
        }
        is_first = false;
        std::thread::sleep(Duration::from_secs(display.interval));
    }
}

/// Says something to people beside the answer.
pub fn tell(line: &str) {
    // Nobody is there to be told that it could not be told.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let set = |text: &'static str| Some(OsStr::new(text));
        for (is_terminal, no_color, term, on) in [
            (true, None, set("xterm"), true),
            (true, set(""), None, true),
            (true, set("1"), set("xterm"), false),
            (true, None, set("dumb"), false),
            (false, None, set("xterm"), false),
        ] {
            assert_eq!(paint(is_terminal, no_color, term), Paint { on });
        }
    }
}
