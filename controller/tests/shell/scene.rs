//! A controller in a small cluster, and what is in that cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use lvs_controller::apply::{Backoff, Writer};
use lvs_controller::metrics::Metrics;
use lvs_controller::reconcile::{Outcome, Pulse, Reconciler};
use lvs_controller::snapshot::Settings;
use lvs_controller::status::StatusWriter;
use lvs_controller::world::{Change, Labelled, SharedWorld, Store, Versioned};
use lvs_plan::input::{Node, ObjectKey, decode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::stage::Stage;

pub fn put<T: PartialEq>(
    store: &mut Store<T>,
    namespace: &str,
    name: &str,
    version: &str,
    object: T,
) {
    let versioned = Versioned {
        resource_version: version.to_owned(),
        object: Arc::new(object),
    };
    store.take(Change::Applied(ObjectKey::new(namespace, name), versioned));
}

pub fn virtual_service(scheduler: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": "web", "uid": "vs", "generation": 1,
                        "creationTimestamp": "2026-01-01T00:00:00Z"},
           "spec": {"addresses": ["172.25.0.1"], "ports": [{"port": 80}], "forwarding": {"type": "DR"},
                    "scheduler": {"name": scheduler}, "realServerSelector": {}}})
}

pub fn virtual_router() -> Value {
    json!({"metadata": {"name": "default", "uid": "vr", "generation": 1,
                        "annotations": {"lvs.dev/is-default-router": "true"}},
           "spec": {"addressPools": [{"name": "public", "addresses": ["172.25.0.0/24"]}],
                    "grants": [{"namespaces": {"from": "All"}, "addressPoolNames": ["public"]}]}})
}

/// A controller in a small cluster: nodes a and b, both directors, one VirtualService.
pub struct Scene {
    pub stage: Stage,
    pub world: SharedWorld,
    pub metrics: Arc<Metrics>,
    pub reconciler: Reconciler,
    pub status: StatusWriter,
    pub outcomes: watch::Receiver<Option<Outcome>>,
    pub backoff: Backoff,
}

impl Scene {
    pub fn new() -> Self {
        let scene = Self::without_stores();
        {
            let mut world = scene.world.lock();
            world.virtual_services.take(Change::Complete);
            world.real_servers.take(Change::Complete);
            world.endpoint_slices.take(Change::Complete);
            world.ca_bundles.take(Change::Complete);
            world.virtual_routers.take(Change::Complete);
            world.node_plans.take(Change::Complete);
            world.nodes.take(Change::Complete);
            world.namespaces.take(Change::Complete);
            world.leases.take(Change::Complete);
            world.agent_pods.take(Change::Complete);
            world.api_endpoints.take(Change::Complete);
            world.service_cidrs.take(Change::Complete);
            for (name, address) in [("a", "192.168.50.11"), ("b", "192.168.50.12")] {
                let node = Node {
                    name: name.to_owned(),
                    uid: format!("node-{name}"),
                    internal_addresses: vec![address.parse().unwrap()],
                    ..Node::default()
                };
                put(&mut world.nodes, "", name, "1", node);
                put(
                    &mut world.agent_pods,
                    "lvs-system",
                    &format!("agent-{name}"),
                    "1",
                    name.to_owned(),
                );
            }
            put(&mut world.namespaces, "", "shop", "1", Labelled::default());
            let router = virtual_router();
            put(
                &mut world.virtual_routers,
                "",
                "default",
                "1",
                decode(&router).unwrap(),
            );
            put(
                &mut world.virtual_services,
                "shop",
                "web",
                "1",
                decode(&virtual_service("wrr")).unwrap(),
            );
        }
        scene
    }

    pub fn without_stores() -> Self {
        let stage = Stage::default();
        let world = SharedWorld::default();
        let metrics = Arc::new(Metrics::default());
        let (outcomes, receiver) = watch::channel(None);
        let (names, _) = watch::channel(BTreeSet::new());
        let (_, is_leader) = watch::channel(true);
        let client = stage.client();
        let writer = Writer::new(
            client.clone(),
            "lvs-system".to_owned(),
            world.clone(),
            metrics.clone(),
        );
        let reconciler = Reconciler {
            world: world.clone(),
            settings: Settings {
                namespace: "lvs-system".to_owned(),
                firewall_mark_range: 0x2000..=0x20ff,
            },
            writer,
            metrics: metrics.clone(),
            pulse: Pulse::default(),
            outcomes,
            names,
            is_leader,
            traces: None,
        };
        let status = StatusWriter::new(client, world.clone(), metrics.clone(), "pod".to_owned());
        Self {
            stage,
            world,
            metrics,
            reconciler,
            status,
            outcomes: receiver,
            backoff: Backoff::default(),
        }
    }

    pub async fn pass(&mut self) {
        self.reconciler.pass(&mut self.backoff).await;
    }

    /// Writes the statuses of the newest pass.
    pub async fn report(&self) -> bool {
        let Some(Outcome::Resolved(resolution)) = self.outcomes.borrow().clone() else {
            panic!("no resolution")
        };
        self.status
            .write(
                &resolution.report,
                &Time(Timestamp::from_second(1_800_000_000).unwrap()),
            )
            .await
    }

    /// The watch brings the Leases that were written.
    pub fn watch_leases(&self) {
        for sent in self.stage.take("/leases/") {
            let lease: k8s_openapi::api::coordination::v1::Lease =
                serde_json::from_value(sent.body).unwrap();
            let name = lease.metadata.name.clone().unwrap();
            let mut world = self.world.lock();
            world.observe_lease(&lease, tokio::time::Instant::now());
            put(&mut world.leases, "lvs-system", &name, "1", lease);
        }
    }
}
