//! Nothing that works is taken away by a mistake, an unknown or a failure; and everybody is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::sync::Arc;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::PlanState;
use lvs_crds::real_server::RealServerState;
use lvs_plan::input::{Body, ObjectKey};
use lvs_plan::report::Truth;
use lvs_plan::resolve;
use serde_json::json;
use support::four_nodes::{
    at, cluster, expect_bad, of_router, of_service, on_node, router, service,
};
use support::node;

#[test]
fn a_mass_removal_is_held_until_confirmed() {
    let mut cluster = cluster();
    for number in 0..10 {
        cluster.apply(service(
            &format!("web-{number}"),
            json!({"ports": [{"port": 80 + number}]}),
        ));
    }
    cluster.settle();
    cluster
        .inputs
        .virtual_services
        .retain(|key, _| key.name.as_str() > "web-5");
    let resolution = cluster.pass();
    let verdict = of_router(&resolution, "default", ConditionType::Programmed);
    expect_bad(
        &verdict,
        Reason::MassRemovalHeld,
        &[
            "6 of 10 VirtualServices",
            "kubectl annotate namespace lvs-system",
        ],
    );
    assert_eq!(cluster.plan("a", "web-0").unwrap().state, PlanState::Active);

    cluster.apply(service("web-9", json!({"ports": [{"port": 8080}]})));
    cluster.pass();
    let changed = cluster
        .plan("a", "web-9")
        .unwrap()
        .director
        .unwrap()
        .services;
    assert_eq!(
        changed[0].address.as_ref().unwrap().port,
        8080,
        "the others go on"
    );
    cluster.apply(service("thief", json!({"ports": [{"port": 80}]})));
    let resolution = cluster.pass();
    expect_bad(
        &of_service(&resolution, "thief", ConditionType::Accepted),
        Reason::AddressInUse,
        &["web-0"],
    );

    let token = verdict.message.rsplit('=').next().unwrap().to_owned();
    cluster.inputs.confirmed_removals.insert(token);
    cluster.settle();
    assert!(cluster.plan("a", "web-0").is_none());
    assert_eq!(cluster.plan("a", "thief").unwrap().state, PlanState::Active);
}

#[test]
fn losing_most_real_servers_is_held() {
    let mut cluster = cluster();
    cluster.apply(service(
        "web",
        json!({"realServerSelector": {"matchLabels": {"app": "web"}}}),
    ));
    for number in 0..8 {
        let mut real_server = at(
            &format!("rs-{number}"),
            &format!("10.0.0.{}", number + 1),
            json!({}),
        );
        real_server["metadata"]["labels"] = json!({"app": "web"});
        cluster.apply(real_server);
    }
    cluster.settle();
    cluster.apply(service(
        "web",
        json!({"realServerSelector": {"matchLabels": {"app": "wbe"}}}),
    ));
    let resolution = cluster.pass();
    let verdict = of_service(&resolution, "web", ConditionType::Accepted);
    expect_bad(&verdict, Reason::MassRemovalHeld, &["8 of 8 real servers"]);
    let services = cluster.plan("a", "web").unwrap().director.unwrap().services;
    assert_eq!(services[0].real_servers.len(), 8);
}

/// Found in review: the new claim contradicted the plan that waits, and the critic then let nobody's plan be written.
#[test]
fn a_real_server_of_what_is_held_is_nobodys_virtual_address() {
    let mut cluster = cluster();
    let mut router = router("default", &["a", "b"]);
    router["spec"]["addressPools"][0]["addresses"] = json!(["172.25.0.0/24", "10.0.0.0/24"]);
    cluster.apply(router);
    let selecting = |app: &str| json!({"realServerSelector": {"matchLabels": {"app": app}}});
    cluster.apply(service("web", selecting("web")));
    for number in 0..8 {
        let address = format!("10.0.0.{}", number + 1);
        let mut real_server = at(&format!("rs-{number}"), &address, json!({}));
        real_server["metadata"]["labels"] = json!({"app": "web"});
        cluster.apply(real_server);
    }
    cluster.settle();
    cluster.apply(service("web", selecting("wbe")));
    let verdict = of_service(&cluster.pass(), "web", ConditionType::Accepted);
    expect_bad(&verdict, Reason::MassRemovalHeld, &["8 of 8 real servers"]);

    cluster.apply(service("thief", json!({"addresses": ["10.0.0.1"]})));
    let resolution = cluster.pass();
    expect_bad(
        &of_service(&resolution, "thief", ConditionType::Accepted),
        Reason::AddressNotPermitted,
        &["10.0.0.1", "real server of VirtualService default/web"],
    );
    cluster.apply(service("web", selecting("web")));
    cluster.settle();
}

#[test]
fn deleting_a_few_services_is_not_held() {
    let mut cluster = cluster();
    for number in 0..3 {
        cluster.apply(service(
            &format!("web-{number}"),
            json!({"ports": [{"port": 80 + number}]}),
        ));
    }
    for name in ["c", "d"] {
        cluster.apply(on_node(name, name, json!({})));
    }
    cluster.settle();
    cluster.inputs.virtual_services.clear();
    cluster.settle();
    assert!(cluster.plan("a", "web-0").is_none());
}

#[test]
fn a_failing_agent_is_named_and_the_others_go_on() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.apply(on_node("c", "c", json!({})));
    cluster.apply(on_node("d", "d", json!({"weight": 0})));
    cluster.settle();
    cluster.elect("default", "a");
    let ready = of_service(&cluster.pass(), "web", ConditionType::Ready);
    assert_eq!(
        (ready.truth, ready.reason),
        (Truth::True, Reason::PartiallyReady)
    );
    cluster.fail("b", "web", "KernelModuleMissing");
    let resolution = cluster.pass();
    let programmed = of_service(&resolution, "web", ConditionType::Programmed);
    expect_bad(
        &programmed,
        Reason::KernelModuleMissing,
        &["node b", "it says why"],
    );
    assert_eq!(
        of_service(&resolution, "web", ConditionType::Ready).truth,
        Truth::True,
        "the master is well"
    );
    let real_servers = &resolution.report.real_servers;
    let state = |name: &str| {
        real_servers[&ObjectKey::new("default", name)]
            .status
            .virtual_services[0]
            .ports[0]
            .state
    };
    assert_eq!(
        (state("c"), state("d")),
        (RealServerState::Up, RealServerState::Disabled)
    );
    cluster.fail("c", "web", "SysctlReadOnly");
    cluster.fail("a", "web", "IPv6Unavailable");
    let ready = of_service(&cluster.pass(), "web", ConditionType::Ready);
    expect_bad(&ready, Reason::IPv6Unavailable, &["node a"]);
}

#[test]
fn an_undecodable_virtual_service_freezes_and_says_so() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    let object = cluster.inputs.virtual_services.values_mut().next().unwrap();
    Arc::make_mut(object).body =
        Body::Undecodable("spec.scheduler.name: unknown variant `quantum`".to_owned());
    let resolution = resolve(&cluster.inputs);
    expect_bad(
        &of_service(&resolution, "web", ConditionType::Accepted),
        Reason::Undecodable,
        &["quantum"],
    );
    assert!(resolution.plans.values().all(|planned| !planned.is_changed));
    let status = &resolution.report.virtual_services[&ObjectKey::new("default", "web")].status;
    assert_eq!(
        status.summary.addresses, "172.25.0.100",
        "what was known stays shown"
    );
}

#[test]
fn a_node_that_registers_again_keeps_its_plan() {
    let mut cluster = cluster();
    cluster.settle();
    let mut again = node("a", "192.168.50.11");
    again["metadata"]["uid"] = json!("registered-again");
    cluster.apply(again);
    let resolution = resolve(&cluster.inputs);
    let (_, planned) = resolution
        .plans
        .iter()
        .find(|(_, planned)| planned.spec.node_name == "a")
        .unwrap();
    assert!(planned.is_changed && planned.base.is_some());
    assert_eq!(planned.owner_uid, "registered-again");
}

/// The agent acknowledges only what it dealt with; why it could not is its condition's, and must reach the service.
#[test]
fn a_node_that_cannot_follow_its_plan_says_why_on_the_service() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    cluster.stall("b", "web", "Unknown", "PermissionDenied");
    let verdict = of_service(&resolve(&cluster.inputs), "web", ConditionType::Programmed);
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::Unknown, Reason::PermissionDenied)
    );
    assert!(
        verdict.message.contains("node b: it says why"),
        "{verdict:?}"
    );
    cluster.stall("b", "web", "False", "PlanUndecodable");
    let verdict = of_service(&resolve(&cluster.inputs), "web", ConditionType::Programmed);
    expect_bad(&verdict, Reason::PlanUndecodable, &["node b: it says why"]);
    // A condition about an older plan says nothing of this one.
    cluster.apply(service("web", json!({"ports": [{"port": 8080}]})));
    cluster.pass();
    let verdict = of_service(&resolve(&cluster.inputs), "web", ConditionType::Programmed);
    expect_bad(
        &verdict,
        Reason::Pending,
        &["has not reported the newest plan"],
    );
}

#[test]
fn a_namespace_that_was_not_seen_yet_freezes() {
    let mut cluster = cluster();
    cluster.apply(service("web", json!({})));
    cluster.settle();
    cluster.inputs.namespaces.clear();
    let resolution = resolve(&cluster.inputs);
    assert!(resolution.plans.values().all(|planned| !planned.is_changed));
    let verdict = of_service(&resolution, "web", ConditionType::Accepted);
    assert_eq!(
        (verdict.truth, verdict.reason),
        (Truth::Unknown, Reason::Pending)
    );
}

#[test]
fn a_change_writes_only_the_plans_of_the_nodes_concerned() {
    let mut cluster = cluster();
    for number in 0..100 {
        let label = json!({"ports": [{"port": 1000 + number}], "realServerSelector": {"matchLabels": {"app": format!("a{number}")}}});
        cluster.apply(service(&format!("web-{number}"), label));
        for host in 0..100 {
            let mut real_server = at(
                &format!("rs-{number}-{host}"),
                &format!("10.{number}.0.{host}"),
                json!({}),
            );
            real_server["metadata"]["labels"] = json!({"app": format!("a{number}")});
            cluster.apply(real_server);
        }
    }
    cluster.settle();
    let mut changed = at("rs-7-7", "10.7.0.7", json!({"weight": 5}));
    changed["metadata"]["labels"] = json!({"app": "a7"});
    cluster.apply(changed);
    let resolution = resolve(&cluster.inputs);
    let written = resolution
        .plans
        .values()
        .filter(|planned| planned.is_changed);
    let written: Vec<_> = written
        .map(|p| (p.spec.node_name.as_str(), p.spec.source.name.as_str()))
        .collect();
    assert_eq!(written, [("a", "web-7"), ("b", "web-7")]);
}
