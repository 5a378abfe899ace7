//! docs/metrics.md against what is exposed. Also a part of the unit tests of agent and controller, which is why it needs nothing.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// counter, gauge, histogram or info.
    pub type_: String,
    /// Names of its labels, but for the bounds of buckets.
    pub labels: BTreeSet<String>,
    /// Meaning.
    pub help: String,
}

/// Metrics by name, as Prometheus stores it; of a histogram the name of the whole.
pub type Metrics = BTreeMap<String, Metric>;

/// Rows `| name | type | labels | meaning |` of a document in Markdown, of names that begin with `prefix`.
pub fn documented(document: &str, prefix: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, type_, labels, help] = cells[..] else {
            continue;
        };
        let name = name.trim_matches('`');
        if name.starts_with(prefix) {
            let labels = labels.split(", ").map(|label| label.trim_matches('`'));
            let metric = Metric {
                type_: type_.to_owned(),
                labels: labels
                    .filter(|label| !label.is_empty())
                    .map(str::to_owned)
                    .collect(),
                help: help.to_owned(),
            };
            metrics.insert(name.to_owned(), metric);
        }
    }
    metrics
}

/// Metrics of an exposition in OpenMetrics text. A label is known of those that have samples only.
pub fn exposed(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    let mut help = "";
    let mut name = String::new();
    for line in text.lines() {
        if let Some((_, words)) = after(line, "# HELP ") {
            help = words.trim_end_matches('.');
        } else if let Some((plain, type_)) = after(line, "# TYPE ") {
            let suffix = match type_ {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            name = format!("{plain}{suffix}");
            let metric = metrics.entry(name.clone()).or_default();
            type_.clone_into(&mut metric.type_);
            help.clone_into(&mut metric.help);
        } else if let (Some(metric), Some((_, rest))) =
            (metrics.get_mut(&name), line.split_once('{'))
        {
            let words = rest.split("\",");
            let labels = words.filter_map(|word| Some(word.split_once("=\"")?.0));
            let labels = labels.filter(|label| *label != "le");
            metric.labels.extend(labels.map(str::to_owned));
        }
    }
    metrics
}

/// What is documented, with the labels of what is exposed: what has not happened yet has none. The story `prometheus` looks
/// at them.
pub fn with_labels_of(exposed: &Metrics, mut documented: Metrics) -> Metrics {
    for (name, metric) in &mut documented {
        let found = exposed.get(name);
        metric.labels = found
            .map(|metric| metric.labels.clone())
            .unwrap_or_default();
    }
    documented
}

fn after<'a>(line: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(mark)?.split_once(' ')
}
