//! What is counted, in OpenMetrics.

use std::collections::BTreeMap;

use lvs_core::object::Object;
use lvs_core::op::{HostOp, IpvsOp, Op};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// How names of metrics begin.
pub const PREFIX: &str = "lvs_agent";

/// Label of operations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OperationLabels {
    /// Kind of operation.
    pub kind: &'static str,
    /// `applied` or `failed`.
    pub result: &'static str,
}

/// Label of passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PassLabels {
    /// `complete`, or `blind` when the kernel could not be read.
    pub result: &'static str,
}

/// Label of repairs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RepairLabels {
    /// Kind of thing that somebody else removed or changed.
    pub object: &'static str,
}

/// Label of conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Reason, as in the condition.
    pub reason: String,
}

/// Every metric. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds of one pass of the sync loop.
    pub pass_seconds: Histogram,
    /// Passes.
    pub passes: Family<PassLabels, Counter>,
    /// Operations on the kernel.
    pub operations: Family<OperationLabels, Counter>,
    /// Repairs of what somebody else had removed or changed, by kind of thing.
    pub drift_repaired: Family<RepairLabels, Counter>,
    /// Writes to IPVS.
    pub ipvs_writes: Counter,
    /// Additions, refreshes and deletions of director addresses.
    pub address_writes: Counter,
    /// Director addresses in the kernel.
    pub held_addresses: Gauge,
    /// Routers that this node would take over without knowing their connections.
    pub cold_routers: Gauge,
    /// Plans.
    pub plans: Gauge,
    /// Plans whose newest content cannot be understood.
    pub plans_undecodable: Gauge,
    /// Plans that vanished without having been withdrawn.
    pub plans_orphaned: Gauge,
    /// Plans by the reason of their condition Programmed.
    pub plan_conditions: Family<ReasonLabels, Gauge>,
    /// Failures that no plan answers for.
    pub unattributed_failures: Gauge,
    /// Status writes.
    pub status_writes: Family<PassLabels, Counter>,
    /// Seconds of one status write.
    pub status_write_seconds: Histogram,
}

impl Metrics {
    /// Metrics, registered.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            pass_seconds: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
            ]),
            passes: Family::default(),
            operations: Family::default(),
            drift_repaired: Family::default(),
            ipvs_writes: Counter::default(),
            address_writes: Counter::default(),
            held_addresses: Gauge::default(),
            cold_routers: Gauge::default(),
            plans: Gauge::default(),
            plans_undecodable: Gauge::default(),
            plans_orphaned: Gauge::default(),
            plan_conditions: Family::default(),
            unattributed_failures: Gauge::default(),
            status_writes: Family::default(),
            status_write_seconds: Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
            ]),
        };
        let registry = registry.sub_registry_with_prefix(PREFIX);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "Version of the agent", Info::new(version));
        registry.register(
            "pass_seconds",
            "Duration of one pass of the sync loop",
            metrics.pass_seconds.clone(),
        );
        registry.register("passes", "Passes of the sync loop", metrics.passes.clone());
        registry.register(
            "operations",
            "Operations on the kernel",
            metrics.operations.clone(),
        );
        registry.register(
            "drift_repaired",
            "Repairs of what somebody else had removed or changed, by kind of thing",
            metrics.drift_repaired.clone(),
        );
        registry.register("ipvs_writes", "Writes to IPVS", metrics.ipvs_writes.clone());
        registry.register(
            "address_writes",
            "Additions, refreshes and deletions of director addresses",
            metrics.address_writes.clone(),
        );
        registry.register(
            "held_addresses",
            "Director addresses in the kernel",
            metrics.held_addresses.clone(),
        );
        registry.register(
            "cold_routers",
            "Routers with connectionSync type Daemon whose connections this node has not been sent yet; it lets others go first",
            metrics.cold_routers.clone(),
        );
        registry.register("plans", "Plans of this node", metrics.plans.clone());
        registry.register(
            "plans_undecodable",
            "Plans whose newest content cannot be understood",
            metrics.plans_undecodable.clone(),
        );
        registry.register(
            "plans_orphaned",
            "Plans that vanished without having been withdrawn and are kept",
            metrics.plans_orphaned.clone(),
        );
        registry.register(
            "plan_conditions",
            "Plans by the reason of their condition Programmed",
            metrics.plan_conditions.clone(),
        );
        registry.register(
            "unattributed_failures",
            "Failures about things that no present plan wants",
            metrics.unattributed_failures.clone(),
        );
        registry.register(
            "status_writes",
            "Writes of the status of plans",
            metrics.status_writes.clone(),
        );
        registry.register(
            "status_write_seconds",
            "Duration of one write of the status of a plan, answered or not",
            metrics.status_write_seconds.clone(),
        );
        // Present from the start, so that a rate over them exists before the first event.
        for result in ["complete", "blind"] {
            let _ = metrics.passes.get_or_create(&PassLabels { result });
        }
        for object in Object::KINDS {
            let _ = metrics
                .drift_repaired
                .get_or_create(&RepairLabels { object });
        }
        metrics
    }

    /// Counts repairs of one thing.
    pub fn repaired(&self, object: &Object, count: u64) {
        let object = object.kind();
        self.drift_repaired
            .get_or_create(&RepairLabels { object })
            .inc_by(count);
    }

    /// Counts one operation.
    pub fn operation(&self, op: &Op, result: &'static str) {
        self.operations
            .get_or_create(&OperationLabels {
                kind: kind(op),
                result,
            })
            .inc();
        if matches!(op, Op::Ipvs(_)) && result == "applied" {
            self.ipvs_writes.inc();
        }
    }

    /// Sets the number of plans by reason.
    pub fn set_conditions<'a>(&self, reasons: impl Iterator<Item = &'a str>) {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for reason in reasons {
            *counts.entry(reason).or_default() += 1;
        }
        self.plan_conditions.clear();
        for (reason, count) in counts {
            self.plan_conditions
                .get_or_create(&ReasonLabels {
                    reason: reason.to_owned(),
                })
                .set(count);
        }
    }
}

/// Word for an operation in metrics.
pub(crate) const fn kind(op: &Op) -> &'static str {
    match op {
        Op::Ipvs(op) => match op {
            IpvsOp::AddService(..) => "AddService",
            IpvsOp::EditService(..) => "EditService",
            IpvsOp::DeleteService(_) => "DeleteService",
            IpvsOp::AddDestination(..) => "AddDestination",
            IpvsOp::EditDestination(..) => "EditDestination",
            IpvsOp::DeleteDestination(..) => "DeleteDestination",
            IpvsOp::SetTimeouts(_) => "SetTimeouts",
            IpvsOp::StartSyncDaemon(..) => "StartSyncDaemon",
            IpvsOp::StopSyncDaemon(_) => "StopSyncDaemon",
        },
        Op::Host(op) => match op {
            HostOp::AddLink { .. } => "AddLink",
            HostOp::SetLinkUp { .. } => "SetLinkUp",
            HostOp::DeleteLink { .. } => "DeleteLink",
            HostOp::AddAddress(_) => "AddAddress",
            HostOp::DeleteAddress(_) => "DeleteAddress",
            HostOp::SetSysctl { .. } => "SetSysctl",
            HostOp::AddFouPort(_) => "AddFouPort",
            HostOp::DeleteFouPort(_) => "DeleteFouPort",
            HostOp::AddRoute(_) => "AddRoute",
            HostOp::DeleteRoute(_) => "DeleteRoute",
            HostOp::AddPolicyRule(_) => "AddPolicyRule",
            HostOp::DeletePolicyRule(_) => "DeletePolicyRule",
            HostOp::ReplacePacketRules(_) => "ReplacePacketRules",
            HostOp::DeletePacketRules => "DeletePacketRules",
        },
    }
}

#[cfg(test)]
#[path = "../../e2e/src/metrics_document.rs"]
mod metrics_document;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lvs_core::health::Check;
    use lvs_crds::health_check::{HealthCheck, HealthCheckType};
    use lvs_traces::SpanCounts;
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::endpoints::EndpointExchange;
    use crate::health::HealthExchange;
    use crate::leadership::collector_of_nothing;
    use crate::statistics::StatisticsExchange;

    use super::metrics_document::{documented, exposed, with_labels_of};

    #[test]
    fn every_metric_of_the_agent_is_in_the_documentation_and_no_other() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        // What has no sample is not shown.
        metrics.operation(&Op::Host(HostOp::DeletePacketRules), "applied");
        metrics.set_conditions(["Programmed"].into_iter());
        let result = PassLabels { result: "complete" };
        metrics.status_writes.get_or_create(&result).inc();
        let check = HealthCheck::new(String::new(), HealthCheckType::HTTPS);
        let check = Check {
            target: "192.0.2.1:443".parse().unwrap(),
            passage: None,
            subject: None,
            question: check.into(),
            means: Arc::default(),
        };
        HealthExchange::with_a_result(&check).register(&mut registry);
        registry.register_collector(collector_of_nothing());
        SpanCounts::default().register(registry.sub_registry_with_prefix(PREFIX));
        registry.register_collector(EndpointExchange::default().collector());
        registry.register_collector(StatisticsExchange::default().collector());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let document = include_str!("../../docs/metrics.md");
        let exposed = exposed(&text);
        let documented = with_labels_of(&exposed, documented(document, "lvs_agent_"));
        assert_eq!(documented, exposed, "left: docs/metrics.md");
    }
}
