//! A slice that this version cannot read: nobody knows what it says.

use super::*;

/// Makes the slice unreadable, as one of a newer API would be.
fn spoil(cluster: &mut Cluster, name: &str) {
    let key = ObjectKey::new("default", name);
    let slice = cluster.inputs.endpoint_slices.get_mut(&key).unwrap();
    Arc::make_mut(slice).body = Body::Undecodable("addressType: \"IPv7\" is not known".to_owned());
}

#[test]
fn a_slice_that_cannot_be_read_takes_nothing_away() {
    let nat = json!({"forwarding": {"type": "NAT"}});
    let mut cluster = web(
        nat,
        json!({}),
        [
            slice("web-a", "web", ready(&["10.0.0.1", "10.0.0.2"])),
            slice("web-b", "web", ready(&["10.0.0.3"])),
        ],
    );
    cluster.settle();
    let before = cluster.stored();
    spoil(&mut cluster, "web-a");
    let resolution = cluster.settle();
    assert_eq!(cluster.stored(), before);
    expect_bad(
        &of_real_server(&resolution, "web", ConditionType::ResolvedRefs),
        Reason::Undecodable,
        &["EndpointSlice web-a", "IPv7", "keeps working"],
    );

    // What others have besides is added; what was there may be what cannot be read, and stays as it was.
    let ports = json!([{"name": "http", "port": 9090}]);
    cluster.apply(slice_of(
        "IPv4",
        "web-b",
        "web",
        json!([terminating("10.0.0.2"), {"addresses": ["10.0.0.4"]}]),
        ports,
    ));
    cluster.settle();
    assert_eq!(
        destinations(&cluster),
        [
            "10.0.0.1:8080",
            "10.0.0.2:8080",
            "10.0.0.3:8080",
            "10.0.0.4:9090"
        ]
    );

    // It can be read again.
    cluster.apply(slice("web-a", "web", ready(&["10.0.0.1"])));
    let resolution = cluster.settle();
    assert_eq!(
        destinations(&cluster),
        ["10.0.0.1:8080", "!10.0.0.2:9090", "10.0.0.4:9090"]
    );
    assert_eq!(
        of_real_server(&resolution, "web", ConditionType::ResolvedRefs).truth,
        Truth::True
    );
}

/// Who may write slices can write one that nobody reads: what he is denied he does not keep by it.
#[test]
fn an_unreadable_slice_keeps_nothing_that_may_not_be_used() {
    let mut cluster = web(
        json!({}),
        json!({}),
        [slice(
            "web-1",
            "web",
            ready(&["10.0.0.1", "10.0.0.2", "10.7.0.1"]),
        )],
    );
    cluster.settle();
    spoil(&mut cluster, "web-1");
    let router = cluster.inputs.virtual_routers.get_mut("default").unwrap();
    if let Body::Decoded(spec) = &mut Arc::make_mut(router).body {
        spec.grants[0].real_server_cidrs = vec!["10.0.0.0/24".to_owned()];
        spec.address_pools[0].addresses.push("10.0.0.2".to_owned());
    }
    cluster.apply(service("thief", json!({"addresses": ["10.0.0.2"]})));
    cluster.settle();
    assert_eq!(
        destinations(&cluster),
        ["10.0.0.1:80"],
        "neither the virtual address nor what is not granted"
    );
}

#[test]
fn an_unreadable_slice_of_another_service_freezes_nobody() {
    let mut cluster = web(
        json!({}),
        json!({}),
        [
            slice("web-1", "web", ready(&["10.0.0.1", "10.0.0.2"])),
            slice("shop-1", "shop", ready(&["10.0.0.9"])),
        ],
    );
    cluster.settle();
    spoil(&mut cluster, "shop-1");
    cluster.apply(slice("web-1", "web", ready(&["10.0.0.2"])));
    let resolution = cluster.settle();
    assert_eq!(destinations(&cluster), ["10.0.0.2:80"]);
    assert_eq!(
        of_real_server(&resolution, "web", ConditionType::ResolvedRefs).truth,
        Truth::True
    );
}
