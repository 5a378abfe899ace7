//! `kubectl lvs plan`, `check` and `bundle` as programs, against a kubectl that is played: what they ask for, and how they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Notes each call in the file `calls`, and answers with the file that is named as the call with `_` for whatever is no letter,
/// digit, dot or comma. Without such a file lists are empty, and everything else it refuses, with what is in `refusal`; with what is
/// in `refusal-of-all` it refuses lists too.
const SCRIPT: &str = r#"#!/bin/sh
here="$(dirname "$0")"
printf '%s\n' "$*" >>"$here/calls"
case " $* " in *" --filename=- "*) cat >"$here/input" ;; esac
answer="$here/answers/$(printf '%s' "$*" | tr -c 'A-Za-z0-9.,' _)"
if [ -f "$answer" ]; then cat "$answer"; exit 0; fi
if [ -f "$here/refusal-of-all" ]; then cat "$here/refusal-of-all" >&2; exit 1; fi
case "$1" in
get) case " $* " in *" --all-namespaces "*|*" --namespace "*) echo '{"kind":"List","items":[]}'; exit 0 ;; esac ;;
esac
if [ -f "$here/refusal" ]; then cat "$here/refusal" >&2; exit 1; fi
echo "Error from server (NotFound): $* not found" >&2
exit 1
"#;

struct Stage(TempDir);

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubectl");
        fs::write(&path, SCRIPT).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("answers")).unwrap();
        Self(folder)
    }

    fn answer(&self, call: &str, answer: &Value) {
        let name: String = call
            .chars()
            .map(|letter| {
                let stays = letter.is_ascii_alphanumeric() || ".,".contains(letter);
                if stays { letter } else { '_' }
            })
            .collect();
        fs::write(self.0.path().join("answers").join(name), answer.to_string()).unwrap();
    }

    /// A list of objects.
    fn list(&self, call: &str, items: &[Value]) {
        self.answer(call, &json!({"kind": "List", "items": items}));
    }

    fn refuse(&self, what: &str, words: &str) {
        fs::write(self.0.path().join(what), words).unwrap();
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-lvs"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("KUBECTL", self.0.path().join("kubectl"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What does not change anything in a cluster.
fn only_reads(calls: &[String]) {
    assert!(!calls.is_empty());
    for call in calls {
        let verb = call
            .split(' ')
            .find(|word| !word.starts_with('-'))
            .unwrap_or_default();
        let is_dry = call.contains("--dry-run=server");
        let reads = matches!(verb, "get" | "version" | "logs" | "exec");
        assert!(
            reads || (is_dry && matches!(verb, "apply" | "delete")),
            "{call}"
        );
        assert!(!call.contains("secret"), "{call}");
    }
}

const OWN: &str = "get virtualservices.lvs.dev,realservers.lvs.dev,virtualrouters.lvs.dev --output=json --all-namespaces";

fn a_cluster() -> (Stage, Vec<Value>) {
    let stage = Stage::new();
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans/a-real-server-leaves");
    let text = fs::read_to_string(documents.join("cluster.yaml")).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let objects: Vec<Value> = objects
        .into_iter()
        .enumerate()
        .map(|(index, mut object)| {
            object["metadata"]["uid"] = json!(format!("uid-{index}"));
            object["metadata"]["generation"] = json!(1);
            object
        })
        .collect();
    let of = |kinds: &[&str]| -> Vec<Value> {
        let wanted = objects.iter();
        let wanted = wanted.filter(|object| kinds.contains(&object["kind"].as_str().unwrap()));
        wanted.cloned().collect()
    };
    stage.list(OWN, &of(&["VirtualService", "RealServer", "VirtualRouter"]));
    stage.list("get nodes --output=json --all-namespaces", &of(&["Node"]));
    stage.list(
        "get namespaces --output=json --all-namespaces",
        &of(&["Namespace"]),
    );
    (stage, objects)
}

const APPLY: &str = "apply --dry-run=server --output=json --filename=change.yaml";

#[test]
fn what_is_there_already_ends_with_0_and_what_is_not_with_2() {
    let (stage, objects) = a_cluster();
    let service = objects
        .iter()
        .find(|object| object["kind"] == "VirtualService")
        .unwrap();
    stage.answer(APPLY, service);
    let output = stage.run(&["plan", "-f", "change.yaml"], "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Nothing would change.\n"));

    let mut changed = service.clone();
    changed["spec"]["scheduler"]["name"] = json!("wrr");
    stage.answer(APPLY, &changed);
    let output = stage.run(&["plan", "-f", "change.yaml"], "");
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stdout);
    assert!(told.contains("scheduler mh -> wrr"), "{told}");
    assert!(told.contains("ipvs -E -t 192.0.2.100:80 -s wrr"), "{told}");

    let output = stage.run(&["plan", "-f", "change.yaml", "--output", "json"], "");
    assert_eq!(output.status.code(), Some(2));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["objects"][0]["change"], "Changed");
    only_reads(&stage.calls());
}

#[test]
fn several_objects_from_standard_input_go_to_kubectl_as_they_are() {
    let (stage, objects) = a_cluster();
    let call = "apply --dry-run=server --output=json --filename=- --namespace shop";
    stage.list(call, &objects);
    let output = stage.run(&["plan", "-f", "-", "-n", "shop"], "what the user wrote\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let input = fs::read_to_string(stage.0.path().join("input")).unwrap();
    assert_eq!(input, "what the user wrote\n");
    only_reads(&stage.calls());
}

#[test]
fn what_would_be_deleted_is_judged_as_a_dry_run() {
    let (stage, objects) = a_cluster();
    let gone = objects
        .iter()
        .find(|object| object["metadata"]["name"] == "web-9");
    stage.answer(
        "get --ignore-not-found --output=json --filename=change.yaml",
        gone.unwrap(),
    );
    stage.answer(
        "delete --dry-run=server --ignore-not-found --filename=change.yaml",
        &json!("deleted"),
    );
    let output = stage.run(&["plan", "--delete", "-f", "change.yaml"], "");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(
        told.contains("RealServer shop/web-9 would be deleted"),
        "{told}"
    );
    assert!(told.contains("go on for at most 300 s"), "{told}");
    only_reads(&stage.calls());
}

#[test]
fn what_the_api_server_refuses_is_told_in_its_words_and_ends_with_3() {
    let (stage, _) = a_cluster();
    let words = "The VirtualService \"web\" is invalid: spec.ports: Required value";
    stage.refuse("refusal", words);
    for arguments in [
        ["plan", "-f", "change.yaml"].as_slice(),
        &["plan", "--delete", "-f", "change.yaml"],
    ] {
        let output = stage.run(arguments, "");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(text(&output.stdout), "");
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_command_that_is_not_understood_is_not_taken_for_a_change() {
    let stage = Stage::new();
    for arguments in [["plan"].as_slice(), &["plan", "--nonsense"]] {
        let output = stage.run(arguments, "");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("Usage"), "{arguments:?}");
    }
    assert_eq!(stage.calls(), [""; 0]);
}

#[test]
fn a_cluster_without_the_operator_is_checked_all_the_same() {
    let stage = Stage::new();
    stage.answer(
        "version --output=json",
        &json!({"serverVersion": {"gitVersion": "v1.33.1"}}),
    );
    let output = stage.run(&["check"], "");
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("NOTE     namespace lvs-system: does not exist yet"),
        "{told}"
    );
    only_reads(&stage.calls());

    stage.answer(
        "version --output=json",
        &json!({"serverVersion": {"gitVersion": "v1.20.0"}}),
    );
    let output = stage.run(&["check", "--output", "json"], "");
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told[0]["level"], "Problem");
}

#[test]
fn agents_are_asked_in_their_pods() {
    let stage = Stage::new();
    stage.answer(
        "version --output=json",
        &json!({"serverVersion": {"gitVersion": "v1.33.1"}}),
    );
    stage.list(
        "get pods --output=json --selector=app.kubernetes.io/name=lvs-operator,app.kubernetes.io/component=agent --namespace lvs",
        &[json!({"kind": "Pod", "metadata": {"name": "agent-1", "namespace": "lvs"}, "spec": {"nodeName": "lb-a"},
                 "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})],
    );
    stage.answer(
        "exec --namespace lvs agent-1 --container agent -- /lvs-agent show facts --output json",
        &json!({"agentVersion": "0.1.0", "devices": ["kube-ipvs0"], "somethingNew": 1}),
    );
    let output = stage.run(&["check", "--operator-namespace", "lvs"], "");
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("PROBLEM  node lb-a: has the device kube-ipvs0"),
        "{told}"
    );
}

#[test]
fn an_archive_is_written_whatever_cannot_be_read_and_none_is_overwritten() {
    let stage = Stage::new();
    stage.refuse(
        "refusal-of-all",
        "Error from server (Forbidden): not for you",
    );
    let arguments = ["bundle", "--archive", "a.tar.gz"];
    let output = stage.run(&arguments, "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "a.tar.gz\n");
    assert!(text(&output.stderr).contains("parts could not be read: index.txt says why"));
    only_reads(&stage.calls());

    let path = stage.0.path().join("a.tar.gz");
    let bytes = fs::read(&path).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let mut index = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("index.txt") {
            std::io::Read::read_to_string(&mut entry, &mut index).unwrap();
        }
    }
    assert!(
        index.contains("objects/virtualservices.yaml: kubectl get virtualservices.lvs.dev"),
        "{index}"
    );
    assert!(index.contains("(Forbidden): not for you"), "{index}");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let output = stage.run(&arguments, "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("make a.tar.gz: File exists"));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
