//! From the lines of one round to its figures.

use std::collections::BTreeMap;

use super::record::{ANSWER_LIMIT_MILLISECONDS, Line, Microseconds};

/// One round: what was done when, and every line about it.
#[derive(Clone, Debug)]
pub struct Round {
    /// The director that carried the address before the event.
    pub old: String,
    /// When the event began.
    pub struck: Microseconds,
    /// From when on the old director must not write the address, where the event has such a moment.
    pub silent_from: Option<Microseconds>,
    /// Everything that was reported.
    pub lines: Vec<Line>,
    /// Rhythm of new connections in microseconds.
    pub rhythm: Microseconds,
    /// Number of long-lived connections.
    pub held: usize,
}

/// A time that may not have ended with the round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Microseconds that were seen.
    pub microseconds: Microseconds,
    /// It went on when the round ended.
    pub open: bool,
}

/// The figures of a round. Durations are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Longest time between two answers to new connections, without the rhythm; 0 below 2 ms.
    pub gap: Span,
    /// New connections without an answer, by reason.
    pub lost: BTreeMap<String, usize>,
    /// Long-lived connections that still answered at the end.
    pub held_alive: usize,
    /// Long-lived connections that ended, by reason.
    pub held_lost: BTreeMap<String, usize>,
    /// Time in which both directors carried the address.
    pub both: Span,
    /// Longest time in which neither did.
    pub neither: Span,
    /// From the event until the other director carried the address.
    pub new_owner_after: Option<Microseconds>,
    /// From the event until one director carried it, and only one from then on; none when it did not come to that.
    pub one_owner_after: Option<Microseconds>,
    /// How often a director that did not carry the address began to.
    pub moves: usize,
    /// Additions by the old director after the moment from which it must be silent.
    pub forbidden_writes: usize,
    /// Longest time by which the measuring program itself was late.
    pub late: Microseconds,
    /// Durations of API writes that began after the event and succeeded, sorted.
    pub writes: Vec<Microseconds>,
    /// Those that failed.
    pub writes_failed: usize,
}

impl Figures {
    /// Length of the outage in seconds.
    #[expect(clippy::cast_precision_loss, reason = "minutes at most")]
    pub fn gap_seconds(&self) -> f64 {
        self.gap.microseconds as f64 / 1e6
    }
}

/// Every change of who carries the address: since when, and who. Additions of what is there are no change.
fn owners(lines: &[Line]) -> Vec<(Microseconds, Vec<&str>)> {
    let mut changes: Vec<(Microseconds, &str, bool)> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Carried { host, at, present } => Some((*at, host.as_str(), *present)),
            _ => None,
        })
        .collect();
    changes.sort_by_key(|(at, ..)| *at);
    let mut now: Vec<&str> = Vec::new();
    let mut seen = Vec::new();
    for (at, host, present) in changes {
        if present == now.contains(&host) {
            continue;
        }
        if present {
            now.push(host);
        } else {
            now.retain(|other| *other != host);
        }
        seen.push((at, now.clone()));
    }
    seen
}

/// Who carries the address after these lines.
pub fn carriers(lines: &[Line]) -> Vec<String> {
    let last = owners(lines).pop();
    last.map_or_else(Vec::new, |(_, hosts)| {
        hosts.into_iter().map(str::to_owned).collect()
    })
}

impl Round {
    /// The figures; a round without a summary has none.
    pub fn figures(&self) -> Option<Figures> {
        let (ended, last_answer, held_alive) = self.lines.iter().find_map(|line| match line {
            Line::Summary {
                at,
                last_answer,
                held_alive,
                ..
            } => Some((*at, *last_answer, *held_alive)),
            _ => None,
        })?;
        let mut figures = Figures {
            held_alive,
            ..Figures::default()
        };
        let limit = i64::try_from(ANSWER_LIMIT_MILLISECONDS).unwrap_or(i64::MAX) * 1000;
        for line in &self.lines {
            match line {
                Line::Gap { from, to } if *to >= self.struck => {
                    // After the end no new connection begins: what answers late then makes no gap.
                    let microseconds = (*to).min(ended) - from - self.rhythm;
                    figures.gap = figures.gap.max(Span {
                        microseconds,
                        open: false,
                    });
                }
                // It may have been on its way when the event came.
                Line::Lost { at, reason } if *at >= self.struck - limit => {
                    *figures.lost.entry(reason.clone()).or_default() += 1;
                }
                Line::HeldLost { reason, .. } => {
                    *figures.held_lost.entry(reason.clone()).or_default() += 1;
                }
                Line::Late { at, microseconds } if at + microseconds >= self.struck => {
                    figures.late = figures.late.max(*microseconds);
                }
                Line::Write {
                    at,
                    microseconds,
                    error,
                } if *at >= self.struck => {
                    if error.is_empty() {
                        figures.writes.push(*microseconds);
                    } else {
                        figures.writes_failed += 1;
                    }
                }
                Line::Carried { host, at, present } => {
                    let silent = self.silent_from.is_some_and(|from| *at >= from);
                    figures.forbidden_writes +=
                        usize::from(silent && *present && *host == self.old);
                }
                _ => {}
            }
        }
        figures.writes.sort_unstable();
        let silence = ended - last_answer - self.rhythm;
        if silence > figures.gap.microseconds {
            figures.gap = Span {
                microseconds: silence,
                // An answer that is late by less is no outage.
                open: silence > 100_000,
            };
        }
        self.ownership(ended, &mut figures);
        Some(figures)
    }

    fn ownership(&self, ended: Microseconds, figures: &mut Figures) {
        let owners = owners(&self.lines);
        let mut before: &[&str] = &[];
        for (index, (from, hosts)) in owners.iter().enumerate() {
            let next = owners.get(index + 1).map(|(at, _)| *at);
            let until = next.unwrap_or(ended).min(ended);
            let seen = Span {
                microseconds: (until - (*from).max(self.struck)).max(0),
                open: next.is_none_or(|at| at > ended),
            };
            if until >= self.struck {
                match hosts.len() {
                    0 => figures.neither = figures.neither.max(seen),
                    1 => {}
                    _ => {
                        figures.both.microseconds += seen.microseconds;
                        figures.both.open |= seen.open;
                    }
                }
            }
            if *from >= self.struck && *from <= ended {
                figures.moves += usize::from(hosts.len() > before.len());
                if figures.new_owner_after.is_none() && hosts.iter().any(|host| *host != self.old) {
                    figures.new_owner_after = Some(from - self.struck);
                }
            }
            if *from <= ended {
                figures.one_owner_after = (hosts.len() == 1).then_some((from - self.struck).max(0));
            }
            before = hosts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, Line, Round, Span};

    fn carried(host: &str, at: i64, present: bool) -> Line {
        Line::Carried {
            host: host.into(),
            at,
            present,
        }
    }

    fn figures(lines: Vec<Line>) -> Figures {
        let summary = Line::Summary {
            at: 20_000_000,
            answered: 2000,
            last_answer: 19_995_000,
            held_alive: 39,
            longest_echo_microseconds: 0,
        };
        let round = Round {
            old: "a".into(),
            struck: 10_000_000,
            silent_from: Some(15_000_000),
            lines: lines.into_iter().chain([summary]).collect(),
            rhythm: 10_000,
            held: 40,
        };
        round.figures().unwrap()
    }

    #[test]
    fn an_overlap_and_its_end() {
        let seen = figures(vec![
            carried("a", 1_000_000, true),
            carried("a", 9_900_000, true),
            carried("b", 10_800_000, true),
            carried("a", 12_500_000, false),
        ]);
        assert_eq!(seen.both.microseconds, 1_700_000);
        assert!(!seen.both.open);
        assert_eq!(seen.neither, Span::default());
        assert_eq!(seen.new_owner_after, Some(800_000));
        assert_eq!(seen.one_owner_after, Some(2_500_000));
        assert_eq!((seen.moves, seen.forbidden_writes), (1, 0));
    }

    #[test]
    fn both_for_ever_is_open() {
        let seen = figures(vec![
            carried("a", 1_000_000, true),
            carried("b", 13_000_000, true),
        ]);
        assert_eq!(
            seen.both,
            Span {
                microseconds: 7_000_000,
                open: true
            }
        );
        assert_eq!(seen.one_owner_after, None);
    }

    #[test]
    fn nothing_moves() {
        let seen = figures(vec![carried("a", 1_000_000, true)]);
        assert_eq!((seen.moves, seen.new_owner_after), (0, None));
        assert_eq!(seen.one_owner_after, Some(0));
        assert_eq!(seen.gap, Span::default());
        assert_eq!(seen.held_alive, 39);
    }

    #[test]
    fn a_time_without_owner_and_a_write_that_must_not_be() {
        let seen = figures(vec![
            carried("a", 1_000_000, true),
            carried("a", 10_100_000, false),
            carried("a", 16_100_000, true),
        ]);
        assert_eq!(seen.neither.microseconds, 6_000_000);
        assert_eq!((seen.moves, seen.forbidden_writes), (1, 1));
        assert_eq!(seen.new_owner_after, None);
    }

    #[test]
    fn gaps_count_from_the_event_and_without_the_rhythm() {
        let gap = |from, to| Line::Gap { from, to };
        let seen = figures(vec![
            gap(5_000_000, 6_000_000),
            gap(9_999_000, 10_309_000),
            gap(12_000_000, 12_020_000),
        ]);
        assert_eq!(
            seen.gap,
            Span {
                microseconds: 300_000,
                open: false
            }
        );
    }

    #[test]
    fn the_last_connections_answer_after_the_end_is_no_gap() {
        let seen = figures(vec![Line::Gap {
            from: 19_995_000,
            to: 20_250_000,
        }]);
        assert_eq!(seen.gap, Span::default());
    }

    #[test]
    fn an_outage_that_lasts_to_the_end_is_a_gap() {
        let summary = Line::Summary {
            at: 20_000_000,
            answered: 1000,
            last_answer: 10_005_000,
            held_alive: 0,
            longest_echo_microseconds: 0,
        };
        let round = Round {
            old: "a".into(),
            struck: 10_000_000,
            silent_from: None,
            lines: vec![summary],
            rhythm: 10_000,
            held: 40,
        };
        let gap = round.figures().unwrap().gap;
        assert_eq!((gap.microseconds, gap.open), (9_985_000, true));
    }
}
