//! What has been seen of the cluster: one store per kind, and a signal when anything that matters
//! changed. A store counts only once a complete list was seen; until then nothing is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use lvs_crds::health_check::JudgeHost;
use lvs_plan::address_range::AddressRange;
use lvs_plan::ca_bundle::CaBundle;
use lvs_plan::dns_name::DnsName;
use lvs_plan::endpoint::EndpointSlice;
use lvs_plan::input::{
    ExistingPlan, Node, ObjectKey, RealServerObject, VirtualRouterObject, VirtualServiceObject,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::change_traces::{Arrivals, is_followed};

/// How long a node counts as having an agent after its pod was last seen: longer than a rollout
/// keeps a node without one.
pub const AGENT_ABSENCE: Duration = Duration::from_mins(10);

/// Kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// VirtualService.
    VirtualService,
    /// RealServer.
    RealServer,
    /// EndpointSlice of a Service.
    EndpointSlice,
    /// ConfigMap with certificate authorities.
    CaBundle,
    /// VirtualRouter.
    VirtualRouter,
    /// NodePlan.
    NodePlan,
    /// Node.
    Node,
    /// Namespace.
    Namespace,
    /// Lease.
    Lease,
    /// Pod of an agent.
    AgentPod,
    /// Endpoints of the API server.
    ApiEndpoint,
    /// ServiceCIDR.
    ServiceCidr,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::VirtualService,
        Self::RealServer,
        Self::EndpointSlice,
        Self::CaBundle,
        Self::VirtualRouter,
        Self::NodePlan,
        Self::Node,
        Self::Namespace,
        Self::Lease,
        Self::AgentPod,
        Self::ApiEndpoint,
        Self::ServiceCidr,
    ];
}

/// An object and the version it was read at.
#[derive(Debug, PartialEq)]
pub struct Versioned<T> {
    /// Resource version.
    pub resource_version: String,
    /// Object.
    pub object: Arc<T>,
}

impl<T> Clone for Versioned<T> {
    fn clone(&self) -> Self {
        Self {
            resource_version: self.resource_version.clone(),
            object: self.object.clone(),
        }
    }
}

/// One kind, keyed by namespace and name.
#[derive(Clone, Debug)]
pub struct Store<T> {
    objects: BTreeMap<ObjectKey, Versioned<T>>,
    arriving: Option<BTreeMap<ObjectKey, Versioned<T>>>,
    is_complete: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            arriving: None,
            is_complete: false,
        }
    }
}

/// What a watch says about one kind.
#[derive(Clone, Debug)]
pub enum Change<T> {
    /// A list begins.
    Begin,
    /// An object of the list.
    Listed(ObjectKey, Versioned<T>),
    /// The list is complete: what it does not have is gone.
    Complete,
    /// An object is new or changed.
    Applied(ObjectKey, Versioned<T>),
    /// An object is gone.
    Deleted(ObjectKey),
}

impl<T: PartialEq> Store<T> {
    /// Takes a change in; says whether it matters.
    pub fn take(&mut self, change: Change<T>) -> bool {
        match change {
            Change::Begin => {
                self.arriving = Some(BTreeMap::new());
                false
            }
            Change::Listed(key, object) => {
                self.arriving.get_or_insert_default().insert(key, object);
                false
            }
            Change::Complete => {
                let arrived = self.arriving.take().unwrap_or_default();
                let differs = !self.is_complete || differ(&self.objects, &arrived);
                self.objects = arrived;
                self.is_complete = true;
                differs
            }
            Change::Applied(key, object) => {
                let differs = self
                    .objects
                    .get(&key)
                    .is_none_or(|old| old.object != object.object);
                self.objects.insert(key, object);
                differs
            }
            Change::Deleted(key) => self.objects.remove(&key).is_some(),
        }
    }

    /// Puts in what a write of ours returned, unless the watch has brought something since the
    /// version that was written from.
    pub fn learn(&mut self, key: &ObjectKey, base: Option<&str>, written: Versioned<T>) {
        let known = self
            .objects
            .get(key)
            .map(|known| known.resource_version.as_str());
        if known == base && self.is_complete {
            self.objects.insert(key.clone(), written);
        }
    }

    /// Objects by key.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Versioned<T>)> {
        self.objects.iter()
    }

    /// Names in the list that is arriving.
    pub fn arriving_names(&self) -> BTreeSet<String> {
        self.arriving
            .iter()
            .flatten()
            .map(|(key, _)| key.name.clone())
            .collect()
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Versioned<T>> {
        self.objects.get(key)
    }

    /// Whether a complete list was seen.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }
}

fn differ<T: PartialEq>(
    left: &BTreeMap<ObjectKey, Versioned<T>>,
    right: &BTreeMap<ObjectKey, Versioned<T>>,
) -> bool {
    left.len() != right.len()
        || left
            .iter()
            .zip(right)
            .any(|((left_key, left), (right_key, right))| {
                left_key != right_key || left.object != right.object
            })
}

/// A Lease, and since when its holder has shown no life. The holder's clock is never read: a
/// change of the record is the proof of life.
#[derive(Clone, Debug)]
pub struct ObservedLease {
    /// The object.
    pub lease: Lease,
    /// When the record was last seen to change.
    pub changed_at: Instant,
}

impl ObservedLease {
    /// When the Lease will have expired, if nothing changes. `None`: nobody holds it.
    pub fn expires_at(&self) -> Option<Instant> {
        let spec = self.lease.spec.as_ref()?;
        spec.holder_identity
            .as_ref()
            .filter(|holder| !holder.is_empty())?;
        let seconds = u64::try_from(spec.lease_duration_seconds?).ok()?;
        // 5 % on top for clocks that run differently, as candidates grant it too.
        Some(self.changed_at + Duration::from_secs(seconds) * 21 / 20)
    }
}

/// Everything seen.
#[derive(Debug, Default)]
pub struct World {
    /// VirtualServices.
    pub virtual_services: Store<VirtualServiceObject>,
    /// RealServers.
    pub real_servers: Store<RealServerObject>,
    /// EndpointSlices of every Service, reduced to what planning looks at.
    pub endpoint_slices: Store<EndpointSlice>,
    /// ConfigMaps with certificate authorities, reduced to these.
    pub ca_bundles: Store<CaBundle>,
    /// What the DNS says of names that RealServers have as targets.
    pub dns_names: BTreeMap<String, Arc<DnsName>>,
    /// VirtualRouters.
    pub virtual_routers: Store<VirtualRouterObject>,
    /// NodePlans.
    pub node_plans: Store<ExistingPlan>,
    /// Nodes; `has_agent` is filled in by the snapshot.
    pub nodes: Store<Node>,
    /// Labels and annotations of Namespaces.
    pub namespaces: Store<Labelled>,
    /// Leases of the operator's namespace without their times of renewal.
    pub leases: Store<Lease>,
    /// The same with what is known of their holders' life.
    pub observed_leases: BTreeMap<String, ObservedLease>,
    /// Node of each agent pod.
    pub agent_pods: Store<String>,
    /// When an agent was last seen on a node.
    pub agent_seen: BTreeMap<String, Instant>,
    /// Addresses of API servers by EndpointSlice.
    pub api_endpoints: Store<BTreeSet<IpAddr>>,
    /// Networks of Services by ServiceCIDR.
    pub service_cidrs: Store<Vec<AddressRange>>,
    /// When objects whose changes are followed were seen changed since the last pass; `None` = nothing is followed.
    pub arrivals: Option<Arrivals>,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labelled {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl World {
    /// Notes that an object was seen changed, if that is followed.
    pub fn arrived(&mut self, kind: Kind, key: &ObjectKey, now: SystemTime) {
        if let Some(arrivals) = &mut self.arrivals
            && is_followed(kind)
        {
            arrivals.entry((kind, key.clone())).or_insert(now);
        }
    }

    /// What was seen changed since the last call.
    pub fn take_arrivals(&mut self) -> Arrivals {
        self.arrivals
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Kinds of which no complete list was seen yet.
    pub fn missing(&self) -> Vec<Kind> {
        let is_complete = |kind: &Kind| match kind {
            Kind::VirtualService => self.virtual_services.is_complete(),
            Kind::RealServer => self.real_servers.is_complete(),
            Kind::EndpointSlice => self.endpoint_slices.is_complete(),
            Kind::CaBundle => self.ca_bundles.is_complete(),
            Kind::VirtualRouter => self.virtual_routers.is_complete(),
            Kind::NodePlan => self.node_plans.is_complete(),
            Kind::Node => self.nodes.is_complete(),
            Kind::Namespace => self.namespaces.is_complete(),
            Kind::Lease => self.leases.is_complete(),
            Kind::AgentPod => self.agent_pods.is_complete(),
            Kind::ApiEndpoint => self.api_endpoints.is_complete(),
            Kind::ServiceCidr => self.service_cidrs.is_complete(),
        };
        Kind::ALL
            .into_iter()
            .filter(|kind| !is_complete(kind))
            .collect()
    }

    /// Namespaces and names of the Services that RealServers name as their targets.
    pub fn target_services(&self) -> BTreeSet<(&str, &str)> {
        let real_servers = self.real_servers.objects();
        lvs_plan::reading::target_services(
            real_servers.map(|(key, object)| (key, object.object.as_ref())),
        )
    }

    /// Names in the DNS that RealServers have as targets, and those of judges.
    pub fn names(&self) -> BTreeSet<String> {
        let real_servers = self.real_servers.objects();
        let real_servers: Vec<_> = real_servers
            .filter_map(|(_, object)| object.object.spec())
            .collect();
        let targets = real_servers.iter().filter_map(|spec| {
            let target = spec.target.dns_name.as_ref()?;
            Some(target.name.clone())
        });
        let services = self.virtual_services.objects();
        let services = services.filter_map(|(_, object)| object.object.spec());
        let of_services = services.flat_map(|spec| &spec.health_checks);
        let of_real_servers = real_servers.iter().flat_map(|spec| &spec.health_checks);
        let judges = of_services.chain(of_real_servers).filter_map(|check| {
            match check.external_http.as_ref()?.judge()?.host {
                JudgeHost::Name(name) => Some(name),
                JudgeHost::Address(_) => None,
            }
        });
        targets.chain(judges).collect()
    }

    /// Whether a change of EndpointSlices is of a Service that a RealServer names: pods come and go all the time, and
    /// nobody need wake for those of others. Asked before the store has taken the change.
    pub fn concerns_target(&self, change: &Change<EndpointSlice>) -> bool {
        let (key, now) = match change {
            Change::Begin | Change::Listed(..) | Change::Complete => return true,
            Change::Applied(key, slice) => (key, Some(&slice.object)),
            Change::Deleted(key) => (key, None),
        };
        let before = self.endpoint_slices.get(key).map(|slice| &slice.object);
        let mut slices = [before, now].into_iter().flatten();
        slices.any(|slice| {
            let mut named = self.real_servers.objects().filter_map(|(other, object)| {
                let service = object.object.spec()?.target.service.as_ref()?;
                (other.namespace == key.namespace).then_some(&service.name)
            });
            named.any(|name| *name == slice.service_name)
        })
    }

    /// Notes a version of a Lease; `true` when more than its renewal changed.
    pub fn observe_lease(&mut self, lease: &Lease, now: Instant) -> bool {
        let name = lease.metadata.name.clone().unwrap_or_default();
        let life = |lease: &Lease| {
            let spec = lease.spec.clone().unwrap_or_default();
            let renewed: Option<Timestamp> = spec.renew_time.map(|time| time.0);
            (spec.holder_identity, spec.lease_transitions, renewed)
        };
        let known = self.observed_leases.get(&name);
        let was_dead = known
            .and_then(ObservedLease::expires_at)
            .is_some_and(|expired| expired <= now);
        let changed_at = match known {
            Some(known) if life(&known.lease) == life(lease) => known.changed_at,
            _ => now,
        };
        self.observed_leases.insert(
            name,
            ObservedLease {
                lease: lease.clone(),
                changed_at,
            },
        );
        was_dead && changed_at == now
    }
}

/// Shared access to the world.
#[derive(Clone, Debug, Default)]
pub struct SharedWorld {
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
}

impl SharedWorld {
    /// Access, for a moment: never across an await.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        // A panic under the lock ends the process anyway, by the task that panicked.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something changed.
    pub fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits until something changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lvs_plan::endpoint::Endpoints;
    use lvs_plan::input::Body;

    fn versioned(version: &str, object: &str) -> Versioned<String> {
        Versioned {
            resource_version: version.to_owned(),
            object: Arc::new(object.to_owned()),
        }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("n", name)
    }

    #[test]
    fn a_list_replaces_the_store_only_when_complete() {
        let mut store = Store::default();
        assert!(!store.take(Change::Begin));
        assert!(!store.take(Change::Listed(key("a"), versioned("1", "x"))));
        assert!(!store.is_complete());
        assert!(store.take(Change::Complete));
        assert!(store.is_complete());

        store.take(Change::Begin);
        assert!(
            store.get(&key("a")).is_some(),
            "a list that has begun removes nothing"
        );
        store.take(Change::Listed(key("a"), versioned("2", "x")));
        assert!(
            !store.take(Change::Complete),
            "the same objects again do not matter"
        );
        store.take(Change::Begin);
        assert!(store.take(Change::Complete));
        assert!(store.get(&key("a")).is_none());
    }

    #[test]
    fn what_a_write_returned_never_overwrites_what_the_watch_brought_later() {
        let mut store = Store::default();
        store.take(Change::Complete);
        store.learn(&key("a"), None, versioned("1", "x"));
        store.take(Change::Applied(key("a"), versioned("3", "z")));
        store.learn(&key("a"), Some("1"), versioned("2", "y"));
        assert_eq!(*store.get(&key("a")).unwrap().object, "z");
        store.learn(&key("a"), Some("3"), versioned("4", "w"));
        assert_eq!(*store.get(&key("a")).unwrap().object, "w");
    }

    fn slice_of(service_name: &str) -> Versioned<EndpointSlice> {
        Versioned {
            resource_version: "1".to_owned(),
            object: Arc::new(EndpointSlice {
                service_name: service_name.to_owned(),
                body: Body::Decoded(Endpoints::default()),
            }),
        }
    }

    #[test]
    fn only_slices_of_services_that_a_real_server_names_wake_anybody() {
        let mut world = World::default();
        let applied = |name: &str, service: &str| Change::Applied(key(name), slice_of(service));
        assert!(
            !world.concerns_target(&applied("web-1", "web")),
            "nobody names it"
        );

        let real_server = lvs_plan::input::decode(&serde_json::json!({
            "metadata": {"namespace": "n", "name": "web", "uid": "u"},
            "spec": {"target": {"type": "Service", "service": {"name": "web"}}},
        }))
        .unwrap();
        let real_server = Versioned {
            resource_version: "1".to_owned(),
            object: Arc::new(real_server),
        };
        world
            .real_servers
            .take(Change::Applied(key("web"), real_server));
        assert!(world.concerns_target(&applied("web-1", "web")));
        assert!(!world.concerns_target(&applied("shop-1", "shop")));
        let elsewhere = Change::Applied(ObjectKey::new("other", "web-1"), slice_of("web"));
        assert!(!world.concerns_target(&elsewhere), "of another namespace");

        world.endpoint_slices.take(applied("web-1", "web"));
        assert!(
            world.concerns_target(&applied("web-1", "shop")),
            "it was web's"
        );
        assert!(world.concerns_target(&Change::Deleted(key("web-1"))));
        assert!(!world.concerns_target(&Change::Deleted(key("shop-1"))));
    }

    #[test]
    fn a_new_version_of_the_same_object_does_not_matter() {
        let mut store = Store::default();
        store.take(Change::Complete);
        assert!(store.take(Change::Applied(key("a"), versioned("1", "x"))));
        assert!(!store.take(Change::Applied(key("a"), versioned("2", "x"))));
        assert!(store.take(Change::Deleted(key("a"))));
        assert!(!store.take(Change::Deleted(key("a"))));
    }
}
