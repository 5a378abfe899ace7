//! Director addresses in a private network namespace of this very kernel, where lifetimes really run out, and a
//! whole leadership against a Lease behind HTTP. Needs root; `ip` and a packet socket on the far end of the cable
//! are the witnesses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "leadership_netns/lease.rs"]
mod lease;
#[path = "leadership_netns/lease_api.rs"]
mod lease_api;
#[path = "leadership_netns/namespace.rs"]
mod namespace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use lvs_agent::leadership::clock;
use lvs_agent::leadership::fence::{
    Command, FenceCounts, FenceOutput, FenceReport, FenceThread, RouterSettings,
};
use lvs_core::election::{Hold, Identity, Lifetime, Timing};
use lvs_core::fence::{DirectorAddress, HolderUntil, Trouble};
use lvs_crds::virtual_router::Announcement;
use namespace::{hears, in_kernel, in_namespace, mac, received, run, until};
use serde_json::json;
use tokio::sync::watch;

const V4: &str = "192.0.2.250";
const V6: &str = "2001:db8::250";
const BOOT: &str = "11111111-2222-3333-4444-555555555555";

fn address(text: &str) -> DirectorAddress {
    DirectorAddress {
        address: text.parse().unwrap(),
        device: "eth0".to_owned(),
    }
}

fn addresses(texts: &[&str]) -> BTreeSet<DirectorAddress> {
    texts.iter().map(|text| address(text)).collect()
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

#[test]
fn a_second_agent_on_the_node_is_refused() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let _first = Fence::start(directory.path());
        let error = FenceThread::start(directory.path(), BOOT, me(), None).unwrap_err();
        assert!(error.to_string().contains("another agent"), "{error}");
    });
}
