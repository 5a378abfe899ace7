//! Others who remove what this node holds: it is put back, counted, told for a while, and looked for more often meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test says what is wrong by failing.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_core::election::{Hold, Lifetime, Tick, Timing};
use lvs_core::fence::{Action, DirectorAddress, Fence, HolderUntil, Outcome, Step};
use lvs_core::host::{AddressKey, Link, ObservedHost, SysctlKey};
use lvs_core::interference::{
    Evidence, Interference, KUBE_PROXY_DEVICE, LOOK_INTERVAL, QUIET_PERIOD,
};
use lvs_core::ipvs::ServiceKey;
use lvs_core::object::Object;
use lvs_crds::value::{AddressFamily, Protocol};
use proptest::prelude::*;

const ROUTER: &str = "edge";

fn at(milliseconds: u64) -> Tick {
    Tick::from_nanoseconds(milliseconds * 1_000_000)
}

fn address() -> DirectorAddress {
    DirectorAddress {
        address: "192.0.2.250".parse().unwrap(),
        device: "eth0".to_owned(),
    }
}

/// A fence that has held one address since 0.
fn holding(lifetime: Lifetime) -> Fence {
    let mut fence = Fence::default();
    let settings = (
        Timing::for_lease_seconds(10).unwrap(),
        serde_json::from_str("{}").unwrap(),
    );
    fence.configure([(ROUTER.to_owned(), settings)].into());
    fence.want(ROUTER, [address()].into());
    fence.hold(
        ROUTER,
        Hold {
            epoch: 1,
            sent_at: at(0),
            until: HolderUntil::new(at(1_000_000)),
            lifetime,
            decided_at: at(0),
            confirmed_at: None,
        },
    );
    let steps = work(&mut fence, at(0));
    assert_eq!(steps, [Step::Add(lifetime)]);
    fence
}

/// Carries out what is due, announcements aside.
fn work(fence: &mut Fence, now: Tick) -> Vec<Step> {
    let actions = fence.due(now);
    for action in &actions {
        assert_eq!(fence.done(action, Outcome::Done, now), None);
    }
    let steps = actions.into_iter().map(|action: Action| action.step);
    steps.filter(|step| *step != Step::Announce).collect()
}

fn restored(fence: &Fence) -> u64 {
    let report = &fence.report()[ROUTER];
    report.restored.get(&address()).copied().unwrap_or_default()
}

#[test]
fn an_address_for_ever_that_somebody_removes_is_put_back_at_once() {
    let mut fence = holding(Lifetime::Permanent);
    assert_eq!(work(&mut fence, at(5_000)), []);
    fence.missing(ROUTER, &address(), at(5_000), at(5_010));
    assert_eq!(fence.next_wake(at(5_010)), Some(at(5_010)));
    let steps = work(&mut fence, at(5_010));
    assert_eq!(steps, [Step::Refresh(Lifetime::Permanent)]);
    assert_eq!(restored(&fence), 1);
    // Neighbours may have asked in vain meanwhile.
    let announced = fence.due(at(5_011));
    assert!(announced.iter().any(|action| action.step == Step::Announce));
}

#[test]
fn what_has_expired_or_was_put_there_since_was_removed_by_nobody() {
    let mut fence = holding(Lifetime::Seconds(2));
    // The look began before the address was written.
    fence.missing(ROUTER, &address(), at(0), at(1));
    // It stood still for longer than the lifetime.
    fence.missing(ROUTER, &address(), at(2_000), at(2_001));
    // Not held at all, and of nobody.
    fence.give_up(ROUTER);
    fence.missing(ROUTER, &address(), at(1_000), at(1_001));
    fence.missing("other", &address(), at(1_000), at(1_001));
    assert_eq!(restored(&fence), 0);
}

#[test]
fn an_address_that_is_not_to_be_held_any_more_is_not_put_back() {
    let mut fence = holding(Lifetime::Permanent);
    fence.missing(ROUTER, &address(), at(2_000_000), at(2_000_001));
    assert_eq!(restored(&fence), 0);
    assert!(
        work(&mut fence, at(2_000_001))
            .iter()
            .all(|step| *step == Step::Delete)
    );
}

proptest! {
    /// However fast somebody removes it, it is put back no more than once a second, and it ends in the kernel.
    #[test]
    fn whoever_removes_without_end_is_answered_in_measure(pauses in proptest::collection::vec(1_u64..1_500, 1..40)) {
        let mut fence = holding(Lifetime::Permanent);
        let mut now = 5_000;
        let mut written = Vec::new();
        for pause in pauses {
            now += pause;
            if !work(&mut fence, at(now)).is_empty() {
                written.push(now);
            }
            fence.missing(ROUTER, &address(), at(now + 1), at(now + 1));
            now += 1;
            if !work(&mut fence, at(now)).is_empty() {
                written.push(now);
            }
        }
        for pair in written.windows(2) {
            prop_assert!(pair[1] - pair[0] >= 1_000, "{written:?}");
        }
        prop_assert!(restored(&fence) > 0);
        work(&mut fence, at(now + 2_000));
        prop_assert!(fence.report()[ROUTER].held.contains(&address()));
    }
}

fn service(port: u16) -> Object {
    Object::Service(ServiceKey::Address {
        address: "192.0.2.250".parse().unwrap(),
        protocol: Protocol::TCP,
        port,
    })
}

fn host(with_kube_proxy: bool) -> ObservedHost {
    let mut host = ObservedHost::default();
    if with_kube_proxy {
        let device = Link {
            index: 9,
            kind: None,
            up: false,
            carrier: false,
            loopback: false,
            hardware_address: Vec::new(),
        };
        host.links.insert(KUBE_PROXY_DEVICE.to_owned(), device);
    }
    host
}

fn told(object: &Object, host: &ObservedHost, removers: &[(&str, u32)]) -> String {
    let removers: BTreeMap<_, _> = removers
        .iter()
        .map(|(address, port)| (address.parse().unwrap(), *port))
        .collect();
    let mut interference = Interference::default();
    let evidence = Evidence {
        host,
        removers: &removers,
    };
    interference.note(object, ["vs-1"], evidence, at(0));
    interference.told(at(1))["vs-1"].clone()
}

#[test]
fn kube_proxy_is_named_where_its_device_is_and_the_cure_with_it() {
    let message = told(&service(80), &host(true), &[]);
    for word in [
        "IPVS service -t 192.0.2.250:80",
        "mode ipvs",
        "192.0.2.250/32",
        "ipvs.excludeCIDRs",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    // Without it, it may have been a flush at its start in another mode, or anybody.
    let told_without = told(&service(80), &host(false), &[]);
    assert!(
        told_without.contains("keepalived")
            && told_without.contains("mode nftables flushes IPVS once")
            && !told_without.contains("excludeCIDRs"),
        "{told_without}"
    );
    let mark = Object::Service(ServiceKey::FirewallMark {
        mark: 7,
        family: AddressFamily::IPv4,
    });
    assert!(!told(&mark, &host(true), &[]).contains("mode ipvs"));
    let sysctl = Object::Sysctl(SysctlKey::of_ipvs("conntrack"));
    assert!(told(&sysctl, &host(true), &[]).contains("kube-proxy"));
}

#[test]
fn who_removed_an_address_is_named_as_the_kernel_does() {
    let object = Object::Address(AddressKey {
        device: "eth0".to_owned(),
        address: "192.0.2.250".parse().unwrap(),
        prefix_length: 32,
    });
    let message = told(&object, &host(true), &[("192.0.2.250", 812)]);
    assert!(
        message.contains("netlink port 812") && message.contains("leave eth0 alone"),
        "{message}"
    );
    let message = told(&object, &host(true), &[("192.0.2.251", 812)]);
    assert!(!message.contains("812"), "{message}");
}

#[test]
fn it_is_told_until_it_has_been_quiet_and_looked_for_as_long() {
    let host = host(true);
    let evidence = Evidence {
        host: &host,
        removers: &BTreeMap::new(),
    };
    let mut interference = Interference::default();
    let pass = Duration::from_millis(10);
    assert_eq!(interference.next_look(at(0), pass), None);
    interference.note(&service(80), ["vs-1"], evidence, at(0));
    let first = interference.told(at(0));
    interference.note(&service(80), ["vs-1"], evidence, at(30_000));
    // A status that is written again and again would be a burden of its own.
    assert_eq!(interference.told(at(30_000)), first);
    assert_eq!(
        interference.next_look(at(30_000), pass),
        Some(LOOK_INTERVAL)
    );
    // Large tables take long to read.
    let slow = interference.next_look(at(30_000), Duration::from_secs(1));
    assert_eq!(slow, Some(Duration::from_secs(20)));
    let end = at(30_000) + QUIET_PERIOD;
    assert!(interference.told(end).is_empty());
    assert_eq!(interference.next_look(end, pass), None);
    // What comes later is another story.
    interference.note(&service(81), ["vs-1"], evidence, end);
    assert!(!interference.told(end)["vs-1"].contains(":80"));
    // A plan that is no more has nothing to tell.
    interference.retain(end, |_| false);
    assert!(interference.told(end).is_empty());
}

#[test]
fn of_many_things_some_are_named_and_the_rest_is_counted() {
    let host = host(false);
    let evidence = Evidence {
        host: &host,
        removers: &BTreeMap::new(),
    };
    let mut interference = Interference::default();
    for port in 1..=10_000 {
        interference.note(&service(port), ["vs-1"], evidence, at(0));
    }
    let message = interference.told(at(1))["vs-1"].clone();
    assert!(message.contains("253 more"), "{message}");
    assert!(message.len() < 1024, "{message}");
}
