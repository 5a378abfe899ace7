//! Watches: one task per kind, feeding the world. A watch that breaks is resumed for ever; while
//! it is broken the store stays as it was.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node as ApiNode, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use lvs_crds::{NodePlan, RealServer, VirtualRouter, VirtualService};
use lvs_plan::ca_bundle::{CA_BUNDLE_LABEL, CA_BUNDLE_LABEL_VALUE};
use lvs_plan::endpoint::{self, SERVICE_NAME_LABEL};
use lvs_plan::input::{self, MetadataError, Node, ObjectKey};
use lvs_plan::reading;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::world::{Change, Kind, Labelled, SharedWorld, Store, Versioned, World};

/// Seconds of one watch request: also bounds how long a silently dead connection goes unnoticed.
const WATCH_SECONDS: u32 = 60;

/// What share of kube's waits (0.8 to 30 s and jitter) a broken watch waits before it is tried again: 0.13 to 5 s.
const WATCH_RETRY_SHARE: u32 = 6;

/// Waits before a broken watch is tried again. Shorter than kube's: of two controllers nobody notices the
/// requests, while every user waits for an API server that is back to be noticed.
#[derive(Default)]
pub struct WatchBackoff(DefaultBackoff);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait / WATCH_RETRY_SHARE)
    }
}

impl Backoff for WatchBackoff {
    // kube's watcher says that it begins to list before it asks, and that alone would reset this. What it counts
    // by itself is enough: two minutes without an error.
    fn reset(&mut self) {}
}

/// Where and what to watch.
#[derive(Clone)]
pub struct Watches {
    /// Client.
    pub client: Client,
    /// World to feed.
    pub world: SharedWorld,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Namespace of the operator.
    pub namespace: String,
    /// Labels of the agents' pods.
    pub agent_pod_selector: String,
}

/// What a store keeps of an object.
enum Kept<T> {
    /// This.
    Value(T),
    /// The object does not count.
    Nothing,
    /// It cannot be told: what was known stays.
    Unknown,
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

impl Watches {
    /// VirtualServices.
    pub async fn virtual_services(self) {
        let api = Api::all_with(
            self.client.clone(),
            &ApiResource::erase::<VirtualService>(&()),
        );
        self.custom(Kind::VirtualService, api, input::decode, |world| {
            &mut world.virtual_services
        })
        .await;
    }

    /// RealServers.
    pub async fn real_servers(self) {
        let api = Api::all_with(self.client.clone(), &ApiResource::erase::<RealServer>(&()));
        self.custom(Kind::RealServer, api, input::decode, |world| {
            &mut world.real_servers
        })
        .await;
    }

    /// EndpointSlices of Services, reduced as they arrive. One that cannot be read stays visible as such.
    pub async fn endpoint_slices(self) {
        let resource = ApiResource::erase::<EndpointSlice>(&());
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let stream = watcher(api, config().labels(SERVICE_NAME_LABEL));
        let keep =
            |slice: &DynamicObject| Kept::Value(endpoint::EndpointSlice::read(&to_json(slice)));
        self.feed_if(
            Kind::EndpointSlice,
            stream,
            keep,
            |world| &mut world.endpoint_slices,
            World::concerns_target,
        )
        .await;
    }

    /// ConfigMaps that are labelled as having certificate authorities, reduced to these as they arrive.
    pub async fn ca_bundles(self) {
        let api = Api::<ConfigMap>::all(self.client.clone());
        let label = format!("{CA_BUNDLE_LABEL}={CA_BUNDLE_LABEL_VALUE}");
        let keep = |map: &ConfigMap| Kept::Value(reading::certificate_authorities(map));
        let stream = watcher(api, config().labels(&label));
        self.feed(Kind::CaBundle, stream, keep, |world| &mut world.ca_bundles)
            .await;
    }

    /// VirtualRouters.
    pub async fn virtual_routers(self) {
        let api = Api::all_with(
            self.client.clone(),
            &ApiResource::erase::<VirtualRouter>(&()),
        );
        self.custom(Kind::VirtualRouter, api, input::decode, |world| {
            &mut world.virtual_routers
        })
        .await;
    }

    /// NodePlans.
    pub async fn node_plans(self) {
        let resource = ApiResource::erase::<NodePlan>(&());
        let api = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        self.custom(Kind::NodePlan, api, input::decode_plan, |world| {
            &mut world.node_plans
        })
        .await;
    }

    /// Nodes. A heartbeat of a kubelet changes nothing that is kept.
    pub async fn nodes(self) {
        let api = Api::<ApiNode>::all(self.client.clone());
        let stream = watcher(api, config());
        self.feed(
            Kind::Node,
            stream,
            |node| Kept::Value(Node::from_api(node, false)),
            |world| &mut world.nodes,
        )
        .await;
    }

    /// Namespaces.
    pub async fn namespaces(self) {
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let keep = |namespace: &PartialObjectMeta<Namespace>| {
            Kept::Value(Labelled {
                labels: namespace.labels().clone(),
                annotations: namespace.annotations().clone(),
            })
        };
        self.feed(Kind::Namespace, watcher(api, config()), keep, |world| {
            &mut world.namespaces
        })
        .await;
    }

    /// Leases. A renewal is noted and wakes nobody.
    pub async fn leases(self) {
        let api = Api::<Lease>::namespaced(self.client.clone(), &self.namespace);
        let world = self.world.clone();
        let keep = move |lease: &Lease| {
            if world.lock().observe_lease(lease, Instant::now()) {
                world.notify();
            }
            let mut without_renewal = lease.clone();
            without_renewal.metadata.managed_fields = None;
            without_renewal.metadata.resource_version = None;
            if let Some(spec) = &mut without_renewal.spec {
                spec.renew_time = None;
            }
            Kept::Value(without_renewal)
        };
        let world = self.world.clone();
        let stream = watcher(api, config()).inspect_ok(move |event| {
            // What is gone has no holder; after a list, what was not listed.
            let mut world = world.lock();
            match event {
                watcher::Event::Delete(lease) => {
                    world.observed_leases.remove(&lease.name_any());
                }
                watcher::Event::InitDone => {
                    let known = world.leases.arriving_names();
                    world.observed_leases.retain(|name, _| known.contains(name));
                }
                _ => {}
            }
        });
        self.feed(Kind::Lease, stream, keep, |world| &mut world.leases)
            .await;
    }

    /// Pods of agents, for the nodes they are on.
    pub async fn agent_pods(self) {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let stream = watcher(api, config().labels(&self.agent_pod_selector));
        let keep = |pod: &Pod| {
            let node = reading::agent_node(pod);
            node.map_or(Kept::Nothing, |node| Kept::Value(node.to_owned()))
        };
        self.feed(Kind::AgentPod, stream, keep, |world| &mut world.agent_pods)
            .await;
    }

    /// Endpoints of Service default/kubernetes: the API servers.
    pub async fn api_endpoints(self) {
        let api =
            Api::<EndpointSlice>::namespaced(self.client.clone(), reading::API_SERVICE_NAMESPACE);
        let label = format!("{SERVICE_NAME_LABEL}={}", reading::API_SERVICE_NAME);
        let stream = watcher(api, config().labels(&label));
        let keep = |slice: &EndpointSlice| Kept::Value(reading::api_addresses(slice));
        self.feed(Kind::ApiEndpoint, stream, keep, |world| {
            &mut world.api_endpoints
        })
        .await;
    }

    /// Networks of Services, where the API server has ServiceCIDR (Kubernetes 1.33; in beta 1.31).
    pub async fn service_cidrs(self) {
        let Some(resource) = self.service_cidr_resource().await else {
            tracing::info!(
                "the API server has no ServiceCIDR; addresses of Services cannot be refused"
            );
            {
                let mut world = self.world.lock();
                world.service_cidrs.take(Change::Begin);
                world.service_cidrs.take(Change::Complete);
            }
            self.world.notify();
            return std::future::pending().await;
        };
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let stream = watcher(api, config());
        let keep = |object: &DynamicObject| Kept::Value(reading::service_ranges(&object.data));
        self.feed(Kind::ServiceCidr, stream, keep, |world| {
            &mut world.service_cidrs
        })
        .await;
    }

    /// Asks until the API server answers; which versions it serves decides.
    async fn service_cidr_resource(&self) -> Option<ApiResource> {
        let mut delay = Duration::from_millis(500);
        loop {
            match self.find_service_cidr().await {
                Ok(found) => return found,
                Err(error) => {
                    self.metrics.watch_failed(Kind::ServiceCidr);
                    tracing::warn!("asking whether the API server has ServiceCIDR: {error}");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(Duration::from_secs(30));
                }
            }
        }
    }

    async fn find_service_cidr(&self) -> Result<Option<ApiResource>, kube::Error> {
        let groups = self.client.list_api_groups().await?.groups;
        let versions = groups
            .into_iter()
            .filter(|group| group.name == "networking.k8s.io")
            .flat_map(|g| g.versions);
        for version in versions {
            let resources = self
                .client
                .list_api_group_resources(&version.group_version)
                .await?
                .resources;
            if resources
                .iter()
                .any(|resource| resource.name == "servicecidrs")
            {
                let kind =
                    GroupVersionKind::gvk("networking.k8s.io", &version.version, "ServiceCIDR");
                return Ok(Some(ApiResource::from_gvk_with_plural(
                    &kind,
                    "servicecidrs",
                )));
            }
        }
        Ok(None)
    }

    /// Our own kinds, guarded: an object that cannot be decoded stays visible as such.
    async fn custom<T: PartialEq + Debug>(
        self,
        kind: Kind,
        api: Api<DynamicObject>,
        decode: impl Fn(&Value) -> Result<T, MetadataError>,
        store: impl Fn(&mut World) -> &mut Store<T>,
    ) {
        let keep = move |object: &DynamicObject| match decode(&to_json(object)) {
            Ok(object) => Kept::Value(object),
            Err(error) => {
                tracing::error!(
                    "{kind:?} {}: {error}; what was known of it stays",
                    object.name_any()
                );
                Kept::Unknown
            }
        };
        self.feed(kind, watcher(api, config()), keep, store).await;
    }

    async fn feed<K, T: PartialEq + Debug>(
        self,
        kind: Kind,
        stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
        keep: impl Fn(&K) -> Kept<T>,
        store: impl Fn(&mut World) -> &mut Store<T>,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        self.feed_if(kind, stream, keep, store, |_, _| true).await;
    }

    /// As [`Self::feed`]; a change that `concerns` nobody is stored and wakes nobody.
    async fn feed_if<K, T: PartialEq + Debug>(
        self,
        kind: Kind,
        stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
        keep: impl Fn(&K) -> Kept<T>,
        store: impl Fn(&mut World) -> &mut Store<T>,
        concerns: impl Fn(&World, &Change<T>) -> bool,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let mut stream = std::pin::pin!(stream.backoff(WatchBackoff::default()));
        let key =
            |object: &K| ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
        let versioned = |object: &K, value: T| Versioned {
            resource_version: object.resource_version().unwrap_or_default(),
            object: Arc::new(value),
        };
        while let Some(event) = stream.next().await {
            let change = match event {
                Ok(watcher::Event::Init) => Change::Begin,
                Ok(watcher::Event::InitDone) => Change::Complete,
                Ok(watcher::Event::InitApply(object)) => match keep(&object) {
                    Kept::Value(value) => Change::Listed(key(&object), versioned(&object, value)),
                    Kept::Nothing => continue,
                    Kept::Unknown => {
                        match store(&mut self.world.lock()).get(&key(&object)).cloned() {
                            Some(known) => Change::Listed(key(&object), known),
                            None => continue,
                        }
                    }
                },
                Ok(watcher::Event::Apply(object)) => match keep(&object) {
                    Kept::Value(value) => Change::Applied(key(&object), versioned(&object, value)),
                    Kept::Nothing => Change::Deleted(key(&object)),
                    Kept::Unknown => continue,
                },
                Ok(watcher::Event::Delete(object)) => Change::Deleted(key(&object)),
                Err(error) => {
                    self.metrics.watch_failed(kind);
                    tracing::warn!("watching {kind:?}: {error}");
                    continue;
                }
            };
            let matters = {
                let mut world = self.world.lock();
                let concerns = concerns(&world, &change);
                if let Change::Applied(key, _) | Change::Deleted(key) = &change {
                    world.arrived(kind, key, SystemTime::now());
                }
                store(&mut world).take(change) && concerns
            };
            if matters {
                self.world.notify();
            }
        }
    }
}

/// The object as JSON, without the bookkeeping of field managers.
fn to_json(object: &DynamicObject) -> Value {
    let mut value = object.data.clone();
    let mut metadata = object.metadata.clone();
    metadata.managed_fields = None;
    if let (Value::Object(fields), Ok(metadata)) = (&mut value, serde_json::to_value(metadata)) {
        fields.insert("metadata".to_owned(), metadata);
    }
    value
}
