//! Whom checks of type ExternalHTTP ask: where a judge is, and who may name him.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::DirectorPlan;
use lvs_plan::dns_name::{DnsName, LastAnswer, Records};
use lvs_plan::input::Body;
use lvs_plan::report::Truth;
use serde_json::{Value, json};
use support::Cluster;
use support::four_nodes::{at, cluster, expect_bad, of_service, service};

const NAME: &str = "judge.example";

/// VirtualService `web` with a judge at this URL, one real server, and judges granted in 198.51.100.0/24.
fn judged(url: &str, more: Value) -> Cluster {
    let mut cluster = cluster();
    let router = cluster.inputs.virtual_routers.get_mut("default").unwrap();
    if let Body::Decoded(spec) = &mut Arc::make_mut(router).body {
        spec.grants[0].external_check_cidrs = [
            "198.51.100.0/24",
            "2001:db8:7::/64",
            "172.25.0.0/16",
            "169.254.0.0/16",
            "192.168.50.0/24",
        ]
        .map(String::from)
        .into();
    }
    let mut check = json!({"name": "judge", "type": "ExternalHTTP", "externalHTTP": {"url": url}});
    if let Value::Object(more) = more {
        check.as_object_mut().unwrap().extend(more);
    }
    cluster.apply(service("web", json!({"healthChecks": [check]})));
    cluster.apply(at("one", "10.0.0.1", json!({})));
    cluster
}

fn director(cluster: &Cluster) -> DirectorPlan {
    cluster.plan("a", "web").unwrap().director.unwrap()
}

/// Whom the plan has directors ask.
fn asked(cluster: &Cluster) -> Option<String> {
    let [check] = &director(cluster).checks[..] else {
        panic!("one check");
    };
    check.address.clone()
}

fn records(addresses: &[&str]) -> Records {
    let addresses: BTreeSet<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Records {
        addresses: Some(addresses),
        left_out: 0,
        last_answer: LastAnswer::Addresses,
    }
}

fn answer(cluster: &mut Cluster, ipv4: Records, ipv6: Records) {
    let known = DnsName { ipv4, ipv6 };
    cluster
        .inputs
        .dns_names
        .insert(NAME.to_owned(), Arc::new(known));
}

#[test]
fn a_judge_by_address_must_be_granted() {
    let mut cluster = judged("http://198.51.100.7:8080/ask", json!({}));
    cluster.settle();
    assert_eq!(asked(&cluster).as_deref(), Some("198.51.100.7"));
    assert_eq!(
        of_service(&cluster.pass(), "web", ConditionType::ResolvedRefs).truth,
        Truth::True
    );
    for (url, address, why) in [
        ("http://203.0.113.9/", "203.0.113.9", "externalCheckCIDRs"),
        (
            "http://[2001:db8:8::1]/",
            "2001:db8:8::1",
            "externalCheckCIDRs",
        ),
        (
            "http://172.25.0.100/",
            "172.25.0.100",
            "is a virtual address",
        ),
        (
            "http://169.254.169.254/latest/",
            "169.254.169.254",
            "is a link-local address",
        ),
        (
            "http://127.0.0.1:10248/",
            "127.0.0.1",
            "is a loopback address",
        ),
        (
            "http://192.168.50.11:10250/",
            "192.168.50.11",
            "is a cluster node",
        ),
    ] {
        let mut cluster = judged(url, json!({}));
        cluster.settle();
        expect_bad(
            &of_service(&cluster.pass(), "web", ConditionType::ResolvedRefs),
            Reason::TargetNotPermitted,
            &["spec.healthChecks[judge].externalHTTP.url", address, why],
        );
        // Nobody is up without having been judged.
        assert_eq!(asked(&cluster), None, "{url}");
        assert!(!director(&cluster).services[0].checks.is_empty(), "{url}");
    }
}

#[test]
fn an_api_server_is_no_judge() {
    let mut cluster = judged("https://198.51.100.6:6443/", json!({}));
    cluster
        .inputs
        .api_endpoints
        .insert("198.51.100.6".parse().unwrap());
    cluster.settle();
    expect_bad(
        &of_service(&cluster.pass(), "web", ConditionType::ResolvedRefs),
        Reason::TargetNotPermitted,
        &["198.51.100.6", "is an API server"],
    );
}

#[test]
fn an_address_stands_in_the_place_of_the_host() {
    let mut cluster = judged("https://judge.example/", json!({"address": "198.51.100.9"}));
    cluster.settle();
    assert_eq!(asked(&cluster).as_deref(), Some("198.51.100.9"));
    let mut cluster = judged("https://198.51.100.9/", json!({"address": "10.0.0.9"}));
    cluster.settle();
    expect_bad(
        &of_service(&cluster.pass(), "web", ConditionType::ResolvedRefs),
        Reason::TargetNotPermitted,
        &["10.0.0.9", "externalCheckCIDRs"],
    );
}

#[test]
fn a_judge_by_name_is_where_the_dns_says_and_the_grant_permits() {
    let mut cluster = judged("http://judge.example/", json!({}));
    cluster.settle();
    expect_bad(
        &of_service(&cluster.pass(), "web", ConditionType::ResolvedRefs),
        Reason::DnsNameNotResolved,
        &[NAME, "has not been asked for yet"],
    );
    assert_eq!(asked(&cluster), None);
    // One that is not granted is passed over.
    answer(
        &mut cluster,
        records(&["10.9.9.9", "198.51.100.7", "198.51.100.8"]),
        Records::default(),
    );
    cluster.settle();
    assert_eq!(asked(&cluster).as_deref(), Some("198.51.100.7"));
    // Who is asked is asked on, as long as he is among them.
    answer(
        &mut cluster,
        records(&["198.51.100.5", "198.51.100.7"]),
        records(&["2001:db8:7::7"]),
    );
    cluster.settle();
    assert_eq!(asked(&cluster).as_deref(), Some("198.51.100.7"));
    answer(&mut cluster, records(&["198.51.100.5"]), Records::default());
    cluster.settle();
    assert_eq!(asked(&cluster).as_deref(), Some("198.51.100.5"));
    // The name leads elsewhere: nobody is sent there.
    answer(
        &mut cluster,
        records(&["169.254.169.254"]),
        Records::default(),
    );
    cluster.settle();
    assert_eq!(asked(&cluster), None);
    expect_bad(
        &of_service(&cluster.pass(), "web", ConditionType::ResolvedRefs),
        Reason::TargetNotPermitted,
        &[NAME, "169.254.169.254", "is a link-local address"],
    );
}

#[test]
fn a_silent_dns_moves_no_judge() {
    let mut cluster = judged("http://judge.example/", json!({}));
    answer(&mut cluster, records(&["198.51.100.7"]), Records::default());
    cluster.settle();
    // Another controller begins, whom nobody has told anything.
    cluster.inputs.dns_names.clear();
    cluster.settle();
    assert_eq!(asked(&cluster).as_deref(), Some("198.51.100.7"));
    let failed = Records {
        addresses: None,
        left_out: 0,
        last_answer: LastAnswer::Failed("no name server answers".to_owned()),
    };
    answer(&mut cluster, failed.clone(), failed);
    cluster.settle();
    assert_eq!(asked(&cluster).as_deref(), Some("198.51.100.7"));
    // Another URL is another judge.
    let check = json!({"name": "judge", "type": "ExternalHTTP", "externalHTTP": {"url": "http://other.example/"}});
    cluster.apply(service("web", json!({"healthChecks": [check]})));
    cluster.settle();
    assert_eq!(asked(&cluster), None);
}
