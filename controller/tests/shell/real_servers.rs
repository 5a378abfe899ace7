//! Real servers that go down and come up.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use lvs_crds::real_server::RealServerState;
use lvs_plan::status::Report;

use super::*;

/// RealServer `web` by address.
fn name_real_server(scene: &Scene) {
    let real_server = json!({"metadata": {"namespace": "shop", "name": "web", "uid": "rs", "generation": 1},
                             "spec": {"target": {"type": "Addresses", "addresses": ["10.0.0.1"]}}});
    let mut router = virtual_router();
    router["spec"]["grants"][0]["realServerCIDRs"] = json!(["10.0.0.0/8"]);
    let mut world = scene.world.lock();
    let router = decode(&router).unwrap();
    put(&mut world.virtual_routers, "", "default", "2", router);
    let real_server = decode(&real_server).unwrap();
    put(&mut world.real_servers, "shop", "web", "1", real_server);
}

/// The report of the newest pass, with the real server in this state.
fn report(scene: &Scene, state: RealServerState, message: &str) -> Report {
    let Some(Outcome::Resolved(resolution)) = scene.outcomes.borrow().clone() else {
        panic!("no resolution")
    };
    let mut report = resolution.report.clone();
    let key = ObjectKey::new("shop", "web");
    let status = &mut report.real_servers.get_mut(&key).unwrap().status;
    let port = &mut status.virtual_services[0].ports[0];
    port.state = state;
    message.clone_into(&mut port.message);
    report
}

/// Writes it; the Events of real servers.
async fn write(scene: &Scene, report: &Report) -> Vec<Value> {
    let now = Time(Timestamp::from_second(1_800_000_000).unwrap());
    assert!(scene.status.write(report, &now).await);
    let events = scene.stage.take("/events").into_iter();
    events
        .map(|sent| sent.body)
        .filter(|body| {
            let reason = body["reason"].as_str();
            reason.is_some_and(|reason| {
                reason.starts_with("RealServer") || reason == "CertificateExpires"
            })
        })
        .collect()
}

#[tokio::test]
async fn a_real_server_that_goes_down_is_told_of_its_virtual_service_once() {
    let mut scene = Scene::new();
    name_real_server(&scene);
    scene.pass().await;
    let up = report(&scene, RealServerState::Up, "");
    let down = report(&scene, RealServerState::Down, "connect refused");
    assert!(write(&scene, &up).await.is_empty(), "the beginning");
    let told = write(&scene, &down).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["reason"], "RealServerDown");
    assert_eq!(told[0]["type"], "Warning");
    assert_eq!(
        told[0]["note"],
        "web (10.0.0.1:80) is down: connect refused"
    );
    assert_eq!(told[0]["regarding"]["kind"], "VirtualService");
    assert_eq!(told[0]["regarding"]["uid"], "vs");
    assert_eq!(told[0]["related"]["kind"], "RealServer");
    assert!(write(&scene, &down).await.is_empty());
    let told = write(&scene, &up).await;
    assert_eq!(told[0]["reason"], "RealServerUp");
}

#[tokio::test]
async fn a_certificate_that_expires_is_told_of_its_virtual_service_once() {
    let mut scene = Scene::new();
    name_real_server(&scene);
    scene.pass().await;
    let up = report(&scene, RealServerState::Up, "");
    let expiring = |days: i64, words: &str| {
        let mut report = report(&scene, RealServerState::Up, words);
        let key = ObjectKey::new("shop", "web");
        let status = &mut report.real_servers.get_mut(&key).unwrap().status;
        let end = Timestamp::from_second(1_800_000_000 + days * 86_400).unwrap();
        status.virtual_services[0].ports[0].certificate_expiry_time = Some(Time(end));
        report
    };
    assert!(write(&scene, &up).await.is_empty(), "the beginning");
    let told = write(&scene, &expiring(5, "certificate expires in 5 days")).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["reason"], "CertificateExpires");
    assert_eq!(told[0]["type"], "Warning");
    assert_eq!(
        told[0]["note"],
        "web (10.0.0.1:80): certificate is valid until 2027-01-20T08:00:00Z"
    );
    assert_eq!(told[0]["regarding"]["kind"], "VirtualService");
    assert_eq!(told[0]["related"]["kind"], "RealServer");
    // The countdown is none.
    let told = write(&scene, &expiring(5, "certificate expires in 4 days")).await;
    assert!(told.is_empty(), "{told:?}");
}
