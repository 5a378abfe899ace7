//! The table: the worst of all rounds of an event at a subject, beside what must be reached.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::measurement::{Figures, Span};
use super::record::Microseconds;

/// What must be reached; what is absent is not asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aim {
    /// At most this client gap.
    pub gap_seconds: Option<f64>,
    /// At most this time with two owners.
    pub both_seconds: Option<f64>,
    /// One owner again within this time.
    pub one_owner_seconds: Option<f64>,
    /// At most this many new connections lost.
    pub lost: Option<usize>,
    /// Every long-lived connection survives.
    pub all_held: bool,
    /// The address moves exactly this often.
    pub moves: Option<usize>,
    /// The old director does not write the address when it must be silent.
    pub no_forbidden_write: bool,
}

/// All rounds of one event at one subject.
#[derive(Clone, Debug)]
pub struct Row {
    /// Word of the event.
    pub event: &'static str,
    /// What happens.
    pub title: &'static str,
    /// Who.
    pub subject: String,
    /// Number of long-lived connections in each round.
    pub held: usize,
    /// The rounds that were measured.
    pub rounds: Vec<Figures>,
    /// What kept others from being measured.
    pub failures: Vec<String>,
    /// What must be reached; none for those that are only compared with.
    pub aim: Option<Aim>,
}

/// The worst of every figure.
#[derive(Clone, Debug, Default)]
struct Worst {
    gap: Span,
    lost: usize,
    held_alive: usize,
    both: Span,
    neither: Span,
    new_owner_after: Option<Microseconds>,
    one_owner_after: Option<Microseconds>,
    moves: (usize, usize),
    forbidden_writes: usize,
    late: Microseconds,
    write_median: Option<Microseconds>,
    write_longest: Option<Microseconds>,
    writes_failed: usize,
}

/// The greatest; none as soon as one of them has not come.
fn latest(all: impl Iterator<Item = Option<Microseconds>>) -> Option<Microseconds> {
    all.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn worst(rounds: &[Figures]) -> Worst {
    let mut writes: Vec<Microseconds> =
        rounds.iter().flat_map(|one| &one.writes).copied().collect();
    writes.sort_unstable();
    let span = |of: fn(&Figures) -> Span| -> Span {
        let longest = rounds.iter().map(of).max().unwrap_or_default();
        Span {
            open: rounds.iter().any(|one| of(one).open),
            ..longest
        }
    };
    let moves = rounds.iter().map(|one| one.moves);
    Worst {
        gap: span(|one| one.gap),
        lost: rounds
            .iter()
            .map(|one| one.lost.values().sum())
            .max()
            .unwrap_or(0),
        held_alive: rounds.iter().map(|one| one.held_alive).min().unwrap_or(0),
        both: span(|one| one.both),
        neither: span(|one| one.neither),
        new_owner_after: latest(rounds.iter().map(|one| one.new_owner_after)),
        one_owner_after: latest(rounds.iter().map(|one| one.one_owner_after)),
        moves: (moves.clone().min().unwrap_or(0), moves.max().unwrap_or(0)),
        forbidden_writes: rounds
            .iter()
            .map(|one| one.forbidden_writes)
            .max()
            .unwrap_or(0),
        late: rounds.iter().map(|one| one.late).max().unwrap_or(0),
        write_median: writes.get(writes.len() / 2).copied(),
        write_longest: writes.last().copied(),
        writes_failed: rounds.iter().map(|one| one.writes_failed).sum(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of minutes are exact in an f64"
)]
fn seconds(microseconds: Microseconds) -> f64 {
    microseconds as f64 / 1e6
}

fn of_span(span: Span) -> String {
    let more = if span.open { ">" } else { "" };
    format!("{more}{:.2}", seconds(span.microseconds))
}

fn of_time(time: Option<Microseconds>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.2}", seconds(time)))
}

fn span_json(span: Span) -> Value {
    json!({"seconds": seconds(span.microseconds), "open": span.open})
}

impl Aim {
    fn text(&self) -> String {
        let mut parts = Vec::new();
        if let Some(gap) = self.gap_seconds {
            parts.push(format!("gap ≤ {gap}"));
        }
        if let Some(both) = self.both_seconds {
            parts.push(format!("both ≤ {both}"));
        }
        if let Some(one) = self.one_owner_seconds {
            parts.push(format!("one owner ≤ {one}"));
        }
        if let Some(lost) = self.lost {
            parts.push(format!("lost ≤ {lost}"));
        }
        if self.all_held {
            parts.push("all held".to_owned());
        }
        match self.moves {
            Some(0) => parts.push("no move".to_owned()),
            Some(count) => parts.push(format!("moves = {count}")),
            None => {}
        }
        if self.no_forbidden_write {
            parts.push("no write after CONT".to_owned());
        }
        parts.join(", ")
    }

    /// What was missed.
    fn missed(&self, seen: &Worst, held: usize) -> Vec<&'static str> {
        let above = |aim: Option<f64>, span: Span| {
            aim.is_some_and(|aim| span.open || seconds(span.microseconds) > aim)
        };
        let one_late = self.one_owner_seconds.is_some_and(|aim| {
            seen.one_owner_after
                .is_none_or(|after| seconds(after) > aim)
        });
        [
            ("gap", above(self.gap_seconds, seen.gap)),
            ("both", above(self.both_seconds, seen.both)),
            ("one owner", one_late),
            ("lost", self.lost.is_some_and(|most| seen.lost > most)),
            ("held", self.all_held && seen.held_alive < held),
            (
                "moves",
                self.moves.is_some_and(|count| seen.moves != (count, count)),
            ),
            (
                "write after CONT",
                self.no_forbidden_write && seen.forbidden_writes > 0,
            ),
        ]
        .into_iter()
        .filter_map(|(name, missed)| missed.then_some(name))
        .collect()
    }
}

impl Row {
    /// Whether every aim was reached in every round; none where there is no aim.
    fn verdict(&self) -> Option<Vec<&'static str>> {
        let mut missed = self.aim?.missed(&worst(&self.rounds), self.held);
        if self.rounds.is_empty() || !self.failures.is_empty() {
            missed.push("rounds");
        }
        Some(missed)
    }

    fn cells(&self) -> [String; 14] {
        let seen = worst(&self.rounds);
        let moves = if seen.moves.0 == seen.moves.1 {
            seen.moves.0.to_string()
        } else {
            format!("{}–{}", seen.moves.0, seen.moves.1)
        };
        let milliseconds = |time: Option<Microseconds>| {
            time.map_or_else(
                || "-".to_owned(),
                |time| format!("{:.0}", seconds(time) * 1e3),
            )
        };
        let measured = !self.rounds.is_empty();
        let cell = |text: String| if measured { text } else { "-".to_owned() };
        [
            self.title.to_owned(),
            self.subject.clone(),
            if self.failures.is_empty() {
                self.rounds.len().to_string()
            } else {
                format!(
                    "{}/{}",
                    self.rounds.len(),
                    self.rounds.len() + self.failures.len()
                )
            },
            cell(of_span(seen.gap)),
            cell(seen.lost.to_string()),
            cell(format!("{}/{}", seen.held_alive, self.held)),
            cell(of_span(seen.both)),
            cell(of_span(seen.neither)),
            cell(of_time(seen.new_owner_after)),
            cell(moves),
            milliseconds(seen.write_median) + "/" + &milliseconds(seen.write_longest),
            cell(milliseconds(Some(seen.late))),
            self.aim.map_or_else(String::new, |aim| aim.text()),
            match self.verdict() {
                None => String::new(),
                Some(missed) if missed.is_empty() => "ok".to_owned(),
                Some(missed) => format!("miss: {}", missed.join(", ")),
            },
        ]
    }

    fn json(&self) -> Value {
        let seen = worst(&self.rounds);
        let sum = |of: fn(&Figures) -> &BTreeMap<String, usize>| {
            let mut all: BTreeMap<&str, usize> = BTreeMap::new();
            for (reason, count) in self.rounds.iter().flat_map(of) {
                *all.entry(reason).or_default() += count;
            }
            json!(all)
        };
        let verdict = self.verdict();
        json!({
            "event": self.event,
            "subject": self.subject,
            "rounds": self.rounds.len(),
            "failures": self.failures,
            "gap": span_json(seen.gap),
            "gaps_of_rounds_seconds": self.rounds.iter().map(|one| seconds(one.gap.microseconds)).collect::<Vec<_>>(),
            "lost_new": seen.lost,
            "lost_new_reasons": sum(|one| &one.lost),
            "held": self.held,
            "held_alive": seen.held_alive,
            "held_lost_reasons": sum(|one| &one.held_lost),
            "both_own": span_json(seen.both),
            "nobody_owns": span_json(seen.neither),
            "new_owner_after_seconds": seen.new_owner_after.map(seconds),
            "one_owner_after_seconds": seen.one_owner_after.map(seconds),
            "moves": [seen.moves.0, seen.moves.1],
            "writes_by_old_director_when_it_must_be_silent": seen.forbidden_writes,
            "write_seconds": {"median": seen.write_median.map(seconds), "worst": seen.write_longest.map(seconds), "failed": seen.writes_failed},
            "measuring_program_late_seconds": seconds(seen.late),
            "aim": self.aim.map(|aim| aim.text()),
            "reached": verdict.as_ref().map(Vec::is_empty),
            "missed": verdict,
        })
    }
}

const HEAD: [&str; 14] = [
    "event",
    "who",
    "rounds",
    "gap s",
    "lost",
    "held",
    "both s",
    "nobody s",
    "new owner s",
    "moves",
    "W ms",
    "late ms",
    "aim",
    "",
];

/// The table, columns aligned.
pub fn text(rows: &[Row]) -> String {
    let mut cells = vec![HEAD.map(str::to_owned)];
    let mut last = "";
    for row in rows {
        let mut line = row.cells();
        // An event is told once.
        if row.title == last {
            line[0].clear();
        }
        last = row.title;
        cells.push(line);
    }
    let mut widths = [0; HEAD.len()];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &cells {
        let mut padded = String::new();
        for (index, (width, cell)) in widths.iter().zip(line).enumerate() {
            let is_text = matches!(index, 0 | 1 | 12 | 13);
            let _ = if is_text {
                write!(padded, "{cell:<width$}  ")
            } else {
                write!(padded, "{cell:>width$}  ")
            };
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

/// The same as one JSON object.
pub fn json(rows: &[Row]) -> Value {
    json!({
        "bench": "failover",
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Aim, Figures, Row, Span, text};

    fn row(rounds: Vec<Figures>, aim: Aim) -> Row {
        Row {
            event: "kill-9",
            title: "kill -9",
            subject: "operator".into(),
            held: 40,
            rounds,
            failures: Vec::new(),
            aim: Some(aim),
        }
    }

    fn figures(gap: i64, both: Span) -> Figures {
        Figures {
            gap: Span {
                microseconds: gap,
                open: false,
            },
            both,
            held_alive: 40,
            moves: 1,
            ..Figures::default()
        }
    }

    #[test]
    fn one_bad_round_of_five_misses_the_aim() {
        let aim = Aim {
            gap_seconds: Some(0.1),
            both_seconds: Some(3.25),
            all_held: true,
            moves: Some(1),
            ..Aim::default()
        };
        let good = figures(40_000, Span::default());
        assert_eq!(row(vec![good.clone(); 5], aim).verdict(), Some(vec![]));
        let slow = figures(110_000, Span::default());
        let open = Span {
            microseconds: 1,
            open: true,
        };
        let double = figures(0, open);
        let seen = row(vec![good, slow, double], aim).verdict();
        assert_eq!(seen, Some(vec!["gap", "both"]));
        assert_eq!(
            row(Vec::new(), aim).verdict().unwrap().last(),
            Some(&"rounds")
        );
    }

    #[test]
    fn columns_align() {
        let aim = Aim::default();
        let rows = [
            row(vec![figures(1_230_000, Span::default())], aim),
            row(vec![figures(0, Span::default())], aim),
        ];
        let text = text(&rows);
        let ends: Vec<usize> = text
            .lines()
            .map(|line| {
                line.find("gap s")
                    .or(line.find("1.23"))
                    .or(line.find("0.00"))
                    .unwrap()
            })
            .collect();
        assert_eq!(ends[0] + 1, ends[1], "{text}");
        assert_eq!(ends[1], ends[2], "{text}");
    }
}
