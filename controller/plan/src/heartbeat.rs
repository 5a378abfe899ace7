//! Heartbeats of a router: their times, and where its directors reach each other.
//!
//! Without an interface of their own they go between the first InternalIPs of the nodes. With one, only the agents know the
//! addresses there: each reports its own, and from then on the others' plans have it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvs_crds::condition::Reason;
use lvs_crds::node_plan::{
    HeartbeatPeer, HeartbeatPlan, HeartbeatStatus, LeadershipPlan, SourceKind,
};
use lvs_crds::value::AddressFamily;
use lvs_crds::virtual_router::{Detection, DetectionProfile};

use crate::input::Inputs;
use crate::name::plan_name;
use crate::router::Router;

/// i and k in milliseconds and heartbeats, and c in milliseconds, of profile Default.
const DEFAULT_TIMES: (u16, u8, u16) = (150, 3, 200);
/// Those of profile Fast.
const FAST_TIMES: (u16, u8, u16) = (50, 3, 100);

/// Where directors are reached by heartbeats, by node.
pub(crate) struct HeartbeatPaths {
    /// Devices of the interface; empty = by whatever way the routes say.
    devices: Vec<String>,
    addresses: BTreeMap<String, IpAddr>,
}

impl HeartbeatPaths {
    /// For the nodes of a router, leaving ones included: all plans must say the same of a node.
    pub(crate) fn of<'b>(
        inputs: &Inputs,
        router: &Router<'_>,
        nodes: impl Iterator<Item = &'b String>,
    ) -> Self {
        let devices = devices(router);
        let addresses = if devices.is_empty() {
            nodes
                .filter_map(|name| {
                    let node = inputs.nodes.get(name)?;
                    Some((name.clone(), *node.internal_addresses.first()?))
                })
                .collect()
        } else {
            let reported: BTreeMap<&String, &HeartbeatStatus> = nodes
                .filter_map(|name| Some((name, reported(inputs, router, name, &devices)?)))
                .collect();
            of_one_family(&reported)
        };
        Self { devices, addresses }
    }

    /// What these directors are told; none for one that is alone.
    pub(crate) fn plan(
        &self,
        detection: &Detection,
        directors: &[String],
    ) -> Option<HeartbeatPlan> {
        if directors.len() < 2 {
            return None;
        }
        let (interval_milliseconds, missed, challenge_window_milliseconds) = match detection.profile
        {
            DetectionProfile::Default => DEFAULT_TIMES,
            DetectionProfile::Fast => FAST_TIMES,
            DetectionProfile::Custom => (
                detection
                    .heartbeat_interval_milliseconds
                    .unwrap_or(DEFAULT_TIMES.0),
                detection.missed_heartbeats.unwrap_or(DEFAULT_TIMES.1),
                DEFAULT_TIMES.2,
            ),
        };
        let peers = directors.iter().filter_map(|node_name| {
            Some(HeartbeatPeer {
                node_name: node_name.clone(),
                address: *self.addresses.get(node_name)?,
            })
        });
        Some(HeartbeatPlan {
            interval_milliseconds,
            missed,
            challenge_window_milliseconds,
            devices: self.devices.clone(),
            peers: peers.collect(),
        })
    }
}

/// Devices of the interface for heartbeats. A name that spec.interfaces lacks was refused when the router was read.
fn devices(router: &Router<'_>) -> Vec<String> {
    let named = router.spec.detection.interface_name.as_ref();
    let mut interfaces = router.spec.interfaces.iter();
    interfaces
        .find(|interface| Some(&interface.name) == named)
        .map(|interface| interface.devices.clone())
        .unwrap_or_default()
}

/// What the agent of a node reported of these very devices: a report on others tells nothing.
fn reported<'b>(
    inputs: &'b Inputs,
    router: &Router<'_>,
    node_name: &str,
    devices: &[String],
) -> Option<&'b HeartbeatStatus> {
    let name = plan_name(SourceKind::VirtualRouter, node_name, &router.meta.uid);
    let status = inputs.node_plans.get(&name)?.object.status.as_ref()?;
    let heartbeat = status.heartbeat.as_ref()?;
    (heartbeat.devices == devices).then_some(heartbeat)
}

/// The address of each node in the family that most of them have, IPv4 if as many have the one as the other: a packet
/// has one family.
fn of_one_family(reported: &BTreeMap<&String, &HeartbeatStatus>) -> BTreeMap<String, IpAddr> {
    let of = |family: AddressFamily| -> BTreeMap<String, IpAddr> {
        let with_address = reported.iter().filter_map(|(name, heartbeat)| {
            let mut addresses = heartbeat.addresses.iter();
            let address = addresses.find(|address| AddressFamily::of(address) == family)?;
            Some(((*name).clone(), *address))
        });
        with_address.collect()
    };
    let (ipv4, ipv6) = (of(AddressFamily::IPv4), of(AddressFamily::IPv6));
    if ipv6.len() > ipv4.len() { ipv6 } else { ipv4 }
}

/// Why a director takes part without heartbeats though there are some, if it does.
pub(crate) fn obstacle(
    inputs: &Inputs,
    router: &Router<'_>,
    node_name: &str,
    leadership: &LeadershipPlan,
) -> Option<(Reason, String)> {
    let plan = leadership.heartbeat.as_ref()?;
    if plan.devices.is_empty() || plan.peers.iter().any(|peer| peer.node_name == node_name) {
        return None;
    }
    let interface_name = router.spec.detection.interface_name.as_deref()?;
    let interface = format!("interface {interface_name} ({})", plan.devices.join(", "));
    let why = match reported(inputs, router, node_name, &plan.devices) {
        None => format!("its agent has not reported yet which address it has on {interface}"),
        Some(heartbeat) if heartbeat.addresses.is_empty() => {
            format!("it has no global address on {interface}: give it one there")
        }
        Some(_) => format!(
            "it has no address on {interface} of the family that the other directors have there: give it one"
        ),
    };
    Some((
        Reason::HeartbeatAddressUnknown,
        format!(
            "{why}; until then it takes part without heartbeats, and a takeover that it has a part in waits until the Lease has run out"
        ),
    ))
}
