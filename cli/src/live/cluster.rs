//! Objects of the API, read by kubectl.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lvs_crds::{NodePlan, RealServer, VirtualRouter, VirtualService};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::agent::{self, Agent};
use crate::kubectl::{Kubectl, KubectlError, Scope};

/// Objects of the cluster, each kind as far as it could be read.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// VirtualRouters, sorted by name.
    pub routers: Vec<VirtualRouter>,
    /// VirtualServices, sorted by namespace and name.
    pub services: Vec<VirtualService>,
    /// RealServers, sorted by namespace and name.
    pub real_servers: Vec<RealServer>,
    /// NodePlans, sorted by name.
    pub plans: Vec<NodePlan>,
    /// Agents, sorted by node.
    pub agents: Vec<Agent>,
    /// What could not be read, a line each.
    pub missing: Vec<String>,
}

impl Cluster {
    /// Reads all kinds at once. `namespace` restricts VirtualServices and RealServers; unset = all.
    ///
    /// # Errors
    /// When none of the kinds can be read.
    pub fn read(
        kubectl: &Kubectl,
        operator_namespace: &str,
        namespace: Option<&str>,
    ) -> anyhow::Result<Self> {
        let users = namespace.map_or(Scope::Cluster, Scope::Namespace);
        let operator = Scope::Namespace(operator_namespace);
        let (routers, services, real_servers, plans, agents) = std::thread::scope(|scope| {
            let routers = scope.spawn(|| kubectl.list("virtualrouters.lvs.dev", Scope::Default));
            let services = scope.spawn(|| kubectl.list("virtualservices.lvs.dev", users));
            let real_servers = scope.spawn(|| kubectl.list("realservers.lvs.dev", users));
            let plans = scope.spawn(|| kubectl.list("nodeplans.lvs.dev", operator));
            let agents = agent::list(kubectl, operator_namespace);
            (
                routers.join(),
                services.join(),
                real_servers.join(),
                plans.join(),
                agents,
            )
        });
        let mut reader = Reader::default();
        let mut cluster = Self {
            routers: reader.take("VirtualRouters", joined(routers)?),
            services: reader.take("VirtualServices", joined(services)?),
            real_servers: reader.take("RealServers", joined(real_servers)?),
            plans: reader.take("NodePlans", joined(plans)?),
            agents: reader.note("agents' pods", agents),
            missing: Vec::new(),
        };
        if reader.failures == 5 {
            anyhow::bail!("{}", reader.missing.join("\n"));
        }
        cluster.missing = reader.missing;
        let name = |meta: &ObjectMeta| (meta.namespace.clone(), meta.name.clone());
        cluster.routers.sort_by_key(|object| name(&object.metadata));
        cluster
            .services
            .sort_by_key(|object| name(&object.metadata));
        cluster
            .real_servers
            .sort_by_key(|object| name(&object.metadata));
        cluster.plans.sort_by_key(|object| name(&object.metadata));
        Ok(cluster)
    }
}

fn joined<T>(result: std::thread::Result<T>) -> anyhow::Result<T> {
    result.map_err(|_| anyhow::anyhow!("a thread that asked kubectl has ended"))
}

#[derive(Default)]
struct Reader {
    missing: Vec<String>,
    failures: usize,
}

impl Reader {
    fn note<T>(&mut self, what: &str, result: Result<Vec<T>, KubectlError>) -> Vec<T> {
        result.unwrap_or_else(|error| {
            self.failures += 1;
            self.missing.push(format!("{what} were not read: {error}"));
            Vec::new()
        })
    }

    fn take<T: DeserializeOwned>(
        &mut self,
        what: &str,
        result: Result<Vec<Value>, KubectlError>,
    ) -> Vec<T> {
        let objects = self.note(what, result).into_iter();
        objects
            .filter_map(|object| {
                decoded(object)
                    .map_err(|error| self.missing.push(error))
                    .ok()
            })
            .collect()
    }
}

/// An object of one of our kinds.
///
/// # Errors
/// When this version cannot read it; in words, with its name.
pub fn decoded<T: DeserializeOwned>(object: Value) -> Result<T, String> {
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let kind = text("/kind");
    let name = match text("/metadata/namespace") {
        namespace if namespace.is_empty() => text("/metadata/name"),
        namespace => format!("{namespace}/{}", text("/metadata/name")),
    };
    serde_json::from_value(object).map_err(|error| {
        format!("{kind} {name} cannot be read by this version of kubectl lvs: {error}")
    })
}

/// One object by name.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn get<T: DeserializeOwned>(
    kubectl: &Kubectl,
    resource: &str,
    scope: Scope<'_>,
    name: &str,
) -> anyhow::Result<T> {
    let mut arguments = vec!["get", resource, name, "--output=json"];
    if let Scope::Namespace(namespace) = scope {
        arguments.extend(["--namespace", namespace]);
    }
    let text = kubectl.run(&arguments, &[])?;
    let object: Value = serde_json::from_slice(&text)?;
    decoded(object).map_err(anyhow::Error::msg)
}
