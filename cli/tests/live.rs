//! Commands that ask the cluster, with a kubectl that answers from files: what it is called with, what is shown, and the exit codes.
//! `LVS_WRITE_GOLDENS=1` writes anew what is shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects"
)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `get RESOURCE [NAME]` and `exec POD -- /lvs-agent WORDS` answer from the file of that name, or refuse with what is in
/// the file that ends in .error; everything else succeeds.
const KUBECTL: &str = r#"#!/bin/sh
printf '%s\n' "$*" >>"$PLAYED/calls"
while case "$1" in --*) true ;; *) false ;; esac; do shift; done
case "$1" in
get)
    name="get-$2"
    case "${3:---}" in --*) ;; *) name="$name-$3" ;; esac
    ;;
exec)
    name="exec-$4"
    while [ "$1" != /lvs-agent ]; do shift; done
    shift
    for word; do case "$word" in --*) ;; *) name="$name-$word" ;; esac; done
    ;;
*) exit 0 ;;
esac
if [ -f "$PLAYED/$name.error" ]; then cat "$PLAYED/$name.error" >&2; exit 1; fi
if [ -f "$PLAYED/$name.next.json" ] && [ -f "$PLAYED/moved" ]; then cat "$PLAYED/$name.next.json"; exit 0; fi
if [ -f "$PLAYED/$name.json" ]; then cat "$PLAYED/$name.json"; exit 0; fi
echo "Error from server (NotFound): $name" >&2
exit 1
"#;

struct Played {
    folder: tempfile::TempDir,
}

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/live")
}

impl Played {
    /// The cluster of the goldens.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(goldens().join("cluster")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let played = Self { folder };
        played.write("kubectl", KUBECTL);
        let path = played.folder.path().join("kubectl");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        played
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn refuse(&self, name: &str, text: &str) {
        self.write(&format!("{name}.error"), text);
    }

    /// An answer with one part of it changed.
    fn change(&self, name: &str, to: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.folder.path().join(name);
        let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        change(&mut value);
        self.write(to, &value.to_string());
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-lvs"));
        command
            .args(words)
            .env("KUBECTL", self.folder.path().join("kubectl"))
            .env("PLAYED", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        let output = self.command(words).output().unwrap();
        Said {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn same(name: &str, text: &str) {
    let path = goldens().join(name);
    if std::env::var_os("LVS_WRITE_GOLDENS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == text,
        "{} differs; it would be:\n{text}",
        path.display()
    );
}

/// One agent's pod does not run: the others are shown, and who is missing.
#[test]
fn every_table_is_as_it_was() {
    let played = Played::new();
    for (words, golden, code) in [
        (["get"].as_slice(), "get.txt", 0),
        (&["get", "shop/web"], "get-web.txt", 0),
        (&["get", "--output=yaml", "--node=node-3"], "get.yaml", 0),
        (&["services"], "services.txt", 2),
        (
            &["services", "-o", "json", "--node=node-2"],
            "services.json",
            0,
        ),
        (&["connections"], "connections.txt", 2),
        (&["stats", "web"], "stats.txt", 2),
        (&["rates", "--namespace=shop"], "rates.txt", 2),
        (&["timeouts"], "timeouts.txt", 2),
        (&["daemon"], "daemon.txt", 2),
        (&["zero", "shop/web"], "zero.txt", 2),
        (&["explain", "vs/web", "--namespace=shop"], "explain.txt", 2),
    ] {
        let said = played.run(words);
        same(golden, &said.stdout);
        assert_eq!(said.code, code, "{words:?}: {}", said.stderr);
        let is_told = said
            .stderr
            .contains("node node-3 was not asked: its agent's pod agent-node-3 is Pending");
        assert_eq!(is_told, code == 2, "{words:?}: {}", said.stderr);
        assert!(!said.stdout.contains('\u{1b}'), "no terminal, no colours");
    }
}

/// A standby of DR that is a real server itself leaves out what it balances.
#[test]
fn a_kernel_without_the_service_is_no_fault_where_another_has_it() {
    let played = Played::new();
    let words = ["zero", "shop/web", "--node=node-1", "--node=node-2"];
    played.write("exec-agent-node-1-zero.json", r#"{"zeroed": []}"#);
    let said = played.run(&words);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.stdout.contains("node-1: no counters"),
        "{}",
        said.stdout
    );
    played.write("exec-agent-node-2-zero.json", r#"{"zeroed": []}"#);
    let said = played.run(&words);
    assert_eq!(said.code, 1, "{}", said.stderr);
    let told = "no kernel that was asked has a service of VirtualService shop/web";
    assert!(said.stderr.contains(told), "{}", said.stderr);
}

#[test]
fn kubectl_is_called_with_the_flags_that_name_the_cluster_and_the_agents_program() {
    let played = Played::new();
    let said = played.run(&[
        "--context=far",
        "connections",
        "shop/web",
        "--limit=5",
        "--node=node-1",
        "--operator-namespace=lb",
        "--as=somebody",
    ]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let mut calls = played.calls();
    calls.sort();
    assert_eq!(
        calls,
        [
            "--context=far --as=somebody exec --namespace lvs-system agent-node-1 --container agent -- /lvs-agent show connections --output=json --limit=5 --virtual-service=shop/web",
            "--context=far --as=somebody get pods --output=json --selector=app.kubernetes.io/name=lvs-operator,app.kubernetes.io/component=agent --namespace lb",
            "--context=far --as=somebody get virtualrouters.lvs.dev --output=json",
        ]
    );
}

#[test]
fn what_cannot_be_asked_at_all_is_an_error_and_says_why() {
    let played = Played::new();
    let forbidden = "Error from server (Forbidden): pods \"agent\" is forbidden: cannot create resource \"pods/exec\"";
    for node in ["node-1", "node-2"] {
        played.refuse(&format!("exec-agent-{node}-show-services"), forbidden);
    }
    let said = played.run(&["services"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.contains("pods/exec"), "{}", said.stderr);
    // What explains goes on with what the objects say.
    let said = played.run(&["explain", "web", "-n", "shop"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stdout.contains("nobody looked"), "{}", said.stdout);
    assert!(
        said.stderr
            .contains("node node-1 was not asked: Error from server (Forbidden)")
    );
}

#[test]
fn an_older_agent_and_one_that_answers_nonsense_are_told_of() {
    let played = Played::new();
    played.refuse(
        "exec-agent-node-1-show-settings",
        "error: unrecognized subcommand 'show'\n\nUsage: lvs-agent <COMMAND>\ncommand terminated with exit code 2",
    );
    let said = played.run(&["timeouts"]);
    assert_eq!(said.code, 2);
    assert!(
        said.stderr
            .contains("node node-1 was not asked: its agent is of an older version")
    );
    played.write("exec-agent-node-2-show-settings.json", "nonsense");
    let said = played.run(&["timeouts"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("this version cannot read"),
        "{}",
        said.stderr
    );
}

#[test]
fn an_object_that_cannot_be_read_hides_no_other() {
    let played = Played::new();
    played.change(
        "get-virtualservices.lvs.dev.json",
        "get-virtualservices.lvs.dev.json",
        |list| list["items"][0]["spec"]["forwarding"]["type"] = "Teleport".into(),
    );
    let said = played.run(&["get"]);
    assert_eq!(said.code, 2);
    assert!(said.stdout.contains("192.0.2.100"), "{}", said.stdout);
    assert!(
        said.stderr
            .contains("VirtualService infra/dns cannot be read"),
        "{}",
        said.stderr
    );
    for name in [
        "virtualrouters",
        "virtualservices",
        "realservers",
        "nodeplans",
    ] {
        played.refuse(
            &format!("get-{name}.lvs.dev"),
            "Unable to connect to the server",
        );
    }
    played.refuse("get-pods", "Unable to connect to the server");
    let said = played.run(&["get"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.contains("Unable to connect"), "{}", said.stderr);
}

#[test]
fn what_is_not_there_is_an_error() {
    let played = Played::new();
    for (words, told) in [
        (
            ["get", "shop/none"].as_slice(),
            "no VirtualService shop/none",
        ),
        (
            &["services", "shop/none", "--node=node-1"],
            "VirtualService shop/none",
        ),
        (
            &["services", "--node=node-9"],
            "node node-9 was not asked: no agent's pod is on it",
        ),
        (
            &["services", "shop/web", "--namespace=infra"],
            "give one of the two",
        ),
        (&["explain", "realserver/web-1"], "virtualservice/NAME"),
        (&["connections", "--namespace=shop"], "NAMESPACE/NAME"),
        (&["hand-over", "none"], "NotFound"),
        (
            &["hand-over", "default", "--to=node-9"],
            "its directors are: node-1, node-2, node-3",
        ),
        // Usage, too: 2 says something else.
        (&["zero", "--all", "web"], "cannot be used with"),
        (&["services", "--interval=0"], "--interval"),
    ] {
        let said = played.run(words);
        assert_eq!(said.code, 1, "{words:?}: {}", said.stderr);
        assert!(said.stderr.contains(told), "{words:?}: {}", said.stderr);
    }
    let said = played
        .command(&["get"])
        .env("KUBECTL", "/no/kubectl")
        .output();
    let said = said.unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("name it in KUBECTL"));
}

#[test]
fn watching_asks_again_and_goes_on_over_an_error() {
    let played = Played::new();
    let mut child = played
        .command(&["timeouts", "--watch", "--interval=1", "--node=node-1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("NODE"));
    assert!(next().starts_with("node-1"));
    played.refuse("get-pods", "etcd is away");
    loop {
        let line = next();
        if line.contains("etcd is away") {
            break;
        }
        let is_known = line.is_empty() || line.starts_with("NODE") || line.starts_with("node-1");
        assert!(is_known, "{line}");
    }
    std::fs::remove_file(played.folder.path().join("get-pods.error")).unwrap();
    while !next().starts_with("node-1") {}
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_router_is_handed_over_to_the_best_director_and_waited_for() {
    let played = Played::new();
    played.change(
        "get-virtualrouters.lvs.dev-default.json",
        "get-virtualrouters.lvs.dev-default.next.json",
        |router| {
            router["status"]["master"] =
                serde_json::json!({"nodeName": "node-2", "since": "2026-01-05T10:05:00Z", "epoch": 5});
        },
    );
    // Who writes the annotation moves it.
    let script = KUBECTL.replace(
        "*) exit 0 ;;",
        "annotate) : >\"$PLAYED/moved\"; exit 0 ;;\n*) exit 0 ;;",
    );
    played.write("kubectl", &script);
    let said = played.run(&["hand-over", "default"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.stderr
            .contains("node-2 holds the addresses of router default, epoch 5"),
        "{}",
        said.stderr
    );
    let calls = played.calls();
    let written = "annotate virtualrouters.lvs.dev default lvs.dev/hand-over-to=node-2 --overwrite";
    assert!(calls.iter().any(|call| call == written), "{calls:?}");
}

#[test]
fn a_hand_over_that_was_asked_for_before_is_asked_for_anew() {
    let played = Played::new();
    let name = "get-virtualrouters.lvs.dev-default.json";
    played.change(name, name, |router| {
        router["metadata"]["annotations"]["lvs.dev/hand-over-to"] = "node-2".into();
        router["status"]["handedOverTo"] = "node-2".into();
    });
    let said = played.run(&["hand-over", "default", "--timeout=1"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("waiting for the controller to see it"),
        "{}",
        said.stderr
    );
    let calls = played.calls();
    let removed = "annotate virtualrouters.lvs.dev default lvs.dev/hand-over-to-";
    assert!(calls.iter().any(|call| call == removed), "{calls:?}");
    assert!(
        !calls.iter().any(|call| call.contains("=node-2")),
        "{calls:?}"
    );
}

#[test]
fn a_hand_over_that_takes_too_long_says_where_it_is() {
    let played = Played::new();
    let said = played.run(&["hand-over", "default", "--to=node-3", "--timeout=1"]);
    assert_eq!(said.code, 1);
    for told in [
        "node-3 is Fault (LinkDown): it gets the addresses as soon as it is ready",
        "not done within 1 s",
        "node-3 is Fault (LinkDown: eth1 has no carrier)",
    ] {
        assert!(said.stderr.contains(told), "{told}: {}", said.stderr);
    }
    let said = played.run(&["hand-over", "default", "--to=node-3", "--wait=false"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn a_real_server_drains_until_no_kernel_has_a_connection_of_it() {
    let played = Played::new();
    let said = played.run(&["drain", "shop/web-3", "--timeout=1"]);
    assert_eq!(said.code, 1);
    let told =
        "web-3 gets no new connections (draining, at most 300 s); connections left: 6 on node-1";
    assert!(said.stderr.contains(told), "{}", said.stderr);
    let patched = r#"patch realservers.lvs.dev web-3 --type=merge --patch {"spec":{"administrativeState":"Draining"}} --namespace shop"#;
    assert!(
        played.calls().iter().any(|call| call == patched),
        "{:?}",
        played.calls()
    );

    let none_left = |name: &str| {
        played.change(name, name, |answer| {
            for destination in answer["services"][0]["destinations"]
                .as_array_mut()
                .unwrap()
            {
                destination["activeConnections"] = 0.into();
                destination["inactiveConnections"] = 0.into();
            }
        });
    };
    none_left("exec-agent-node-1-show-services.json");
    // One agent cannot be asked: it may have some.
    let said = played.run(&["drain", "shop/web-3", "--timeout=1"]);
    assert_eq!(said.code, 1);
    assert!(
        said.stderr.contains("how many it has left is not known"),
        "{}",
        said.stderr
    );
    played.change("get-pods.json", "get-pods.json", |pods| {
        pods["items"].as_array_mut().unwrap().pop();
    });
    let said = played.run(&["drain", "shop/web-3"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("has none left"), "{}", said.stderr);

    let said = played.run(&["drain", "web-1", "-n", "shop", "--undo"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("web-1 is Up"), "{}", said.stderr);
    let patched = r#"patch realservers.lvs.dev web-1 --type=merge --patch {"spec":{"administrativeState":null}} --namespace shop"#;
    assert!(
        played.calls().iter().any(|call| call == patched),
        "{:?}",
        played.calls()
    );
}
