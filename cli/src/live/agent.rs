//! Agents: their pods, and what is asked of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::chart;
use crate::kubectl::{Kubectl, KubectlError, Scope};

/// The container, and the one program in it.
const CONTAINER: &str = "agent";
const PROGRAM: &str = "/lvs-agent";
/// Agents that are asked at a time.
const AT_A_TIME: usize = 8;

/// The pod of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Node on which it is.
    pub node: String,
    /// Name of the pod.
    pub pod: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Phase, such as Running.
    pub phase: String,
    /// Whether every plan of its node is in the kernel.
    pub is_ready: bool,
}

impl Agent {
    /// Reads a pod; one that is on no node yet is nobody's agent.
    pub fn of_pod(pod: &Value) -> Option<Self> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let is_ready = conditions.into_iter().flatten().any(|condition| {
            condition.get("type") == Some(&Value::from("Ready"))
                && condition.get("status") == Some(&Value::from("True"))
        });
        Some(Self {
            node: text("/spec/nodeName")?.to_owned(),
            pod: text("/metadata/name")?.to_owned(),
            namespace: text("/metadata/namespace").unwrap_or_default().to_owned(),
            phase: text("/status/phase").unwrap_or("Unknown").to_owned(),
            is_ready,
        })
    }
}

/// All agents, by node. Of two pods of a node, as during an update, it is the one that runs.
///
/// # Errors
/// As [`Kubectl::list_selected`].
pub fn list(kubectl: &Kubectl, operator_namespace: &str) -> Result<Vec<Agent>, KubectlError> {
    let scope = Scope::Namespace(operator_namespace);
    let pods = kubectl.list_selected("pods", scope, &[chart::AGENTS])?;
    let mut agents: Vec<Agent> = pods.iter().filter_map(Agent::of_pod).collect();
    agents.sort_by(|left, right| {
        let rank = |agent: &Agent| (agent.phase != "Running", !agent.is_ready);
        (&left.node, rank(left), &left.pod).cmp(&(&right.node, rank(right), &right.pod))
    });
    agents.dedup_by(|later, earlier| later.node == earlier.node);
    Ok(agents)
}

/// Agents of these nodes, or of all where none is named; and the nodes that have none.
pub fn chosen(agents: Vec<Agent>, nodes: &[String]) -> (Vec<Agent>, Vec<NotAsked>) {
    if nodes.is_empty() {
        return (agents, Vec::new());
    }
    let without = nodes
        .iter()
        .filter(|node| agents.iter().all(|agent| agent.node != **node))
        .map(|node| NotAsked {
            node: node.clone(),
            reason: "no agent's pod is on it".to_owned(),
        })
        .collect();
    let agents = agents.into_iter();
    let agents = agents.filter(|agent| nodes.contains(&agent.node));
    (agents.collect(), without)
}

/// A node whose agent gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotAsked {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

impl NotAsked {
    /// In a line.
    pub fn text(&self) -> String {
        format!("node {} was not asked: {}", self.node, self.reason)
    }
}

/// What the agents of some nodes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers<T> {
    /// By node, sorted.
    pub answers: Vec<(String, T)>,
    /// Those without one, sorted.
    pub not_asked: Vec<NotAsked>,
}

/// Asks agents, several at a time; those without an answer apart.
pub fn ask<T: DeserializeOwned + Send>(
    kubectl: &Kubectl,
    agents: &[Agent],
    command: &[&str],
) -> Answers<T> {
    let mut answers = Answers {
        answers: Vec::new(),
        not_asked: Vec::new(),
    };
    for (node, result) in ask_each(kubectl, agents, command) {
        match result {
            Ok(answer) => answers.answers.push((node, answer)),
            Err(reason) => answers.not_asked.push(NotAsked { node, reason }),
        }
    }
    answers
}

/// What each agent answers, or why it does not, in words; by node, sorted. Several are asked at a time.
pub fn ask_each<T: DeserializeOwned + Send>(
    kubectl: &Kubectl,
    agents: &[Agent],
    command: &[&str],
) -> Vec<(String, Result<T, String>)> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(agents.len()) {
            scope.spawn(|| {
                while let Some(agent) = agents.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = ask_one(kubectl, agent, command);
                    let mut results = results
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    results.push((agent.node.clone(), result));
                }
            });
        }
    });
    let mut results = results
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by(|(left, _), (right, _)| left.cmp(right));
    results
}

fn ask_one<T: DeserializeOwned>(
    kubectl: &Kubectl,
    agent: &Agent,
    command: &[&str],
) -> Result<T, String> {
    if agent.phase != "Running" {
        return Err(format!("its agent's pod {} is {}", agent.pod, agent.phase));
    }
    let mut words = vec![PROGRAM];
    words.extend(command);
    let text = kubectl
        .execute(&agent.namespace, &agent.pod, CONTAINER, &words)
        .map_err(|error| match error {
            KubectlError::Refused { message, .. } => refusal(&message),
            other => other.to_string(),
        })?;
    serde_json::from_slice(&text)
        .map_err(|error| format!("its agent answers what this version cannot read: {error}"))
}

/// What kubectl says of a program that failed, without what it says of itself.
fn refusal(message: &str) -> String {
    let lines = message
        .lines()
        .filter(|line| !line.starts_with("command terminated with exit code"));
    let lines: Vec<&str> = lines
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines
        .iter()
        .any(|line| line.contains("unrecognized subcommand"))
    {
        return "its agent is of an older version, which cannot show anything".to_owned();
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_told_without_what_kubectl_adds() {
        for (said, told) in [
            (
                "lvs-agent: opening x: denied\ncommand terminated with exit code 1",
                "lvs-agent: opening x: denied",
            ),
            (
                "error: unrecognized subcommand 'show'\n\nUsage: lvs-agent <COMMAND>",
                "its agent is of an older version, which cannot show anything",
            ),
        ] {
            assert_eq!(refusal(said), told);
        }
    }

    #[test]
    fn a_pod_without_a_node_is_no_agent() {
        let pod = |node: Value| json!({"metadata": {"name": "a"}, "spec": {"nodeName": node}});
        assert_eq!(Agent::of_pod(&pod(Value::Null)), None);
        let agent = Agent::of_pod(&pod("node-1".into()));
        assert_eq!(agent.map(|agent| agent.phase), Some("Unknown".to_owned()));
    }
}
