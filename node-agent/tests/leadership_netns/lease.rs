//! A whole leadership against a Lease behind HTTP.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lvs_agent::leadership::fence::FenceReport;
use lvs_agent::leadership::{
    Leadership, LeadershipConfig, RoleState, RouterConfig, RouterName, clock,
};
use lvs_core::desired::Fitness;
use lvs_core::election::Role;
use lvs_crds::node_plan::{Candidacy, LeadershipPlan, PlanState};
use lvs_crds::transition::{Transition, TransitionKind};
use lvs_crds::virtual_router::{Announcement, OnApiServerLoss, Takeover};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::lease_api::LeaseApi;
use super::namespace::{in_kernel, in_namespace, until};
use super::{V4, addresses, wait};

fn plan(directors: &[&str]) -> LeadershipPlan {
    LeadershipPlan {
        lease_name: "lvs-router-edge".to_owned(),
        priority: 100,
        candidacy: Candidacy::Permitted,
        directors: directors.iter().map(|name| (*name).to_owned()).collect(),
        lease_duration_seconds: 10,
        preemption_delay_seconds: None,
        hand_over_to: None,
        heartbeat: None,
        on_api_server_loss: OnApiServerLoss::Hold,
        takeover: Takeover::Fast,
        announcement: Announcement::default(),
        timeouts: None,
        virtual_router_id: None,
        tracked_interfaces: Vec::new(),
        tracked_endpoints: Vec::new(),
        tracked_real_servers: None,
        addresses_set_aside: Vec::new(),
        connection_sync: None,
    }
}

fn router(directors: &[&str], state: PlanState) -> BTreeMap<String, RouterConfig> {
    let config = RouterConfig {
        plan: plan(directors),
        state,
        verified: true,
        fitness: Fitness::default(),
        heartbeat_interface: None,
    };
    [("edge".to_owned(), config)].into()
}

fn leadership(api: &LeaseApi, directory: &Path, incarnation: &str) -> Leadership {
    Leadership::start(LeadershipConfig {
        client: api.client.clone(),
        endpoints: None,
        namespace: "lvs-system".to_owned(),
        node_name: "lb-a".to_owned(),
        incarnation: incarnation.to_owned(),
        runtime_directory: directory.to_owned(),
        heartbeat: None,
    })
    .unwrap()
}

async fn role(leadership: &Leadership, role: Role) {
    wait(&mut leadership.roles(), |roles| {
        roles.get("edge").is_some_and(|state| state.role == role)
    })
    .await;
}

async fn last_transition(
    roles: &mut watch::Receiver<BTreeMap<RouterName, RoleState>>,
    reason: TransitionKind,
) -> Transition {
    let roles = wait(roles, |roles| {
        let last = roles
            .get("edge")
            .and_then(|state| state.last_transition.as_ref());
        last.is_some_and(|last| last.reason == reason)
    })
    .await;
    roles["edge"].last_transition.clone().unwrap()
}

/// The value of one sample; 0 while there is none.
fn sample(registry: &Registry, name: &str) -> f64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map_or(0.0, |value| value.parse().unwrap())
}

async fn held(leadership: &Leadership, texts: &[&str]) -> FenceReport {
    let wanted = addresses(texts);
    wait(&mut leadership.addresses(), |report| {
        report
            .routers
            .get("edge")
            .is_some_and(|edge| edge.held == wanted)
    })
    .await
}

#[test]
fn a_leadership_acquires_survives_the_api_and_lends_to_its_successor() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let api = LeaseApi::start("lb-a").await;
        let mut first = leadership(&api, directory.path(), "first");
        first.set_routers(router(&["lb-a"], PlanState::Active));
        first.set_addresses([("edge".to_owned(), addresses(&[V4]))].into());
        role(&first, Role::Master).await;
        held(&first, &[V4]).await;
        let lease = api
            .wait_for(|lease| lease["spec"]["leaseTransitions"] == 1)
            .await;
        assert_eq!(lease["spec"]["holderIdentity"], "lb-a/first");
        assert_eq!(
            lease["metadata"]["annotations"]["lvs.dev/directors"],
            "lb-a"
        );
        assert!(lease["spec"]["acquireTime"].is_string());

        // An annotation of somebody else makes the next renewal conflict; nothing else comes of it.
        api.change(|lease| lease["metadata"]["annotations"]["example.org/note"] = json!("x"));
        let renewed = lease["spec"]["renewTime"].clone();
        let lease = api
            .wait_for(|lease| lease["spec"]["renewTime"] != renewed)
            .await;
        assert_eq!(lease["metadata"]["annotations"]["example.org/note"], "x");
        assert_eq!(lease["spec"]["leaseTransitions"], 1);

        // The only director holds without the API for longer than its Lease.
        api.set_broken(true);
        let beyond = clock::now() + Duration::from_secs(12);
        until("time without the API", Duration::from_secs(30), || {
            assert!(in_kernel(V4).is_some());
            clock::now() > beyond
        })
        .await;
        api.set_broken(false);
        let renewed = lease["spec"]["renewTime"].clone();
        api.wait_for(|lease| lease["spec"]["renewTime"] != renewed)
            .await;

        // SIGTERM: the address stays for half a minute, and the next agent adopts it.
        first.shutdown().await;
        let lease = api
            .wait_for(|lease| lease["spec"]["leaseDurationSeconds"] == 35)
            .await;
        assert_eq!(lease["spec"]["holderIdentity"], "lb-a/first");
        assert!(in_kernel(V4).unwrap()["valid_life_time"].as_u64().unwrap() > 20);
        let mut second = leadership(&api, directory.path(), "second");
        second.set_routers(router(&["lb-a"], PlanState::Active));
        role(&second, Role::Master).await;
        let report = held(&second, &[V4]).await;
        assert_eq!((report.counts.additions, report.counts.deletions), (0, 0));
        let lease = api
            .wait_for(|lease| lease["spec"]["holderIdentity"] == "lb-a/second")
            .await;
        assert_eq!(lease["spec"]["leaseTransitions"], 1, "the same epoch");

        second.set_routers(router(&["lb-a"], PlanState::Withdrawn));
        role(&second, Role::Released).await;
        held(&second, &[]).await;
        assert!(in_kernel(V4).is_none());
        let lease = api
            .wait_for(|lease| lease["spec"]["holderIdentity"].is_null())
            .await;
        assert_eq!(lease["spec"]["leaseTransitions"], 1);
    });
}

#[test]
fn a_leadership_gives_up_to_a_higher_epoch_and_offers_on_shutdown() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let api = LeaseApi::start("lb-a,lb-b").await;
        let mut leadership = leadership(&api, directory.path(), "first");
        leadership.set_routers(router(&["lb-a", "lb-b"], PlanState::Active));
        leadership.set_addresses([("edge".to_owned(), addresses(&[V4]))].into());
        held(&leadership, &[V4]).await;
        api.change(|lease| {
            lease["spec"]["holderIdentity"] = json!("lb-b/other");
            lease["spec"]["leaseTransitions"] = json!(2);
            lease["spec"]["renewTime"] = json!("2030-01-01T00:00:00.000000Z");
        });
        role(&leadership, Role::Backup).await;
        held(&leadership, &[]).await;
        assert!(in_kernel(V4).is_none());
        let mut roles = leadership.roles();
        let told = last_transition(&mut roles, TransitionKind::Fenced).await;
        assert_eq!(
            (told.epoch, told.message.as_str()),
            (1, "lb-b holds epoch 2")
        );

        // The other releases; then a shutdown of ours offers to it.
        api.change(|lease| {
            lease["spec"]["holderIdentity"] = Value::Null;
        });
        held(&leadership, &[V4]).await;
        let told = last_transition(&mut roles, TransitionKind::BecameMaster).await;
        assert_eq!(
            (told.epoch, told.message.as_str()),
            (3, "nobody held the Lease")
        );
        // The takeover is announced by now, or soon, and its phases are the whole of it.
        let mut registry = Registry::default();
        registry.register_collector(leadership.collector());
        let vacant = "{cause=\"vacant\"}";
        until("a takeover", Duration::from_secs(10), || {
            sample(
                &registry,
                &format!("lvs_agent_takeover_seconds_count{vacant}"),
            ) > 0.5
        })
        .await;
        let whole = sample(
            &registry,
            &format!("lvs_agent_takeover_seconds_sum{vacant}"),
        );
        let phases: f64 = ["detection", "challenge", "write", "apply", "announce"]
            .iter()
            .map(|phase| {
                let labels = format!("{{cause=\"vacant\",phase=\"{phase}\"}}");
                sample(
                    &registry,
                    &format!("lvs_agent_takeover_phase_seconds_sum{labels}"),
                )
            })
            .sum();
        assert!(
            whole > 0.0 && (whole - phases).abs() < 1e-6,
            "{phases} of {whole}"
        );
        let fenced = "lvs_agent_router_transitions_total{router=\"edge\",reason=\"Fenced\"}";
        assert!((sample(&registry, fenced) - 1.0).abs() < 1e-9);
        let shutdown = tokio::spawn(leadership.shutdown());
        api.wait_for(|lease| lease["metadata"]["annotations"]["lvs.dev/offered"] == "3")
            .await;
        assert!(in_kernel(V4).is_some());
        api.change(|lease| {
            lease["spec"]["holderIdentity"] = json!("lb-b/other");
            lease["spec"]["leaseTransitions"] = json!(4);
            let annotations = lease["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.remove("lvs.dev/offered");
        });
        shutdown.await.unwrap();
        assert!(in_kernel(V4).is_none(), "the successor has it");
        let told = last_transition(&mut roles, TransitionKind::HandedOver).await;
        assert_eq!((told.epoch, told.message.as_str()), (4, "its agent ends"));
        assert_eq!(told.peer_node_name.as_deref(), Some("lb-b"));
    });
}
