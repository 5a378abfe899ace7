//! Regular expressions of checks: compiled once for many real servers and many questions, and searched for in what comes,
//! byte by byte, without keeping it.
//!
//! Whoever may write a VirtualService may write an expression that costs a general engine seconds for a body of a MiB, and
//! all questions share few threads. So the one engine here is a deterministic automaton that is built while it runs, each byte
//! a step: 3 ms for a MiB. One that would have to be built anew too often gives up, after some 40 ms.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regex_automata::Input;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::hybrid::{BuildError, LazyStateID};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

use super::quoted;
use crate::limits::{AUTOMATON_BYTES, AUTOMATON_REBUILDS, PATTERN_BYTES, PATTERNS};

/// Of all checks of this process.
static PATTERNS_IN_USE: Patterns = Patterns::new();

/// A search for a regular expression in bytes that come piece by piece.
pub struct PatternSearch {
    text: String,
    pattern: Arc<DFA>,
    automaton: Cache,
    state: LazyStateID,
}

/// What is known of a search before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It matches, whatever comes.
    Matches,
    /// It does not match, whatever comes.
    Never,
    /// What comes decides.
    Open,
}

impl PatternSearch {
    /// A search that has seen nothing. An error is why `text` cannot be searched for, in words.
    pub fn new(text: &str) -> Result<Self, String> {
        let pattern = PATTERNS_IN_USE.compile(text)?;
        let mut automaton = pattern.create_cache();
        let begin = pattern.start_state_forward(&mut automaton, &Input::new(""));
        let state = begin.map_err(|_| too_costly(text))?;
        Ok(Self {
            text: text.to_owned(),
            pattern,
            automaton,
            state,
        })
    }

    /// Looks at the next bytes. An error is that this costs too much, in words.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Progress, String> {
        for byte in bytes {
            let next = self
                .pattern
                .next_state(&mut self.automaton, self.state, *byte);
            self.state = next.map_err(|_| too_costly(&self.text))?;
            if self.state.is_match() {
                return Ok(Progress::Matches);
            }
            if self.state.is_dead() {
                return Ok(Progress::Never);
            }
        }
        Ok(Progress::Open)
    }

    /// Whether it matches if nothing more comes.
    pub fn end(mut self) -> Result<bool, String> {
        let end = self.pattern.next_eoi_state(&mut self.automaton, self.state);
        end.map(|state| state.is_match())
            .map_err(|_| too_costly(&self.text))
    }
}

fn too_costly(text: &str) -> String {
    let text = quoted(text);
    format!("search for {text} given up, as it costs too much: repeat less in it")
}

/// What was compiled before, by its text; at most [`PATTERNS`].
struct Patterns(Mutex<BTreeMap<String, Arc<DFA>>>);

impl Patterns {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn compile(&self, text: &str) -> Result<Arc<DFA>, String> {
        if let Some(pattern) = self.lock().get(text) {
            return Ok(Arc::clone(pattern));
        }
        // Bytes and ASCII suffice most of the time, and make \w and \b mean what they do in RE2. Other classes of characters,
        // such as [äöü] or \p{Greek}, need Unicode.
        let pattern = build(text, false).or_else(|_| build(text, true))?;
        let pattern = Arc::new(pattern);
        let mut known = self.lock();
        if known.len() >= PATTERNS {
            // Those in use are back after one question each.
            known.clear();
        }
        known.insert(text.to_owned(), Arc::clone(&pattern));
        Ok(pattern)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<DFA>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(text: &str, unicode: bool) -> Result<DFA, String> {
    let automaton = DFA::config()
        .cache_capacity(AUTOMATON_BYTES)
        .minimum_cache_clear_count(Some(AUTOMATON_REBUILDS));
    let program = thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(PATTERN_BYTES));
    DFA::builder()
        .configure(automaton)
        .syntax(syntax::Config::new().unicode(unicode).utf8(false))
        .thompson(program)
        .build(text)
        .map_err(|error| refusal(text, &error))
}

fn refusal(text: &str, error: &BuildError) -> String {
    let text = quoted(text);
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let program = cause.downcast_ref::<thompson::BuildError>();
    if program.is_some_and(|error| error.size_limit().is_some()) {
        return format!("regular expression {text} is too large: repeat less in it");
    }
    // The last line of several says what is wrong; the others draw where.
    let why = cause.to_string();
    let why = why.lines().last().unwrap_or_default();
    let why = why.trim_start_matches("error: ");
    format!("{text} cannot be used as a regular expression: {why}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Whether it matches in these pieces, one after another.
    fn matches(text: &str, pieces: &[&str]) -> Result<bool, String> {
        let mut search = PatternSearch::new(text)?;
        for piece in pieces {
            match search.take(piece.as_bytes())? {
                Progress::Matches => return Ok(true),
                Progress::Never => return Ok(false),
                Progress::Open => {}
            }
        }
        search.end()
    }

    #[test]
    fn a_match_is_found_somewhere_and_across_pieces() {
        for (text, pieces, wanted) in [
            ("Server", &["my Server is up"][..], true),
            ("Server", &["my Ser", "", "ver"], true),
            ("Server", &["my Ser", "vant"], false),
            ("^HTTP is (?i:up|fine)$", &["HTTP is ", "FINE"], true),
            ("^HTTP is (?i:up|fine)$", &["HTTP is up!"], false),
            ("^HTTP", &["no HTTP"], false),
            ("(?m)^ready$", &["not\nready\nyet"], true),
            (
                r#""status"\s*:\s*"(up|ok)""#,
                &["{\"status\": ", "\"ok\"}"],
                true,
            ),
            (r"\bready\b", &["schon ready für"], true),
            (r"\bready\b", &["alreadyé"], false),
            (r"\d+[.]\d+", &["version 12.", "3"], true),
            ("(?s)<html>.*</html>", &["<html>\nä", "\n</html>"], true),
            ("Größe", &["Gr\u{f6}", "ße"], true),
            ("[äöü]", &["ö"], true),
            (r"^\p{Greek}+$", &["αβγ"], true),
            (r"^\p{Greek}+$", &["abc"], false),
            ("x*", &[], true),
            ("x", &[], false),
        ] {
            assert_eq!(matches(text, pieces), Ok(wanted), "{text} in {pieces:?}");
        }
    }

    #[test]
    fn what_comes_is_not_waited_for_once_it_does_not_matter() {
        let mut search = PatternSearch::new("^(good|fine)").unwrap();
        assert_eq!(search.take(b"fin"), Ok(Progress::Open));
        assert_eq!(search.take(b"ished"), Ok(Progress::Never));
        let mut search = PatternSearch::new("^(good|fine)").unwrap();
        assert_eq!(search.take(b"good!"), Ok(Progress::Matches));
    }

    #[test]
    fn the_words_of_a_refusal_say_what_is_wrong() {
        let told = ["(", r"a(?=b)", r"(\w{1000}){1000}"].map(|text| matches(text, &[]));
        assert_eq!(
            told.map(Result::unwrap_err),
            [
                r#""(" cannot be used as a regular expression: unclosed group"#,
                r#""a(?=b)" cannot be used as a regular expression: look-around, including look-ahead and look-behind, is not supported"#,
                r#"regular expression "(\\w{1000}){1000}" is too large: repeat less in it"#,
            ]
        );
    }

    #[test]
    fn a_search_that_costs_too_much_is_given_up() {
        // As many states as there are ways to have the last 400 digits, in digits that follow no rule.
        let text = "1[01]{400}Q";
        let mut random: u32 = 1;
        let digits: String = std::iter::repeat_with(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random >> 31 == 0 { '0' } else { '1' }
        })
        .take(1 << 20)
        .collect();
        let why = matches(text, &[&digits]).unwrap_err();
        assert_eq!(
            why,
            format!("search for {text:?} given up, as it costs too much: repeat less in it")
        );
    }

    #[test]
    fn a_pattern_is_compiled_once_for_all_who_ask() {
        let patterns = Patterns::new();
        let first = patterns.compile("kept (for|by) all").unwrap();
        let second = patterns.compile("kept (for|by) all").unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn the_store_of_patterns_is_bounded() {
        let patterns = Patterns::new();
        let mut most = 0;
        for number in 0..=PATTERNS {
            patterns.compile(&format!("pattern {number}")).unwrap();
            most = most.max(patterns.lock().len());
        }
        assert_eq!(most, PATTERNS);
    }
}
