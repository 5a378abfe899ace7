//! Where the time goes from an edit to the kernels: traces to a collector of OpenTelemetry, and what happens without one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::collector::{Collector, Health, Received};
use super::dns_names::controllers;
use super::{NAMESPACE, Story, real_servers};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};

const ADDRESS: &str = "172.16.2.221";
const SERVICE: [&str; 4] = ["-n", NAMESPACE, "virtualservices.lvs.dev", "web"];
const DIRECTORS: [&str; 2] = ["lb-a", "lb-b"];
/// As many of each as a median takes.
const EDITS: usize = 5;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "traces_of_an_apply",
        tells: "an edit is one trace at a collector of OpenTelemetry, from the controller to the kernels of both directors; one that hangs or refuses slows nothing; without the value nothing is exported",
        run: traced,
    }]
}

fn traced(lab: &Lab) -> Result<()> {
    let told = told(lab);
    let undone = super::upgrade(lab, &[]);
    told?;
    undone.context("the chart as it was")
}

fn told(lab: &Lab) -> Result<()> {
    let objects = [OBJECTS, &real_servers(&["web-1", "web-2"])].concat();
    lab.cluster.apply_text(NAMESPACE, &objects)?;
    lab.await_true(&SERVICE, "Programmed")?;
    let collector = Collector::start(lab)?;
    let mut edits = Edits::default();

    // Without the value.
    join_controllers(lab, &collector)?;
    edits.make(lab)?;
    lab.await_true(&SERVICE, "Programmed")?;
    ensure!(annotations(lab)?.is_empty(), "{:?}", annotations(lab)?);

    let endpoint = format!("tracing.otlp.endpoint={}", collector.endpoint());
    super::upgrade(lab, &[&endpoint])?;
    lab.await_true(&SERVICE, "Programmed")?;
    ensure!(
        collector.requests() == 0,
        "{} requests",
        collector.requests()
    );
    join_controllers(lab, &collector)?;
    edits.make(lab)?;
    let generation = generation(lab)?;
    let trace = await_trace(&collector, &generation)?;
    is_whole(&trace)?;
    println!("{}", shown(&trace));

    // Whoever writes something else there writes nothing but that.
    let before = (writes(lab)?, collector.spans()?.len());
    for text in [
        "nonsense",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        for plan in annotations(lab)?.keys() {
            let annotation = format!("lvs.dev/traceparent={text}");
            let words = [
                "-n",
                OPERATOR_NAMESPACE,
                "annotate",
                "--overwrite",
                "nodeplan",
            ];
            lab.cluster
                .kubectl(&[&words[..], &[plan, &annotation]].concat())?;
        }
    }
    let forged = annotations(lab)?;
    let usual = median((0..EDITS).map(|_| edits.make(lab)).collect::<Result<_>>()?);
    let after = annotations(lab)?;
    ensure!(
        forged.keys().eq(after.keys()) && forged.iter().all(|(plan, text)| after[plan] != *text),
        "{after:?}"
    );
    // Each edit is one operation on each director, and nothing else was done.
    let done = writes(lab)? - before.0;
    ensure!(
        done == (EDITS * DIRECTORS.len()) as u64,
        "{done} writes to IPVS"
    );
    let trace = await_trace(&collector, &self::generation(lab)?)?;
    is_whole(&trace)?;
    let strangers = collector.spans()?;
    let strangers = strangers[before.1..].iter().filter(|one| {
        let trace_id = one.span.trace_id.iter().map(|byte| format!("{byte:02x}"));
        trace_id.collect::<String>() == "4bf92f3577b34da6a3ce929d0e0e4736"
    });
    ensure!(strangers.count() == 0, "spans of a trace that nobody began");

    // The collector is not well, and nobody waits for it.
    let holder = lab.await_holder(ADDRESS)?;
    let epoch = epoch(lab)?;
    for (health, bound) in [(Health::Hangs, 20), (Health::Refuses, 10)] {
        collector.set_health(health);
        let failed = "lvs_agent_spans_total{result=\"failed\"}";
        let before = DIRECTORS.map(|node| metric(lab, node, failed));
        let slowed = median((0..EDITS).map(|_| edits.make(lab)).collect::<Result<_>>()?);
        println!(
            "    an edit is in both kernels after {usual:?}, with a collector that {health:?} after {slowed:?}"
        );
        ensure!(
            slowed < usual * 2 + Duration::from_millis(500),
            "{slowed:?} instead of {usual:?} with a collector that {health:?}"
        );
        for (node, before) in DIRECTORS.iter().zip(before) {
            let before = before?;
            until(
                Duration::from_secs(bound) + LIMIT,
                "lost spans are counted",
                || {
                    let now = metric(lab, node, failed)?;
                    Ok(if now > before { Ok(()) } else { Err(now) })
                },
            )?;
        }
    }
    ensure!(
        lab.holders(ADDRESS)? == [holder] && self::epoch(lab)? == epoch,
        "leadership moved"
    );

    collector.set_health(Health::Well);
    edits.make(lab)?;
    let trace = await_trace(&collector, &self::generation(lab)?)?;
    is_whole(&trace).context("after the collector was not well")?;

    super::upgrade(lab, &[])?;
    lab.await_true(&SERVICE, "Programmed")?;
    join_controllers(lab, &collector)?;
    let before = collector.requests();
    edits.make(lab)?;
    lab.await_true(&SERVICE, "Programmed")?;
    ensure!(annotations(lab)?.is_empty(), "{:?}", annotations(lab)?);
    for node in DIRECTORS {
        let metrics = lab.agent_metric(node, "lvs_agent_spans_total")?;
        ensure!(metrics == 0.0, "{metrics} spans of {node}");
    }
    // A batch lingers for a second.
    std::thread::sleep(Duration::from_secs(3));
    ensure!(collector.requests() == before, "something was exported");
    Ok(())
}

const OBJECTS: &str = r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: web}
spec:
  addresses: [172.16.2.221]
  ports: [{port: 80}]
  forwarding: {type: NAT}
  scheduler: {name: rr}
  realServerSelector: {}
"#;

/// Controllers have networks of their own; the collector is in each.
fn join_controllers(lab: &Lab, collector: &Collector) -> Result<()> {
    until(LIMIT, "the collector is beside every controller", || {
        for pid in controllers(lab)?.values() {
            if let Err(error) = collector.beside(pid) {
                // It is there already, from an earlier look.
                if !format!("{error:#}").contains("in use") {
                    return Ok(Err(format!("{error:#}")));
                }
            }
        }
        Ok(Ok(()))
    })
}

/// Edits of the scheduler, which are one operation on each director.
#[derive(Default)]
struct Edits(usize);

impl Edits {
    /// The next one; how long it takes until both kernels have it.
    fn make(&mut self, lab: &Lab) -> Result<Duration> {
        self.0 += 1;
        let scheduler = ["wrr", "lc", "wlc", "rr"][(self.0 - 1) % 4];
        let change = json!({"spec": {"scheduler": {"name": scheduler}}});
        let begun = Instant::now();
        lab.cluster.merge_patch(&SERVICE, &change)?;
        let rule = format!("-A -t {ADDRESS}:80 -s {scheduler}");
        for director in DIRECTORS {
            until(LIMIT, &format!("{rule} on {director}"), || {
                let rules = lab.ipvs_rules(director)?;
                Ok(if rules.contains(&rule) {
                    Ok(())
                } else {
                    Err(rules)
                })
            })?;
        }
        let elapsed = begun.elapsed();
        // Nothing of it is under way when the next begins.
        let wanted = json!(generation(lab)?.parse::<i64>()?);
        until(LIMIT, "both directors answered", || {
            let object = lab.cluster.get(&SERVICE)?;
            let conditions = object["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let is_done = conditions.any(|condition| {
                condition["type"] == "Programmed"
                    && condition["status"] == "True"
                    && condition["observedGeneration"] == wanted
            });
            Ok(if is_done {
                Ok(())
            } else {
                Err(object["status"].clone())
            })
        })?;
        Ok(elapsed)
    }
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

fn generation(lab: &Lab) -> Result<String> {
    let object = lab.cluster.get(&SERVICE)?;
    Ok(object["metadata"]["generation"].to_string())
}

fn epoch(lab: &Lab) -> Result<serde_json::Value> {
    let lease = ["-n", OPERATOR_NAMESPACE, "lease", "lvs-router-default"];
    Ok(lab.cluster.get(&lease)?["spec"]["leaseTransitions"].clone())
}

/// Writes to IPVS of both directors.
fn writes(lab: &Lab) -> Result<u64> {
    let counts = DIRECTORS.map(|node| lab.agent_metric(node, "lvs_agent_ipvs_writes_total"));
    let counts: Vec<f64> = counts.into_iter().collect::<Result<_>>()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    Ok(counts.iter().sum::<f64>() as u64)
}

/// One sample, with its labels.
fn metric(lab: &Lab, node: &str, sample: &str) -> Result<f64> {
    let text = lab.guest.on(
        node,
        "curl --silent --show-error --max-time 10 http://127.0.0.1:9650/metrics",
    )?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(sample));
    let value = lines
        .next()
        .with_context(|| format!("no {sample} on {node}"))?;
    Ok(value.trim().parse()?)
}

/// Contexts on the plans of the service, by plan.
fn annotations(lab: &Lab) -> Result<std::collections::BTreeMap<String, String>> {
    let plans = lab.cluster.get(&["-n", OPERATOR_NAMESPACE, "nodeplans"])?;
    let plans = plans["items"].as_array().into_iter().flatten();
    let found = plans.filter_map(|plan| {
        let name = plan["metadata"]["name"].as_str()?;
        let text = plan["metadata"]["annotations"]["lvs.dev/traceparent"].as_str()?;
        Some((name.to_owned(), text.to_owned()))
    });
    Ok(found.collect())
}

/// The spans of the trace that begins with this generation of the service, when it is complete.
fn await_trace(collector: &Collector, generation: &str) -> Result<Vec<Received>> {
    until(
        LIMIT,
        &format!("the trace of generation {generation}"),
        || {
            let spans = collector.spans()?;
            let root = spans.iter().find(|one| {
                one.span.name == "change VirtualService"
                    && one.attribute("lvs.object.generation") == generation
            });
            let Some(root) = root else {
                return Ok(Err("no root".to_owned()));
            };
            let trace: Vec<Received> = spans
                .iter()
                .filter(|one| one.span.trace_id == root.span.trace_id)
                .cloned()
                .collect();
            let has = |name: &str, node: &str| {
                trace
                    .iter()
                    .any(|one| one.span.name == name && one.node == node)
            };
            let is_whole = has("converge", "")
                && DIRECTORS
                    .iter()
                    .all(|node| has("write NodePlan status", node));
            Ok(if is_whole {
                Ok(trace.clone())
            } else {
                Err(shown(&trace))
            })
        },
    )
}

/// For people: who did what within what, and for how long.
fn shown(trace: &[Received]) -> String {
    let mut trace: Vec<&Received> = trace.iter().collect();
    trace.sort_by_key(|one| one.span.start_time_unix_nano);
    let begun = trace.first().map_or(0, |one| one.span.start_time_unix_nano);
    let milliseconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3;
    let lines = trace.iter().map(|one| {
        let span = &one.span;
        format!(
            "    {:>8.1} ms {:>7.1} ms  {} {}: {} {}",
            milliseconds(span.start_time_unix_nano - begun),
            milliseconds(
                span.end_time_unix_nano
                    .saturating_sub(span.start_time_unix_nano)
            ),
            one.service,
            one.node,
            span.name,
            span.status.as_ref().map_or("", |status| &status.message),
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One root; the controller's spans within it, the agents' within the write of their plan; in order; with what was done.
fn is_whole(trace: &[Received]) -> Result<()> {
    let named = |name: &str| -> Vec<&Received> {
        trace.iter().filter(|one| one.span.name == name).collect()
    };
    let told = || format!("in\n{}", shown(trace));
    let roots: Vec<_> = trace
        .iter()
        .filter(|one| one.span.parent_span_id.is_empty())
        .collect();
    ensure!(roots.len() == 1, "{} roots {}", roots.len(), told());
    let root = roots[0];
    ensure!(
        root.service == "lvs-controller"
            && root.attribute("lvs.object.kind") == "VirtualService"
            && root.attribute("k8s.namespace.name") == NAMESPACE
            && root.attribute("lvs.object.name") == "web"
            && root.attribute("lvs.node_plans") == "2",
        "{root:?}"
    );
    for name in ["plan", "write NodePlan", "converge"] {
        let spans = named(name);
        ensure!(!spans.is_empty(), "no span {name} {}", told());
        for one in spans {
            ensure!(
                one.service == "lvs-controller" && one.span.parent_span_id == root.span.span_id,
                "{one:?} {}",
                told()
            );
        }
    }
    let (plan, converge) = (named("plan")[0], named("converge")[0]);
    ensure!(
        root.span.start_time_unix_nano <= plan.span.start_time_unix_nano
            && converge.span.start_time_unix_nano <= converge.span.end_time_unix_nano
            && is_ok(converge),
        "{converge:?} {}",
        told()
    );
    for director in DIRECTORS {
        let writes = named("write NodePlan");
        let mut writes = writes
            .iter()
            .filter(|one| one.attribute("k8s.node.name") == director && is_ok(one));
        let write = writes
            .next()
            .with_context(|| format!("no write for {director} {}", told()))?;
        ensure!(
            plan.span.end_time_unix_nano <= write.span.start_time_unix_nano
                && write.span.end_time_unix_nano <= converge.span.end_time_unix_nano,
            "{write:?} {}",
            told()
        );
        let of_agent = |name: &str| -> Result<&Received> {
            let spans: Vec<_> = named(name)
                .into_iter()
                .filter(|one| one.node == director)
                .collect();
            ensure!(!spans.is_empty(), "no span {name} of {director} {}", told());
            for one in &spans {
                ensure!(
                    one.service == "lvs-agent" && one.span.parent_span_id == write.span.span_id,
                    "{one:?} is not within {write:?} {}",
                    told()
                );
            }
            Ok(spans[spans.len() - 1])
        };
        let (receive, apply) = (of_agent("receive NodePlan")?, of_agent("apply NodePlan")?);
        let status = of_agent("write NodePlan status")?;
        // Of one clock, that of the node.
        ensure!(
            receive.span.end_time_unix_nano <= apply.span.start_time_unix_nano
                && apply.span.end_time_unix_nano <= status.span.start_time_unix_nano,
            "{}",
            told()
        );
        ensure!(
            apply.attribute("lvs.operations.applied") == "1"
                && apply.attribute("lvs.operations.failed") == "0"
                && apply.attribute("lvs.operations.kinds") == "EditService"
                && apply.attribute("lvs.reason") == "Programmed"
                && is_ok(apply)
                && is_ok(status),
            "{apply:?} {status:?}"
        );
    }
    Ok(())
}

fn is_ok(one: &Received) -> bool {
    one.span
        .status
        .as_ref()
        .is_none_or(|status| status.code != 2)
}
