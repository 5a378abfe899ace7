//! What becomes of spans, in OpenMetrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

/// Counts of spans. Cloning shares them.
#[derive(Clone, Debug)]
pub struct SpanCounts {
    spans: Family<Labels, Counter>,
}

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanResult {
    /// The collector has it.
    Exported,
    /// The collector refused it or did not answer; it is lost.
    Failed,
    /// The queue was full; it is lost.
    Dropped,
}

impl SpanResult {
    const ALL: [Self; 3] = [Self::Exported, Self::Failed, Self::Dropped];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl Default for SpanCounts {
    fn default() -> Self {
        let counts = Self {
            spans: Family::default(),
        };
        // Present from the start, so that a rate over them exists before the first.
        for result in SpanResult::ALL {
            counts.add(result, 0);
        }
        counts
    }
}

impl SpanCounts {
    /// Shows them as `…_spans_total`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("spans", "Spans of traces of changes", self.spans.clone());
    }

    pub(crate) fn add(&self, result: SpanResult, count: usize) {
        let labels = Labels {
            result: result.as_str(),
        };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.spans.get_or_create(&labels).inc_by(count);
    }

    /// So many had this result.
    pub fn get(&self, result: SpanResult) -> u64 {
        let labels = Labels {
            result: result.as_str(),
        };
        self.spans.get_or_create(&labels).get()
    }
}
