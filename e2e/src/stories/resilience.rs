//! What must not disturb traffic: killed agents, an absent API server, drift, plans that cannot be read
//! or that vanish, a director that was away.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{NAMESPACE, Story, other, plan_of};
use crate::await_condition::{until, until_equal};
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::traffic::{self, Load};

const ADDRESS: &str = "172.16.2.200";
const URL: &str = "http://172.16.2.200/";
/// Address of a router with one director.
const SOLE_ADDRESS: &str = "172.16.2.244";
/// F of docs/leadership.md.
const FENCE_BOUND: Duration = Duration::from_millis(3_250);

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "agent_killed_under_load",
            tells: "kill -9 and restart of a sole director's, a standby's and a real server's agent: nothing moves, nothing lost, no IPVS write",
            run: agent_killed,
        },
        Story {
            name: "api_server_absent",
            tells: "API server stopped; agents of a real server, a standby and a sole director restart: traffic goes on",
            run: api_absent,
        },
        Story {
            name: "holder_restarts_without_api",
            tells: "API server stopped, then the holder's agent killed: the new one goes on by promises of all directors; no move, nothing lost",
            run: on_promises,
        },
        Story {
            name: "drift_repaired",
            tells: "ipvsadm -C is repaired within the resync time",
            run: drift,
        },
        Story {
            name: "undecodable_plan_freezes",
            tells: "a plan of a newer version freezes what it had, and says so",
            run: undecodable,
        },
        Story {
            name: "vanished_plan_is_kept",
            tells: "a NodePlan deleted behind our back is kept as orphaned, then adopted again",
            run: vanished,
        },
        Story {
            name: "withdrawn_when_back",
            tells: "a VirtualService deleted while its director is down is withdrawn when it comes back",
            run: withdrawn_when_back,
        },
        Story {
            name: "takeover_by_expiry",
            tells: "the holder's agent dies for good: its kernel drops the address, the other director takes over",
            run: takeover,
        },
    ]
}

fn serve(lab: &Lab) -> Result<String> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    lab.await_holder(ADDRESS)
}

/// Waits until the agent's process is another one and reports every plan verified.
fn await_restarted(lab: &Lab, node: &str, before: &str) -> Result<()> {
    let work = lab.agent_work(node)?;
    until(LIMIT, &format!("a new agent process on {node}"), || {
        let pid = lab.guest.run(&format!("cat {work}/pid"))?;
        Ok(if pid.trim() == before {
            Err(pid)
        } else {
            Ok(())
        })
    })?;
    await_ready(lab, node)
}

fn await_ready(lab: &Lab, node: &str) -> Result<()> {
    until_equal(
        LIMIT,
        &format!("/readyz of {node}"),
        &"200".to_owned(),
        || {
            lab.guest.on(node, "curl --silent --max-time 5 -o /dev/null -w '%{http_code}' http://127.0.0.1:9650/readyz")
        },
    )
}

fn kill_and_restart(lab: &Lab, node: &str) -> Result<()> {
    let work = lab.agent_work(node)?;
    let before = lab.guest.run(&format!("cat {work}/pid"))?.trim().to_owned();
    lab.signal_agent(node, "KILL", false)?;
    await_restarted(lab, node, &before)
}

/// A service on a router of which `director` is the only one.
fn sole(lab: &Lab, director: &str) -> Result<()> {
    lab.cluster.apply_text(
        NAMESPACE,
        &format!(
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {{name: sole}}
spec:
  directors: [{{nodeName: {director}}}]
  addressPools: [{{name: sole, addresses: [{SOLE_ADDRESS}]}}]
  grants: [{{namespaces: {{from: All}}, addressPoolNames: [sole], realServerNodes: All}}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: sole}}
spec:
  virtualRouterName: sole
  addresses: [{SOLE_ADDRESS}]
  ports: [{{port: 80}}]
  forwarding: {{type: DR}}
  scheduler: {{name: rr}}
  realServerSelector: {{matchLabels: {{app: web}}}}
"
        ),
    )?;
    lab.await_serving(NAMESPACE, "sole")?;
    Ok(())
}

fn agent_killed(lab: &Lab) -> Result<()> {
    let master = serve(lab)?;
    // The standby of one router is the only director, therefore the master, of another.
    let standby = other(&master);
    sole(lab, standby)?;
    lab.await_holder(SOLE_ADDRESS)?;
    let epoch = || {
        let lease = ["-n", OPERATOR_NAMESPACE, "lease", "lvs-router-sole"];
        let lease = lab.cluster.get(&lease)?;
        anyhow::Ok(lease["spec"]["leaseTransitions"].clone())
    };
    let epoch_before = epoch()?;
    let rules = [lab.ipvs_rules(&master)?, lab.ipvs_rules(standby)?];
    let loads = [
        Load::start(&lab.guest, "client", URL)?,
        Load::start(&lab.guest, "client", &format!("http://{SOLE_ADDRESS}/"))?,
    ];
    for node in [standby, "web-1"] {
        kill_and_restart(lab, node)?;
        let writes = lab.agent_metric(node, "lvs_agent_ipvs_writes_total")?;
        ensure!(
            writes == 0.0,
            "the restarted agent of {node} wrote {writes} times to IPVS"
        );
    }
    ensure!(
        lab.await_holder(ADDRESS)? == master,
        "the address moved away from {master}"
    );
    for load in loads {
        let result = load.stop()?;
        ensure!(
            result.failed.is_empty() && result.done > 0,
            "under load: {result:?}"
        );
    }
    ensure!(
        epoch()? == epoch_before,
        "{SOLE_ADDRESS} was acquired anew by the agent that came back"
    );
    let rules_now = [lab.ipvs_rules(&master)?, lab.ipvs_rules(standby)?];
    ensure!(rules_now == rules, "the rules changed: {rules_now:#?}");
    Ok(())
}

fn api_absent(lab: &Lab) -> Result<()> {
    let master = serve(lab)?;
    // The standby of one router is the only director of another.
    let standby = other(&master);
    sole(lab, standby)?;
    let all_answered = || -> Result<()> {
        let url = format!("http://{SOLE_ADDRESS}/");
        let spread = traffic::spread(&lab.guest, "client", &url, 8)?;
        ensure!(
            spread == [("web-1".into(), 4), ("web-2".into(), 4)].into(),
            "through the sole director: {spread:?}"
        );
        Ok(())
    };
    lab.cluster.stop("apiserver")?;
    let told = (|| {
        for node in ["web-1", standby] {
            kill_offline(lab, node)?;
            all_answered()?;
        }
        let rules = lab.ipvs_rules(standby)?;
        ensure!(
            lab.holders(SOLE_ADDRESS)? == [standby],
            "{standby} does not hold {SOLE_ADDRESS}"
        );
        let writes = lab.agent_metric(standby, "lvs_agent_ipvs_writes_total")?;
        ensure!(
            writes == 0.0,
            "from the cached plans {standby} wrote {writes} times to IPVS: {rules:#?}"
        );
        Ok(())
    })();
    lab.cluster.start("apiserver")?;
    told?;
    lab.await_serving(NAMESPACE, "web")?;
    let spread = traffic::spread(&lab.guest, "client", URL, 9)?;
    ensure!(
        spread == [("web-1".into(), 6), ("web-2".into(), 3)].into(),
        "afterwards: {spread:?}"
    );
    all_answered()
}

fn on_promises(lab: &Lab) -> Result<()> {
    let master = serve(lab)?;
    let epoch = lab.agent_metric(&master, "lvs_agent_router_epoch")?;
    let load = Load::start(&lab.guest, "client", URL)?;
    lab.cluster.stop("apiserver")?;
    let told = (|| {
        kill_offline(lab, &master)?;
        until_equal(LIMIT, "the new process holds the router", &1.0, || {
            lab.agent_metric(&master, "lvs_agent_router_master")
        })?;
        // What the dead process left would be gone by now.
        let since = Instant::now();
        while since.elapsed() < FENCE_BOUND {
            let holders = lab.holders(ADDRESS)?;
            ensure!(holders == [master.clone()], "{holders:?} carry {ADDRESS}");
        }
        let now = lab.agent_metric(&master, "lvs_agent_router_epoch")?;
        ensure!((now - epoch).abs() < 0.5, "epoch {epoch} and then {now}");
        Ok(())
    })();
    lab.cluster.start("apiserver")?;
    told?;
    lab.await_serving(NAMESPACE, "web")?;
    let result = load.stop()?;
    ensure!(result.failed.is_empty() && result.done > 0, "{result:?}");
    ensure!(
        lab.holders(ADDRESS)? == [master],
        "it moved when the API server was back"
    );
    Ok(())
}

/// Kills an agent while there is no API server; its folder was looked up before.
fn kill_offline(lab: &Lab, node: &str) -> Result<()> {
    let find = format!(
        "for work in /run/pods/*; do grep -qs 'netns exec {node} ' $work/start.sh && [ -e $work/pid ] && echo $work; done; true"
    );
    let work = lab.guest.run(&find)?.trim().to_owned();
    let before = lab.guest.run(&format!("cat {work}/pid"))?;
    lab.guest.run(&format!("kill -KILL {}", before.trim()))?;
    until(LIMIT, &format!("a new agent process on {node}"), || {
        let pid = lab.guest.run(&format!("cat {work}/pid"))?;
        Ok(if pid == before { Err(pid) } else { Ok(()) })
    })?;
    await_ready(lab, node)
}

fn drift(lab: &Lab) -> Result<()> {
    let master = serve(lab)?;
    let rules = lab.ipvs_rules(&master)?;
    lab.guest.on(&master, "ipvsadm -C")?;
    until_equal(
        Duration::from_secs(30),
        "the rules are back",
        &rules,
        || lab.ipvs_rules(&master),
    )?;
    let spread = traffic::spread(&lab.guest, "client", URL, 3)?;
    ensure!(
        !spread.keys().any(|answer| answer.starts_with("failed")),
        "after the repair: {spread:?}"
    );
    let repaired = lab.agent_metric(&master, "lvs_agent_drift_repaired_total")?;
    ensure!(repaired > 0.0, "the repair was not counted");
    Ok(())
}

/// Without controllers nobody corrects what a story does to plans.
fn without_controllers(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let name = lab.controller_deployment()?;
    let scale = |replicas: &str| {
        lab.cluster.kubectl(&[
            "-n",
            OPERATOR_NAMESPACE,
            "scale",
            "deployment",
            &name,
            &format!("--replicas={replicas}"),
        ])
    };
    scale("0")?;
    until(LIMIT, "no controller pods", || {
        let count = lab.controller_pods()?.len();
        Ok(if count == 0 { Ok(()) } else { Err(count) })
    })?;
    let told = work();
    scale("2")?;
    lab.await_product()?;
    told
}

fn undecodable(lab: &Lab) -> Result<()> {
    let master = serve(lab)?;
    let rules = lab.ipvs_rules(&master)?;
    let plan = plan_of(lab, &master)?;
    let crd = lab.cluster.get(&["crd", "nodeplans.lvs.dev"])?;
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/director/properties/services/items/properties/scheduler/properties/name/enum/-";
    ensure!(
        crd.pointer(path.trim_end_matches("/-"))
            .is_some_and(serde_json::Value::is_array),
        "no enum at {path}"
    );
    without_controllers(lab, || {
        // A newer version knows a scheduler that this one does not.
        let newer = format!(r#"[{{"op":"add","path":"{path}","value":"future"}}]"#);
        lab.cluster.kubectl(&[
            "patch",
            "crd",
            "nodeplans.lvs.dev",
            "--type=json",
            "-p",
            &newer,
        ])?;
        let change = r#"[{"op":"replace","path":"/spec/director/services/0/scheduler/name","value":"future"}]"#;
        until(LIMIT, "the newer schema is served", || {
            let words = [
                "-n",
                OPERATOR_NAMESPACE,
                "patch",
                "nodeplan",
                &plan,
                "--type=json",
                "-p",
                change,
            ];
            Ok(lab
                .cluster
                .kubectl(&words)
                .map_err(|error| format!("{error:#}")))
        })?;
        lab.await_reason(
            &["-n", OPERATOR_NAMESPACE, "nodeplan", &plan],
            "Programmed",
            "PlanUndecodable",
        )?;
        ensure!(
            lab.ipvs_rules(&master)? == rules,
            "rules changed: {:#?}",
            lab.ipvs_rules(&master)?
        );
        kill_and_restart_unready(lab, &master)?;
        ensure!(
            lab.ipvs_rules(&master)? == rules,
            "rules changed by a restart"
        );
        let spread = traffic::spread(&lab.guest, "client", URL, 3)?;
        ensure!(
            spread.values().sum::<usize>() == 3 && !spread.keys().any(|a| a.starts_with("failed")),
            "{spread:?}"
        );
        let back =
            r#"[{"op":"replace","path":"/spec/director/services/0/scheduler/name","value":"wrr"}]"#;
        lab.cluster.kubectl(&[
            "-n",
            OPERATOR_NAMESPACE,
            "patch",
            "nodeplan",
            &plan,
            "--type=json",
            "-p",
            back,
        ])?;
        Ok(())
    })?;
    lab.await_true(&["-n", OPERATOR_NAMESPACE, "nodeplan", &plan], "Programmed")?;
    let index = crd
        .pointer(path.trim_end_matches("/-"))
        .and_then(serde_json::Value::as_array)
        .map_or(0, Vec::len);
    let older = format!(
        r#"[{{"op":"remove","path":"{}/{index}"}}]"#,
        path.trim_end_matches("/-")
    );
    lab.cluster.kubectl(&[
        "patch",
        "crd",
        "nodeplans.lvs.dev",
        "--type=json",
        "-p",
        &older,
    ])?;
    Ok(())
}

/// As [`kill_and_restart`] where readiness cannot come.
fn kill_and_restart_unready(lab: &Lab, node: &str) -> Result<()> {
    let work = lab.agent_work(node)?;
    let before = lab.guest.run(&format!("cat {work}/pid"))?;
    lab.signal_agent(node, "KILL", false)?;
    until(LIMIT, "the new agent process answers", || {
        let pid = lab.guest.run(&format!("cat {work}/pid"))?;
        let live = lab.guest.on(
            node,
            "curl --silent --max-time 5 -o /dev/null -w '%{http_code}' http://127.0.0.1:9650/livez",
        )?;
        Ok(if pid != before && live == "200" {
            Ok(())
        } else {
            Err((pid, live))
        })
    })?;
    lab.await_holder(ADDRESS).map(drop)
}

fn vanished(lab: &Lab) -> Result<()> {
    let master = serve(lab)?;
    let rules = lab.ipvs_rules(&master)?;
    let plan = plan_of(lab, &master)?;
    without_controllers(lab, || {
        lab.cluster
            .kubectl(&["-n", OPERATOR_NAMESPACE, "delete", "nodeplan", &plan])?;
        until(LIMIT, "the agent counts an orphaned plan", || {
            let count = lab.agent_metric(&master, "lvs_agent_plans_orphaned")?;
            Ok(if count == 1.0 { Ok(()) } else { Err(count) })
        })?;
        ensure!(lab.ipvs_rules(&master)? == rules, "rules changed");
        let spread = traffic::spread(&lab.guest, "client", URL, 3)?;
        ensure!(
            !spread.keys().any(|answer| answer.starts_with("failed")),
            "{spread:?}"
        );
        Ok(())
    })?;
    until(LIMIT, "no plan is orphaned any more", || {
        let count = lab.agent_metric(&master, "lvs_agent_plans_orphaned")?;
        Ok(if count == 0.0 { Ok(()) } else { Err(count) })
    })?;
    ensure!(
        lab.ipvs_rules(&master)? == rules,
        "rules changed by adoption"
    );
    Ok(())
}

fn withdrawn_when_back(lab: &Lab) -> Result<()> {
    let master = serve(lab)?;
    let standby = other(&master);
    ensure!(
        !lab.ipvs_rules(standby)?.is_empty(),
        "the standby {standby} holds no rules"
    );
    lab.signal_agent(standby, "KILL", true)?;
    let told = (|| {
        lab.cluster
            .kubectl(&["-n", NAMESPACE, "delete", "lvsvs", "web"])?;
        until(LIMIT, "the live director is clean", || {
            let rules = lab.ipvs_rules(&master)?;
            Ok(if rules.is_empty() { Ok(()) } else { Err(rules) })
        })?;
        ensure!(
            !lab.ipvs_rules(standby)?.is_empty(),
            "{standby} has no agent, yet its rules went"
        );
        let plan = plan_of(lab, standby)?;
        let object = lab
            .cluster
            .get(&["-n", OPERATOR_NAMESPACE, "nodeplan", &plan])?;
        ensure!(
            object["spec"]["state"] == "Withdrawn",
            "the plan waits as {}",
            object["spec"]["state"]
        );
        Ok(())
    })();
    lab.release_agent(standby)?;
    told?;
    until(LIMIT, "the director that was away is clean", || {
        let rules = lab.ipvs_rules(standby)?;
        Ok(if rules.is_empty() { Ok(()) } else { Err(rules) })
    })?;
    await_ready(lab, standby)
}

fn takeover(lab: &Lab) -> Result<()> {
    let master = serve(lab)?;
    let standby = other(&master);
    lab.signal_agent(&master, "KILL", true)?;
    let told = (|| {
        until(LIMIT, &format!("{standby} alone holds the address"), || {
            let holders = lab.holders(ADDRESS)?;
            Ok(if holders == [standby] {
                Ok(())
            } else {
                Err(holders)
            })
        })?;
        let spread = traffic::spread(&lab.guest, "client", URL, 6)?;
        ensure!(
            spread == [("web-1".into(), 4), ("web-2".into(), 2)].into(),
            "through {standby}: {spread:?}"
        );
        until_equal(
            LIMIT,
            "status names the new master",
            &standby.to_owned(),
            || {
                let router = lab.cluster.get(&["virtualrouters.lvs.dev", "default"])?;
                Ok(router["status"]["master"]["nodeName"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned())
            },
        )
    })();
    lab.release_agent(&master)?;
    told?;
    await_ready(lab, &master)?;
    // No preemption: the one that came back leaves the address where it is.
    ensure!(
        lab.await_holder(ADDRESS)? == standby,
        "the old master took the address back"
    );
    Ok(())
}
