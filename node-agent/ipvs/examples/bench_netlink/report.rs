//! Medians, ranges and ratios.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Ours: add all.
    Add,
    /// `ipvsadm -R`.
    AddIpvsadm,
    /// keepalived.
    AddKeepalived,
    /// Ours: dump.
    Dump,
    /// Ours: dump and difference.
    NoChange,
    /// `ipvsadm -Sn`.
    NoChangeIpvsadm,
    /// Ours: 10,000 weights.
    Edit,
    /// `ipvsadm -R` with `-e`.
    EditIpvsadm,
    /// Ours: dump, difference and one write.
    One,
}

impl Figure {
    const ALL: [(Self, &'static str, &'static str); 9] = [
        (Self::Add, "add_all", "add 10,100 rules"),
        (
            Self::AddIpvsadm,
            "add_all_ipvsadm",
            "the same by ipvsadm -R",
        ),
        (
            Self::AddKeepalived,
            "add_all_keepalived",
            "the same by keepalived",
        ),
        (Self::Dump, "dump", "dump 10,100 rules"),
        (
            Self::NoChange,
            "no_change",
            "dump and difference, nothing to do",
        ),
        (Self::NoChangeIpvsadm, "no_change_ipvsadm", "ipvsadm -Sn"),
        (Self::Edit, "edit_weights", "edit 10,000 weights"),
        (
            Self::EditIpvsadm,
            "edit_weights_ipvsadm",
            "the same by ipvsadm -R",
        ),
        (Self::One, "one_weight", "dump, difference, one weight"),
    ];
}

/// (name, slow, fast, aim): how many times faster.
const RATIOS: [(&str, Figure, Figure, Option<f64>); 4] = [
    (
        "add_all_over_ipvsadm",
        Figure::AddIpvsadm,
        Figure::Add,
        Some(20.0),
    ),
    (
        "add_all_over_keepalived",
        Figure::AddKeepalived,
        Figure::Add,
        None,
    ),
    (
        "no_change_over_ipvsadm",
        Figure::NoChangeIpvsadm,
        Figure::NoChange,
        Some(4.0),
    ),
    (
        "edit_weights_over_ipvsadm",
        Figure::EditIpvsadm,
        Figure::Edit,
        Some(30.0),
    ),
];

/// Everything measured.
#[derive(Default)]
pub struct Report {
    milliseconds: BTreeMap<Figure, Vec<f64>>,
    /// Writes when nothing had changed.
    pub no_change_writes: usize,
    /// Writes that one changed weight took.
    pub one_weight_writes: usize,
    /// Its kernel, as told.
    pub kernel: Option<String>,
}

impl Report {
    /// Adds one measurement.
    pub fn record(&mut self, figure: Figure, duration: Duration) {
        self.milliseconds
            .entry(figure)
            .or_default()
            .push(duration.as_secs_f64() * 1e3);
    }

    /// Median, least, most of the ratios within each round: what else the machine does changes from round to round.
    fn ratio(&self, slow: Figure, fast: Figure) -> (f64, f64, f64) {
        let of = |figure| self.milliseconds.get(&figure).into_iter().flatten();
        spread(
            of(slow)
                .zip(of(fast))
                .map(|(slow, fast)| slow / fast)
                .collect(),
        )
    }

    /// Ratios below their aim.
    pub fn missed(&self) -> Vec<String> {
        RATIOS
            .iter()
            .filter_map(|(name, slow, fast, aim)| {
                let (ratio, aim) = (self.ratio(*slow, *fast).0, (*aim)?);
                // Not a number is a miss too.
                (ratio.is_nan() || ratio < aim).then(|| format!("{name} is {ratio:.1}, aim {aim}"))
            })
            .collect()
    }

    /// A table, and the JSON object as last line.
    pub fn print(&self) {
        let round = |value: f64| (value * 10.0).round() / 10.0;
        let mut object = serde_json::Map::new();
        object.insert("bench".to_owned(), json!("netlink"));
        object.insert("kernel".to_owned(), json!(self.kernel));
        let rounds = self.milliseconds.get(&Figure::Add).map_or(0, Vec::len);
        object.insert("rounds".to_owned(), json!(rounds));
        for (figure, name, text) in Figure::ALL {
            let (median, least, most) =
                spread(self.milliseconds.get(&figure).cloned().unwrap_or_default());
            println!("{text:<36} {median:>9.1} ms  ({least:.1} to {most:.1})");
            let value = json!({ "median_ms": round(median), "min_ms": round(least), "max_ms": round(most) });
            object.insert(name.to_owned(), value);
        }
        for (name, slow, fast, aim) in RATIOS {
            let (median, least, most) = self.ratio(slow, fast);
            let goal = aim.map(|aim| format!("; aim {aim}")).unwrap_or_default();
            println!("{name:<36} {median:>9.1} x   ({least:.1} to {most:.1}{goal})");
            let value = json!({ "median": round(median), "min": round(least), "max": round(most), "aim": aim });
            object.insert(name.to_owned(), value);
        }
        object.insert("no_change_writes".to_owned(), json!(self.no_change_writes));
        object.insert(
            "one_weight_writes".to_owned(),
            json!(self.one_weight_writes),
        );
        println!("{}", Value::Object(object));
    }
}

/// Median, least, most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let last = values.len().saturating_sub(1);
    (
        f64::midpoint(at(last / 2), at(values.len() / 2)),
        at(0),
        at(last),
    )
}
