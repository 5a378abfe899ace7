//! Where and how what the chart makes is found.

/// Namespace of the operator where nothing says another one.
pub const DEFAULT_NAMESPACE: &str = "lvs-system";
/// Everything that the chart makes, as a flag of `kubectl get`.
pub const EVERYTHING: &str = "--selector=app.kubernetes.io/name=lvs-operator";
/// Agents' pods.
pub const AGENTS: &str =
    "--selector=app.kubernetes.io/name=lvs-operator,app.kubernetes.io/component=agent";
/// Controllers' pods.
pub const CONTROLLERS: &str =
    "--selector=app.kubernetes.io/name=lvs-operator,app.kubernetes.io/component=controller";
