//! Connections that outlive the death of their director, and what keeps directors from doing harm with what they know.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::failover::{TAKEOVER, tell_as};
use super::{NAMESPACE, Story, other, plan_of};
use crate::await_condition::{until, until_equal};
use crate::failover::operator::{self, Echo, ROUTER, Setting};
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::traffic::{self, Spread};

/// In the pool of the chart's own router.
const ADDRESS: &str = "172.16.2.205";

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "crash_without_state",
            tells: "connectionSync Stateless, the holder's node dies: every one of 40 connections goes on",
            run: |lab| crash(lab, Setting::Stateless),
        },
        Story {
            name: "crash_by_daemon",
            tells: "connectionSync Daemon, the holder's node dies: every one of 40 connections goes on",
            run: |lab| crash(lab, Setting::Daemon),
        },
        Story {
            name: "directors_that_are_real_servers",
            tells: "connectionSync Daemon, directors that are the real servers too: the backup balances nothing while it listens (backup_only)",
            run: colocated,
        },
        Story {
            name: "gateway_without_sync_daemon",
            tells: "NAT, connectionSync Daemon, but somebody else's daemons run on both directors: told, and the inside gateway is with the address all the same",
            run: gateway,
        },
        Story {
            name: "tables_that_differ_are_told",
            tells: "connectionSync Stateless: an agent of another version reports another table: TableMismatch with both nodes, until it reports the same",
            run: tables_differ,
        },
    ]
}

fn crash(lab: &Lab, setting: Setting) -> Result<()> {
    let told = tell_as(lab, setting, "node-dies", TAKEOVER);
    // The next story finds the router as the chart made it.
    operator::set_up(lab, Setting::AsInstalled)?;
    let figures = told?;
    println!(
        "    node died: {} connections went on, {} ended; gap {:.2} s",
        figures.held_alive,
        figures.held_lost.values().sum::<usize>(),
        figures.gap_seconds()
    );
    ensure!(
        figures.moves == 1 && figures.held_alive > 0 && figures.held_lost.is_empty(),
        "connections did not outlive their director: {figures:#?}"
    );
    Ok(())
}

/// A web server on each director, until dropped.
struct WebServers<'a> {
    lab: &'a Lab,
    processes: String,
}

impl<'a> WebServers<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let processes = lab.guest.run(
            "for host in lb-a lb-b; do
                 mkdir -p /run/colocated/$host && echo $host >/run/colocated/$host/index.html
                 setsid ip netns exec $host busybox httpd -f -p 80 -h /run/colocated/$host >/dev/null 2>&1 </dev/null &
                 echo $!
             done
             for host in lb-a lb-b; do
                 for attempt in $(seq 100); do ip netns exec $host ss -Hltn 'sport = :80' | grep -q . && continue 2; sleep 0.05; done
                 exit 1
             done",
        )?;
        let processes = processes.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self { lab, processes })
    }
}

impl Drop for WebServers<'_> {
    fn drop(&mut self) {
        let script = format!("kill -KILL {}; rm -rf /run/colocated", self.processes);
        let _ = self.lab.guest.try_run(&script);
    }
}

fn colocated(lab: &Lab) -> Result<()> {
    let _servers = WebServers::start(lab)?;
    let told = (|| {
        // The only router that there is: a node that is master of any balances, whatever it is to the others.
        operator::set_up(lab, Setting::Daemon)?;
        colocated_told(lab)
    })();
    lab.cluster
        .kubectl(&["annotate", ROUTER, "lvs.dev/hand-over-to-"])?;
    operator::set_up(lab, Setting::AsInstalled)?;
    told
}

fn colocated_told(lab: &Lab) -> Result<()> {
    let mut text = format!(
        "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: colocated}}
spec:
  addresses: [{ADDRESS}]
  ports: [{{port: 80}}]
  forwarding: {{type: DR}}
  scheduler: {{name: rr}}
  realServerSelector: {{matchLabels: {{app: colocated}}}}
---"
    );
    for director in ["lb-a", "lb-b"] {
        let _ = write!(
            text,
            "
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {director}, labels: {{app: colocated}}}}
spec: {{target: {{type: Node, node: {{name: {director}}}}}}}
---"
        );
    }
    lab.cluster.apply_text(NAMESPACE, &text)?;
    let first = lab.await_serving(NAMESPACE, "colocated")?;
    let second = other(&first);
    balances(lab, &first)?;
    until_equal(
        LIMIT,
        &format!("{second} knows the connections"),
        &"0".to_owned(),
        || {
            Ok(lab
                .agent_metric(second, "lvs_agent_cold_routers")?
                .to_string())
        },
    )?;
    let annotation = format!("lvs.dev/hand-over-to={second}");
    lab.cluster.kubectl(&["annotate", ROUTER, &annotation])?;
    until(LIMIT, &format!("{second} alone holds {ADDRESS}"), || {
        let holders = lab.holders(ADDRESS)?;
        Ok(if holders == [second] {
            Ok(())
        } else {
            Err(holders)
        })
    })?;
    balances(lab, second)
}

/// The master balances to both, itself among them; the other one listens and must not.
fn balances(lab: &Lab, master: &str) -> Result<()> {
    for (director, wanted) in [(master, "0"), (other(master), "1")] {
        until_equal(
            LIMIT,
            &format!("backup_only of {director}"),
            &wanted.to_owned(),
            || {
                let text = lab
                    .guest
                    .on(director, "sysctl -n net.ipv4.vs.backup_only")?;
                Ok(text.trim().to_owned())
            },
        )?;
    }
    let both: Spread = [("lb-a".into(), 4), ("lb-b".into(), 4)].into();
    let spread = traffic::spread(&lab.guest, "client", &format!("http://{ADDRESS}/"), 8)?;
    ensure!(spread == both, "through {master}: {spread:?}");
    Ok(())
}

const OUTSIDE: &str = "172.16.2.245";
const GATEWAY: &str = "192.168.2.245";

fn gateway(lab: &Lab) -> Result<()> {
    let each = |script: &str| -> Result<()> {
        for director in ["lb-a", "lb-b"] {
            lab.guest.on(director, script)?;
        }
        Ok(())
    };
    // Of both roles: what a director lacks as backup it must not be given as master.
    each(
        "ipvsadm --start-daemon master --mcast-interface mgmt --syncid 7
         ipvsadm --start-daemon backup --mcast-interface mgmt --syncid 7",
    )?;
    let told = gateway_told(lab);
    lab.guest.on(
        "plain-1",
        "ip route replace default via 192.168.2.254 dev in",
    )?;
    each("ipvsadm --stop-daemon master; ipvsadm --stop-daemon backup")?;
    told
}

fn gateway_told(lab: &Lab) -> Result<()> {
    lab.guest.on(
        "plain-1",
        &format!("ip route replace default via {GATEWAY}"),
    )?;
    lab.cluster.apply_text(
        NAMESPACE,
        &format!(
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {{name: excluded}}
spec:
  directors: [{{nodeName: lb-a}}, {{nodeName: lb-b}}]
  interfaces: [{{name: inside, devices: [in]}}]
  addressPools: [{{name: excluded, addresses: [{OUTSIDE}]}}]
  additionalAddresses: [{{address: {GATEWAY}, interfaceName: inside}}]
  grants: [{{namespaces: {{from: All}}, addressPoolNames: [excluded], realServerCIDRs: [192.168.2.0/24]}}]
  connectionSync: {{type: Daemon, daemon: {{interfaceName: inside, syncID: 53}}}}
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: excluded}}
spec:
  virtualRouterName: excluded
  addresses: [{OUTSIDE}]
  ports: [{{port: 80}}]
  forwarding: {{type: NAT}}
  scheduler: {{name: rr}}
  realServerSelector: {{matchLabels: {{app: excluded}}}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: plain-1, labels: {{app: excluded}}}}
spec: {{target: {{type: Addresses, addresses: [192.168.2.31]}}}}
"
        ),
    )?;
    let router = ["virtualrouters.lvs.dev", "excluded"];
    lab.await_reason(&router, "Programmed", "ForeignObject")?;
    let holder = lab.await_holder(OUTSIDE)?;
    let shown = lab.guest.on(&holder, "ip -br address show dev in")?;
    ensure!(
        shown.contains(&format!(" {GATEWAY}/32")),
        "{holder} has {OUTSIDE} and not {GATEWAY}: {shown}"
    );
    let wanted: Spread = [("plain-1".into(), 3)].into();
    let spread = traffic::spread(&lab.guest, "client", &format!("http://{OUTSIDE}/"), 3)?;
    ensure!(spread == wanted, "through {holder}: {spread:?}");
    Ok(())
}

fn tables_differ(lab: &Lab) -> Result<()> {
    let told = (|| {
        let _echo = Echo::start(lab)?;
        operator::subject(lab, NAMESPACE, Setting::Stateless)?;
        let plan = plan_of(lab, "lb-b")?;
        let reported = || -> Result<String> {
            let words = ["-n", OPERATOR_NAMESPACE, "nodeplans.lvs.dev", &plan];
            let hash = lab.cluster.get(&words)?["status"]["tableHash"].clone();
            hash.as_str().map(str::to_owned).context("no tableHash")
        };
        let own = until(LIMIT, "lb-b reports its table", || {
            Ok::<_, anyhow::Error>(reported().map_err(|error| format!("{error:#}")))
        })?;
        // What one build reads from a kernel the other reads, too: a difference comes from another version.
        let change = json!({"status": {"tableHash": "0123456789abcdef"}});
        let status = [
            "-n",
            OPERATOR_NAMESPACE,
            "nodeplans.lvs.dev",
            &plan,
            "--subresource=status",
        ];
        lab.cluster.merge_patch(&status, &change)?;
        let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "web"];
        let message = lab.await_reason(&words, "Programmed", "TableMismatch")?;
        for word in ["lb-a", "lb-b", "0123456789abcdef", &own] {
            ensure!(message.contains(word), "{word} is missing in: {message}");
        }
        // The next process takes what stands in the API for the word of another.
        lab.signal_agent("lb-b", "KILL", false)?;
        lab.await_true(&words, "Programmed")?;
        ensure!(reported()? == own, "lb-b reports another table than before");
        Ok(())
    })();
    operator::set_up(lab, Setting::AsInstalled)?;
    told
}
