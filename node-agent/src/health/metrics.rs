//! Health checks, for Prometheus.

use std::collections::BTreeMap;
use std::fmt;

use lvs_core::health::{Health, Outcome};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Metric, Registry};

use super::HealthExchange;

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    /// `success`, `failure`, or `not_asked` where this node could not ask.
    result: &'static str,
}

/// Checks by what came of each. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Results(Family<ResultLabels, Counter>);

impl Results {
    pub(super) fn count(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Success => "success",
            Outcome::Failure(_) => "failure",
            Outcome::NotAsked(_) => "not_asked",
        };
        self.0.get_or_create(&ResultLabels { result }).inc();
    }

    fn metric(&self) -> impl Metric {
        self.0.clone()
    }
}

/// Checks by what is known of whom they ask.
#[derive(Debug)]
struct States(HealthExchange);

impl Collector for States {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "lvs_agent_health_checks",
            "Health checks by what is known of the real server: up, down or unknown",
            None,
            MetricType::Gauge,
        )?;
        let counts = self.0.with(|checks| {
            let mut counts = BTreeMap::from([("up", 0_u32), ("down", 0), ("unknown", 0)]);
            for (_, health) in checks.all() {
                let state = match health {
                    Health::Up => "up",
                    Health::Down(_) => "down",
                    Health::Unknown => "unknown",
                };
                *counts.entry(state).or_default() += 1;
            }
            counts
        });
        for (state, count) in counts {
            let labels = [("state", state)];
            ConstGauge::new(f64::from(count)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl HealthExchange {
    /// Shows it to Prometheus.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "lvs_agent_health_check_results",
            "Health checks that ended, by what came of them",
            self.results.metric(),
        );
        registry.register_collector(Box::new(States(self.clone())));
    }
}
