//! Which port of an endpoint serves: where the Service says it, and where nobody does.

use super::*;

#[test]
fn ports_come_from_the_service_by_name_or_as_the_only_one() {
    let nat = |ports: Value| json!({"ports": ports, "forwarding": {"type": "NAT"}});
    let slice_ports = |ports: Value| slice_of("IPv4", "web-1", "web", ready(&["10.0.0.1"]), ports);
    let two = json!([{"name": "http", "port": 8080}, {"name": "https", "port": 8443}]);
    let rows = [
        // By name, wherever it stands in the slice.
        (
            json!([{"name": "https", "port": 443}]),
            json!({}),
            two.clone(),
            vec![8443],
        ),
        (
            json!([{"name": "http", "port": 80}, {"name": "https", "port": 443}]),
            json!({}),
            two.clone(),
            vec![8080, 8443],
        ),
        // The only one of the protocol, whatever its name.
        (
            json!([{"port": 80}]),
            json!({}),
            json!([{"name": "web", "port": 8080}, {"name": "web", "protocol": "UDP", "port": 9}]),
            vec![8080],
        ),
        (
            json!([{"name": "dns", "protocol": "UDP", "port": 53}]),
            json!({}),
            json!([{"protocol": "UDP", "port": 5353}, {"port": 1}]),
            vec![5353],
        ),
        // What people say comes first.
        (
            json!([{"port": 80}]),
            json!({"port": 81}),
            two.clone(),
            vec![81],
        ),
        (
            json!([{"port": 80, "realServerPort": 82}]),
            json!({}),
            two.clone(),
            vec![82],
        ),
        (
            json!([{"name": "http", "port": 80}]),
            json!({"ports": [{"name": "http", "port": 83}]}),
            two.clone(),
            vec![83],
        ),
        // A port without a number is every port, and a range stays what it is.
        (
            json!([{"port": 80}]),
            json!({}),
            json!([{"name": "any"}]),
            vec![80],
        ),
        (
            json!([{"port": 5000, "endPort": 5010}]),
            json!({}),
            two.clone(),
            vec![5000],
        ),
        // Only NAT changes ports.
        (
            json!([{"name": "http", "port": 80}]),
            json!({"forwarding": {"type": "DR"}}),
            two.clone(),
            vec![80],
        ),
    ];
    for (ports, real_server, of_slice, expected) in rows {
        let text = format!("{ports} {real_server} {of_slice}");
        let mut cluster = web(nat(ports), real_server, [slice_ports(of_slice)]);
        let resolution = cluster.pass();
        let seen: Vec<u16> = services(&cluster)
            .iter()
            .map(|service| service.real_servers[0].port)
            .collect();
        assert_eq!(seen, expected, "{text}");
        assert_eq!(
            of_real_server(&resolution, "web", ConditionType::ResolvedRefs).truth,
            Truth::True,
            "{text}"
        );
        assert_eq!(
            of_real_server(&resolution, "web", ConditionType::Accepted).truth,
            Truth::True,
            "{text}"
        );
    }
}

#[test]
fn a_port_that_the_service_does_not_say_is_not_guessed() {
    let nat = |ports: Value| json!({"ports": ports, "forwarding": {"type": "NAT"}});
    // Two of the protocol and no name.
    let ports = json!([{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}]);
    let of = |ports: &Value| slice_of("IPv4", "web-1", "web", ready(&["10.0.0.1"]), ports.clone());
    let mut cluster = web(nat(json!([{"port": 80}])), json!({}), [of(&ports)]);
    let resolution = cluster.pass();
    assert!(real_servers(&cluster).is_empty());
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::PortNotFound,
        &["Service web", "10.0.0.1", "80/TCP", "set spec.port"],
    );
    // The only one is http; it is not https, too.
    let ports = json!([{"name": "http", "port": 8080}]);
    let both = json!([{"name": "http", "port": 80}, {"name": "https", "port": 443}]);
    let mut cluster = web(nat(both), json!({}), [of(&ports)]);
    let resolution = cluster.pass();
    let counts: Vec<usize> = services(&cluster)
        .iter()
        .map(|service| service.real_servers.len())
        .collect();
    assert_eq!(counts, [1, 0], "the other port is served");
    expect_bad(
        &of_service(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::PortNotFound,
        &["RealServer web", "443/TCP", "https"],
    );
    // None at all.
    let mut cluster = web(nat(json!([{"port": 80}])), json!({}), [of(&json!(null))]);
    let resolution = cluster.pass();
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::PortNotFound,
        &["80/TCP"],
    );
}

#[test]
fn slices_have_ports_of_their_own_and_an_address_counts_once() {
    let nat = json!({"forwarding": {"type": "NAT"}});
    let old = json!([{"name": "http", "port": 8080}]);
    let new = json!([{"name": "http", "port": 9090}]);
    let leaving = json!([terminating("10.0.0.1"), {"addresses": ["10.0.0.2"]}]);
    let mut cluster = web(
        nat,
        json!({}),
        [
            slice_of("IPv4", "web-a", "web", leaving, old),
            slice_of(
                "IPv4",
                "web-b",
                "web",
                ready(&["10.0.0.1", "10.0.0.3"]),
                new.clone(),
            ),
            slice_of(
                "IPv4",
                "web-c",
                "web",
                ready(&["10.0.0.3", "10.0.0.2"]),
                new,
            ),
            slice("shop-a", "shop", ready(&["10.0.0.9"])),
        ],
    );
    let resolution = cluster.pass();
    assert_eq!(
        destinations(&cluster),
        ["10.0.0.1:9090", "10.0.0.2:8080", "10.0.0.3:9090"],
        "where it is ready counts, then the first slice"
    );
    assert_eq!(count(&resolution), "0/3");
    let elsewhere = ObjectKey::new("other", "web-a");
    let slices = &mut cluster.inputs.endpoint_slices;
    let moved = slices.remove(&ObjectKey::new("default", "web-b")).unwrap();
    slices.insert(elsewhere, moved);
    cluster.pass();
    assert_eq!(
        destinations(&cluster),
        ["!10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:9090"],
        "a Service is of its namespace"
    );
}

#[test]
fn with_a_mark_every_port_reaches_every_endpoint() {
    let ports = json!([{"name": "http", "port": 80}, {"name": "https", "port": 443}]);
    let spec = json!({"ports": ports, "grouping": "FirewallMark", "forwarding": {"type": "NAT"}});
    let mut cluster = web(
        spec,
        json!({}),
        [slice("web-1", "web", ready(&["10.0.0.1", "10.0.0.2"]))],
    );
    cluster.pass();
    assert_eq!(destinations(&cluster), ["10.0.0.1:0", "10.0.0.2:0"]);
}
