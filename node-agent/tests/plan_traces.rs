//! Spans of plans, and that an annotation changes nothing of what is done.

#![allow(clippy::unwrap_used)]

mod node_in_memory;

use std::time::{Duration, SystemTime};

use lvs_agent::book::{PlanEvent, ReceivedPlan};
use lvs_agent::plan_traces::{PlanTraces, StatusTraces};
use lvs_agent::plan_watch::GuardedPlan;
use lvs_core::op::IpvsOp;
use lvs_crds::node_plan::{NodePlanSpec, PlanState, RealServerPlan};
use lvs_ipvs::fake::Fault;
use lvs_traces::{Resource, SpanCounts, SpanData, Tracer};
use nix::errno::Errno;
use node_in_memory::{
    Loop, Node, VIP, director, list, pass, real_server, received, router, serving,
};
use proptest::prelude::*;
use tokio::sync::mpsc;

const CONTEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A plan as the API server has it.
fn annotated(name: &str, generation: i64, spec: &NodePlanSpec, text: &str) -> ReceivedPlan {
    let plan = serde_json::json!({
        "apiVersion": "lvs.dev/v1alpha1", "kind": "NodePlan",
        "metadata": {
            "name": name, "uid": format!("uid-{name}"), "generation": generation,
            "annotations": {"lvs.dev/traceparent": text},
        },
        "spec": spec,
    });
    serde_json::from_value::<GuardedPlan>(plan).unwrap().into()
}

/// The same agent with a collector.
fn traced(agent: Loop) -> (Loop, StatusTraces, mpsc::Receiver<SpanData>) {
    let resource = Resource::builder_empty().build();
    let (tracer, spans) = Tracer::open("test", resource, 0.0, SpanCounts::default());
    let plans = PlanTraces::new(tracer);
    let statuses = plans.statuses();
    (agent.with_traces(Some(plans)), statuses, spans)
}

fn ended(spans: &mut mpsc::Receiver<SpanData>) -> Vec<SpanData> {
    std::iter::from_fn(|| spans.try_recv().ok()).collect()
}

fn names(spans: &[SpanData]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_ref()).collect()
}

fn attribute(span: &SpanData, name: &str) -> String {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|attribute| attribute.key.as_str() == name);
    found
        .map(|found| found.value.to_string())
        .unwrap_or_default()
}

#[test]
fn a_new_spec_is_followed_from_the_watch_to_the_kernel_and_the_status_once() {
    let node = Node::new();
    let (mut agent, statuses, mut spans) = traced(serving(&node));
    let spec = director(VIP, &[3, 1], PlanState::Active);
    assert!(agent.take(PlanEvent::Applied(annotated("vs-1", 2, &spec, CONTEXT))));
    pass(&mut agent);
    let made = ended(&mut spans);
    assert_eq!(names(&made), ["receive NodePlan", "apply NodePlan"]);
    for span in &made {
        assert_eq!(
            span.span_context.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(attribute(span, "lvs.node_plan.name"), "vs-1");
        assert_eq!(attribute(span, "lvs.node_plan.generation"), "2");
    }
    assert!(made[0].start_time <= made[0].end_time && made[0].end_time <= made[1].start_time);
    assert_eq!(attribute(&made[1], "lvs.operations.applied"), "1");
    assert_eq!(attribute(&made[1], "lvs.operations.failed"), "0");
    assert!(attribute(&made[1], "lvs.operations.kinds").contains("EditDestination"));
    assert_eq!(attribute(&made[1], "lvs.reason"), "Programmed");
    assert_eq!(made[1].status, lvs_traces::Status::Unset);

    let began = SystemTime::now();
    let times = (began, began + Duration::from_millis(7));
    let write = |generation, is_written| {
        statuses.written(("vs-1", "uid-vs-1", generation), times, is_written);
    };
    write(Some(1), true);
    write(None, true);
    assert!(ended(&mut spans).is_empty(), "they spoke of another spec");
    write(Some(2), false);
    write(Some(2), true);
    write(Some(2), true);
    let written = ended(&mut spans);
    assert_eq!(names(&written), ["write NodePlan status"; 2]);
    assert_eq!(written[0].status, lvs_traces::Status::error("NotWritten"));
    assert_eq!(written[1].status, lvs_traces::Status::Unset);

    // The status that was written comes back, the list comes again, somebody writes another context there.
    for text in [
        CONTEXT,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-01",
    ] {
        assert!(!agent.take(PlanEvent::Applied(annotated("vs-1", 2, &spec, text))));
        let vs = annotated("vs-1", 2, &spec, text);
        let vr = received("vr-1", 1, Ok(router(PlanState::Active)));
        list(&mut agent, vec![vr, vs]);
        pass(&mut agent);
        assert!(ended(&mut spans).is_empty());
    }
}

#[test]
fn each_plan_is_told_what_was_done_for_it_and_what_nobody_wants_any_more() {
    let node = Node::new();
    let (mut agent, _, mut spans) = traced(serving(&node));
    let other = director("192.0.2.251", &[1, 1], PlanState::Active);
    agent.take(PlanEvent::Applied(annotated("vs-2", 1, &other, CONTEXT)));
    let gone = director(VIP, &[], PlanState::Withdrawn);
    agent.take(PlanEvent::Applied(annotated("vs-1", 2, &gone, CONTEXT)));
    pass(&mut agent);
    let made = ended(&mut spans);
    let applied: Vec<_> = made
        .iter()
        .filter(|span| span.name == "apply NodePlan")
        .collect();
    let [first, second] = applied.as_slice() else {
        unreachable!("{:?}", names(&made))
    };
    assert_eq!(attribute(first, "lvs.node_plan.name"), "vs-1");
    let (first, second) = (
        attribute(first, "lvs.operations.kinds"),
        attribute(second, "lvs.operations.kinds"),
    );
    assert!(
        first.contains("DeleteService") && !first.contains("AddService"),
        "{first}"
    );
    assert!(
        second.contains("AddService") && second.contains("AddDestination"),
        "{second}"
    );
    assert!(!second.contains("Delete"), "{second}");

    // What an edit leaves out belongs to nobody any more.
    let addresses = |address: &str| NodePlanSpec {
        real_server: Some(RealServerPlan {
            direct_routing_addresses: vec![address.parse().unwrap()],
            ..RealServerPlan::default()
        }),
        ..real_server(PlanState::Active)
    };
    let (before, after) = (addresses("192.0.2.252"), addresses("192.0.2.253"));
    agent.take(PlanEvent::Applied(received("rs-1", 1, Ok(before))));
    pass(&mut agent);
    agent.take(PlanEvent::Applied(annotated("rs-1", 2, &after, CONTEXT)));
    pass(&mut agent);
    let made = ended(&mut spans);
    let of_edit: Vec<_> = made
        .iter()
        .filter(|span| span.name == "apply NodePlan")
        .filter(|span| attribute(span, "lvs.node_plan.name") == "rs-1")
        .collect();
    let [apply] = of_edit.as_slice() else {
        unreachable!("{:?}", names(&made))
    };
    let kinds = attribute(apply, "lvs.operations.kinds");
    assert!(
        kinds.contains("AddAddress") && kinds.contains("DeleteAddress"),
        "{kinds}"
    );
}

#[test]
fn a_restart_tells_nothing_anew_and_a_change_meanwhile_is_told() {
    let node = Node::new();
    let agent = serving(&node);
    let spec = director(VIP, &[2, 1], PlanState::Active);
    let (mut agent, _, mut spans) = traced(node.restart(agent));
    let vr = || received("vr-1", 1, Ok(router(PlanState::Active)));
    list(&mut agent, vec![vr(), annotated("vs-1", 1, &spec, CONTEXT)]);
    pass(&mut agent);
    assert!(ended(&mut spans).is_empty());

    let (mut agent, _, mut spans) = traced(node.restart(agent));
    let spec = director(VIP, &[2, 2], PlanState::Active);
    list(&mut agent, vec![vr(), annotated("vs-1", 2, &spec, CONTEXT)]);
    pass(&mut agent);
    let names_of = ended(&mut spans);
    assert_eq!(names(&names_of), ["receive NodePlan", "apply NodePlan"]);
}

#[test]
fn what_fails_is_told_with_its_reason_until_it_is_in_force_and_not_for_ever() {
    let node = Node::new();
    let (mut agent, _, mut spans) = traced(serving(&node));
    let spec = director(VIP, &[3, 1], PlanState::Active);
    let edit = probe(&agent, &spec);
    let refused = Fault::Refused(Errno::EINVAL);
    agent.ipvs.faults.push((edit, refused));
    assert!(agent.take(PlanEvent::Applied(annotated("vs-1", 2, &spec, CONTEXT))));
    pass(&mut agent);
    let made = ended(&mut spans);
    assert_eq!(names(&made), ["receive NodePlan", "apply NodePlan"]);
    assert_eq!(attribute(&made[1], "lvs.operations.applied"), "0");
    assert_eq!(attribute(&made[1], "lvs.operations.failed"), "1");
    let reason = attribute(&made[1], "lvs.reason");
    assert_ne!(reason, "Programmed");
    assert_eq!(made[1].status, lvs_traces::Status::error(reason));
    // It is told of the pass that succeeds, too, and of no other.
    pass(&mut agent);
    pass(&mut agent);
    let made = ended(&mut spans);
    assert_eq!(names(&made), ["apply NodePlan"]);
    assert_eq!(attribute(&made[0], "lvs.operations.applied"), "1");
    assert_eq!(made[0].status, lvs_traces::Status::Unset);

    let first = agent.host.observations + 1;
    agent.host.unreadable.extend(first..first + 100);
    let spec = director(VIP, &[2, 1], PlanState::Active);
    assert!(agent.take(PlanEvent::Applied(annotated("vs-1", 3, &spec, CONTEXT))));
    for _ in 0..20 {
        pass(&mut agent);
    }
    let made = ended(&mut spans);
    assert_eq!(names(&made)[0], "receive NodePlan");
    assert_eq!(names(&made)[1..], ["apply NodePlan"; 5]);
    let blind = lvs_traces::Status::error("ObservationFailed");
    assert!(made[1..].iter().all(|span| span.status == blind));
}

/// The one operation that this spec costs.
fn probe(agent: &Loop, spec: &NodePlanSpec) -> IpvsOp {
    let node = Node::new();
    let mut twin = serving(&node);
    assert_eq!(twin.ipvs.model, agent.ipvs.model);
    twin.take(PlanEvent::Applied(received("vs-1", 2, Ok(spec.clone()))));
    pass(&mut twin);
    let [op] = twin.ipvs.carried_out.as_slice() else {
        unreachable!("{:?}", twin.ipvs.carried_out)
    };
    op.clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_annotation_changes_what_is_done(
        text in "\\PC*|[0-9a-f-]{55}|00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
        again in "\\PC*|00-[0-9a-f]{32}-[0-9a-f]{16}-01",
        weights in proptest::collection::vec(0_u16..4, 0..3),
    ) {
        let spec = director(VIP, &weights, PlanState::Active);
        let outcome = |plans: [ReceivedPlan; 2], is_traced: bool| {
            let node = Node::new();
            let agent = serving(&node);
            let mut agent = if is_traced { traced(agent).0 } else { agent };
            let [first, second] = plans;
            let first = agent.take(PlanEvent::Applied(first));
            let report = pass(&mut agent);
            let ops = (agent.ipvs.carried_out.clone(), agent.host.carried_out.clone());
            // Another annotation alone: nobody wakes, and a pass that is due anyway writes nothing.
            let second = agent.take(PlanEvent::Applied(second));
            agent.ipvs.carried_out.clear();
            agent.host.carried_out.clear();
            pass(&mut agent);
            let idle = agent.ipvs.carried_out.is_empty() && agent.host.carried_out.is_empty();
            (first, report, ops, second, idle)
        };
        let plain = || received("vs-1", 2, Ok(spec.clone()));
        let without = outcome([plain(), plain()], false);
        prop_assert!(!without.3 && without.4);
        for is_traced in [false, true] {
            let plans = [&text, &again].map(|text| annotated("vs-1", 2, &spec, text));
            prop_assert_eq!(&outcome(plans, is_traced), &without);
        }
    }
}
