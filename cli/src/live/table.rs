//! Tables as kubectl writes them: columns by blanks, headings in capitals.

use std::fmt::Write;

/// Blanks between two columns.
const GAP: usize = 3;

/// How good a word is; shown by colour where there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Neither.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way, or less than it should be.
    Warning,
    /// Not as it should be.
    Bad,
    /// Of less interest.
    Faint,
}

impl Tone {
    /// Good where it is so, bad where it is not.
    pub const fn of(is_good: bool) -> Self {
        if is_good { Self::Good } else { Self::Bad }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\u{1b}[32m",
            Self::Warning => "\u{1b}[33m",
            Self::Bad => "\u{1b}[31m",
            Self::Faint => "\u{1b}[2m",
        }
    }
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint {
    /// There are.
    pub on: bool,
}

impl Paint {
    /// A text in a tone.
    pub fn text(self, tone: Tone, text: &str) -> String {
        let code = tone.code();
        if !self.on || code.is_empty() || text.is_empty() {
            return text.to_owned();
        }
        format!("{code}{text}\u{1b}[0m")
    }
}

/// One field of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text in a tone.
    pub fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<Text: Into<String>> From<Text> for Cell {
    fn from(text: Text) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// A table: its headings, then a row for each thing.
#[derive(Clone, Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty one.
    pub fn new<const COLUMNS: usize>(headings: [&'static str; COLUMNS]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// One row more.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [Cell; COLUMNS]) {
        self.rows.push(Vec::from(cells));
    }

    /// Leaves out the last column, where no row has anything in it.
    #[must_use]
    pub fn without_empty_last(mut self) -> Self {
        let is_empty = |row: &Vec<Cell>| row.last().is_none_or(|cell| cell.text.is_empty());
        if self.rows.iter().all(is_empty) {
            self.headings.pop();
            for row in &mut self.rows {
                row.pop();
            }
        }
        self
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lines, each with its end. A text with line ends of its own is put on one line.
    pub fn text(&self, paint: Paint) -> String {
        let headings = self.headings.iter().map(|heading| Cell::from(*heading));
        let headings: Vec<Cell> = headings.collect();
        let rows: Vec<Vec<Cell>> = std::iter::once(&headings)
            .chain(&self.rows)
            .map(|row| row.iter().map(one_line).collect())
            .collect();
        let mut widths: Vec<usize> = Vec::new();
        for row in &rows {
            for (column, cell) in row.iter().enumerate() {
                let width = cell.text.chars().count();
                match widths.get_mut(column) {
                    Some(known) => *known = width.max(*known),
                    None => widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for row in &rows {
            let last = row.iter().rposition(|cell| !cell.text.is_empty());
            let shown = last.map_or(0, |last| last + 1);
            for (column, (cell, width)) in row.iter().zip(&widths).take(shown).enumerate() {
                text.push_str(&paint.text(cell.tone, &cell.text));
                if column + 1 < shown {
                    let blanks = width + GAP - cell.text.chars().count();
                    // Writing to a String does not fail.
                    let _ = write!(text, "{:blanks$}", "");
                }
            }
            text.push('\n');
        }
        text
    }
}

fn one_line(cell: &Cell) -> Cell {
    let text = cell.text.chars();
    let text = text.map(|character| {
        if character.is_control() {
            ' '
        } else {
            character
        }
    });
    Cell::new(cell.tone, text.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_column_without_words_is_left_out() {
        let text = |word: &str| {
            let mut table = Table::new(["NAME", "ENGINE"]);
            table.row(["a".into(), "".into()]);
            table.row(["b".into(), word.into()]);
            table.without_empty_last().text(Paint::default())
        };
        assert_eq!(text(""), "NAME\na\nb\n");
        assert_eq!(text("sip x"), "NAME   ENGINE\na\nb      sip x\n");
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut table = Table::new(["NAME", "STATE", "MESSAGE"]);
        table.row(["a".into(), Cell::new(Tone::Good, "Up"), "".into()]);
        table.row(["long-é".into(), "Down".into(), "two\nlines".into()]);
        assert_eq!(
            table.text(Paint::default()),
            "NAME     STATE   MESSAGE\na        Up\nlong-é   Down    two lines\n"
        );
        assert!(
            table
                .text(Paint { on: true })
                .contains("a        \u{1b}[32mUp\u{1b}[0m\n")
        );
    }
}
