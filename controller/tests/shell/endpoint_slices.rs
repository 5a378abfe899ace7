//! EndpointSlices of Services that RealServers stand for.

use std::sync::Arc;

use lvs_controller::world::{Change, Store, Versioned};
use lvs_plan::endpoint::EndpointSlice;

use super::*;

fn endpoint_slice(service: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address]}))
        .collect();
    EndpointSlice::read(
        &json!({"metadata": {"labels": {"kubernetes.io/service-name": service}},
                                "addressType": "IPv4", "endpoints": endpoints}),
    )
}

fn put_slice(scene: &Scene, namespace: &str, name: &str, version: &str, slice: EndpointSlice) {
    let mut world = scene.world.lock();
    put(&mut world.endpoint_slices, namespace, name, version, slice);
}

/// Addresses of real servers in the plans of VirtualServices that were sent.
pub(crate) fn real_servers_sent(stage: &Stage) -> Vec<Vec<String>> {
    let sent = stage.take("/nodeplans/");
    let directors = sent.iter().map(|sent| &sent.body["spec"]["director"]);
    directors
        .filter_map(|director| director["services"].as_array())
        .map(|services| {
            let all = services
                .iter()
                .flat_map(|service| service["realServers"].as_array().into_iter().flatten());
            all.map(|one| one["address"].as_str().unwrap().to_owned())
                .collect()
        })
        .collect()
}

/// RealServer `web` stands for Service `web`.
fn name_service(scene: &Scene) {
    let real_server = json!({"metadata": {"namespace": "shop", "name": "web", "uid": "rs", "generation": 1},
                             "spec": {"target": {"type": "Service", "service": {"name": "web"}}}});
    let mut router = virtual_router();
    router["spec"]["grants"][0]["realServerCIDRs"] = json!(["10.0.0.0/8"]);
    let mut world = scene.world.lock();
    put(
        &mut world.virtual_routers,
        "",
        "default",
        "2",
        decode(&router).unwrap(),
    );
    put(
        &mut world.real_servers,
        "shop",
        "web",
        "1",
        decode(&real_server).unwrap(),
    );
}

#[tokio::test]
async fn nothing_is_written_before_endpoint_slices_were_listed() {
    let mut scene = Scene::new();
    name_service(&scene);
    scene.world.lock().endpoint_slices = Store::default();
    scene.pass().await;
    assert!(scene.stage.take("").is_empty());
    assert!(scene.outcomes.borrow().is_none());

    let slice = endpoint_slice("web", &["10.0.0.1", "10.0.0.2"]);
    put_slice(&scene, "shop", "web-1", "1", slice);
    scene.pass().await;
    assert!(
        scene.stage.take("").is_empty(),
        "a part of the list is not the list"
    );

    let slice = endpoint_slice("web", &["10.0.0.1", "10.0.0.2"]);
    {
        let mut world = scene.world.lock();
        let versioned = Versioned {
            resource_version: "1".to_owned(),
            object: Arc::new(slice),
        };
        world.endpoint_slices.take(Change::Begin);
        world
            .endpoint_slices
            .take(Change::Listed(ObjectKey::new("shop", "web-1"), versioned));
        world.endpoint_slices.take(Change::Complete);
    }
    scene.pass().await;
    let sent = real_servers_sent(&scene.stage);
    assert_eq!(
        sent,
        [["10.0.0.1", "10.0.0.2"]; 2],
        "one plan for each director"
    );
}

#[tokio::test]
async fn slices_that_no_real_server_names_write_nothing() {
    let mut scene = Scene::new();
    name_service(&scene);
    let slice = endpoint_slice("web", &["10.0.0.1"]);
    put_slice(&scene, "shop", "web-1", "1", slice);
    scene.pass().await;
    scene.watch_leases();
    scene.stage.take("");

    let other = endpoint_slice("other", &["10.0.0.7"]);
    put_slice(&scene, "shop", "other-1", "1", other);
    let elsewhere = endpoint_slice("web", &["10.0.0.8"]);
    put_slice(&scene, "bank", "web-1", "1", elsewhere);
    scene.pass().await;
    assert!(scene.stage.take("").is_empty());

    let moved = endpoint_slice("web", &["10.0.0.2"]);
    put_slice(&scene, "shop", "web-1", "2", moved);
    scene.pass().await;
    assert_eq!(real_servers_sent(&scene.stage), [["10.0.0.2"]; 2]);
}
