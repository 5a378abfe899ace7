//! The plugin as users call it, in a lab whose kubelets serve no exec: its kubectl is a script that starts the programs of
//! containers there itself, and is the real one for everything else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::super::plugin;
use crate::cluster::tool;
use crate::guest::quote;
use crate::lab::Lab;

/// `kubectl lvs`.
pub struct Plugin {
    program: PathBuf,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Plugin {
    pub fn new(lab: &Lab) -> Result<Self> {
        let kubectl = lab.state.join("kubectl-with-exec");
        // As a runtime does: in the name spaces of the container, with its root and its environment.
        let script = format!(
            r#"#!/bin/bash
set -euo pipefail
kubectl={real}
flags=()
while [[ "${{1:-}}" == --* ]]; do flags+=("$1") && shift; done
[ "${{1:-}}" = exec ] || exec "$kubectl" "${{flags[@]}}" "$@"
namespace="$3" pod="$4"
shift 7
uid="$("$kubectl" "${{flags[@]}}" get pod --namespace "$namespace" "$pod" --output 'jsonpath={{.metadata.uid}}')"
. {repository}/e2e/cluster/guest.sh
run_in_guest {state} machine '
    read -r pid <"/run/pods/$1/pid"
    shift
    mapfile -d "" environment <"/proc/$pid/environ"
    exec env -i "${{environment[@]}}" /usr/bin/nsenter --target "$pid" --mount --net --root --wd=/ -- "$@"' "$uid" "$@"
"#,
            real = quote(&tool(&lab.repository, "kubectl")?.display().to_string()),
            repository = quote(&lab.repository.display().to_string()),
            state = quote(&lab.state.display().to_string()),
        );
        fs::write(&kubectl, script)?;
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            program: plugin()?,
            kubectl,
            kubeconfig: lab.cluster.kubeconfig(),
        })
    }

    /// What it says of one node.
    pub fn of(&self, node: &str, words: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(words)
            .args(["--node", node])
            .env("KUBECTL", &self.kubectl)
            .env("KUBECONFIG", &self.kubeconfig)
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && errors.is_empty(),
            "kubectl lvs {words:?} of {node}: {}: {errors}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same in JSON: the part of the one node.
    pub fn values(&self, node: &str, words: &[&str]) -> Result<Value> {
        let words = [words, &["--output", "json"]].concat();
        let mut answer: Value = serde_json::from_str(&self.of(node, &words)?)?;
        Ok(answer["nodes"][0].take())
    }
}
