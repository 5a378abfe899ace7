//! Tables of a director at work, compared with those that an import gives. Cases are in tests/shadows: a configuration,
//! `table.txt` as ipvsadm -Sn writes it, and what is said. `LVS_WRITE_GOLDENS=1` writes that anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kubectl_lvs::import::{NoFiles, Source, import};
use kubectl_lvs::keyword::Tool;
use kubectl_lvs::live::table::Paint;
use kubectl_lvs::shadow::comparison::{Comparison, State, compare};
use kubectl_lvs::shadow::ours::{Ours, of_import};
use kubectl_lvs::shadow::saved::{Saved, read};
use lvs_core::ipvs::{
    Destination, DestinationForwarding, DestinationKey, DestinationTunnel, Service, ServiceFlags,
    ServiceKey, ServiceState, Services,
};
use lvs_core::op::IpvsOp;
use lvs_crds::value::{AddressFamily, Protocol};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shadows")
}

fn ours(tool: Tool, text: &str, node_name: Option<&str>) -> Ours {
    let source = Source {
        path: PathBuf::from("file"),
        text: text.to_owned(),
        node_name: node_name.map(str::to_owned),
        config_id: String::new(),
    };
    let imported = import(tool, &[source], "shop", &NoFiles);
    of_import(&imported.objects, "shop").unwrap()
}

fn case(name: &str, tool: Tool, file: &str) -> Comparison {
    let folder = folder().join(name);
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let table = std::fs::read_to_string(folder.join("table.txt")).unwrap();
    let theirs = read(&table).unwrap();
    let comparison = compare(&theirs, &ours(tool, &text, Some("lb-a")));
    let text = comparison.text(Paint::default());
    let path = folder.join("comparison.txt");
    if std::env::var_os("LVS_WRITE_GOLDENS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == text,
        "{} differs; it would be:\n{text}",
        path.display()
    );
    comparison
}

#[test]
fn keepalived_at_work_is_equal() {
    let comparison = case("keepalived", Tool::Keepalived, "keepalived.conf");
    assert!(comparison.is_equal);
    assert_eq!(comparison.problems, [] as [&str; 0]);
}

#[test]
fn ldirectord_at_work_is_equal() {
    let comparison = case("ldirectord", Tool::Ldirectord, "ldirectord.cf");
    assert!(comparison.is_equal);
    assert_eq!(comparison.problems, [] as [&str; 0]);
}

#[test]
fn every_kind_of_difference_is_told() {
    let comparison = case("different", Tool::Keepalived, "keepalived.conf");
    assert!(!comparison.is_equal);
    for state in [
        State::Equal,
        State::Different,
        State::OnlyTheirs,
        State::OnlyOurs,
    ] {
        assert!(
            comparison.services.iter().any(|one| one.state == state),
            "{state:?}"
        );
    }
}

/// A name has addresses that only the DNS knows; what is missing for it is said.
#[test]
fn names_are_a_problem_that_is_told() {
    let text =
        "virtual=192.0.2.1:80\n\treal=web.example.org:80 gate\n\treal=198.51.100.7:80 gate\n";
    let ours = ours(Tool::Ldirectord, text, None);
    let problems = &ours.problems;
    let is_named =
        |problem: &String| problem.contains("web.example.org: it has not been asked for");
    assert!(
        !problems.is_empty() && problems.iter().all(is_named),
        "{problems:?}"
    );
    let theirs =
        read("-A -t 192.0.2.1:80 -s wrr\n-a -t 192.0.2.1:80 -r 198.51.100.7:80 -g -w 1").unwrap();
    assert!(compare(&theirs, &ours).is_equal);
}

#[test]
fn what_is_no_table_is_refused_by_its_line() {
    for (text, words) in [
        ("-A -t 192.0.2.1:80 -s rr\n-D -t 192.0.2.1:80", "line 2: -D"),
        ("-A -t web:http -s rr", "line 1: -t \"web:http\""),
        (
            "-a -t 192.0.2.1:80 -r 192.0.2.2:80 -g",
            "line 1: -t 192.0.2.1:80 was not added",
        ),
        (
            "-A -t 192.0.2.1:80\n-A -t 192.0.2.1:80",
            "line 2: -t 192.0.2.1:80 is there twice",
        ),
        (
            "-A -t 192.0.2.1:80 -b flag-9",
            "line 1: no scheduler has a flag",
        ),
        ("-A -t 192.0.2.1:80 --nonsense", "line 1: --nonsense"),
        ("IP Virtual Server version 1.2.1 (size=4096)", "line 1: IP"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(words), "{error}");
    }
}

/// Runs the plugin on a case's file, with a table on standard input: exit status and standard output.
fn run(file: &str, table: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-lvs"))
        .arg("import")
        .arg(folder().join(file))
        .args([
            "--node-name",
            "lb-a",
            "--namespace",
            "shop",
            "--shadow",
            "-",
        ])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Who cannot read his file does not wait for the table.
    let _ = input.write_all(table.as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let is_silent = output.stderr.is_empty();
    assert_eq!(is_silent, output.status.code() != Some(3), "{told}");
    (output.status.code(), told)
}

#[test]
fn the_exit_status_says_equal_different_or_unknown() {
    let file = "keepalived/keepalived.conf";
    let table = std::fs::read_to_string(folder().join("keepalived/table.txt")).unwrap();
    let (code, told) = run(file, &table, &[]);
    let stored = std::fs::read_to_string(folder().join("keepalived/comparison.txt")).unwrap();
    assert_eq!((code, told.as_str()), (Some(0), stored.as_str()));

    let other = table.replace("-w 3", "-w 4");
    let (code, told) = run(file, &other, &["-o", "json"]);
    assert_eq!(code, Some(2));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["isEqual"], false);
    let weight = serde_json::json!([{"destination": "198.51.100.11:8080", "what": "weight", "theirs": "4", "ours": "3"}]);
    assert_eq!(told["services"][1]["differences"], weight);

    for (file, table) in [(file, "no table"), ("nothing.conf", table.as_str())] {
        assert_eq!(run(file, table, &[]), (Some(3), String::new()));
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec![
        "192.0.2.1",
        "192.0.2.2",
        "127.0.0.1",
        "2001:db8::1",
        "2001:db8::2",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP]);
    let family = prop::sample::select(vec![AddressFamily::IPv4, AddressFamily::IPv6]);
    prop_oneof![
        (address(), protocol, prop::sample::select(vec![0, 80, 443])).prop_map(
            |(address, protocol, port)| ServiceKey::Address {
                address,
                protocol,
                port
            }
        ),
        (prop_oneof![1_u32..9, Just(u32::MAX)], family)
            .prop_map(|(mark, family)| ServiceKey::FirewallMark { mark, family }),
    ]
}

fn forwarding() -> impl Strategy<Value = DestinationForwarding> {
    prop_oneof![
        Just(DestinationForwarding::Masquerade),
        Just(DestinationForwarding::DirectRoute),
        Just(DestinationForwarding::Tunnel(DestinationTunnel::IpIp)),
        (1_u16..9, 0_u16..3).prop_map(|(port, flags)| DestinationForwarding::Tunnel(
            DestinationTunnel::Gue { port, flags }
        )),
        (0_u16..2)
            .prop_map(|flags| DestinationForwarding::Tunnel(DestinationTunnel::Gre { flags })),
    ]
}

fn destinations() -> impl Strategy<Value = BTreeMap<DestinationKey, Destination>> {
    let key = (address(), 0_u16..3).prop_map(|(address, port)| DestinationKey { address, port });
    let limit = prop_oneof![Just(0_u32), 1..5_u32];
    let destination = (forwarding(), 0_u32..4, limit.clone(), limit).prop_map(
        |(forwarding, weight, upper_threshold, lower_threshold)| Destination {
            forwarding,
            weight,
            upper_threshold,
            lower_threshold,
        },
    );
    prop::collection::btree_map(key, destination, 0..4)
}

fn services() -> impl Strategy<Value = Services> {
    let service = (
        prop::sample::select(vec!["rr", "wlc", "sh", "mh"]),
        prop::option::of((1_u32..4, 1_u8..=32)),
        0_u32..8,
        any::<bool>(),
        prop::option::of(Just("sip".to_owned())),
    );
    let states = prop::collection::btree_map(key(), (service, destinations()), 0..4);
    states.prop_map(|states| {
        let states = states.into_iter().map(|(key, (service, destinations))| {
            let (scheduler, persistence, flags, is_one_packet, persistence_engine) = service;
            let whole = match key.family() {
                AddressFamily::IPv4 => 32,
                AddressFamily::IPv6 => 128,
            };
            let (timeout_seconds, prefix_length) = persistence.unwrap_or((0, whole));
            let mut bits = flags << 3;
            if persistence.is_some() {
                bits |= ServiceFlags::PERSISTENT;
            }
            if is_one_packet {
                bits |= ServiceFlags::ONE_PACKET;
            }
            let service = Service {
                scheduler: scheduler.to_owned(),
                flags: ServiceFlags(bits),
                timeout_seconds,
                prefix_length,
                persistence_engine,
            };
            let destinations = destinations.into_iter().collect();
            (
                key,
                ServiceState {
                    service,
                    destinations,
                },
            )
        });
        states.collect()
    })
}

/// In ipvsadm's words, with limits of connections.
fn printed(services: &Services) -> String {
    let mut lines = Vec::new();
    for (key, state) in services {
        let mut line = IpvsOp::AddService(*key, state.service.clone()).to_string();
        if let ServiceKey::FirewallMark { mark: u32::MAX, .. } = key {
            line = line.replace("-f 4294967295", "-f -1");
        }
        lines.push(line);
        for (target, destination) in &state.destinations {
            lines.push(IpvsOp::AddDestination(*key, *target, *destination).to_string());
        }
    }
    lines.join("\n")
}

proptest! {
    #[test]
    fn a_table_is_read_as_it_was_printed(services in services()) {
        let saved = read(&printed(&services)).unwrap();
        prop_assert_eq!(&saved.services, &services);
    }

    /// Equal is told of what is equal, and of nothing else; every service that is another is told with what is another.
    #[test]
    fn equal_is_told_of_equal_tables_alone(theirs in services(), ours in services(), same: bool) {
        let ours = if same { theirs.clone() } else { ours };
        let saved = Saved { services: theirs.clone(), says_thresholds: true };
        let comparison = compare(&saved, &Ours { services: ours.clone(), ..Ours::default() });
        prop_assert_eq!(comparison.is_equal, theirs == ours);
        for one in &comparison.services {
            prop_assert_eq!(one.state == State::Different, !one.differences.is_empty());
        }
        // Without them in the table, limits of connections do not count.
        let saved = Saved { services: theirs, says_thresholds: false };
        let mut unlimited = saved.clone();
        for (_, destination) in unlimited.services.values_mut().flat_map(|state| &mut state.destinations) {
            (destination.upper_threshold, destination.lower_threshold) = (0, 0);
        }
        let limited = Ours { services: saved.services, ..Ours::default() };
        prop_assert!(compare(&unlimited, &limited).is_equal);
    }
}
