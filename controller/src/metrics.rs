//! Metrics in OpenMetrics text.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lvs_crds::condition::Reason;
use lvs_traces::SpanCounts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::world::Kind;

/// Upper bounds of the buckets for one write to the API server, seconds; it is waited for for 10 s.
const WRITE_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Label: what was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: String,
    outcome: String,
}

/// Label: kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

/// Label: reason word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    kind: String,
    reason: String,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored.
    Written,
    /// The object had changed: planned again.
    Conflict,
    /// Refused or not answered: tried again later.
    Failed,
}

/// Every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    passes: Counter,
    findings: Gauge,
    resolve_seconds: Histogram,
    writes: Family<WriteLabels, Counter>,
    write_seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    undecodable: Family<KindLabels, Gauge>,
    watch_failures: Family<KindLabels, Counter>,
    not_ready: Family<ReasonLabels, Gauge>,
    is_leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("lvs_controller");
        let metrics = Self {
            passes: Counter::default(),
            findings: Gauge::default(),
            resolve_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            writes: Family::default(),
            write_seconds: Family::new_with_constructor(|| Histogram::new(WRITE_BUCKETS)),
            undecodable: Family::default(),
            watch_failures: Family::default(),
            not_ready: Family::default(),
            is_leader: Gauge::default(),
            registry: Mutex::new(Registry::default()),
        };
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "Version of the controller", Info::new(version));
        registry.register(
            "passes",
            "Passes of snapshot, resolve, check and write",
            metrics.passes.clone(),
        );
        registry.register(
            "findings",
            "Contradictions in the newest plan; above 0 nothing is written",
            metrics.findings.clone(),
        );
        registry.register_with_unit(
            "resolve",
            "Time to resolve and check",
            Unit::Seconds,
            metrics.resolve_seconds.clone(),
        );
        registry.register(
            "writes",
            "Writes by kind and outcome",
            metrics.writes.clone(),
        );
        registry.register(
            "write_seconds",
            "Duration of one write by kind, answered or not",
            metrics.write_seconds.clone(),
        );
        registry.register(
            "undecodable_objects",
            "Objects this version cannot read; what they had keeps working",
            metrics.undecodable.clone(),
        );
        registry.register(
            "watch_failures",
            "Breaks of a watch",
            metrics.watch_failures.clone(),
        );
        registry.register(
            "not_ready",
            "Objects that are not fully ready, by reason",
            metrics.not_ready.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica plans",
            metrics.is_leader.clone(),
        );
        Self {
            registry: Mutex::new(registry),
            ..metrics
        }
    }
}

impl Metrics {
    /// A pass was made.
    pub fn passed(&self, resolve: Duration, findings: usize) {
        self.passes.inc();
        self.resolve_seconds.observe(resolve.as_secs_f64());
        self.findings
            .set(i64::try_from(findings).unwrap_or(i64::MAX));
    }

    /// A write ended, that long after it began.
    pub fn wrote(&self, kind: &str, outcome: Outcome, duration: Duration) {
        let kind_labels = KindLabels {
            kind: kind.to_owned(),
        };
        self.write_seconds
            .get_or_create(&kind_labels)
            .observe(duration.as_secs_f64());
        let labels = WriteLabels {
            kind: kind.to_owned(),
            outcome: format!("{outcome:?}"),
        };
        self.writes.get_or_create(&labels).inc();
    }

    /// Writes of a kind that ended so.
    pub fn writes(&self, kind: &str, outcome: Outcome) -> u64 {
        let labels = WriteLabels {
            kind: kind.to_owned(),
            outcome: format!("{outcome:?}"),
        };
        self.writes.get_or_create(&labels).get()
    }

    /// Objects that cannot be read.
    pub fn set_undecodable(&self, kind: Kind, count: usize) {
        let labels = KindLabels {
            kind: format!("{kind:?}"),
        };
        self.undecodable
            .get_or_create(&labels)
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Objects that are not fully ready.
    pub fn set_not_ready(&self, counts: impl IntoIterator<Item = ((Kind, Reason), i64)>) {
        self.not_ready.clear();
        for ((kind, reason), count) in counts {
            let labels = ReasonLabels {
                kind: format!("{kind:?}"),
                reason: reason.as_str().to_owned(),
            };
            self.not_ready.get_or_create(&labels).set(count);
        }
    }

    /// A watch broke.
    pub fn watch_failed(&self, kind: Kind) {
        self.watch_failures
            .get_or_create(&KindLabels {
                kind: format!("{kind:?}"),
            })
            .inc();
    }

    /// Whether this replica plans.
    pub fn set_leader(&self, is_leader: bool) {
        self.is_leader.set(i64::from(is_leader));
    }

    /// Shows what becomes of spans.
    pub fn register_spans(&self, counts: &SpanCounts) {
        let registry = self.registry.lock();
        counts.register(&mut registry.unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!("encoding metrics: {error}");
        }
        text
    }
}

#[cfg(test)]
#[path = "../../e2e/src/metrics_document.rs"]
mod metrics_document;

#[cfg(test)]
mod tests {
    use super::*;

    use super::metrics_document::{documented, exposed, with_labels_of};

    #[test]
    fn every_metric_of_the_controller_is_in_the_documentation_and_no_other() {
        let document = include_str!("../../docs/metrics.md");
        let metrics = Metrics::default();
        // What has no sample is not shown.
        metrics.wrote("Lease", Outcome::Written, Duration::from_millis(3));
        metrics.set_undecodable(Kind::VirtualService, 1);
        metrics.watch_failed(Kind::VirtualService);
        metrics.register_spans(&SpanCounts::default());
        metrics.set_not_ready([((Kind::VirtualService, Reason::Pending), 1)]);
        let exposed = exposed(&metrics.text());
        let documented = with_labels_of(&exposed, documented(document, "lvs_controller_"));
        assert_eq!(documented, exposed, "left: docs/metrics.md");
    }
}
