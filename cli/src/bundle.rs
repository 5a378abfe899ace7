//! `kubectl lvs bundle`: an archive of what others need to see of an operator that does not work. Secrets are never asked for, and
//! what looks like a credential elsewhere is masked.

mod mask;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

pub use mask::{MASKED, Mask};

use crate::chart;
use crate::kubectl::{Kubectl, KubectlError, Scope};
use crate::live::agent::{self, Agent};
use crate::preflight;

/// What the agent is asked for: connections are not, as they name clients.
const SHOWN: [&str; 3] = ["facts", "services", "settings"];

/// Arguments of `bundle`.
#[derive(Clone, Debug, Args)]
pub struct BundleArguments {
    /// The archive to be written. Default: lvs-bundle-TIME.tar.gz in the current folder.
    #[arg(long)]
    pub archive: Option<PathBuf>,
    /// Namespace of the operator. Default: where it is found, else lvs-system.
    #[arg(long)]
    pub operator_namespace: Option<String>,
    /// Lines of each log, from its end.
    #[arg(long, default_value_t = 10_000)]
    pub log_lines: u32,
}

/// What was read, by the path it has in the archive.
#[derive(Debug, Default)]
pub struct Bundle {
    objects: BTreeMap<String, Vec<Value>>,
    texts: BTreeMap<String, String>,
    missing: BTreeMap<String, String>,
}

impl Bundle {
    /// Takes objects, or why there are none.
    pub fn put_objects(&mut self, path: &str, objects: Result<Vec<Value>, String>) {
        match objects {
            Ok(objects) => {
                self.objects.insert(path.to_owned(), objects);
            }
            Err(error) => self.miss(path, error),
        }
    }

    /// Takes a text, or why there is none.
    pub fn put_text(&mut self, path: &str, text: Result<String, String>) {
        match text {
            Ok(text) => {
                self.texts.insert(path.to_owned(), text);
            }
            Err(error) => self.miss(path, error),
        }
    }

    fn miss(&mut self, path: &str, error: String) {
        self.missing.insert(path.to_owned(), error);
    }

    /// Files of the archive, masked, the index among them.
    ///
    /// # Errors
    /// When objects cannot be written as YAML.
    pub fn files(mut self, taken: &str) -> Result<BTreeMap<String, String>, String> {
        let mut mask = Mask::default();
        let mut index = format!(
            "What kubectl lvs bundle {} read at {taken}. Secrets were not asked for; what looks like a credential is {MASKED}.\n\nread:\n",
            env!("CARGO_PKG_VERSION")
        );
        let mut files = BTreeMap::new();
        for (path, objects) in &mut self.objects {
            for object in objects.iter_mut() {
                mask.object(object);
            }
            // Writing to a String does not fail.
            let _ = writeln!(index, "  {path}: {} objects", objects.len());
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            let text =
                serde_saphyr::to_string(&list).map_err(|error| format!("write {path}: {error}"))?;
            files.insert(path.clone(), text);
        }
        for (path, text) in &self.texts {
            let _ = writeln!(index, "  {path}: {} lines", text.lines().count());
            files.insert(path.clone(), mask.text(text));
        }
        index.push_str("\nnot read:\n");
        for (path, error) in &self.missing {
            let error = mask.text(error).replace('\n', "\n    ");
            let _ = writeln!(index, "  {path}: {error}");
        }
        if self.missing.is_empty() {
            index.push_str("  nothing\n");
        }
        files.insert("index.txt".to_owned(), index);
        // What was masked in one place may stand in another.
        for text in files.values_mut() {
            *text = mask.scrub(text);
        }
        Ok(files)
    }
}

/// The archive: a folder of this name with the files.
///
/// # Errors
/// When it cannot be written.
pub fn archive(
    folder: &str,
    files: &BTreeMap<String, String>,
    seconds: u64,
    out: impl Write,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("{folder}/{path}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}

/// Tells of a step.
fn step(words: &str) {
    // Nobody is there to be told that it could not be told.
    let _ = writeln!(io::stderr(), "{words}");
}

/// Reads a cluster, and tells of each step.
struct Reader<'a> {
    kubectl: &'a Kubectl,
    bundle: Bundle,
}

impl Reader<'_> {
    fn list(&mut self, path: &str, resource: &str, scope: Scope<'_>, selection: &[&str]) {
        let objects = self.kubectl.list_selected(resource, scope, selection);
        self.put(path, objects);
    }

    fn put(&mut self, path: &str, objects: Result<Vec<Value>, KubectlError>) {
        let path = format!("objects/{path}.yaml");
        self.bundle
            .put_objects(&path, objects.map_err(|error| error.to_string()));
    }

    fn text(&self, arguments: &[&str]) -> Result<String, String> {
        let answer = self.kubectl.run(arguments, &[]);
        let answer = answer.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn objects(&mut self, namespace: &str) {
        step("objects of lvs.dev");
        for kind in [
            "virtualservices",
            "realservers",
            "virtualrouters",
            "nodeplans",
        ] {
            self.list(kind, &format!("{kind}.lvs.dev"), Scope::Cluster, &[]);
        }
        let operator = Scope::Namespace(namespace);
        step(&format!("namespace {namespace}: Leases, workloads"));
        self.list("leases", "leases.coordination.k8s.io", operator, &[]);
        for kind in ["deployments", "daemonsets", "jobs"] {
            let group = if kind == "jobs" { "batch" } else { "apps" };
            self.list(
                kind,
                &format!("{kind}.{group}"),
                operator,
                &[chart::EVERYTHING],
            );
        }
        step("Events");
        let events = self.kubectl.list("events", Scope::Cluster);
        let events = events.map(|events| {
            let events = events.into_iter();
            events
                .filter(|event| is_of_ours(event, namespace))
                .collect()
        });
        self.put("events", events);
        step("nodes and namespaces");
        for kind in ["nodes", "namespaces"] {
            let objects = self.kubectl.list(kind, Scope::Cluster);
            let objects = objects.map(|objects| objects.iter().map(trimmed).collect());
            self.put(kind, objects);
        }
        let definitions = self.kubectl.list(
            "customresourcedefinitions.apiextensions.k8s.io",
            Scope::Cluster,
        );
        let definitions = definitions.map(|all| all.iter().filter_map(definition).collect());
        self.put("customresourcedefinitions", definitions);
    }

    fn pods(&mut self, namespace: &str, log_lines: u32) {
        let pods =
            self.kubectl
                .list_selected("pods", Scope::Namespace(namespace), &[chart::EVERYTHING]);
        let known = pods.as_ref().map(Clone::clone).unwrap_or_default();
        self.put("pods", pods);
        for (number, pod) in known.iter().enumerate() {
            let Some(name) = pod["metadata"]["name"].as_str() else {
                continue;
            };
            step(&format!("pod {} of {}: {name}", number + 1, known.len()));
            let tail = format!("--tail={log_lines}");
            let log = [
                "logs",
                name,
                "--namespace",
                namespace,
                "--all-containers",
                &tail,
            ];
            let text = self.text(&log);
            self.bundle.put_text(&format!("logs/{name}.log"), text);
            let statuses = pod["status"]["containerStatuses"].as_array();
            let has_restarted = statuses
                .into_iter()
                .flatten()
                .any(|status| status["restartCount"].as_u64() > Some(0));
            if has_restarted {
                let mut log = log.to_vec();
                log.push("--previous");
                let text = self.text(&log);
                self.bundle
                    .put_text(&format!("logs/{name}.previous.log"), text);
            }
        }
        let is_agent =
            |pod: &&Value| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "agent";
        let agents = known.iter().filter(is_agent).filter_map(Agent::of_pod);
        self.agents(&agents.collect::<Vec<_>>());
    }

    fn agents(&mut self, agents: &[Agent]) {
        for what in SHOWN {
            step(&format!("{what} of {} nodes", agents.len()));
            let command = ["show", what, "--output", "json"];
            for (node, answer) in agent::ask_each::<Value>(self.kubectl, agents, &command) {
                let answer = answer.map(|answer| format!("{answer:#}"));
                self.bundle
                    .put_text(&format!("nodes/{node}/{what}.json"), answer);
            }
        }
    }
}

/// Whether an Event is of an object of ours.
fn is_of_ours(event: &Value, namespace: &str) -> bool {
    let object = &event["involvedObject"];
    let version = object["apiVersion"].as_str().unwrap_or_default();
    version.starts_with("lvs.dev/")
        || event["metadata"]["namespace"] == namespace
        || object["kind"] == "Node"
}

/// A node or namespace with what matters of it.
fn trimmed(object: &Value) -> Value {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    json!({
        "apiVersion": "v1",
        "kind": object["kind"],
        "metadata": {"name": metadata["name"], "uid": metadata["uid"], "labels": metadata["labels"],
                     "annotations": metadata["annotations"], "creationTimestamp": metadata["creationTimestamp"]},
        "spec": {"taints": object["spec"]["taints"], "unschedulable": object["spec"]["unschedulable"]},
        "status": {"addresses": status["addresses"], "conditions": status["conditions"], "nodeInfo": status["nodeInfo"],
                   "phase": status["phase"]},
    })
}

/// Name, versions and conditions of a CustomResourceDefinition of ours.
fn definition(object: &Value) -> Option<Value> {
    let versions = object["spec"]["versions"].as_array().into_iter().flatten();
    let versions: Vec<&Value> = versions.map(|version| &version["name"]).collect();
    (object["spec"]["group"] == "lvs.dev").then(|| {
        json!({
            "kind": object["kind"],
            "metadata": {"name": object["metadata"]["name"], "generation": object["metadata"]["generation"],
                         "annotations": object["metadata"]["annotations"]},
            "spec": {"versions": versions},
            "status": {"conditions": object["status"]["conditions"], "storedVersions": object["status"]["storedVersions"]},
        })
    })
}

/// Does it. 0: the archive is written, whatever could not be read; 1: it is not.
pub fn run(kubectl: &Kubectl, arguments: &BundleArguments) -> ExitCode {
    match write(kubectl, arguments) {
        Ok(path) => {
            // Nobody is there to be told that it could not be told.
            let _ = writeln!(io::stdout(), "{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "kubectl lvs bundle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(kubectl: &Kubectl, arguments: &BundleArguments) -> Result<PathBuf, String> {
    let now = Timestamp::now();
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let folder = format!("lvs-bundle-{stamp}");
    let path = arguments
        .archive
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    // Before anything is read: who waits for minutes wants to find it.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| format!("make {}: {error}", path.display()))?;
    let mut reader = Reader {
        kubectl,
        bundle: Bundle::default(),
    };
    step("what kubectl lvs check says");
    let seen = preflight::look(kubectl, arguments.operator_namespace.as_deref());
    let namespace = seen.operator_namespace.clone();
    let findings = preflight::text(&preflight::judge(&seen), true);
    reader.bundle.put_text("check.txt", Ok(findings));
    let version = reader.text(&["version", "--output=json"]);
    reader.bundle.put_text("version.json", version);
    reader.objects(&namespace);
    reader.pods(&namespace, arguments.log_lines);
    let missing = reader.bundle.missing.len();
    if missing > 0 {
        step(&format!(
            "{missing} parts could not be read: index.txt says why"
        ));
    }
    let files = reader.bundle.files(&now.to_string())?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    archive(&folder, &files, seconds, io::BufWriter::new(file))
        .map_err(|error| format!("write {}: {error}", path.display()))?;
    Ok(path)
}
