//! What leadership shows to Prometheus: read from what the fence thread and the elections report anyway, when it is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lvs_core::election::Role;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use super::fence::FenceReport;
use super::heartbeat::ReceiverCounts;
use super::observations::Observations;
use super::{RoleState, RouterName};

/// The collector.
#[derive(Debug)]
pub(super) struct LeadershipMetrics {
    pub(super) report: watch::Receiver<FenceReport>,
    pub(super) roles: watch::Receiver<BTreeMap<RouterName, RoleState>>,
    pub(super) api_reached: watch::Receiver<bool>,
    pub(super) observations: Observations,
    /// None without heartbeats.
    pub(super) received: Option<Arc<ReceiverCounts>>,
}

impl Collector for LeadershipMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let report = self.report.borrow().clone();
        let roles = self.roles.borrow().clone();
        let reached = *self.api_reached.borrow();
        let mut gauge = |name: &str, help: &str, value: f64| {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)
        };
        gauge(
            "lvs_agent_api_server_reached",
            "1 while the API server answers, or nobody asks as no router has other directors",
            f64::from(u8::from(reached)),
        )?;
        gauge(
            "lvs_agent_refresh_lateness_seconds",
            "How late the latest refresh of an address was, against its interval",
            report.refresh_lateness.as_secs_f64(),
        )?;
        let mut counter = |name: &str, help: &str, value: u64| {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(encoder)
        };
        let heartbeats = report.heartbeats;
        counter(
            "lvs_agent_heartbeats_sent",
            "Heartbeats sent",
            heartbeats.sent,
        )?;
        counter(
            "lvs_agent_heartbeats_unsent",
            "Heartbeats that could not be sent",
            heartbeats.unsent,
        )?;
        counter(
            "lvs_agent_heartbeats_heard",
            "Heartbeats heard that answer one of ours",
            heartbeats.heard,
        )?;
        counter(
            "lvs_agent_heartbeats_stale",
            "Authentic heartbeats of directors that do not hear this node",
            heartbeats.stale,
        )?;
        counter(
            "lvs_agent_heartbeats_ignored",
            "Authentic heartbeats that were old, or of no director",
            heartbeats.ignored,
        )?;
        if let Some(received) = &self.received {
            for (name, help, count) in [
                (
                    "lvs_agent_heartbeats_forged",
                    "Datagrams that none of the keys had sealed",
                    &received.forged,
                ),
                (
                    "lvs_agent_heartbeats_unreadable",
                    "Sealed heartbeats of a version that this agent does not know",
                    &received.unreadable,
                ),
                (
                    "lvs_agent_heartbeats_dropped",
                    "Heartbeats that came faster than they were dealt with",
                    &received.dropped,
                ),
            ] {
                counter(name, help, count.load(Ordering::Relaxed))?;
            }
        }
        counter(
            "lvs_agent_announcements",
            "Gratuitous ARP and unsolicited neighbour advertisements sent",
            report.counts.announcements,
        )?;
        counter(
            "lvs_agent_late_deletions",
            "Addresses deleted since the time of the Lease had run out during their refresh",
            report.counts.late_deletions,
        )?;
        let mut family = encoder.encode_descriptor(
            "lvs_agent_router_master",
            "1 where this node holds the addresses of the router",
            None,
            MetricType::Gauge,
        )?;
        for (router, state) in &roles {
            let labels = [("router", router.as_str())];
            let is_master = f64::from(u8::from(state.role == Role::Master));
            ConstGauge::new(is_master).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "lvs_agent_router_epoch",
            "Newest epoch of the router that this node knows",
            None,
            MetricType::Gauge,
        )?;
        for (router, state) in &roles {
            let labels = [("router", router.as_str())];
            let epoch = i64::try_from(state.epoch.unwrap_or_default()).unwrap_or(i64::MAX);
            ConstGauge::new(epoch).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "lvs_agent_router_heartbeat_lost",
            "1 where the holder of the router renews its Lease, but its heartbeats do not arrive at this node",
            None,
            MetricType::Gauge,
        )?;
        for (router, state) in &roles {
            let labels = [("router", router.as_str())];
            let is_lost = f64::from(u8::from(state.heartbeat_lost_from.is_some()));
            ConstGauge::new(is_lost).encode(family.encode_family(&labels)?)?;
        }
        self.observations.encode(&mut encoder)
    }
}

/// What a node shows that directs nothing.
#[cfg(test)]
pub(crate) fn collector_of_nothing() -> Box<dyn Collector> {
    Box::new(LeadershipMetrics {
        report: watch::channel(FenceReport::default()).1,
        roles: watch::channel(BTreeMap::new()).1,
        api_reached: watch::channel(true).1,
        observations: Observations::new(),
        received: Some(Arc::default()),
    })
}
