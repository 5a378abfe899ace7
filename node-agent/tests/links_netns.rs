//! Links as they change, claims of others and virtual MACs in a private network namespace of this very kernel. Needs root;
//! `ip` is the witness, and python3 the stranger that claims our address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command as Program;
use std::time::Duration;

use lvs_agent::kernel::link_watch::LinkWatch;
use lvs_agent::kernel::removal_watch::RemovalWatch;
use lvs_agent::kernel::{Host, HostKernel};
use lvs_agent::leadership::claim_watch::ClaimWatch;
use lvs_agent::leadership::clock;
use lvs_agent::leadership::fence::{Command, FenceReport, FenceThread, RouterSettings};
use lvs_core::election::{Hold, Identity, Lifetime, Timing};
use lvs_core::fence::claim::{Claim, HardwareAddress};
use lvs_core::fence::{DirectorAddress, HolderUntil, RouterAddresses};
use lvs_core::host::{AddressKey, LinkKind, OWNER_PROTOCOL};
use lvs_core::op::HostOp;
use lvs_crds::virtual_router::Announcement;
use tokio::sync::{mpsc, watch};

const LIMIT: Duration = Duration::from_secs(10);
const STRANGER: HardwareAddress = HardwareAddress([2, 0, 0, 0, 0, 0x99]);
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];

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
        run("ip", "link add eth0 type veth peer name far0");
        run("ip", "addr add 192.0.2.2/24 dev eth0");
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

async fn wait<T: Clone>(receiver: &mut watch::Receiver<T>, condition: impl FnMut(&T) -> bool) -> T {
    let found = tokio::time::timeout(LIMIT, receiver.wait_for(condition));
    found.await.expect("in time").unwrap().clone()
}

#[test]
fn a_pulled_cable_is_seen_at_once() {
    in_namespace(|| async {
        let watch = LinkWatch::open(LIMIT).unwrap();
        let mut links = watch.links();
        assert!(links.borrow()["eth0"].obstacle().is_none());
        let task = tokio::spawn(watch.run());
        run("ip", "link set far0 down");
        let seen = wait(&mut links, |links| links["eth0"].obstacle().is_some()).await;
        assert_eq!(seen["eth0"].obstacle(), Some("has no carrier"));
        run("ip", "link set far0 up");
        wait(&mut links, |links| links["eth0"].obstacle().is_none()).await;
        run("ip", "link set eth0 down");
        let seen = wait(&mut links, |links| links["eth0"].obstacle().is_some()).await;
        assert_eq!(seen["eth0"].obstacle(), Some("is down"));
        run("ip", "link delete eth0");
        wait(&mut links, |links| !links.contains_key("eth0")).await;
        task.abort();
    });
}

/// What is not ours is not heard.
#[test]
fn a_removal_of_what_is_ours_is_heard_with_who_did_it() {
    in_namespace(|| async {
        let watch = RemovalWatch::open().unwrap();
        let mut removals = watch.removals();
        let task = tokio::spawn(watch.run());
        let address: IpAddr = "192.0.2.250".parse().unwrap();
        run("ip", "addr add 192.0.2.251/32 dev eth0");
        run("ip", "addr del 192.0.2.251/32 dev eth0");
        let mut host = Host {
            sysctl_directory: PathBuf::from("/proc/sys"),
            timeout: LIMIT,
        };
        let mut add = |address, prefix_length| {
            let key = AddressKey {
                device: "eth0".to_owned(),
                address,
                prefix_length,
            };
            host.apply(&HostOp::AddAddress(key)).unwrap();
        };
        add(address, 32);
        let program = Program::new("ip")
            .args(["addr", "del", "192.0.2.250/32", "dev", "eth0"])
            .spawn();
        let mut program = program.unwrap();
        let process = program.id();
        assert!(program.wait().unwrap().success());
        let seen = wait(&mut removals, |removals| removals.count == 1).await;
        assert_eq!(seen.removers, BTreeMap::from([(address, process)]));
        // The kernel does not say it of IPv6.
        add("2001:db8::250".parse().unwrap(), 128);
        run("ip", "addr del 2001:db8::250/128 dev eth0");
        let seen = wait(&mut removals, |removals| removals.count == 2).await;
        assert_eq!(seen.removers, BTreeMap::from([(address, process)]));
        run(
            "ip",
            &format!("rule add from 192.0.2.9 lookup 7600 protocol {OWNER_PROTOCOL}"),
        );
        run("ip", "rule del from 192.0.2.9 lookup 7600");
        wait(&mut removals, |removals| removals.count == 3).await;
        task.abort();
    });
}

/// Frames from the far end of the cable: what the stranger says, as ARP and as neighbour advertisement.
const SPEAK: &str = r#"
import socket, struct, sys
mac, v4, v6 = bytes.fromhex(sys.argv[1]), socket.inet_aton(sys.argv[2]), socket.inet_pton(socket.AF_INET6, sys.argv[3])
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("far0", 0))
arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + v4 + bytes(6) + v4
out.send(b"\xff" * 6 + mac + b"\x08\x06" + arp)
message = bytes([136, 0, 0, 0, 0x20, 0, 0, 0]) + v6 + bytes([2, 1]) + mac
source = socket.inet_pton(socket.AF_INET6, "fe80::99")
header = struct.pack("!IHBB", 0x60000000, len(message), 58, 255) + source + socket.inet_pton(socket.AF_INET6, "ff02::1")
out.send(b"\x33\x33\0\0\0\x01" + mac + b"\x86\xdd" + header + message)
"#;

/// Lets the task that listens take note of what changed; it is the only other one.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

fn speak(mac: [u8; 6], v4: &str, v6: &str) {
    let mac = HardwareAddress(mac).to_string().replace(':', "");
    let status = Program::new("python3")
        .args(["-c", SPEAK, &mac, v4, v6])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn only_claims_of_others_on_held_addresses_are_heard() {
    in_namespace(|| async {
        let link_watch = LinkWatch::open(LIMIT).unwrap();
        let own: [u8; 6] = link_watch.links().borrow()["eth0"]
            .hardware_address
            .as_slice()
            .try_into()
            .unwrap();
        let (reports, report) = watch::channel(FenceReport::default());
        let (sender, mut heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(ClaimWatch::open().unwrap().run(
            link_watch.links(),
            report,
            move |claim| sender.send(claim).unwrap(),
        ));
        let held = |texts: &[&str]| {
            let held = texts.iter().map(|text| DirectorAddress {
                address: text.parse().unwrap(),
                device: "eth0".to_owned(),
            });
            let router = RouterAddresses {
                held: held.collect(),
                ..RouterAddresses::default()
            };
            FenceReport {
                routers: BTreeMap::from([("edge".to_owned(), router)]),
                ..FenceReport::default()
            }
        };
        // More than one, so that the filter has something to compare.
        let addresses = [
            "192.0.2.249",
            "192.0.2.250",
            "2001:db8::249",
            "2001:db8::250",
        ];
        reports.send_replace(held(&addresses));
        settle().await;
        // Ours, then a stranger's on addresses that are not held, then on those that are.
        speak(own, "192.0.2.250", "2001:db8::250");
        speak(STRANGER.0, "192.0.2.251", "2001:db8::251");
        speak(STRANGER.0, "192.0.2.250", "2001:db8::250");
        let mut claims = Vec::new();
        for _ in 0..2 {
            let claim = tokio::time::timeout(LIMIT, heard.recv()).await;
            claims.push(claim.expect("in time").unwrap());
        }
        claims.sort();
        let claim = |text: &str| Claim {
            address: text.parse().unwrap(),
            hardware_address: STRANGER,
        };
        assert_eq!(claims, [claim("192.0.2.250"), claim("2001:db8::250")]);
        // Nothing is held any more: what is said now is not heard; what is held again is.
        reports.send_replace(FenceReport::default());
        settle().await;
        speak(STRANGER.0, "192.0.2.250", "2001:db8::250");
        reports.send_replace(held(&["192.0.2.249"]));
        settle().await;
        speak(STRANGER.0, "192.0.2.249", "2001:db8::249");
        let next = tokio::time::timeout(LIMIT, heard.recv()).await;
        assert_eq!(next.expect("in time").unwrap(), claim("192.0.2.249"));
        assert!(heard.is_empty());
        task.abort();
    });
}

#[test]
fn a_virtual_mac_is_up_exactly_while_it_carries_an_address() {
    in_namespace(|| async {
        const DEVICE: &str = "lvs-v51-4abcde";
        let mut host = Host {
            sysctl_directory: PathBuf::from("/proc/sys"),
            timeout: LIMIT,
        };
        let parent = host.observe().unwrap().links["eth0"].index;
        let kind = LinkKind::Macvlan {
            parent,
            hardware_address: VIRTUAL_MAC,
        };
        let add = HostOp::AddLink {
            name: DEVICE.to_owned(),
            kind,
        };
        host.apply(&add).unwrap();
        let made = host.observe().unwrap().links[DEVICE].clone();
        assert_eq!((made.kind, made.up), (Some(kind), false));
        let shown = run("ip", &format!("-d link show {DEVICE}"));
        assert!(
            shown.contains("00:00:5e:00:01:33") && shown.contains("macvlan mode private"),
            "{shown}"
        );

        let directory = tempfile::tempdir().unwrap();
        let (mut thread, mut output) = {
            let me = Identity {
                node: "lb-a".to_owned(),
                incarnation: "1".to_owned(),
            };
            FenceThread::start(directory.path(), "boot", me, None).unwrap()
        };
        let commands = thread.commands();
        let timing = Timing::for_lease_seconds(10).unwrap();
        let settings = BTreeMap::from([(
            "edge".to_owned(),
            RouterSettings {
                timing,
                announcement: Announcement::default(),
                heartbeats: None,
            },
        )]);
        commands.send(Command::Configure(settings)).unwrap();
        let addresses = ["192.0.2.250", "192.0.2.251"].map(|text| DirectorAddress {
            address: text.parse().unwrap(),
            device: DEVICE.to_owned(),
        });
        let want = |wanted: &[DirectorAddress]| {
            Command::Want([("edge".to_owned(), wanted.iter().cloned().collect())].into())
        };
        commands.send(want(&addresses)).unwrap();
        let now = clock::now();
        let hold = Hold {
            epoch: 1,
            sent_at: now,
            until: HolderUntil::new(now + Duration::from_mins(1)),
            lifetime: Lifetime::Seconds(2),
            decided_at: now,
            confirmed_at: Some(now),
        };
        commands
            .send(Command::Hold("edge".to_owned(), hold))
            .unwrap();
        let carries = |report: &FenceReport, count| report.routers["edge"].held.len() == count;
        wait(&mut output.report, |report| {
            report.routers.contains_key("edge") && carries(report, 2)
        })
        .await;
        assert!(host.observe().unwrap().links[DEVICE].up);
        // One of two: the device still carries the other.
        commands.send(want(&addresses[..1])).unwrap();
        wait(&mut output.report, |report| carries(report, 1)).await;
        assert!(host.observe().unwrap().links[DEVICE].up);
        commands.send(Command::GiveUp("edge".to_owned())).unwrap();
        let report = wait(&mut output.report, |report| carries(report, 0)).await;
        assert!(report.routers["edge"].troubles.is_empty());
        assert!(!host.observe().unwrap().links[DEVICE].up);
        assert!(!run("ip", &format!("addr show dev {DEVICE}")).contains("192.0.2.25"));
        thread.end();
    });
}
