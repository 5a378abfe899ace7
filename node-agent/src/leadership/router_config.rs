//! What one router wants of this node, and what the election, the heartbeats and the fence are told of it.

use std::net::IpAddr;
use std::time::Duration;

use lvs_core::chronicle::Departure;
use lvs_core::desired::{Fitness, HeartbeatInterface};
use lvs_core::election::{
    ApiLoss, Config, HeartbeatParts, Intent, OnShutdown, Takeover, Timing, TimingError, in_order,
};
use lvs_crds::node_plan::{Candidacy, LeadershipPlan, PlanState};
use lvs_crds::virtual_router::{self as plan, Announcement, OnApiServerLoss};

use super::exchanges::{PeerPath, Source};

/// Seconds between announcements of addresses with a virtual MAC where none are asked for.
const VIRTUAL_MAC_REFRESH_SECONDS: u32 = 60;

/// What one router wants of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterConfig {
    /// From the router's plan.
    pub plan: LeadershipPlan,
    /// State of that plan.
    pub state: PlanState,
    /// Whether the last sync verified what this router's services need on this node. A node that is not
    /// verified lets others go first, and takes no offer.
    pub verified: bool,
    /// What speaks against this node. One that is not fit acquires nothing, and offers what it holds.
    pub fitness: Fitness,
    /// The interface of its heartbeats on this node, where they have one of their own.
    pub heartbeat_interface: Option<HeartbeatInterface>,
}

/// How heartbeats get to a peer.
pub(super) fn path(router: &RouterConfig, to: IpAddr) -> PeerPath {
    let plan = router.plan.heartbeat.as_ref();
    let from = if plan.is_none_or(|plan| plan.devices.is_empty()) {
        Source::Routed
    } else {
        let interface = router.heartbeat_interface.as_ref();
        match interface.and_then(|interface| interface.source_for(to)) {
            Some((index, address)) => Source::Interface { index, address },
            None => Source::Nowhere,
        }
    };
    PeerPath { to, from }
}

/// What the election is told of a router, by an agent with or without heartbeats.
pub(super) fn election_config(
    router: &RouterConfig,
    has_heartbeats: bool,
) -> Result<Config, TimingError> {
    let plan = router.plan.heartbeat.as_ref().filter(|_| has_heartbeats);
    let heartbeat = plan.map(|plan| HeartbeatParts {
        interval: Duration::from_millis(plan.interval_milliseconds.into()),
        missed: plan.missed.into(),
        challenge_window: Duration::from_millis(plan.challenge_window_milliseconds.into()),
    });
    let peers = router.plan.heartbeat.iter().flat_map(|plan| &plan.peers);
    let addresses = peers.map(|peer| (peer.node_name.clone(), peer.address));
    Ok(Config {
        timing: Timing::for_detection(router.plan.lease_duration_seconds, heartbeat)?,
        preemption_delay: router
            .plan
            .preemption_delay_seconds
            .map(|seconds| Duration::from_secs(seconds.into())),
        hand_over_to: router.plan.hand_over_to.clone(),
        priority: router.fitness.priority(router.plan.priority),
        permitted: router.plan.candidacy == Candidacy::Permitted,
        directors: in_order(router.plan.directors.clone(), &addresses.collect()),
        intent: match router.state {
            // Its addresses move as one: a director that cannot hold all of them leaves them to another.
            PlanState::Active if !router.fitness.is_fit() => Intent::Leave,
            PlanState::Active => Intent::Hold,
            PlanState::Leaving => Intent::Leave,
            PlanState::Withdrawn => Intent::Withdraw,
            PlanState::Retained => Intent::Retain,
        },
        verified: router.verified,
        on_shutdown: OnShutdown::HandOver,
        on_api_loss: match router.plan.on_api_server_loss {
            OnApiServerLoss::Hold => ApiLoss::Hold,
            OnApiServerLoss::HoldAlways => ApiLoss::HoldAlways,
            OnApiServerLoss::Release => ApiLoss::Release,
        },
        takeover: match router.plan.takeover {
            plan::Takeover::Fast => Takeover::Fast,
            plan::Takeover::Strict => Takeover::Strict,
        },
    })
}

/// Why the node is to leave the router to others, where [`election_config`] makes it an intent.
pub(super) fn departure(router: &RouterConfig) -> Option<Departure> {
    match router.state {
        PlanState::Leaving => Some(Departure::NotSelected),
        PlanState::Active => {
            let fault = router.fitness.faults.first();
            fault.map(|fault| Departure::Fault(fault.message.clone()))
        }
        PlanState::Withdrawn | PlanState::Retained => None,
    }
}

/// How the addresses are announced. Switches forget a MAC that sends nothing, usually after 300 s, and a virtual MAC
/// sends nothing by itself: it is announced now and then in any case.
pub(super) fn announcement(plan: &LeadershipPlan) -> Announcement {
    let announcement = plan.announcement.clone();
    let refresh_seconds = match (announcement.refresh_seconds, plan.virtual_router_id) {
        (0, Some(_)) => VIRTUAL_MAC_REFRESH_SECONDS,
        (asked_for, _) => asked_for,
    };
    Announcement {
        refresh_seconds,
        ..announcement
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lvs_core::desired::Fault;
    use lvs_crds::condition::Reason;
    use lvs_crds::node_plan::{HeartbeatPeer, HeartbeatPlan};
    use lvs_crds::tracking::Deduction;

    use super::*;

    fn router(state: PlanState, fitness: Fitness) -> RouterConfig {
        RouterConfig {
            plan: LeadershipPlan {
                lease_name: "lvs-router-edge".to_owned(),
                priority: 100,
                candidacy: Candidacy::Permitted,
                directors: vec!["lb-a".to_owned(), "lb-b".to_owned()],
                lease_duration_seconds: 10,
                connection_sync: None,
                preemption_delay_seconds: None,
                hand_over_to: None,
                heartbeat: None,
                on_api_server_loss: OnApiServerLoss::Hold,
                takeover: lvs_crds::virtual_router::Takeover::Fast,
                announcement: Announcement::default(),
                timeouts: None,
                virtual_router_id: None,
                tracked_interfaces: Vec::new(),
                tracked_endpoints: Vec::new(),
                tracked_real_servers: None,
                addresses_set_aside: Vec::new(),
            },
            state,
            verified: true,
            fitness,
            heartbeat_interface: None,
        }
    }

    #[test]
    fn a_director_with_a_fault_takes_nothing_and_offers_what_it_holds() {
        let fault = Fitness {
            faults: [Fault {
                reason: Reason::LinkDown,
                message: "device out has no carrier".to_owned(),
            }]
            .into(),
            deductions: [Deduction {
                priority_delta: -30,
                reason: "EndpointFailed".to_owned(),
                message: "timed out after 1 s".to_owned(),
            }]
            .into(),
        };
        for (state, fitness, intent) in [
            (PlanState::Active, Fitness::default(), Intent::Hold),
            (PlanState::Active, fault.clone(), Intent::Leave),
            // What the plan's state says goes before.
            (PlanState::Withdrawn, fault.clone(), Intent::Withdraw),
            (PlanState::Retained, fault.clone(), Intent::Retain),
        ] {
            let config = election_config(&router(state, fitness), true).unwrap();
            assert_eq!(config.intent, intent, "{state:?}");
        }
        let config = election_config(&router(PlanState::Active, fault), true).unwrap();
        assert_eq!(config.priority, 70);
    }

    #[test]
    fn heartbeats_with_an_interface_leave_from_it_or_not_at_all() {
        let mut router = router(PlanState::Active, Fitness::default());
        let to = "10.1.0.2".parse().unwrap();
        let mut plan = HeartbeatPlan {
            interval_milliseconds: 150,
            missed: 3,
            challenge_window_milliseconds: 200,
            devices: Vec::new(),
            peers: Vec::new(),
        };
        router.plan.heartbeat = Some(plan.clone());
        assert_eq!(path(&router, to).from, Source::Routed);
        plan.devices = vec!["in".to_owned()];
        router.plan.heartbeat = Some(plan);
        assert_eq!(path(&router, to).from, Source::Nowhere);
        router.heartbeat_interface = Some(HeartbeatInterface {
            devices: vec!["in".to_owned()],
            index: Some(7),
            addresses: vec!["10.1.0.1".parse().unwrap()],
        });
        let address = "10.1.0.1".parse().unwrap();
        assert_eq!(
            path(&router, to).from,
            Source::Interface { index: 7, address }
        );
        let of_other_family = "2001:db8::2".parse().unwrap();
        assert_eq!(path(&router, of_other_family).from, Source::Nowhere);
    }

    #[test]
    fn equals_are_ordered_by_the_addresses_of_the_plan() {
        let mut router = router(PlanState::Active, Fitness::default());
        let peer = |node_name: &str, address: &str| HeartbeatPeer {
            node_name: node_name.to_owned(),
            address: address.parse().unwrap(),
        };
        router.plan.heartbeat = Some(HeartbeatPlan {
            interval_milliseconds: 150,
            missed: 3,
            challenge_window_milliseconds: 200,
            devices: Vec::new(),
            peers: vec![peer("lb-a", "192.0.2.12"), peer("lb-b", "192.0.2.9")],
        });
        for has_heartbeats in [true, false] {
            let config = election_config(&router, has_heartbeats).unwrap();
            assert_eq!(config.directors, ["lb-b", "lb-a"], "the last goes first");
        }
    }

    #[test]
    fn a_virtual_mac_is_announced_now_and_then_in_any_case() {
        let mut plan = router(PlanState::Active, Fitness::default()).plan;
        assert_eq!(announcement(&plan).refresh_seconds, 0);
        plan.virtual_router_id = Some(51);
        assert_eq!(announcement(&plan).refresh_seconds, 60);
        plan.announcement.refresh_seconds = 5;
        assert_eq!(announcement(&plan).refresh_seconds, 5);
    }
}
