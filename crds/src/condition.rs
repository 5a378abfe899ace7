//! Condition types and the one list of reasons, used unchanged in conditions, Events and metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Condition types of every kind. All are positive: `True` is the good state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object's own demands are permitted and free of conflict.
    Accepted,
    /// Everything the object names exists.
    ResolvedRefs,
    /// The kernel of every concerned node holds what was asked, verified by a dump.
    Programmed,
    /// Of a router with several directors: each of them hears the one that holds the addresses.
    HeartbeatsHeard,
    /// Of a VirtualService with a quorum: enough real servers of each port are up.
    QuorumMet,
    /// Summary: traffic is served as asked.
    Ready,
}

impl ConditionType {
    /// The word in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::HeartbeatsHeard => "HeartbeatsHeard",
            Self::QuorumMet => "QuorumMet",
            Self::Ready => "Ready",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Why a condition has its status. The variant's name is the word users see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }
        impl Reason {
            /// Every reason, for documentation and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// The CamelCase word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
            /// The reason with this word, if there is one.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
            }
        }
        impl std::fmt::Display for Reason {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    // Good states.
    /// Nothing stands against the object.
    Accepted,
    /// Every reference was found.
    Resolved,
    /// The kernel holds what was asked.
    Programmed,
    /// Traffic is served.
    Ready,
    /// Enough real servers are up.
    QuorumMet,
    // Waiting.
    /// The agents have not yet reported the newest plan.
    Pending,
    /// The status of some agent is not known.
    Unknown,
    /// No director holds the addresses at this moment.
    NoMaster,
    /// Some, not all, real servers or nodes are ready.
    PartiallyReady,
    /// The plan is being withdrawn.
    Withdrawn,
    /// The node no longer directs; it keeps the plan until the address has moved.
    Leaving,
    // Rules across objects.
    /// No VirtualRouter is named and none is annotated as default.
    NoDefaultRouter,
    /// More than one VirtualRouter is annotated as default and this is not the oldest.
    DuplicateDefaultRouter,
    /// The named VirtualRouter does not exist.
    VirtualRouterNotFound,
    /// The address lies in no pool granted to the namespace.
    AddressNotPermitted,
    /// An older VirtualService or VirtualRouter holds the address or port.
    AddressInUse,
    /// Every granted pool is exhausted.
    AddressPoolExhausted,
    /// The named pool does not exist or is not granted to the namespace.
    AddressPoolNotPermitted,
    /// An older VirtualService uses this firewall mark.
    FirewallMarkInUse,
    /// No firewall mark is left in the managed range.
    FirewallMarkExhausted,
    /// The target of a real server lies outside what the namespace may use.
    TargetNotPermitted,
    /// The named node does not exist or has no suitable address.
    NodeNotFound,
    /// An older RealServer has the same target for this VirtualService and port.
    DuplicateTarget,
    /// The target has no address of a family that the forwarding can reach.
    AddressFamilyMismatch,
    /// The ConfigMap with certificate authorities that a health check names does not exist, has no label lvs.dev/ca-bundle=true or
    /// no certificates.
    CertificateAuthoritiesNotFound,
    /// A port named by the RealServer is not a port of the VirtualService, or a port of the VirtualService is none of the
    /// Service whose endpoints serve.
    PortNotFound,
    /// The port, forwarding or health check of the RealServer does not fit the VirtualService.
    PortNotPermitted,
    /// No VirtualService that selects the RealServer has a health check of the name of one of its own.
    HealthCheckNotFound,
    /// The plan of a VirtualService has no room for more health checks of RealServers; its own count.
    TooManyHealthChecks,
    /// The selector matches no RealServer, or none of them is up; the Service of a RealServer has no endpoint.
    NoRealServers,
    /// A Service has more endpoints, or a name more addresses, than a RealServer or a plan can hold; the others are left
    /// out.
    TooManyEndpoints,
    /// The DNS does not say which addresses the name of a RealServer has, or says that it has none; what it had keeps
    /// working.
    DnsNameNotResolved,
    /// A health check fails.
    ChecksFailed,
    /// No director has the address while too few real servers are up, as quorum.onLoss WithdrawAddress asks.
    AddressWithdrawn,
    /// Too few real servers of a port are up.
    QuorumLost,
    /// A port of a real server fails its checks.
    RealServerDown,
    /// A port of a real server passes its checks again.
    RealServerUp,
    /// The certificate of a real server ends sooner than the check's expiryWarningDays.
    CertificateExpires,
    /// A director finds fewer real servers up than its router tracks.
    TooFewRealServers,
    /// No node is a director of the router.
    NoDirectors,
    /// An older router with a virtual MAC has the same virtualRouterID.
    VirtualRouterIDInUse,
    /// Routers on one node disagree on a setting of which a node has only one.
    NodeSettingConflict,
    /// A service of a router with connectionSync type Stateless uses a scheduler that cannot do without connections.
    SchedulerNotStateless,
    /// Directors would send the same connection to different real servers.
    TableMismatch,
    /// Every API endpoint of the node's agent is an address of a router that the node directs.
    ApiEndpointIsOwnVip,
    /// A change would remove more than half of the plans at once and waits for confirmation.
    MassRemovalHeld,
    /// The object cannot be decoded by this version; what it had keeps working.
    Undecodable,
    /// The object is inconsistent in a way that the schema could not refuse.
    Invalid,
    /// The planner's independent check found a contradiction; nothing was written.
    CheckFailed,
    // Node and kernel.
    /// A kernel module is missing and cannot be loaded automatically.
    KernelModuleMissing,
    /// The kernel has no IPv6 or it is disabled.
    IPv6Unavailable,
    /// The agent lacks a capability it needs.
    PermissionDenied,
    /// /proc/sys cannot be written.
    SysctlReadOnly,
    /// No interface on the node suits the address.
    InterfaceNotFound,
    /// An IPVS service, address or device that is not ours stands in the way.
    ForeignObject,
    /// A device that carries addresses of the router, or that it tracks, is down or has no carrier.
    LinkDown,
    /// The IPVS sync daemons and real servers of another address family exclude each other.
    ConnectionSyncExcluded,
    /// The way back from a NAT real server cannot be decided.
    ReturnPathUnresolved,
    /// The kernel refused an operation.
    KernelError,
    /// The state of the kernel could not be read; nothing was changed.
    ObservationFailed,
    /// After applying, the kernel still differs.
    VerificationFailed,
    /// The plan vanished without having been withdrawn; it is kept.
    OrphanedPlan,
    /// The agent could not read its plan; the last good one is kept.
    PlanUndecodable,
    // Leadership.
    /// The node holds the router's addresses.
    BecameMaster,
    /// The node does not hold the router's addresses.
    BecameBackup,
    /// The node left the router's addresses to a successor.
    HandedOver,
    /// The node stopped holding because its authority ended.
    Fenced,
    /// The node is cordoned or drained: it gives way to other directors.
    Cordoned,
    /// The Node has a condition that the router tracks.
    NodeCondition,
    /// An HTTP endpoint that the router tracks fails.
    EndpointFailed,
    /// The holder renews its Lease, but its heartbeats do not arrive: it is not challenged any more.
    HeartbeatLost,
    /// The director has no address, or reported none yet, on the interface of the heartbeats: it takes part without.
    HeartbeatAddressUnknown,
    /// The directors hear the holder.
    HeartbeatsHeard,
    /// Another host claims an address that is held.
    ConflictDetected,
    /// The controller has not made the router's Lease yet.
    LeaseNotFound,
    /// Drift in the kernel was repaired.
    DriftRepaired,
}

/// Whether two condition lists say the same, ignoring `lastTransitionTime`.
pub fn same_meaning(left: &[Condition], right: &[Condition]) -> bool {
    let key = |list: &[Condition]| {
        let mut rows: Vec<_> = list
            .iter()
            .map(|c| {
                (
                    c.type_.clone(),
                    c.status.clone(),
                    c.reason.clone(),
                    c.message.clone(),
                    c.observed_generation,
                )
            })
            .collect();
        rows.sort();
        rows
    };
    key(left) == key(right)
}
