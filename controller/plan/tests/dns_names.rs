//! RealServers that stand for a name in the DNS: which of its addresses serve, and what stays while nobody knows them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

#[path = "dns_names/book.rs"]
mod book;
#[path = "dns_names/unknown.rs"]
mod unknown;

use std::net::IpAddr;
use std::sync::Arc;

use lvs_crds::condition::{ConditionType, Reason};
use lvs_crds::node_plan::{PlannedRealServer, PlannedService};
use lvs_plan::Resolution;
use lvs_plan::dns_name::{DnsName, LastAnswer, Records};
use lvs_plan::input::{Body, ObjectKey};
use lvs_plan::report::Truth;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::four_nodes::{at, cluster, expect_bad, of_real_server, of_service, service};
use support::{Cluster, is_quiet};

const NAME: &str = "web.example";

/// RealServer `web` that stands for [`NAME`]; `more` are further fields of its spec.
fn stands_for_name(more: Value) -> Value {
    let mut spec = json!({"target": {"type": "DNSName", "dnsName": {"name": NAME}}});
    if let Value::Object(more) = more {
        spec.as_object_mut().unwrap().extend(more);
    }
    json!({"kind": "RealServer", "metadata": {"name": "web"}, "spec": spec})
}

/// A cluster with VirtualService `web`, and real servers in both families granted.
fn web(spec: Value, real_server: Value) -> Cluster {
    let mut cluster = cluster();
    let router = cluster.inputs.virtual_routers.get_mut("default").unwrap();
    if let Body::Decoded(spec) = &mut Arc::make_mut(router).body {
        spec.grants[0]
            .real_server_cidrs
            .push("2001:db8:1::/64".to_owned());
    }
    cluster.apply(service("web", spec));
    cluster.apply(stands_for_name(real_server));
    cluster
}

/// Records of an answer; none: the name has none of this type.
fn records(addresses: &[&str]) -> Records {
    if addresses.is_empty() {
        return Records {
            last_answer: LastAnswer::NoRecords,
            ..Records::default()
        };
    }
    let parsed = addresses.iter().map(|text| text.parse().unwrap());
    Records {
        addresses: Some(parsed.collect()),
        left_out: 0,
        last_answer: LastAnswer::Addresses,
    }
}

/// The DNS says which addresses the name has.
fn answer(cluster: &mut Cluster, ipv4: &[&str], ipv6: &[&str]) {
    let known = DnsName {
        ipv4: records(ipv4),
        ipv6: records(ipv6),
    };
    cluster
        .inputs
        .dns_names
        .insert(NAME.to_owned(), Arc::new(known));
}

fn texts(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

fn services(cluster: &Cluster) -> Vec<PlannedService> {
    let plans = ["a", "b"].map(|node| cluster.plan(node, "web").unwrap().director);
    assert_eq!(plans[0], plans[1], "directors have the same");
    plans[0].clone().unwrap().services
}

/// Destinations of each service.
fn destinations(cluster: &Cluster) -> Vec<Vec<String>> {
    let text =
        |one: &PlannedRealServer| std::net::SocketAddr::new(one.address, one.port).to_string();
    let services = services(cluster);
    let all = services
        .iter()
        .map(|service| service.real_servers.iter().map(text).collect());
    all.collect()
}

fn resolved(resolution: &Resolution) -> lvs_plan::report::Verdict {
    of_real_server(resolution, "web", ConditionType::ResolvedRefs)
}

#[test]
fn each_address_is_a_real_server() {
    let nat = json!({"forwarding": {"type": "NAT"}});
    let more = json!({"weight": 3, "port": 8080, "connectionThresholds": {"upper": 100}});
    let mut cluster = web(nat, more);
    answer(&mut cluster, &["10.0.0.2", "10.0.0.1"], &[]);
    cluster.settle();
    cluster.elect("default", "a");
    let resolution = cluster.settle();
    assert_eq!(destinations(&cluster), [["10.0.0.1:8080", "10.0.0.2:8080"]]);
    let first = services(&cluster).remove(0).real_servers.remove(0);
    assert_eq!(
        (first.name.as_str(), first.weight, first.upper_threshold),
        ("web", 3, 100)
    );
    assert_eq!(resolved(&resolution).truth, Truth::True);
    assert_eq!(
        of_service(&resolution, "web", ConditionType::Ready).reason,
        Reason::Ready
    );
    let service = &resolution.report.virtual_services[&ObjectKey::new("default", "web")];
    assert_eq!(service.status.summary.real_servers, "2/2");
    let status = &resolution.report.real_servers[&ObjectKey::new("default", "web")].status;
    assert_eq!(
        (
            status.summary.target.as_str(),
            status.summary.state.as_str()
        ),
        (NAME, "Up")
    );
    let ports = &status.virtual_services[0].ports;
    let addresses: Vec<_> = ports.iter().map(|port| port.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);

    // What an answer does not name any more leaves, what it names anew comes.
    answer(&mut cluster, &["10.0.0.2", "10.0.0.3"], &[]);
    cluster.settle();
    assert_eq!(destinations(&cluster), [["10.0.0.2:8080", "10.0.0.3:8080"]]);
}

#[test]
fn each_family_serves_the_addresses_of_its_family() {
    for forwarding in ["DR", "TUN"] {
        let spec = json!({"addresses": ["172.25.0.100", "2001:db8::100"], "forwarding": {"type": forwarding}});
        let mut cluster = web(spec, json!({}));
        answer(&mut cluster, &["10.0.0.1"], &["2001:db8:1::1"]);
        let resolution = cluster.pass();
        assert_eq!(
            destinations(&cluster),
            [["10.0.0.1:80"], ["[2001:db8:1::1]:80"]]
        );
        assert_eq!(resolved(&resolution).truth, Truth::True);

        // Of one family only: that is as it may be.
        answer(&mut cluster, &["10.0.0.1"], &[]);
        cluster.inputs.node_plans.clear();
        let resolution = cluster.pass();
        assert_eq!(destinations(&cluster), [vec!["10.0.0.1:80"], vec![]]);
        assert_eq!(resolved(&resolution).truth, Truth::True);
    }
    // The other family is not missed where nobody asks for it, not even by grants.
    let mut cluster = web(json!({}), json!({}));
    answer(&mut cluster, &["10.0.0.1"], &["2001:db8:99::1"]);
    let resolution = cluster.pass();
    assert_eq!(destinations(&cluster), [["10.0.0.1:80"]]);
    let accepted = of_real_server(&resolution, "web", ConditionType::Accepted);
    assert_eq!(accepted.truth, Truth::True);
    // Nothing of the family that is asked for.
    answer(&mut cluster, &[], &["2001:db8:1::1"]);
    cluster.inputs.node_plans.clear();
    let resolution = cluster.pass();
    expect_bad(
        &resolved(&resolution),
        Reason::DnsNameNotResolved,
        &["web.example: it has no A record", "add a record"],
    );
}

/// Who writes the records of a name aims no further than who writes addresses: DNS rebinding.
#[test]
fn what_may_not_be_used_is_left_out_and_the_others_serve() {
    let spec = json!({"addresses": ["172.25.0.100", "2001:db8::100"]});
    let mut cluster = web(spec, json!({}));
    for (ipv4, ipv6, words) in [
        (
            "127.0.0.1",
            "2001:db8:1::1",
            "127.0.0.1 is a loopback address",
        ),
        ("10.0.0.1", "::1", "::1 is a loopback address"),
        (
            "169.254.169.254",
            "2001:db8:1::1",
            "169.254.169.254 is a link-local address",
        ),
        (
            "10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:127.0.0.1 is an IPv4-mapped address",
        ),
        (
            "0.0.0.0",
            "2001:db8:1::1",
            "0.0.0.0 is the unspecified address",
        ),
        (
            "172.25.0.100",
            "2001:db8:1::1",
            "172.25.0.100 is a virtual address",
        ),
        (
            "192.0.2.1",
            "2001:db8:1::1",
            "192.0.2.1 lies in no permitted network",
        ),
    ] {
        answer(&mut cluster, &["10.0.0.7", ipv4], &["2001:db8:1::7", ipv6]);
        let resolution = cluster.pass();
        let mut seen: Vec<IpAddr> = services(&cluster)
            .iter()
            .flat_map(|service| &service.real_servers)
            .map(|one| one.address)
            .collect();
        seen.sort_unstable();
        let forbidden = words.split(' ').next().unwrap();
        let mut wanted = vec!["10.0.0.7", ipv4, "2001:db8:1::7", ipv6];
        wanted.retain(|address| *address != forbidden);
        let mut wanted: Vec<IpAddr> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        wanted.sort_unstable();
        assert_eq!(seen, wanted, "{words}");
        expect_bad(
            &of_real_server(&resolution, "web", ConditionType::Accepted),
            Reason::TargetNotPermitted,
            &["1 of 4 addresses of web.example", words],
        );
    }
}

#[test]
fn the_older_real_server_keeps_an_address_that_a_name_has_too() {
    let mut cluster = web(json!({}), json!({}));
    cluster.apply(at("host", "10.0.0.1", json!({})));
    answer(&mut cluster, &["10.0.0.1", "10.0.0.2"], &[]);
    let resolution = cluster.pass();
    assert_eq!(destinations(&cluster), [["10.0.0.1:80", "10.0.0.2:80"]]);
    let older = of_real_server(&resolution, "web", ConditionType::Accepted);
    let younger = of_real_server(&resolution, "host", ConditionType::Accepted);
    let reasons = [older.reason, younger.reason];
    assert!(reasons.contains(&Reason::DuplicateTarget), "{reasons:?}");
}

/// A name that moves altogether is no mass removal: its RealServer still serves.
#[test]
fn a_name_that_moves_is_not_held() {
    let mut cluster = web(json!({}), json!({}));
    for third in [1, 2] {
        let addresses: Vec<String> = (1..=20)
            .map(|last| format!("10.0.{third}.{last}"))
            .collect();
        answer(&mut cluster, &texts(&addresses), &[]);
        cluster.settle();
        let wanted: Vec<String> = addresses.iter().map(|text| format!("{text}:80")).collect();
        assert_eq!(destinations(&cluster), [wanted]);
    }
}

#[test]
fn a_plan_never_holds_more_than_it_may() {
    // 64 ports leave room for 64 of 4096 destinations each.
    let ports: Vec<Value> = (0..64_u16)
        .map(|number| json!({"name": format!("p{number}"), "port": 8000 + number}))
        .collect();
    let mut cluster = web(
        json!({"addresses": ["172.25.0.100", "2001:db8::100"], "ports": ports}),
        json!({}),
    );
    let four: Vec<String> = (1..=32).map(|last| format!("10.0.0.{last}")).collect();
    let six: Vec<String> = (1..=32).map(|last| format!("2001:db8:1::{last}")).collect();
    answer(&mut cluster, &texts(&four), &texts(&six));
    let resolution = cluster.settle();
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::Accepted),
        Reason::TooManyEndpoints,
        &["32 of 64 addresses of web.example", "has no room for more"],
    );
    let count: usize = destinations(&cluster).iter().map(Vec::len).sum();
    assert!(count <= 4096, "{count}");
    assert!(is_quiet(&cluster.settle()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The order of an answer means nothing, nor how often it names an address.
    #[test]
    fn the_order_of_an_answer_does_not_matter(numbers in proptest::collection::vec(1..60_u8, 1..60), turn in any::<prop::sample::Index>()) {
        use lvs_plan::dns_name::{Answer, Answers, NameBook};
        let known = |numbers: &[u8]| {
            let addresses = numbers.iter().map(|number| format!("10.0.0.{number}").parse().unwrap()).collect();
            let ipv4 = Answer::Addresses { addresses, time_to_live: std::time::Duration::from_mins(1) };
            let mut book = NameBook::default();
            book.want(&[NAME.to_owned()].into(), std::time::Duration::ZERO);
            book.answered(NAME, Answers { ipv4, ipv6: Answer::NoRecords }, std::time::Duration::ZERO, 0.0);
            book.known()
        };
        let mut turned = numbers.clone();
        turned.rotate_left(turn.index(numbers.len()));
        turned.reverse();
        let plan = |numbers: &[u8]| {
            let mut cluster = web(json!({}), json!({}));
            cluster.inputs.dns_names = known(numbers);
            cluster.pass();
            destinations(&cluster)
        };
        prop_assert_eq!(plan(&numbers), plan(&turned));
    }
}
