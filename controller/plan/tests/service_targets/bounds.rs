//! A Service may have any number of endpoints, a plan may not.

use std::collections::BTreeSet;

use super::*;

/// Addresses 10.0.<third>.1 to .<count>.
fn many(third: usize, count: usize) -> Vec<String> {
    (1..=count)
        .map(|last| format!("10.0.{third}.{last}"))
        .collect()
}

fn ready_of(addresses: &[String]) -> Value {
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    ready(&texts)
}

#[test]
fn of_too_many_endpoints_those_stay_that_have_clients() {
    let first = slice("web-a", "web", ready_of(&many(2, 200)));
    let mut cluster = web(json!({}), json!({}), [first]);
    cluster.settle();
    cluster.apply(slice("web-b", "web", ready_of(&many(1, 100))));
    let resolution = cluster.settle();
    let addresses: BTreeSet<String> = real_servers(&cluster)
        .iter()
        .map(|one| one.address.to_string())
        .collect();
    assert_eq!(addresses.len(), 256);
    assert!(
        many(2, 200)
            .iter()
            .all(|address| addresses.contains(address)),
        "who was first stays"
    );
    assert!(
        many(1, 56)
            .iter()
            .all(|address| addresses.contains(address)),
        "then by address"
    );
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::Accepted),
        Reason::TooManyEndpoints,
        &["44 of 300 endpoints", "256"],
    );
    assert!(is_quiet(&cluster.settle()));

    // Who serves comes before who leaves.
    let leaving: Value = many(2, 200)
        .iter()
        .map(|address| terminating(address))
        .collect();
    cluster.apply(slice("web-a", "web", leaving));
    cluster.settle();
    let serving = real_servers(&cluster)
        .iter()
        .filter(|one| one.administrative_state.is_enabled())
        .count();
    assert_eq!((serving, real_servers(&cluster).len()), (100, 256));
}

#[test]
fn a_plan_never_holds_more_than_it_may() {
    let ports: Vec<Value> = (0..20)
        .map(|number| json!({"name": format!("p{number}"), "port": 1000 + number}))
        .collect();
    let mut cluster = cluster();
    cluster.apply(service("web", json!({"ports": ports})));
    cluster.apply(at("host", "10.0.9.1", json!({})));
    for number in 1..=2 {
        let name = format!("web-{number}");
        cluster.apply(stands_for_service(&name, json!({})));
        cluster.apply(slice(&name, &name, ready_of(&many(number, 150))));
    }
    let resolution = cluster.pass();
    let services = services(&cluster);
    assert_eq!(services.len(), 20);
    assert!(
        services
            .iter()
            .all(|service| service.real_servers.len() == 204),
        "4096 / 20"
    );
    assert!(
        services[0]
            .real_servers
            .iter()
            .any(|one| one.name == "host")
    );
    assert_eq!(
        of_real_server(&resolution, "web-1", ConditionType::Accepted).truth,
        Truth::True,
        "the older one first"
    );
    expect_bad(
        &of_real_server(&resolution, "web-2", ConditionType::Accepted),
        Reason::TooManyEndpoints,
        &["97 of 150 endpoints", "VirtualService web"],
    );
    let listed: usize = resolution
        .report
        .real_servers
        .values()
        .map(|report| {
            report
                .status
                .virtual_services
                .iter()
                .map(|used| used.ports.len())
                .sum::<usize>()
        })
        .max()
        .unwrap();
    assert!(listed <= 1024, "{listed} ports in one status");
}

/// Scaling down is everyday business, not a slip.
#[test]
fn a_service_that_shrinks_is_not_held() {
    let mut cluster = web(
        json!({}),
        json!({}),
        [slice("web-1", "web", ready_of(&many(1, 20)))],
    );
    cluster.settle();
    cluster.apply(slice("web-1", "web", ready_of(&many(1, 1))));
    let resolution = cluster.settle();
    assert_eq!(destinations(&cluster), ["10.0.1.1:80"]);
    assert_eq!(
        of_service(&resolution, "web", ConditionType::Accepted).truth,
        Truth::True
    );
}
