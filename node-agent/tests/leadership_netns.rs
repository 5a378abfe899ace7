//! Director addresses in a private network namespace of this very kernel, where lifetimes really run out, and a
//! whole leadership against a Lease behind HTTP. Needs root; `ip` and a packet socket on the far end of the cable
//! are the witnesses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "leadership/lease_api.rs"]
mod lease_api;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::process::Command as Program;
use std::time::{Duration, Instant};

use lease_api::LeaseApi;
use lvs_agent::leadership::fence::{
    Command, FenceCounts, FenceOutput, FenceReport, FenceThread, RouterSettings,
};
use lvs_agent::leadership::{
    Leadership, LeadershipConfig, RoleState, RouterConfig, RouterName, clock,
};
use lvs_core::desired::Fitness;
use lvs_core::election::{Hold, Identity, Lifetime, Role, Timing};
use lvs_core::fence::{DirectorAddress, HolderUntil, Trouble};
use lvs_crds::node_plan::{Candidacy, LeadershipPlan, PlanState};
use lvs_crds::transition::{Transition, TransitionKind};
use lvs_crds::virtual_router::{Announcement, OnApiServerLoss};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;

const V4: &str = "192.0.2.250";
const V6: &str = "2001:db8::250";
const BOOT: &str = "11111111-2222-3333-4444-555555555555";

fn run(program: &str, arguments: &str) -> String {
    let output = Program::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a test in a thread with a network namespace and a runtime of its own. `ip` joins it, as children do.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("a private network namespace needs root");
        run("ip", "link set lo up");
        run("ip", "link add eth0 type veth peer name far0");
        run("ip", "addr add 192.0.2.2/24 dev eth0");
        run("ip", "addr add 2001:db8::2/64 dev eth0 nodad");
        run("ip", "link set eth0 up");
        run("ip", "link set far0 up");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn address(text: &str) -> DirectorAddress {
    DirectorAddress {
        address: text.parse().unwrap(),
        device: "eth0".to_owned(),
    }
}

fn addresses(texts: &[&str]) -> BTreeSet<DirectorAddress> {
    texts.iter().map(|text| address(text)).collect()
}

/// What `ip` says of an address on eth0.
fn in_kernel(text: &str) -> Option<Value> {
    let shown: Value = serde_json::from_str(&run("ip", "-j addr show dev eth0")).unwrap();
    shown[0]["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .find(|info| info["local"] == text)
        .cloned()
}

/// Waits for a condition that the kernel alone brings about.
async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begin.elapsed()
}

fn hold(epoch: u64, seconds: u64, lifetime: Lifetime) -> Command {
    let now = clock::now();
    let hold = Hold {
        epoch,
        sent_at: now,
        until: HolderUntil::new(now + Duration::from_secs(seconds)),
        lifetime,
        decided_at: now,
        confirmed_at: Some(now),
    };
    Command::Hold("edge".to_owned(), hold)
}

fn me() -> Identity {
    Identity {
        node: "lb-a".to_owned(),
        incarnation: "1".to_owned(),
    }
}

struct Fence {
    thread: FenceThread,
    output: FenceOutput,
}

impl Fence {
    fn start(directory: &Path) -> Self {
        let (thread, output) = FenceThread::start(directory, BOOT, me(), None).unwrap();
        let fence = Self { thread, output };
        let timing = Timing::for_lease_seconds(10).unwrap();
        fence.tell(Command::Configure(
            [(
                "edge".to_owned(),
                RouterSettings {
                    timing,
                    announcement: Announcement::default(),
                    heartbeats: None,
                },
            )]
            .into(),
        ));
        fence
    }

    fn tell(&self, command: Command) {
        self.thread.commands().send(command).unwrap();
    }

    fn want(&self, texts: &[&str]) {
        self.tell(Command::Want(
            [("edge".to_owned(), addresses(texts))].into(),
        ));
    }

    async fn report(&mut self, condition: impl FnMut(&FenceReport) -> bool) -> FenceReport {
        wait(&mut self.output.report, condition).await
    }

    async fn held(&mut self, texts: &[&str]) -> FenceReport {
        let wanted = addresses(texts);
        self.report(|report| {
            report
                .routers
                .get("edge")
                .is_some_and(|edge| edge.held == wanted)
        })
        .await
    }
}

async fn wait<T: Clone>(receiver: &mut watch::Receiver<T>, condition: impl FnMut(&T) -> bool) -> T {
    let found = tokio::time::timeout(Duration::from_mins(1), receiver.wait_for(condition))
        .await
        .expect("within a minute");
    found.unwrap().clone()
}

#[test]
fn addresses_are_added_refreshed_announced_and_deleted() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let (mut arp, mut ipv6) = (received(0x0806), received(0x86dd));
        let mut fence = Fence::start(directory.path());
        fence.tell(hold(3, 3600, Lifetime::Seconds(2)));
        fence.want(&[V4, V6]);
        fence.held(&[V4, V6]).await;

        let v4 = in_kernel(V4).unwrap();
        assert_eq!(
            (&v4["prefixlen"], &v4["noprefixroute"]),
            (&json!(32), &json!(true)),
            "{v4}"
        );
        let v6 = in_kernel(V6).unwrap();
        assert_eq!(
            (&v6["prefixlen"], &v6["noprefixroute"]),
            (&json!(128), &json!(true)),
            "{v6}"
        );
        assert_eq!(
            (&v6["nodad"], &v6["preferred_life_time"]),
            (&json!(true), &json!(0)),
            "{v6}"
        );
        for info in [&v4, &v6] {
            assert!(info["valid_life_time"].as_u64().unwrap() <= 2, "{info}");
            assert!(
                info["protocol"] == "76" || info["protocol"].is_null(),
                "{info}"
            );
        }
        // Neither is chosen as a source.
        assert!(run("ip", "route get 192.0.2.9").contains("src 192.0.2.2"));
        assert!(run("ip", "route get 2001:db8::9").contains("src 2001:db8::2"));

        // The neighbours are told, by the address of the very device.
        let mac = mac("eth0");
        hears(&mut arp, |frame| {
            frame[..6] == [0xff; 6] && frame[22..28] == mac && frame[28..32] == [192, 0, 2, 250]
        })
        .await;
        let target: std::net::Ipv6Addr = V6.parse().unwrap();
        hears(&mut ipv6, |frame| {
            let (next_header, hop_limit) = (frame[20], frame[21]);
            (next_header, hop_limit, frame[54]) == (58, 255, 136)
                && frame[62..78] == target.octets()
                && frame[80..86] == mac
                && frame[56..58] != [0, 0]
        })
        .await;

        // Held well beyond the lifetime, by refreshes alone.
        let report = fence.output.report.borrow().clone();
        let more = report.counts.refreshes + 12;
        until("refreshes", Duration::from_secs(30), || {
            assert!(in_kernel(V4).is_some() && in_kernel(V6).is_some());
            fence.output.report.borrow().counts.refreshes >= more
        })
        .await;
        let counts = fence.output.report.borrow().counts;
        assert_eq!((counts.additions, counts.deletions), (2, 0));

        fence.tell(Command::GiveUp("edge".to_owned()));
        fence.held(&[]).await;
        assert!(in_kernel(V4).is_none() && in_kernel(V6).is_none());
        assert!(in_kernel("192.0.2.2").is_some());
    });
}

#[test]
fn the_kernel_removes_what_a_dead_agent_held() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut fence = Fence::start(directory.path());
        fence.tell(hold(3, 3600, Lifetime::Seconds(2)));
        fence.want(&[V4, V6]);
        fence.held(&[V4, V6]).await;
        fence.thread.end();
        assert!(
            in_kernel(V4).is_some(),
            "the end of the agent is no deletion"
        );
        let bound = Timing::for_lease_seconds(10).unwrap().fence_bound() + Duration::from_secs(1);
        until("expiry", bound, || {
            in_kernel(V4).is_none() && in_kernel(V6).is_none()
        })
        .await;
    });
}

#[test]
fn a_successor_adopts_by_refreshes_alone_and_deletes_only_what_we_added() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut fence = Fence::start(directory.path());
        fence.tell(hold(3, 3600, Lifetime::Seconds(30)));
        fence.want(&[V4, V6, "192.0.2.251"]);
        fence.held(&[V4, V6, "192.0.2.251"]).await;
        run("ip", "addr add 192.0.2.252/32 dev eth0");
        fence.thread.end();
        drop(fence);

        let mut fence = Fence::start(directory.path());
        assert_eq!(fence.output.journal["edge"].epoch, 3);
        assert!(fence.output.journal["edge"].held);
        // Nothing is refreshed before the election says so, and nothing deleted while nobody said what is wanted.
        let (done, flushed) = tokio::sync::oneshot::channel();
        fence.tell(Command::Flush(done));
        flushed.await.unwrap();
        assert_eq!(fence.output.report.borrow().counts, FenceCounts::default());
        fence.tell(hold(3, 3600, Lifetime::Seconds(2)));
        let report = fence.held(&[V4, V6, "192.0.2.251"]).await;
        assert_eq!((report.counts.additions, report.counts.deletions), (0, 0));
        assert!(in_kernel(V4).unwrap()["valid_life_time"].as_u64().unwrap() <= 2);

        fence.want(&[V4, V6]);
        let report = fence.held(&[V4, V6]).await;
        assert_eq!((report.counts.additions, report.counts.deletions), (0, 1));
        assert!(in_kernel("192.0.2.251").is_none());
        assert!(in_kernel("192.0.2.252").is_some(), "not ours");
    });
}

#[test]
fn what_is_left_of_a_router_that_is_gone_is_deleted() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut fence = Fence::start(directory.path());
        fence.tell(hold(3, 3600, Lifetime::Permanent));
        fence.want(&[V4]);
        fence.held(&[V4]).await;
        assert_eq!(in_kernel(V4).unwrap()["valid_life_time"], json!(u32::MAX));
        fence.thread.end();
        drop(fence);
        let mut fence = Fence::start(directory.path());
        assert!(in_kernel(V4).is_some());
        fence.tell(Command::Configure(BTreeMap::new()));
        fence.report(|report| report.counts.deletions == 1).await;
        assert!(in_kernel(V4).is_none());
        assert!(!fence.output.report.borrow().routers.contains_key("edge"));
    });
}

#[test]
fn a_foreign_address_is_never_touched() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        run("ip", &format!("addr add {V4}/32 dev eth0"));
        let before = in_kernel(V4);
        let mut fence = Fence::start(directory.path());
        fence.tell(hold(3, 3600, Lifetime::Seconds(2)));
        fence.want(&[V4, V6]);
        let report = fence.held(&[V6]).await;
        assert_eq!(
            report.routers["edge"].troubles[&address(V4)],
            Trouble::Foreign
        );
        fence.tell(Command::GiveUp("edge".to_owned()));
        fence.held(&[]).await;
        assert_eq!(in_kernel(V4), before);
        fence.thread.end();
        drop(fence);

        // Nor by a successor: it was not journaled.
        let mut fence = Fence::start(directory.path());
        fence.tell(Command::Configure(BTreeMap::new()));
        fence.report(|report| report.routers.is_empty()).await;
        assert_eq!(in_kernel(V4), before);
    });
}

#[test]
fn a_hold_that_runs_out_is_obeyed_without_the_election() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut fence = Fence::start(directory.path());
        fence.want(&[V4]);
        fence.tell(hold(3, 3, Lifetime::Seconds(2)));
        fence.held(&[V4]).await;
        let report = fence.held(&[]).await;
        assert!(in_kernel(V4).is_none());
        assert_eq!(report.counts.deletions, 1);
        // And a permission that has run out before it came adds nothing.
        fence.tell(hold(4, 0, Lifetime::Seconds(2)));
        let (done, flushed) = tokio::sync::oneshot::channel();
        fence.tell(Command::Flush(done));
        flushed.await.unwrap();
        assert!(in_kernel(V4).is_none());
    });
}

#[test]
fn a_missing_device_is_said_and_used_when_it_comes() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut fence = Fence::start(directory.path());
        let late = DirectorAddress {
            address: V4.parse().unwrap(),
            device: "late0".to_owned(),
        };
        fence.tell(hold(3, 3600, Lifetime::Seconds(2)));
        fence.tell(Command::Want(
            [("edge".to_owned(), [late.clone()].into())].into(),
        ));
        fence
            .report(|report| {
                report
                    .routers
                    .get("edge")
                    .is_some_and(|edge| edge.troubles.get(&late) == Some(&Trouble::NoDevice))
            })
            .await;
        run("ip", "link add late0 type veth peer name late1");
        run("ip", "link set late0 up");
        let report = fence
            .report(|report| report.routers["edge"].held.contains(&late))
            .await;
        assert!(report.routers["edge"].troubles.is_empty());
    });
}

fn plan(directors: &[&str]) -> LeadershipPlan {
    LeadershipPlan {
        lease_name: "lvs-router-edge".to_owned(),
        priority: 100,
        candidacy: Candidacy::Permitted,
        directors: directors.iter().map(|name| (*name).to_owned()).collect(),
        lease_duration_seconds: 10,
        preemption_delay_seconds: None,
        hand_over_to: None,
        heartbeat: None,
        on_api_server_loss: OnApiServerLoss::Hold,
        takeover: lvs_crds::virtual_router::Takeover::Fast,
        announcement: Announcement::default(),
        timeouts: None,
        virtual_router_id: None,
        tracked_interfaces: Vec::new(),
        tracked_endpoints: Vec::new(),
        tracked_real_servers: None,
        addresses_set_aside: Vec::new(),
        connection_sync: None,
    }
}

fn router(directors: &[&str], state: PlanState) -> BTreeMap<String, RouterConfig> {
    let config = RouterConfig {
        plan: plan(directors),
        state,
        verified: true,
        fitness: Fitness::default(),
        heartbeat_interface: None,
    };
    [("edge".to_owned(), config)].into()
}

fn leadership(api: &LeaseApi, directory: &Path, incarnation: &str) -> Leadership {
    Leadership::start(LeadershipConfig {
        client: api.client.clone(),
        endpoints: None,
        namespace: "lvs-system".to_owned(),
        node_name: "lb-a".to_owned(),
        incarnation: incarnation.to_owned(),
        runtime_directory: directory.to_owned(),
        heartbeat: None,
    })
    .unwrap()
}

async fn role(leadership: &Leadership, role: Role) {
    wait(&mut leadership.roles(), |roles| {
        roles.get("edge").is_some_and(|state| state.role == role)
    })
    .await;
}

async fn last_transition(
    roles: &mut watch::Receiver<BTreeMap<RouterName, RoleState>>,
    reason: TransitionKind,
) -> Transition {
    let roles = wait(roles, |roles| {
        let last = roles
            .get("edge")
            .and_then(|state| state.last_transition.as_ref());
        last.is_some_and(|last| last.reason == reason)
    })
    .await;
    roles["edge"].last_transition.clone().unwrap()
}

/// The value of one sample; 0 while there is none.
fn sample(registry: &Registry, name: &str) -> f64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map_or(0.0, |value| value.parse().unwrap())
}

async fn held(leadership: &Leadership, texts: &[&str]) -> FenceReport {
    let wanted = addresses(texts);
    wait(&mut leadership.addresses(), |report| {
        report
            .routers
            .get("edge")
            .is_some_and(|edge| edge.held == wanted)
    })
    .await
}

#[test]
fn a_leadership_acquires_survives_the_api_and_lends_to_its_successor() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let api = LeaseApi::start("lb-a").await;
        let mut first = leadership(&api, directory.path(), "first");
        first.set_routers(router(&["lb-a"], PlanState::Active));
        first.set_addresses([("edge".to_owned(), addresses(&[V4]))].into());
        role(&first, Role::Master).await;
        held(&first, &[V4]).await;
        let lease = api
            .wait_for(|lease| lease["spec"]["leaseTransitions"] == 1)
            .await;
        assert_eq!(lease["spec"]["holderIdentity"], "lb-a/first");
        assert_eq!(
            lease["metadata"]["annotations"]["lvs.dev/directors"],
            "lb-a"
        );
        assert!(lease["spec"]["acquireTime"].is_string());

        // An annotation of somebody else makes the next renewal conflict; nothing else comes of it.
        api.change(|lease| lease["metadata"]["annotations"]["example.org/note"] = json!("x"));
        let renewed = lease["spec"]["renewTime"].clone();
        let lease = api
            .wait_for(|lease| lease["spec"]["renewTime"] != renewed)
            .await;
        assert_eq!(lease["metadata"]["annotations"]["example.org/note"], "x");
        assert_eq!(lease["spec"]["leaseTransitions"], 1);

        // The only director holds without the API for longer than its Lease.
        api.set_broken(true);
        let beyond = clock::now() + Duration::from_secs(12);
        until("time without the API", Duration::from_secs(30), || {
            assert!(in_kernel(V4).is_some());
            clock::now() > beyond
        })
        .await;
        api.set_broken(false);
        let renewed = lease["spec"]["renewTime"].clone();
        api.wait_for(|lease| lease["spec"]["renewTime"] != renewed)
            .await;

        // SIGTERM: the address stays for half a minute, and the next agent adopts it.
        first.shutdown().await;
        let lease = api
            .wait_for(|lease| lease["spec"]["leaseDurationSeconds"] == 35)
            .await;
        assert_eq!(lease["spec"]["holderIdentity"], "lb-a/first");
        assert!(in_kernel(V4).unwrap()["valid_life_time"].as_u64().unwrap() > 20);
        let mut second = leadership(&api, directory.path(), "second");
        second.set_routers(router(&["lb-a"], PlanState::Active));
        role(&second, Role::Master).await;
        let report = held(&second, &[V4]).await;
        assert_eq!((report.counts.additions, report.counts.deletions), (0, 0));
        let lease = api
            .wait_for(|lease| lease["spec"]["holderIdentity"] == "lb-a/second")
            .await;
        assert_eq!(lease["spec"]["leaseTransitions"], 1, "the same epoch");

        second.set_routers(router(&["lb-a"], PlanState::Withdrawn));
        role(&second, Role::Released).await;
        held(&second, &[]).await;
        assert!(in_kernel(V4).is_none());
        let lease = api
            .wait_for(|lease| lease["spec"]["holderIdentity"].is_null())
            .await;
        assert_eq!(lease["spec"]["leaseTransitions"], 1);
    });
}

#[test]
fn a_leadership_gives_up_to_a_higher_epoch_and_offers_on_shutdown() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let api = LeaseApi::start("lb-a,lb-b").await;
        let mut leadership = leadership(&api, directory.path(), "first");
        leadership.set_routers(router(&["lb-a", "lb-b"], PlanState::Active));
        leadership.set_addresses([("edge".to_owned(), addresses(&[V4]))].into());
        held(&leadership, &[V4]).await;
        api.change(|lease| {
            lease["spec"]["holderIdentity"] = json!("lb-b/other");
            lease["spec"]["leaseTransitions"] = json!(2);
            lease["spec"]["renewTime"] = json!("2030-01-01T00:00:00.000000Z");
        });
        role(&leadership, Role::Backup).await;
        held(&leadership, &[]).await;
        assert!(in_kernel(V4).is_none());
        let mut roles = leadership.roles();
        let told = last_transition(&mut roles, TransitionKind::Fenced).await;
        assert_eq!(
            (told.epoch, told.message.as_str()),
            (1, "lb-b holds epoch 2")
        );

        // The other releases; then a shutdown of ours offers to it.
        api.change(|lease| {
            lease["spec"]["holderIdentity"] = Value::Null;
        });
        held(&leadership, &[V4]).await;
        let told = last_transition(&mut roles, TransitionKind::BecameMaster).await;
        assert_eq!(
            (told.epoch, told.message.as_str()),
            (3, "nobody held the Lease")
        );
        // The takeover is announced by now, or soon, and its phases are the whole of it.
        let mut registry = Registry::default();
        registry.register_collector(leadership.collector());
        let vacant = "{cause=\"vacant\"}";
        until("a takeover", Duration::from_secs(10), || {
            sample(
                &registry,
                &format!("lvs_agent_takeover_seconds_count{vacant}"),
            ) > 0.5
        })
        .await;
        let whole = sample(
            &registry,
            &format!("lvs_agent_takeover_seconds_sum{vacant}"),
        );
        let phases: f64 = ["detection", "challenge", "write", "apply", "announce"]
            .iter()
            .map(|phase| {
                let labels = format!("{{cause=\"vacant\",phase=\"{phase}\"}}");
                sample(
                    &registry,
                    &format!("lvs_agent_takeover_phase_seconds_sum{labels}"),
                )
            })
            .sum();
        assert!(
            whole > 0.0 && (whole - phases).abs() < 1e-6,
            "{phases} of {whole}"
        );
        let fenced = "lvs_agent_router_transitions_total{router=\"edge\",reason=\"Fenced\"}";
        assert!((sample(&registry, fenced) - 1.0).abs() < 1e-9);
        let shutdown = tokio::spawn(leadership.shutdown());
        api.wait_for(|lease| lease["metadata"]["annotations"]["lvs.dev/offered"] == "3")
            .await;
        assert!(in_kernel(V4).is_some());
        api.change(|lease| {
            lease["spec"]["holderIdentity"] = json!("lb-b/other");
            lease["spec"]["leaseTransitions"] = json!(4);
            let annotations = lease["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.remove("lvs.dev/offered");
        });
        shutdown.await.unwrap();
        assert!(in_kernel(V4).is_none(), "the successor has it");
        let told = last_transition(&mut roles, TransitionKind::HandedOver).await;
        assert_eq!((told.epoch, told.message.as_str()), (4, "its agent ends"));
        assert_eq!(told.peer_node_name.as_deref(), Some("lb-b"));
    });
}

#[test]
fn a_second_agent_on_the_node_is_refused() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let _first = Fence::start(directory.path());
        let error = FenceThread::start(directory.path(), BOOT, me(), None).unwrap_err();
        assert!(error.to_string().contains("another agent"), "{error}");
    });
}

/// A packet socket for one protocol: such a one hears what a device receives, not what it sends.
fn received(ethertype: u16) -> socket2::Socket {
    let socket = socket2::Socket::new(
        socket2::Domain::PACKET,
        socket2::Type::RAW,
        Some(socket2::Protocol::from(i32::from(ethertype.to_be()))),
    )
    .unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn mac(device: &str) -> Vec<u8> {
    let shown: Value =
        serde_json::from_str(&run("ip", &format!("-j link show dev {device}"))).unwrap();
    let text = shown[0]["address"].as_str().unwrap();
    text.split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

async fn hears(socket: &mut socket2::Socket, wanted: impl Fn(&[u8]) -> bool) {
    let mut buffer = [0; 2048];
    until("a frame on the far end", Duration::from_secs(10), || {
        while let Ok(length) = socket.read(&mut buffer) {
            // Shorter ones cannot be announcements; what is beyond the length is zero or older.
            if length >= 42 && wanted(&buffer) {
                return true;
            }
        }
        false
    })
    .await;
}
