//! Health checks, for Prometheus.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lvs_core::health::{Health, Outcome, UnixSeconds};
use lvs_crds::health_check::HealthCheckType;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{HealthExchange, calendar};

/// Upper bounds of the buckets for one check, seconds; a check has 60 s at most.
const CHECK_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    /// As in the VirtualService.
    r#type: String,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    /// `success`, `failure`, or `not_asked` where this node could not ask.
    result: &'static str,
}

/// Checks by what came of each, and how long they took. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Results {
    results: Family<ResultLabels, Counter>,
    durations: Family<TypeLabels, Histogram, fn() -> Histogram>,
}

impl Default for Results {
    fn default() -> Self {
        Self {
            results: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(CHECK_BUCKETS)),
        }
    }
}

impl Results {
    /// A check of this type has ended; `duration` from its beginning, which a question that waited for its turn has behind it.
    pub(super) fn count(&self, type_: HealthCheckType, outcome: &Outcome, duration: Duration) {
        let result = match outcome {
            Outcome::Success => "success",
            Outcome::Failure(_) => "failure",
            Outcome::NotAsked(_) => "not_asked",
        };
        self.results.get_or_create(&ResultLabels { result }).inc();
        let r#type = format!("{type_:?}");
        let duration = duration.as_secs_f64();
        self.durations
            .get_or_create(&TypeLabels { r#type })
            .observe(duration);
    }
}

/// Certificates that were shown to checks. Which real server each is of stands in the status of its RealServer.
#[derive(Debug)]
struct Certificates(HealthExchange);

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = calendar();
        let (first, count) = self.0.with(|checks| {
            let warned = checks.certificate_expiries();
            let warned = warned.filter(|(check, not_after)| check.warns_of(*not_after, now));
            let first = checks
                .certificate_expiries()
                .map(|(_, not_after)| not_after);
            (first.min(), warned.count())
        });
        if let Some(UnixSeconds(first)) = first {
            let family = encoder.encode_descriptor(
                "lvs_agent_health_check_certificate_expiry_timestamp_seconds",
                "When the first certificate expires that real servers have shown to health checks, in seconds since 1970; none while none was shown",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(first).encode(family)?;
        }
        let family = encoder.encode_descriptor(
            "lvs_agent_health_check_certificates_expiring",
            "Health checks that are shown a certificate which expires within their tls.expiryWarningDays, or has",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(family)
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
    /// One check has ended, and was shown a certificate.
    #[cfg(test)]
    pub(crate) fn with_a_result(check: &lvs_core::health::Check) -> Self {
        let exchange = Self::default();
        let wanted = BTreeMap::from([(check.clone(), check.cadence())]);
        exchange.want(&wanted, |_| Health::Unknown);
        let later = crate::leadership::clock::now() + Duration::from_mins(1);
        let started = exchange.lock().start(later, 1);
        for start in started {
            exchange.note_certificate(&start.key, start.serial, UnixSeconds(1));
        }
        let duration = Duration::from_millis(3);
        exchange
            .results
            .count(HealthCheckType::TCP, &Outcome::Success, duration);
        exchange
    }

    /// Shows it to Prometheus.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "lvs_agent_health_check_results",
            "Health checks that ended, by what came of them",
            self.results.results.clone(),
        );
        registry.register(
            "lvs_agent_health_check_seconds",
            "Duration of a health check, whatever came of it",
            self.results.durations.clone(),
        );
        registry.register_collector(Box::new(States(self.clone())));
        registry.register_collector(Box::new(Certificates(self.clone())));
    }
}
