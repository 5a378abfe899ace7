//! The cluster's own kube-proxy on directors and real servers, in each of its modes.

use anyhow::{Context, Result, ensure};

use super::{Foreign, Story, await_told, repaired, tail};
use crate::await_condition::until;
use crate::cluster::tool;
use crate::lab::{LIMIT, Lab};
use crate::stories::NAMESPACE;
use crate::traffic;

mod beside;
mod strict_arp;

const NAME: &str = "kube-proxy";
const ADDRESS: &str = "172.16.2.200";
const URL: &str = "http://172.16.2.200/";
/// Of a pool of ours, as is everything below .224.
const POOL: &str = "172.16.2.192/27";

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "coexistence_kube_proxy_ipvs",
            tells: "kube-proxy in mode ipvs deletes our services in every pass: put back within seconds, counted, told with the cure; excludeCIDRs is the cure",
            run: ipvs,
        },
        Story {
            name: "coexistence_kube_proxy_iptables",
            tells: "kube-proxy in mode iptables drops the answers of NAT as invalid, DR goes on; tcpBeLiberal or conntrack for IPVS is the cure; nothing is repaired",
            run: beside::iptables,
        },
        Story {
            name: "coexistence_kube_proxy_nftables",
            tells: "kube-proxy in mode nftables flushes IPVS when it starts, and never after: put back and told; then DR, NAT and Services work beside each other",
            run: beside::nftables,
        },
        Story {
            name: "coexistence_kube_proxy_strict_arp",
            tells: "without strictARP every node answers for an external address of a Service, with it none; our addresses are answered for by their holder in both",
            run: strict_arp::strict_arp,
        },
    ]
}

/// kube-proxy of one node, with the credentials of one.
struct KubeProxy<'a> {
    lab: &'a Lab,
    binary: String,
}

impl<'a> KubeProxy<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        lab.cluster.guest_credentials(
            "system:kube-proxy",
            "system:node-proxier",
            &lab.guest.share.join("kube-proxy.kubeconfig"),
        )?;
        let binary = tool(&lab.repository, NAME)?.display().to_string();
        Ok(Self { lab, binary })
    }

    /// A pass every 5 s, where the default is 30: the story is shorter, and harder to bear. `settings` are of the mode ipvs, or
    /// else of conntrack.
    fn script(&self, host: &str, mode: &str, settings: &str) -> String {
        let (ipvs, conntrack) = match mode {
            "ipvs" => (settings, ""),
            _ => ("", settings),
        };
        format!(
            "cat >/run/kube-proxy-{host}.yaml <<'T'\n\
             apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
             clientConnection: {{kubeconfig: /share/kube-proxy.kubeconfig}}\nclusterCIDR: 10.244.0.0/16\nhostnameOverride: {host}\n\
             conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s{conntrack}}}\n\
             iptables: {{syncPeriod: 5s}}\nnftables: {{syncPeriod: 5s}}\nipvs: {{syncPeriod: 5s{ipvs}}}\nT\n\
             exec {} --config=/run/kube-proxy-{host}.yaml --v=4",
            self.binary
        )
    }

    /// What is left once it has ended: by its own clean-up, and what that leaves.
    fn undo(&self) -> String {
        format!(
            "{} --cleanup >/dev/null 2>&1\nip link delete kube-ipvs0 2>/dev/null\nipset destroy\n\
             nft list tables | while read -r line; do case $line in *lvs-operator*) ;; *) nft delete $line ;; esac; done",
            self.binary
        )
    }

    fn start(&self, host: &str, mode: &str, settings: &str) -> Result<Foreign<'a>> {
        let script = self.script(host, mode, settings);
        let mut proxy = Foreign::start(self.lab, host, &script)?;
        proxy.undo = self.undo();
        Ok(proxy)
    }

    /// One in the place of another that is ended.
    fn replace(&self, other: Foreign<'a>, mode: &str, settings: &str) -> Result<Foreign<'a>> {
        let script = self.script(&other.host, mode, settings);
        let mut proxy = Foreign::run(other.end()?, &script)?;
        proxy.undo = self.undo();
        Ok(proxy)
    }
}

/// A Service of the cluster with one endpoint, plain-1, and more addresses.
fn service(name: &str, cluster_address: &str, more: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec: {{clusterIP: {cluster_address}, ports: [{{port: 80}}]{more}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [192.168.2.31]}}]
ports: [{{name: \"\", port: 80, protocol: TCP}}]
"
    )
}

/// Services of the cluster, until they are dropped.
struct Services<'a> {
    lab: &'a Lab,
    yaml: String,
}

impl<'a> Services<'a> {
    fn apply(lab: &'a Lab, yaml: String) -> Result<Self> {
        lab.cluster.apply(&yaml)?;
        Ok(Self { lab, yaml })
    }
}

impl Drop for Services<'_> {
    fn drop(&mut self) {
        let _ = self.lab.cluster.delete(&self.yaml);
    }
}

/// Waits until a Service answers on a node.
fn await_answer(lab: &Lab, host: &str, cluster_address: &str, proxy: &Foreign<'_>) -> Result<()> {
    let url = format!("http://{cluster_address}/");
    until(
        LIMIT,
        &format!("{cluster_address} answers on {host}"),
        || {
            Ok(match traffic::get(&lab.guest, host, &url) {
                Ok(answer) if answer == "plain-1" => Ok(()),
                Ok(answer) => Err(answer),
                Err(error) => Err(format!("{error:#}\n{}", tail(&proxy.log()?))),
            })
        },
    )
}

/// Each moment at which a service of ours came or went, by the kernel's table: read every 20 ms.
fn watch<'a>(lab: &'a Lab, host: &str) -> Result<Foreign<'a>> {
    let script = "exec {never}<> <(:)\nbefore=\nwhile :; do\n\
                  table=$(</proc/net/ip_vs)\nnow=\n\
                  case $table in *AC1002C8:0050*) now=$now+ ;; *) now=$now- ;; esac\n\
                  case $table in *FWM*) now=$now+ ;; *) now=$now- ;; esac\n\
                  [ \"$now\" = \"$before\" ] || echo $EPOCHREALTIME $now\nbefore=$now\n\
                  read -r -t 0.02 -u $never || true\ndone";
    Foreign::start(lab, host, script)
}

/// For how long a service was away each time, in seconds. `place` is its sign in the line.
fn away(log: &str, place: usize) -> Result<Vec<f64>> {
    let mut gone: Option<f64> = None;
    let mut times = Vec::new();
    for line in log.lines() {
        let (moment, signs) = line
            .split_once(' ')
            .with_context(|| format!("line {line:?}"))?;
        let moment: f64 = moment.parse()?;
        match (signs.chars().nth(place), gone) {
            (Some('-'), None) => gone = Some(moment),
            (Some('+'), Some(since)) => {
                times.push(moment - since);
                gone = None;
            }
            _ => {}
        }
    }
    Ok(times)
}

const MARKED: &str = "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: marked}
spec:
  addresses: [172.16.2.210]
  ports: [{name: http, port: 80}, {name: https, port: 443}]
  grouping: FirewallMark
  forwarding: {type: DR}
  scheduler: {name: wrr}
  realServerSelector: {matchLabels: {app: web}}
";

fn ipvs(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.cluster.apply_text(NAMESPACE, MARKED)?;
    lab.await_serving(NAMESPACE, "web")?;
    lab.await_serving(NAMESPACE, "marked")?;
    let master = lab.await_holder(ADDRESS)?;
    let wanted = ours(lab, &master)?;
    let _services = Services::apply(lab, service("foreign", "10.96.7.7", ""))?;
    let watch = watch(lab, &master)?;
    let kube_proxy = KubeProxy::new(lab)?;
    let proxy = kube_proxy.start(&master, "ipvs", "")?;
    await_answer(lab, &master, "10.96.7.7", &proxy)?;
    until(LIMIT, "it was deleted three times and put back", || {
        let log = watch.log()?;
        let times = away(&log, 0)?;
        Ok(
            if times.len() >= 3 && log.lines().last().is_some_and(|line| line.ends_with("++")) {
                Ok(())
            } else {
                Err((log, tail(&proxy.log()?)))
            },
        )
    })?;
    let count = repaired(lab, &master, "Service")?;
    // A service and its two real servers, each time.
    ensure!(count >= 9.0, "counted {count}");
    await_told(
        lab,
        "web",
        &[
            "IPVS service -t 172.16.2.200:80",
            "kube-proxy runs on this node in mode ipvs",
            "172.16.2.200/32",
            "ipvs.excludeCIDRs",
        ],
    )?;
    let times = away(&watch.log()?, 0)?;
    println!("    kube-proxy deleted it, away for {times:.3?} s");
    // The first is found by a look that is made as often as usual, every 10 s: the others by one every second.
    for (limit, time) in [15.0].into_iter().chain([3.0; 100]).zip(&times) {
        ensure!(*time < limit, "it was away for {times:?} s");
    }
    // By mark it cannot name a service.
    let marked = away(&watch.log()?, 1)?;
    ensure!(
        marked.is_empty(),
        "the service by mark was away for {marked:?} s"
    );
    // Its own is left alone.
    await_answer(lab, &master, "10.96.7.7", &proxy)?;

    let proxy = kube_proxy.replace(proxy, "ipvs", &format!(", excludeCIDRs: [{POOL}]"))?;
    let mut services = Vec::new();
    for last in 8..11 {
        // When a new Service answers, a pass was made after it, which ended with its deletions.
        let address = format!("10.96.7.{last}");
        let yaml = service(&format!("foreign-{last}"), &address, "");
        services.push(Services::apply(lab, yaml)?);
        await_answer(lab, &master, &address, &proxy)?;
        if services.len() == 1 {
            // What the one before took last is back.
            until(LIMIT, "our rules", || {
                let rules = ours(lab, &master)?;
                Ok(if rules == wanted { Ok(()) } else { Err(rules) })
            })?;
            watch.clear_log()?;
        }
    }
    let log = watch.log()?;
    ensure!(log.is_empty(), "with excludeCIDRs it came and went:\n{log}");
    let spread = traffic::spread(&lab.guest, "client", URL, 6)?;
    ensure!(
        spread == [("web-1".into(), 4), ("web-2".into(), 2)].into(),
        "{spread:?}"
    );
    let sysctls = proxy.end()?;
    // Its clean-up flushes all of IPVS, whatever is excluded.
    let before = repaired(lab, &master, "Service")?;
    lab.guest
        .try_on(&master, &format!("{} --cleanup", kube_proxy.binary))?;
    until(LIMIT, "the clean-up is repaired", || {
        let more = repaired(lab, &master, "Service")? - before;
        let rules = ours(lab, &master)?;
        Ok(if more > 0.0 && rules == wanted {
            Ok(())
        } else {
            Err((more, rules))
        })
    })?;
    // What that leaves, and is no matter of ours.
    lab.guest.try_on(&master, &kube_proxy.undo())?;
    drop(sysctls);
    Ok(())
}

/// Rules of ours: of the pool's addresses and marks.
fn ours(lab: &Lab, host: &str) -> Result<Vec<String>> {
    let mut rules = lab.ipvs_rules(host)?;
    rules.retain(|rule| rule.contains("172.16.2.") || rule.contains(" -f "));
    Ok(rules)
}
