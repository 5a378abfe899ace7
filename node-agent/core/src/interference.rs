//! Others who remove or change what this node holds: what is told of it and for how long, who it may have been, and how
//! often the kernel is looked at meanwhile. The kernel tells nobody of changes to IPVS: looking is the only way to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::election::Tick;
use crate::host::ObservedHost;
use crate::ipvs::ServiceKey;
use crate::object::Object;

/// How long after the last repair it is told of. kube-proxy comes back every 30 s.
pub const QUIET_PERIOD: Duration = Duration::from_mins(10);
/// Pause between two looks at the kernel during that time: as long as clients are without what was removed.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Device that kube-proxy makes in mode ipvs (`pkg/proxy/ipvs`, `defaultDummyDevice`).
pub const KUBE_PROXY_DEVICE: &str = "kube-ipvs0";

/// Looking takes no more than one part in so many of a node's time, however large its tables are.
const TIME_SHARE: u32 = 20;
/// Things that a message names; of more the rest is counted.
const OBJECTS_NAMED: usize = 3;
/// Things of one plan that are kept apart.
const OBJECTS_KEPT: usize = 256;
/// Different advice in one message.
const ADVICE_KEPT: usize = 4;

/// What a node shows of who it may have been.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The node.
    pub host: &'a ObservedHost,
    /// Netlink ports of those who removed addresses last, where the kernel said so.
    pub removers: &'a BTreeMap<IpAddr, u32>,
}

/// What others did, by plan.
#[derive(Clone, Debug, Default)]
pub struct Interference {
    plans: BTreeMap<String, Episode>,
    last: Option<Tick>,
}

#[derive(Clone, Debug)]
struct Episode {
    objects: BTreeSet<Object>,
    advice: Vec<String>,
    last: Tick,
}

impl Interference {
    /// `object`, which the plans `owners` ask for, was put back at `now`.
    pub fn note<'a>(
        &mut self,
        object: &Object,
        owners: impl IntoIterator<Item = &'a str>,
        evidence: Evidence<'_>,
        now: Tick,
    ) {
        self.last = self.last.max(Some(now));
        let advice = advice(object, evidence);
        for owner in owners {
            let episode = self
                .plans
                .entry(owner.to_owned())
                .and_modify(|episode| {
                    if is_over(episode.last, now) {
                        *episode = Episode::new(now);
                    }
                })
                .or_insert_with(|| Episode::new(now));
            episode.last = now;
            if episode.objects.len() < OBJECTS_KEPT {
                episode.objects.insert(object.clone());
            }
            if episode.advice.len() < ADVICE_KEPT && !episode.advice.contains(&advice) {
                episode.advice.push(advice.clone());
            }
        }
    }

    /// What is told of each plan. It stays the same while the same things are put back again and again.
    pub fn told(&self, now: Tick) -> BTreeMap<String, String> {
        self.plans
            .iter()
            .filter(|(_, episode)| !is_over(episode.last, now))
            .map(|(plan, episode)| (plan.clone(), episode.message()))
            .collect()
    }

    /// When the kernel is to be looked at again; none = as usual. `pass` is how long a look takes.
    pub fn next_look(&self, now: Tick, pass: Duration) -> Option<Duration> {
        self.last
            .filter(|last| !is_over(*last, now))
            .map(|_| LOOK_INTERVAL.max(pass * TIME_SHARE))
    }

    /// Forgets what is over, and plans that are no more.
    pub fn retain(&mut self, now: Tick, is_planned: impl Fn(&str) -> bool) {
        self.plans
            .retain(|plan, episode| is_planned(plan) && !is_over(episode.last, now));
    }
}

fn is_over(last: Tick, now: Tick) -> bool {
    now >= last + QUIET_PERIOD
}

impl Episode {
    const fn new(now: Tick) -> Self {
        Self {
            objects: BTreeSet::new(),
            advice: Vec::new(),
            last: now,
        }
    }

    fn message(&self) -> String {
        let named = self.objects.iter().take(OBJECTS_NAMED);
        let mut named: Vec<String> = named.map(ToString::to_string).collect();
        let more = self.objects.len().saturating_sub(OBJECTS_NAMED);
        if more > 0 {
            named.push(format!("{more} more"));
        }
        format!(
            "put back what somebody else removed or changed: {}; {}",
            named.join(", "),
            self.advice.join("; ")
        )
    }
}

/// Who it may have been, and the cure.
fn advice(object: &Object, evidence: Evidence<'_>) -> String {
    let is_kube_proxy = evidence.host.links.contains_key(KUBE_PROXY_DEVICE);
    match object {
        // It cannot name a service by mark, and leaves it.
        Object::Service(ServiceKey::Address { address, .. }) if is_kube_proxy => {
            let length = if address.is_ipv4() { 32 } else { 128 };
            format!(
                "kube-proxy runs on this node in mode ipvs (device {KUBE_PROXY_DEVICE}) and deletes services that it does not \
                 know: add {address}/{length}, or the network of the pool, to ipvs.excludeCIDRs in ConfigMap \
                 kube-system/kube-proxy and restart kube-proxy, or choose its mode nftables"
            )
        }
        Object::Sysctl(key) if is_kube_proxy && key.to_string().starts_with("net.ipv4.vs.") => {
            "kube-proxy in mode ipvs sets it when it starts: choose its mode nftables".to_owned()
        }
        Object::Service(_) | Object::Timeouts | Object::SyncDaemon(_) => {
            "another program sets IPVS on this node: stop it if it is keepalived, ldirectord or a script with ipvsadm; kube-proxy in \
             mode nftables flushes IPVS once when it starts, and nothing has to be done"
                .to_owned()
        }
        Object::Address(key) => {
            let by = evidence.removers.get(&key.address).map(|port| {
                format!("the process with netlink port {port}, as a rule its process id, removed it (ps -p {port} on the node): ")
            });
            let by = by.unwrap_or_default();
            format!(
                "{by}have the network manager (systemd-networkd, NetworkManager) leave {} alone, as docs/nodes.md says",
                key.device
            )
        }
        Object::Link(_) | Object::Route(_) | Object::PolicyRule(_) => {
            "have the network manager (systemd-networkd, NetworkManager) leave devices lvs-*, foreign routes and foreign rules \
             alone, as docs/nodes.md says"
                .to_owned()
        }
        Object::Sysctl(_) => {
            "another program sets it (sysctl.d, tuned, a network plugin): have it leave this one alone".to_owned()
        }
        Object::PacketRules => {
            "another program flushes nftables, such as firewalld or nft flush ruleset: have it delete its own table alone"
                .to_owned()
        }
        Object::FouPort(_) => "another program removes foo-over-udp ports: stop it".to_owned(),
    }
}
