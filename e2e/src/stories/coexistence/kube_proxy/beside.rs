//! Modes iptables and nftables, beside DR, NAT and a firewall mark.

use anyhow::{Result, ensure};

use super::{
    ADDRESS, Foreign, KubeProxy, MARKED, Services, URL, await_answer, await_told, away, ours,
    service, tail, watch,
};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::stories::{NAMESPACE, Undo};
use crate::traffic::{self, Spread};

/// Beside the example of NAT, whose RealServers have the names of those of the example of DR. On no node by the same port: its
/// answers to the checks of other directors would pass the director of NAT, as those to clients do.
const DIRECT: &str = "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: web}
spec:
  addresses: [172.16.2.200]
  ports: [{port: 80}]
  forwarding: {type: DR}
  scheduler: {name: wrr}
  realServerSelector: {matchLabels: {app: web}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: direct-1, labels: {app: web}}
spec: {target: {type: Node, node: {name: web-1}}, weight: 2}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: direct-2, labels: {app: web}}
spec: {target: {type: Node, node: {name: web-3}}}
";

/// Directors, of which the first is that of NAT, and a real server.
const NODES: [&str; 3] = ["lb-a", "lb-b", "web-1"];

/// DR, NAT and a firewall mark, and how clients were balanced before anybody else came.
struct Scene<'a> {
    lab: &'a Lab,
    before: Vec<Spread>,
    rules: [Vec<String>; 2],
    _gateway: Undo<'a>,
}

impl<'a> Scene<'a> {
    fn set(lab: &'a Lab) -> Result<Self> {
        // The example's host outside the cluster has its gateway by hand; nodes have a policy route.
        let gateway = Undo {
            lab,
            script: "ip -n plain-1 route replace default via 192.168.2.254 dev in".into(),
        };
        lab.guest
            .on("plain-1", "ip route replace default via 192.168.2.250")?;
        lab.cluster.apply_example(NAMESPACE, "nat.yaml")?;
        lab.cluster.apply_text(NAMESPACE, DIRECT)?;
        lab.cluster.apply_text(NAMESPACE, MARKED)?;
        for name in ["web", "marked", "shop"] {
            lab.await_serving(NAMESPACE, name)?;
        }
        let mut scene = Self {
            lab,
            before: Vec::new(),
            rules: directors_rules(lab)?,
            _gateway: gateway,
        };
        let twos: Spread = [("web-1".into(), 8), ("web-3".into(), 4)].into();
        let nat = [
            ("web-1".into(), 6),
            ("web-2".into(), 3),
            ("plain-1".into(), 3),
        ];
        scene.before = vec![twos.clone(), twos, nat.into()];
        scene.check("before")?;
        Ok(scene)
    }

    /// Clients are balanced by weights, on the first of the addresses, as long as every real server is up: a check that times out
    /// on a busy machine is no matter of this.
    fn check_first(&self, count: usize, when: &str) -> Result<()> {
        let urls = [URL, MARKED_URL, NAT_URL];
        for (url, before) in urls.iter().zip(&self.before).take(count) {
            let spread = until(LIMIT, &format!("{when}, {url}: every real server"), || {
                let down = || -> Result<_> {
                    let rules = directors_rules(self.lab)?;
                    Ok((rules != self.rules).then_some(rules))
                };
                if let Some(rules) = down()? {
                    return Ok(Err(rules));
                }
                let spread = traffic::spread(&self.lab.guest, "client", url, 12)?;
                Ok(down()?.map_or(Ok(spread), Err))
            })?;
            // An edit of the service starts the round of weights anew.
            let alike = spread.keys().eq(before.keys())
                && spread
                    .iter()
                    .all(|(name, count)| count.abs_diff(before[name]) <= 2);
            ensure!(alike, "{when}, {url}: {spread:?}");
        }
        Ok(())
    }

    fn check(&self, when: &str) -> Result<()> {
        self.check_first(3, when)
    }

    fn repaired(&self) -> Result<Vec<f64>> {
        let count = |node: &&str| {
            self.lab
                .agent_metric(node, "lvs_agent_drift_repaired_total")
        };
        NODES.iter().map(count).collect()
    }

    /// Each of the two writes its own rules anew, and leaves those of the other.
    fn change(&self, proxies: &[Foreign<'_>]) -> Result<()> {
        self.lab.cluster.merge_patch(
            &["-n", NAMESPACE, "virtualservices.lvs.dev", "marked"],
            &serde_json::json!({"spec": {"ports": [{"name": "http", "port": 80}]}}),
        )?;
        self.lab.await_serving(NAMESPACE, "marked")?;
        let _more = Services::apply(self.lab, service("foreign-8", "10.96.7.8", ""))?;
        for (node, proxy) in NODES.iter().zip(proxies) {
            await_answer(self.lab, node, "10.96.7.8", proxy)?;
            await_answer(self.lab, node, "10.96.7.7", proxy)?;
        }
        self.check("after changes")
    }
}

/// Services and real servers that are up, at both directors.
fn directors_rules(lab: &Lab) -> Result<[Vec<String>; 2]> {
    let [first, second, _] = NODES;
    Ok([ours(lab, first)?, ours(lab, second)?])
}

const NAT_URL: &str = "http://172.16.2.250/";
const MARKED_URL: &str = "http://172.16.2.210/";

/// kube-proxy on every one of [`NODES`], once the Service answers there and the witness succeeds.
fn start_all<'a>(
    kube_proxy: &KubeProxy<'a>,
    mode: &str,
    witness: &str,
) -> Result<Vec<Foreign<'a>>> {
    let lab = kube_proxy.lab;
    let mut proxies = Vec::new();
    // One after another: their first pass is heavy.
    for node in NODES {
        let proxy = kube_proxy.start(node, mode, "")?;
        await_answer(lab, node, "10.96.7.7", &proxy)?;
        lab.guest.on(node, witness)?;
        proxies.push(proxy);
    }
    Ok(proxies)
}

pub(super) fn iptables(lab: &Lab) -> Result<()> {
    let scene = Scene::set(lab)?;
    let [director, ..] = NODES;
    let repaired = scene.repaired()?;
    let _services = Services::apply(lab, service("foreign", "10.96.7.7", ""))?;
    let kube_proxy = KubeProxy::new(lab)?;
    let mut proxies = start_all(
        &kube_proxy,
        "iptables",
        "iptables-save -t nat | grep -q KUBE-SERVICES",
    )?;
    scene.check_first(2, "beside it")?;
    // The answer of a real server is the first that conntrack sees of a connection: IPVS keeps what it sends out of it.
    let drops = || {
        lab.guest.on(
            director,
            "iptables -t filter -vnxL KUBE-FORWARD | awk '/INVALID/ {print $1}'",
        )
    };
    let answer = traffic::get(&lab.guest, "client", NAT_URL);
    let dropped = drops()?;
    ensure!(
        answer.is_err() && dropped.trim().parse::<u64>()? > 0,
        "NAT is said to fail: {answer:?}, dropped as invalid: {dropped:?}"
    );
    println!(
        "    by NAT no answer in 5 s, {} packets dropped as invalid",
        dropped.trim()
    );
    // One cure, on the node.
    let conntrack = Undo {
        lab,
        script: format!(
            "ip netns exec {director} bash -c 'echo 0 >/proc/sys/net/ipv4/vs/conntrack'"
        ),
    };
    lab.guest
        .on(director, "echo 1 >/proc/sys/net/ipv4/vs/conntrack")?;
    scene.check("with conntrack for IPVS")?;
    drop(conntrack);
    let answer = traffic::get(&lab.guest, "client", NAT_URL);
    ensure!(answer.is_err(), "without it again: {answer:?}");
    // The other, in kube-proxy's configuration.
    let liberal = kube_proxy.replace(proxies.remove(0), "iptables", ", tcpBeLiberal: true")?;
    until(LIMIT, "kube-proxy no longer drops", || {
        let rules = drops()?;
        Ok(if rules.trim().is_empty() {
            Ok(())
        } else {
            Err((rules, tail(&liberal.log()?)))
        })
    })?;
    proxies.insert(0, liberal);
    scene.check("with tcpBeLiberal")?;
    scene.change(&proxies)?;
    let now = scene.repaired()?;
    ensure!(now == repaired, "repaired {now:?}, before {repaired:?}");
    Ok(())
}

pub(super) fn nftables(lab: &Lab) -> Result<()> {
    let scene = Scene::set(lab)?;
    let before = scene.repaired()?;
    let _services = Services::apply(lab, service("foreign", "10.96.7.7", ""))?;
    let watch = watch(lab, &lab.await_holder(ADDRESS)?)?;
    let kube_proxy = KubeProxy::new(lab)?;
    let proxies = start_all(
        &kube_proxy,
        "nftables",
        "nft list table ip kube-proxy >/dev/null",
    )?;
    // When it starts it clears away what modes iptables and ipvs may have left: all of IPVS.
    until(LIMIT, "what it flushed is back", || {
        let (rules, log) = (directors_rules(lab)?, watch.log()?);
        let back = log.lines().last().is_some_and(|line| line.ends_with("++"));
        Ok(if rules == scene.rules && back {
            Ok(())
        } else {
            Err((rules, log))
        })
    })?;
    let times = away(&watch.log()?, 0)?;
    println!("    as it started our services were flushed, away for {times:.3?} s");
    ensure!(
        !times.is_empty() && times.iter().all(|time| *time < 15.0),
        "flushed, away for {times:?} s"
    );
    await_told(lab, "web", &["IPVS service -t 172.16.2.200:80"])?;
    let repaired = scene.repaired()?;
    ensure!(
        repaired[0] > before[0] && repaired[1] > before[1],
        "repaired {repaired:?}, before {before:?}"
    );
    watch.clear_log()?;
    scene.check("beside it")?;
    scene.change(&proxies)?;
    let times = away(&watch.log()?, 0)?;
    let now = scene.repaired()?;
    ensure!(
        times.is_empty() && now == repaired,
        "in its passes: away for {times:?} s, repaired {now:?}, before {repaired:?}"
    );
    Ok(())
}
