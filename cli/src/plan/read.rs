//! Reads a cluster by kubectl, and puts the objects of files over it. Nothing here writes: objects go to the API server as
//! dry runs only.

use std::io::Read as _;

use lvs_plan::ca_bundle::{CA_BUNDLE_LABEL, CA_BUNDLE_LABEL_VALUE};
use lvs_plan::endpoint::SERVICE_NAME_LABEL;
use serde_json::Value;

use super::cluster::{Cluster, Kind, key};
use super::difference::{Fate, ObjectChange};
use crate::chart;
use crate::kubectl::{Kubectl, KubectlError, Scope};

/// Labels of the agents' pods.
const AGENT_SELECTOR: &str = "--selector=app.kubernetes.io/component=agent";
/// What kubectl says of a kind that the API server does not have.
const NO_SUCH_KIND: &str = "doesn't have a resource type";

/// The whole cluster, as far as planning looks at it, and what could not be read of it but need not be.
///
/// # Errors
/// When something cannot be read without which nothing can be said.
pub fn cluster(kubectl: &Kubectl) -> Result<(Cluster, Vec<String>), String> {
    let words = |error: KubectlError| error.to_string();
    let mut cluster = Cluster::default();
    let mut notes = Vec::new();
    let deployments = kubectl
        .list_selected("deployments.apps", Scope::Cluster, &[chart::EVERYTHING])
        .map_err(words)?;
    match deployments.as_slice() {
        [] => notes.push(format!(
            "no Deployment of the operator's controller was found: its namespace is taken to be {}",
            cluster.operator_namespace
        )),
        [deployment, ..] => cluster.learn_settings(deployment)?,
    }
    let operator_namespace = cluster.operator_namespace.clone();
    let operator = Scope::Namespace(&operator_namespace);
    let own = "virtualservices.lvs.dev,realservers.lvs.dev,virtualrouters.lvs.dev";
    let slices = format!("--selector={SERVICE_NAME_LABEL}");
    let bundles = format!("--selector={CA_BUNDLE_LABEL}={CA_BUNDLE_LABEL_VALUE}");
    for (resources, scope, selection) in [
        (own, Scope::Cluster, None),
        ("nodeplans.lvs.dev", operator, None),
        ("nodes", Scope::Cluster, None),
        ("namespaces", Scope::Cluster, None),
        (
            "endpointslices.discovery.k8s.io",
            Scope::Cluster,
            Some(slices.as_str()),
        ),
        ("configmaps", Scope::Cluster, Some(bundles.as_str())),
        ("leases.coordination.k8s.io", operator, None),
        ("pods", operator, Some(AGENT_SELECTOR)),
    ] {
        let selection: Vec<&str> = selection.into_iter().collect();
        let objects = kubectl.list_selected(resources, scope, &selection);
        for object in objects.map_err(words)? {
            cluster.put(object);
        }
    }
    match kubectl.list("servicecidrs.networking.k8s.io", Scope::Cluster) {
        Ok(ranges) => ranges.into_iter().for_each(|range| {
            cluster.put(range);
        }),
        Err(KubectlError::Refused { message, .. }) if message.contains(NO_SUCH_KIND) => {
            notes.push(
                "the API server has no ServiceCIDR: addresses of Services cannot be refused"
                    .to_owned(),
            );
        }
        Err(error) => return Err(error.to_string()),
    }
    Ok((cluster, notes))
}

/// Files for kubectl, and what is in standard input if that is one of them.
pub struct Files<'a> {
    flags: Vec<String>,
    namespace: Option<&'a str>,
    input: Vec<u8>,
}

impl<'a> Files<'a> {
    /// Takes files, folders and addresses as kubectl does.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub fn new(filenames: &[String], namespace: Option<&'a str>) -> Result<Self, String> {
        let mut input = Vec::new();
        if filenames.iter().any(|name| name == "-") {
            let read = std::io::stdin().read_to_end(&mut input);
            read.map_err(|error| format!("read standard input: {error}"))?;
        }
        let names = filenames.iter();
        Ok(Self {
            flags: names.map(|name| format!("--filename={name}")).collect(),
            namespace,
            input,
        })
    }

    fn run(&self, kubectl: &Kubectl, command: &[&str]) -> Result<Vec<Value>, String> {
        let mut arguments = command.to_vec();
        arguments.extend(self.flags.iter().map(String::as_str));
        if let Some(namespace) = self.namespace {
            arguments.extend(["--namespace", namespace]);
        }
        let answer = kubectl
            .run(&arguments, &self.input)
            .map_err(|error| error.to_string())?;
        if answer.iter().all(u8::is_ascii_whitespace) {
            return Ok(Vec::new());
        }
        let mut answer: Value = serde_json::from_slice(&answer)
            .map_err(|error| format!("kubectl {} answered: {error}", arguments.join(" ")))?;
        let is_list = answer["kind"] == "List";
        let items = answer.get_mut("items").and_then(Value::as_array_mut);
        Ok(match items.filter(|_| is_list) {
            Some(items) => std::mem::take(items),
            None => vec![answer],
        })
    }

    /// The objects as the API server would store them: it judges them by schema, rules and admission, and stores nothing.
    ///
    /// # Errors
    /// What the API server has against them, in its words.
    pub fn apply(&self, kubectl: &Kubectl) -> Result<Vec<Value>, String> {
        self.run(kubectl, &["apply", "--dry-run=server", "--output=json"])
    }

    /// Those of the objects that are there.
    ///
    /// # Errors
    /// What the API server has against taking them away, in its words.
    pub fn delete(&self, kubectl: &Kubectl) -> Result<Vec<Value>, String> {
        let there = self.run(kubectl, &["get", "--ignore-not-found", "--output=json"])?;
        if !there.is_empty() {
            let mut arguments = vec!["delete", "--dry-run=server", "--ignore-not-found"];
            arguments.extend(self.flags.iter().map(String::as_str));
            if let Some(namespace) = self.namespace {
                arguments.extend(["--namespace", namespace]);
            }
            let judged = kubectl.run(&arguments, &self.input);
            judged.map_err(|error| error.to_string())?;
        }
        Ok(there)
    }
}

/// Puts objects over a cluster, and says what becomes of each.
pub fn apply(cluster: &mut Cluster, objects: Vec<Value>) -> Vec<ObjectChange> {
    let mut changes = Vec::new();
    for object in objects {
        let kind = looked_at(cluster, &object);
        let fate = match kind.map(|kind| cluster.get(kind, &key(&object))) {
            None => Fate::NotLookedAt,
            Some(None) => Fate::Created,
            Some(Some(known)) if content(known) == content(&object) => Fate::Unchanged,
            Some(Some(_)) => Fate::Changed,
        };
        changes.push(change(&object, fate));
        if fate.is_change() {
            cluster.put(object);
        }
    }
    changes
}

/// Takes objects out of a cluster, and says what becomes of each.
pub fn delete(cluster: &mut Cluster, objects: &[Value]) -> Vec<ObjectChange> {
    let changes = objects.iter().map(|object| {
        let fate = if looked_at(cluster, object).is_none() {
            Fate::NotLookedAt
        } else if cluster.remove(object).is_some() {
            Fate::Deleted
        } else {
            Fate::Absent
        };
        change(object, fate)
    });
    changes.collect()
}

/// The kind of an object of a file, where planning looks at it.
fn looked_at(cluster: &Cluster, object: &Value) -> Option<Kind> {
    let kind = Kind::of(object).filter(|kind| kind.is_of_users())?;
    let labels = &object["metadata"]["labels"];
    let counts = match kind {
        Kind::ConfigMap => {
            let known = cluster.get(kind, &key(object));
            known.is_some() || labels[CA_BUNDLE_LABEL] == CA_BUNDLE_LABEL_VALUE
        }
        Kind::EndpointSlice => labels[SERVICE_NAME_LABEL].is_string(),
        _ => true,
    };
    counts.then_some(kind)
}

fn change(object: &Value, change: Fate) -> ObjectChange {
    let key = key(object);
    ObjectChange {
        kind: object["kind"].as_str().unwrap_or_default().to_owned(),
        namespace: key.namespace,
        name: key.name,
        change,
    }
}

/// An object without what the API server keeps about it for itself and others.
fn content(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "generation", "resourceVersion"] {
            metadata.remove(field);
        }
        let annotations = metadata.get_mut("annotations");
        if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}
