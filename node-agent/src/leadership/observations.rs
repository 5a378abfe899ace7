//! What the elections observe, for Prometheus: writes to Leases, takeovers phase by phase, transitions.

use std::fmt;
use std::time::Duration;

use lvs_core::chronicle::{Phase, Phases};
use lvs_crds::transition::TransitionKind;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::RouterName;

/// Upper bounds of the buckets for one write to the API server, seconds; 2.2 s counts as failed.
const WRITE_BUCKETS: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 2.2];
/// Upper bounds of the buckets for a takeover and its phases, seconds: an address is added in milliseconds, a Lease runs out
/// in a dozen seconds.
const TAKEOVER_BUCKETS: [f64; 15] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 12.0, 30.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    cause: &'static str,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitionLabels {
    router: String,
    reason: &'static str,
}

type Durations<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// Shared by all elections of the node. Cloning shares.
#[derive(Clone, Debug)]
pub(super) struct Observations {
    writes: Histogram,
    phases: Durations<PhaseLabels>,
    takeovers: Durations<CauseLabels>,
    transitions: Family<TransitionLabels, Counter>,
}

impl Observations {
    pub(super) fn new() -> Self {
        let takeover: fn() -> Histogram = || Histogram::new(TAKEOVER_BUCKETS);
        Self {
            writes: Histogram::new(WRITE_BUCKETS),
            phases: Family::new_with_constructor(takeover),
            takeovers: Family::new_with_constructor(takeover),
            transitions: Family::default(),
        }
    }

    /// W of one write to a Lease.
    pub(super) fn wrote(&self, duration: Duration) {
        self.writes.observe(duration.as_secs_f64());
    }

    /// A takeover whose addresses are announced.
    pub(super) fn took_over(&self, phases: &Phases) {
        let cause = phases.cause;
        for (phase, duration) in Phase::ALL.into_iter().zip(phases.durations) {
            let phase = phase.label();
            self.phases
                .get_or_create(&PhaseLabels { cause, phase })
                .observe(duration.as_secs_f64());
        }
        self.takeovers
            .get_or_create(&CauseLabels { cause })
            .observe(phases.whole().as_secs_f64());
    }

    /// This node came to hold the router, or ceased to.
    pub(super) fn happened(&self, router: &RouterName, kind: TransitionKind) {
        let labels = TransitionLabels {
            router: router.clone(),
            reason: kind.reason().as_str(),
        };
        self.transitions.get_or_create(&labels).inc();
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        metric(
            "lvs_agent_lease_write_seconds",
            "W: duration of a write to a Lease",
            &self.writes,
        )?;
        metric(
            "lvs_agent_takeover_seconds",
            "From the last sign of life of the former holder, or its offer, until this node has announced the addresses",
            &self.takeovers,
        )?;
        metric(
            "lvs_agent_takeover_phase_seconds",
            "Phases of takeovers by this node; their sum is the whole",
            &self.phases,
        )?;
        metric(
            "lvs_agent_router_transitions",
            "How often this node came to hold a router or ceased to, by the reason of the Event",
            &self.transitions,
        )
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Alone(Observations);

    impl Collector for Alone {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            self.0.encode(&mut encoder)
        }
    }

    /// The value of one sample.
    fn sample(text: &str, name: &str) -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .parse()
            .unwrap()
    }

    #[test]
    fn the_phases_of_a_takeover_sum_up_to_the_whole() {
        let observations = Observations::new();
        let milliseconds = [450, 210, 12, 2, 1].map(Duration::from_millis);
        for cause in ["unanswered", "offered"] {
            observations.took_over(&Phases {
                cause,
                durations: milliseconds,
            });
        }
        observations.happened(&"edge".to_owned(), TransitionKind::BecameMaster);
        observations.wrote(Duration::from_millis(12));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Alone(observations)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let whole = sample(
            &text,
            "lvs_agent_takeover_seconds_sum{cause=\"unanswered\"}",
        );
        let phases: f64 = Phase::ALL
            .into_iter()
            .map(|phase| {
                let labels = format!("{{cause=\"unanswered\",phase=\"{}\"}}", phase.label());
                assert!(
                    (sample(
                        &text,
                        &format!("lvs_agent_takeover_phase_seconds_count{labels}")
                    ) - 1.0)
                        .abs()
                        < 1e-9
                );
                sample(
                    &text,
                    &format!("lvs_agent_takeover_phase_seconds_sum{labels}"),
                )
            })
            .sum();
        assert!((whole - 0.675).abs() < 1e-9, "{whole}");
        assert!((phases - whole).abs() < 1e-9, "{phases} of {whole}");
        let transitions =
            "lvs_agent_router_transitions_total{router=\"edge\",reason=\"BecameMaster\"}";
        assert!((sample(&text, transitions) - 1.0).abs() < 1e-9);
        assert!(
            text.contains("# TYPE lvs_agent_takeover_phase_seconds histogram"),
            "{text}"
        );
        assert!(
            text.contains("lvs_agent_lease_write_seconds_count 1"),
            "{text}"
        );
    }
}
