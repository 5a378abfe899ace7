//! The generated CustomResourceDefinitions and the table against a real kube-apiserver.
//!
//! Needs `kubectl` on PATH and LVS_TEST_KUBECONFIG, a kubeconfig of a cluster-admin of a cluster
//! that may be changed: `e2e/cluster/control-plane.sh up DIR etcd apiserver` makes one.
//! Run with `cargo test -p lvs-crds --test apiserver -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use case::{Case, cases, crate_directory};
use serde_json::{Value, json};

const NAMESPACE: &str = "default";

fn kubectl(arguments: &[&str], input: &str) -> Output {
    let kubeconfig = std::env::var("LVS_TEST_KUBECONFIG")
        .expect("LVS_TEST_KUBECONFIG names a kubeconfig; see the head of this file");
    let mut child = Command::new("kubectl")
        .arg(format!("--kubeconfig={kubeconfig}"))
        .arg(format!("--namespace={NAMESPACE}"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl is on PATH");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn must(arguments: &[&str], input: &str) -> String {
    let output = kubectl(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "kubectl {}: {errors}",
        arguments.join(" ")
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn install() {
    let directory = crate_directory().join("generated");
    let directory = directory.to_str().unwrap();
    let output = kubectl(
        &[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--filename",
            directory,
        ],
        "",
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "install {directory}: {said}");
    assert_eq!(said, "", "the API server warns of {directory}");
    must(
        &[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "--filename",
            directory,
        ],
        "",
    );
    let definitions: Value = serde_json::from_str(&must(
        &["get", "--output=json", "--filename", directory],
        "",
    ))
    .unwrap();
    for definition in definitions["items"].as_array().unwrap() {
        let bad = definition["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|condition| {
                condition["type"] == "NonStructuralSchema" && condition["status"] == "True"
            });
        assert_eq!(bad, None, "{}", definition["metadata"]["name"]);
    }
}

/// Removes what this test stored, now or in a run that was cut off.
fn remove_own() {
    for (_, plural) in case::KINDS {
        must(
            &[
                "delete",
                &format!("{plural}.lvs.dev"),
                "--selector",
                case::LABEL,
                "--wait=true",
            ],
            "",
        );
    }
}

/// Sends the object of a case; what the API server answers.
fn send(case: &Case) -> Output {
    let verb = if let Some(before) = &case.before {
        must(&["create", "--filename=-"], &before.to_string());
        "replace"
    } else {
        "create"
    };
    kubectl(&[verb, "--filename=-"], &case.object.to_string())
}

/// One test, as both halves use the same cluster.
#[test]
#[ignore = "needs a kube-apiserver: LVS_TEST_KUBECONFIG"]
fn the_apiserver_enforces_the_table_and_explains_the_kinds() {
    install();
    remove_own();
    accepts_and_refuses_as_the_table_says();
    shows_columns_and_explains();
    accepts_the_largest_objects();
    remove_own();
}

/// Bounds that the API server takes for its estimate of CEL cost are worth nothing if an object
/// within them runs out of the budget.
fn accepts_the_largest_objects() {
    let names = |prefix: &str, count: usize| -> Vec<String> {
        (0..count)
            .map(|index| format!("{prefix}{index:0width$}", width = 63 - prefix.len()))
            .collect()
    };
    let pools = names("pool", 32);
    let interfaces = names("interface", 32);
    let last_interface = interfaces.last().unwrap();
    let router = json!({
        "apiVersion": "lvs.dev/v1alpha1",
        "kind": "VirtualRouter",
        "metadata": {"name": "largest", "labels": {"lvs.dev/test": "crds"}},
        "spec": {
            "directors": names("node", 64).iter().map(|name| json!({"nodeName": name})).collect::<Vec<_>>(),
            "interfaces": interfaces.iter().map(|name| json!({
                "name": name,
                "devices": (0..16).map(|index| format!("a234567890123{index:02}")).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "additionalAddresses": (1..=64).map(|index| json!({
                "address": format!("192.0.2.{index}"), "interfaceName": last_interface,
            })).collect::<Vec<_>>(),
            "addressPools": pools.iter().enumerate().map(|(pool, name)| json!({
                "name": name,
                "interfaceName": last_interface,
                "addresses": (0..64).map(|entry| if entry % 2 == 0 {
                    format!("10.{pool}.{entry}.0-10.{pool}.{entry}.255")
                } else {
                    format!("2001:db8:1111:2222:3333:4444:{pool:x}:{entry:x}-2001:db8:1111:2222:3333:5555:{pool:x}:{entry:x}")
                }).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "grants": (0..64).map(|grant| json!({
                "namespaces": {"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}},
                "addressPoolNames": pools,
                "realServerCIDRs": (0..64).map(|entry| format!("10.{grant}.{entry}.0/24")).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        },
    });
    let service = json!({
        "apiVersion": "lvs.dev/v1alpha1",
        "kind": "VirtualService",
        "metadata": {"name": "largest", "labels": {"lvs.dev/test": "crds"}},
        "spec": {
            "addresses": (1..=16).map(|index| format!("2001:db8:1111:2222:3333:4444:5555:{index:x}")).collect::<Vec<_>>(),
            "ports": names("port", 64).iter().zip(1_usize..).map(|(name, index)| json!({
                "name": name, "port": index * 100, "endPort": index * 100 + 15,
            })).collect::<Vec<_>>(),
            "forwarding": {"type": "NAT"},
            "realServerSelector": {},
        },
    });
    let plan = json!({
        "apiVersion": "lvs.dev/v1alpha1",
        "kind": "NodePlan",
        "metadata": {"name": "largest", "labels": {"lvs.dev/test": "crds"}},
        "spec": {
            "nodeName": "node-a",
            "state": "Active",
            "source": {"kind": "VirtualService", "namespace": "shop", "name": "web", "uid": "1", "generation": 1},
            "virtualRouterName": "default",
            "director": {"services": (1..=1024).map(|port| json!({
                "address": {"address": "192.0.2.10", "protocol": "TCP", "port": port, "endPort": port},
                "scheduler": {"name": "wlc"},
                "packetScheduling": "PerConnection",
                "realServers": (1..=5).map(|host| json!({
                    "name": "w", "address": format!("192.0.2.{host}"), "port": port, "weight": 1, "forwarding": {"type": "NAT"},
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>()},
        },
    });
    for object in [router, service, plan] {
        must(&["create", "--filename=-"], &object.to_string());
    }
}

fn accepts_and_refuses_as_the_table_says() {
    let mut failures = Vec::new();
    let cases = cases();
    for case in &cases {
        let output = send(case);
        let said = String::from_utf8_lossy(&output.stderr);
        match &case.message {
            None if !output.status.success() => {
                failures.push(format!("{}: refused: {said}", case.name));
            }
            Some(_) if output.status.success() => failures.push(format!("{}: accepted", case.name)),
            Some(message) if !said.contains(message.as_str()) => {
                failures.push(format!("{}: expected \"{message}\", got {said}", case.name));
            }
            _ => {}
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
    for (_, plural) in case::KINDS {
        let resource = format!("{plural}.lvs.dev");
        let stored = must(
            &["get", &resource, "--selector", case::LABEL, "--output=name"],
            "",
        );
        let wanted = cases.iter().filter(|case| {
            case.plural == plural && (case.message.is_none() || case.before.is_some())
        });
        assert_eq!(stored.lines().count(), wanted.count(), "{plural} stored");
    }
}

/// What a user reads and types first: columns, categories, short names, explain.
fn shows_columns_and_explains() {
    for (name, columns) in [
        ("lvsvs", "VIP PORTS METHOD SCHED MASTER READY STATUS AGE"),
        ("lvsrs", "TARGET WEIGHT STATE USED-BY AGE"),
        ("lvsvr", "MASTER SINCE EPOCH CANDIDATES READY AGE"),
        ("lvsnp", "NODE SOURCE STATE ROLE PROGRAMMED AGE"),
    ] {
        let recursive = must(&["explain", "--recursive", name], "");
        assert!(recursive.contains("FIELDS:"), "{recursive}");
        let table = must(&["get", name, "--selector", case::LABEL], "");
        let head: Vec<&str> = table
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .skip(1)
            .collect();
        assert_eq!(head.join(" "), columns);
    }
    let listed = must(&["api-resources", "--categories=lvs", "--output=name"], "");
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(
        listed,
        [
            "realservers.lvs.dev",
            "virtualrouters.lvs.dev",
            "virtualservices.lvs.dev"
        ]
    );
    // kubectl wraps its lines.
    let forwarding = must(&["explain", "lvsvs.spec.forwarding"], "");
    let forwarding = forwarding.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "ipvsadm -m",
        "ipvsadm -g",
        "ipvsadm -i",
        "-required-",
        "enum: NAT, DR, TUN",
    ] {
        assert!(
            forwarding.contains(words),
            "explain lvsvs.spec.forwarding lacks {words}:\n{forwarding}"
        );
    }
}
