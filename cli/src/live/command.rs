//! The commands: read, join, write.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lvs_core::shown::connection::ShownConnections;
use lvs_core::shown::{ShownServices, ShownSettings, ShownZero};
use lvs_crds::{HAND_OVER_ANNOTATION, RealServer, VirtualRouter, VirtualService};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::agent::{self, Agent, Answers, NotAsked};
use super::arguments::{
    ConnectionsArguments, Display, DrainArguments, ExplainArguments, Filter, GetArguments,
    HandOverArguments, Nodes, ServicesArguments, SettingsArguments, Waiting, Wanted, ZeroArguments,
};
use super::cluster::{self, Cluster};
use super::explain::Explanation;
use super::kernel::{self, Columns, OfNode, OfNodes};
use super::moves::{self, Progress};
use super::picture::Picture;
use super::screen::{self, Answer};
use super::table::Paint;
use super::{Outcome, arguments};
use crate::kubectl::{Kubectl, Scope};

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks that ask agents.
const LOOK_AT_KERNELS: Duration = Duration::from_secs(2);

const ROUTERS: &str = "virtualrouters.lvs.dev";
const SERVICES: &str = "virtualservices.lvs.dev";
const REAL_SERVERS: &str = "realservers.lvs.dev";

fn wanted(filter: &Filter) -> anyhow::Result<Wanted> {
    filter.wanted().map_err(anyhow::Error::msg)
}

/// `get`.
///
/// # Errors
/// When nothing can be read, or what is asked for is not there.
pub fn get(kubectl: &Kubectl, arguments: &GetArguments) -> anyhow::Result<Outcome> {
    let wanted = wanted(&arguments.filter)?;
    screen::show(&arguments.display, |paint| {
        let cluster = Cluster::read(
            kubectl,
            &arguments.operator.operator_namespace,
            wanted.namespace.as_deref(),
        )?;
        let picture = Picture::new(&cluster, &wanted, &arguments.nodes);
        if let Some(name) = wanted.text() {
            ensure!(
                !picture.virtual_services.is_empty() || !cluster.missing.is_empty(),
                "there is no VirtualService {name}"
            );
        }
        Answer::new(&picture, picture.text(paint), picture.missing.clone())
    })
}

/// Agents of the nodes that are meant, and routers where they can be read.
struct Asked {
    agents: Vec<Agent>,
    without: Vec<NotAsked>,
    routers: Option<Vec<VirtualRouter>>,
}

fn asked(kubectl: &Kubectl, nodes: &Nodes) -> anyhow::Result<Asked> {
    let namespace = &nodes.operator.operator_namespace;
    let (agents, routers) = std::thread::scope(|scope| {
        let routers = scope.spawn(|| kubectl.list(ROUTERS, Scope::Default));
        (agent::list(kubectl, namespace), routers.join())
    });
    let agents = agents?;
    ensure!(
        !agents.is_empty(),
        "no agent's pod is in namespace {namespace}: name the operator's by --operator-namespace"
    );
    let (agents, without) = agent::chosen(agents, &nodes.nodes);
    // They only say who is master.
    let routers = routers.ok().and_then(Result::ok).map(|objects| {
        let objects = objects.into_iter();
        objects
            .filter_map(|object| cluster::decoded(object).ok())
            .collect()
    });
    Ok(Asked {
        agents,
        without,
        routers,
    })
}

fn answers<T: DeserializeOwned + Send>(
    kubectl: &Kubectl,
    asked: &Asked,
    command: &[&str],
) -> anyhow::Result<Answers<T>> {
    let mut answers = agent::ask(kubectl, &asked.agents, command);
    answers.not_asked.extend(asked.without.iter().cloned());
    if answers.answers.is_empty() {
        let reasons = answers.not_asked.iter().map(NotAsked::text);
        bail!("{}", reasons.collect::<Vec<_>>().join("\n"));
    }
    Ok(answers)
}

/// Asks agents, and shows what they say.
fn of_nodes<T: DeserializeOwned + Serialize + Send>(
    kubectl: &Kubectl,
    nodes: &Nodes,
    display: &Display,
    command: &[&str],
    problems: impl Fn(&T) -> &[String],
    mut text: impl FnMut(&mut OfNodes<T>, Paint) -> anyhow::Result<String>,
) -> anyhow::Result<Outcome> {
    screen::show(display, |paint| {
        let asked = asked(kubectl, nodes)?;
        let answers = answers(kubectl, &asked, command)?;
        let mut view = OfNodes::new(answers, asked.routers.as_deref());
        let text = text(&mut view, paint)?;
        let missing = view.missing(&problems);
        Answer::new(&view, text, missing)
    })
}

/// `services`, `stats` and `rates`.
///
/// # Errors
/// When no agent can be asked, or nobody has what is asked for.
pub fn services(
    kubectl: &Kubectl,
    arguments: &ServicesArguments,
    columns: Columns,
) -> anyhow::Result<Outcome> {
    let wanted = wanted(&arguments.filter)?;
    let flag = virtual_service_flag(&wanted);
    let mut command = vec!["show", "services", "--output=json"];
    command.extend(flag.as_deref());
    of_nodes(
        kubectl,
        &arguments.nodes,
        &arguments.display,
        &command,
        |answer: &ShownServices| &answer.problems,
        |view, paint| {
            for node in &mut view.nodes {
                kernel::choose(&mut node.answer, &wanted);
            }
            if let Some(name) = wanted.text() {
                let is_somewhere = view
                    .nodes
                    .iter()
                    .any(|node| !node.answer.services.is_empty());
                ensure!(
                    is_somewhere,
                    "no kernel that was asked has a service of VirtualService {name}"
                );
            }
            Ok(kernel::services(view, columns, paint))
        },
    )
}

fn virtual_service_flag(wanted: &Wanted) -> Option<String> {
    wanted
        .text()
        .map(|name| format!("--virtual-service={name}"))
}

/// `connections`.
///
/// # Errors
/// When no agent can be asked.
pub fn connections(kubectl: &Kubectl, arguments: &ConnectionsArguments) -> anyhow::Result<Outcome> {
    let wanted = wanted(&arguments.filter)?;
    ensure!(
        wanted.namespace.is_none() || wanted.name.is_some(),
        "connections are chosen by VirtualService: name one, as NAMESPACE/NAME"
    );
    let flag = virtual_service_flag(&wanted);
    let limit = format!("--limit={}", arguments.limit);
    let mut command = vec!["show", "connections", "--output=json", &limit];
    command.extend(flag.as_deref());
    of_nodes(
        kubectl,
        &arguments.nodes,
        &arguments.display,
        &command,
        |answer: &ShownConnections| &answer.problems,
        |view, paint| Ok(kernel::connections(view, paint)),
    )
}

/// `timeouts` and `daemon`.
///
/// # Errors
/// When no agent can be asked.
pub fn settings(
    kubectl: &Kubectl,
    arguments: &SettingsArguments,
    text: fn(&OfNodes<ShownSettings>, Paint) -> String,
) -> anyhow::Result<Outcome> {
    of_nodes(
        kubectl,
        &arguments.nodes,
        &arguments.display,
        &["show", "settings", "--output=json"],
        |answer: &ShownSettings| &answer.problems,
        |view, paint| Ok(text(view, paint)),
    )
}

/// `zero`.
///
/// # Errors
/// When no agent can be asked.
pub fn zero(kubectl: &Kubectl, arguments: &ZeroArguments) -> anyhow::Result<Outcome> {
    let filter = Filter {
        name: arguments.name.clone(),
        namespace: arguments.namespace.clone(),
    };
    let flag = virtual_service_flag(&wanted(&filter)?);
    let mut command = vec!["zero"];
    command.extend(flag.as_deref());
    if arguments.all {
        command.push("--all");
    }
    let display = Display {
        output: arguments.output,
        watch: false,
        interval: 1,
    };
    of_nodes(
        kubectl,
        &arguments.nodes,
        &display,
        &command,
        |answer: &ShownZero| &answer.problems,
        |view, _| {
            let is_somewhere = |node: &OfNode<ShownZero>| {
                node.answer.all
                    || !node.answer.zeroed.is_empty()
                    || !node.answer.problems.is_empty()
            };
            if let Some(name) = &arguments.name {
                ensure!(
                    view.nodes.iter().any(is_somewhere),
                    "no kernel that was asked has a service of VirtualService {name}"
                );
            }
            Ok(kernel::zeroed(view))
        },
    )
}

/// `explain`.
///
/// # Errors
/// When the VirtualService cannot be read.
pub fn explain(kubectl: &Kubectl, arguments: &ExplainArguments) -> anyhow::Result<Outcome> {
    let name = service_name(&arguments.object)?;
    let scope = arguments
        .namespace
        .as_deref()
        .map_or(Scope::Default, Scope::Namespace);
    screen::show(&arguments.display, |paint| {
        let service: VirtualService = cluster::get(kubectl, SERVICES, scope, name)?;
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let operator = &arguments.nodes.operator.operator_namespace;
        let cluster = Cluster::read(kubectl, operator, Some(&namespace))?;
        let directors: Vec<&str> = cluster
            .plans
            .iter()
            .filter(|plan| {
                let source = &plan.spec.source;
                plan.spec.director.is_some()
                    && (source.namespace.as_str(), source.name.as_str()) == (&namespace, name)
            })
            .map(|plan| plan.spec.node_name.as_str())
            .collect();
        let (agents, without) = agent::chosen(cluster.agents.clone(), &arguments.nodes.nodes);
        let agents: Vec<Agent> = agents
            .into_iter()
            .filter(|agent| directors.contains(&agent.node.as_str()))
            .collect();
        // All of it: somebody else's service may stand in the way.
        let mut kernels: Answers<ShownServices> =
            agent::ask(kubectl, &agents, &["show", "services", "--output=json"]);
        kernels.not_asked.extend(without);
        let explanation = Explanation::new(&service, &cluster, &kernels);
        let missing = explanation.missing.clone();
        Answer::new(&explanation, explanation.text(paint), missing)
    })
}

fn service_name(object: &str) -> anyhow::Result<&str> {
    match object.split_once('/') {
        None => Ok(object),
        Some((
            "virtualservice" | "virtualservices" | "virtualservices.lvs.dev" | "vs" | "lvsvs",
            name,
        )) => Ok(name),
        Some((kind, _)) => bail!(
            "{kind} is not explained, a VirtualService is: virtualservice/NAME, or vs/NAME; its namespace by --namespace"
        ),
    }
}

/// `hand-over`.
///
/// # Errors
/// When nobody can take over, the router cannot be written, or it takes too long.
pub fn hand_over(kubectl: &Kubectl, arguments: &HandOverArguments) -> anyhow::Result<Outcome> {
    let name = &arguments.router;
    let read = || cluster::get::<VirtualRouter>(kubectl, ROUTERS, Scope::Default, name);
    let router = read()?;
    let successor =
        moves::successor(&router, arguments.to.as_deref()).map_err(anyhow::Error::msg)?;
    let node = &successor.node;
    if let Progress::Done(text) = moves::handed_over(&router, node) {
        screen::tell(&text);
        return Ok(Outcome::Complete);
    }
    if let Some(warning) = &successor.warning {
        screen::tell(warning);
    }
    if successor.asks_anew {
        kubectl.run(
            &[
                "annotate",
                ROUTERS,
                name,
                &format!("{HAND_OVER_ANNOTATION}-"),
            ],
            &[],
        )?;
        // The same word counts again once the controller has seen it gone.
        let waiting = Waiting {
            wait: true,
            timeout: arguments.waiting.timeout,
        };
        wait(&waiting, LOOK, || {
            let router = read()?;
            let seen = router.status.and_then(|status| status.handed_over_to);
            Ok(match seen {
                None => Progress::Done("annotation removed".to_owned()),
                Some(node) => Progress::Under(format!(
                    "the earlier annotation, which names {node}, is removed; waiting for the controller to see it"
                )),
            })
        })?;
    }
    kubectl.run(
        &[
            "annotate",
            ROUTERS,
            name,
            &format!("{HAND_OVER_ANNOTATION}={node}"),
            "--overwrite",
        ],
        &[],
    )?;
    wait(&arguments.waiting, LOOK, || {
        Ok(moves::handed_over(&read()?, node))
    })
}

/// `drain`.
///
/// # Errors
/// When the RealServer cannot be written, or it takes too long.
pub fn drain(kubectl: &Kubectl, arguments: &DrainArguments) -> anyhow::Result<Outcome> {
    let filter = Filter {
        name: Some(arguments.real_server.clone()),
        namespace: arguments.namespace.clone(),
    };
    let wanted = wanted(&filter)?;
    let name = wanted.name.as_deref().unwrap_or_default();
    let patch = moves::administrative_patch(arguments.undo);
    let mut command = vec![
        "patch",
        REAL_SERVERS,
        name,
        "--type=merge",
        "--patch",
        &patch,
    ];
    let scope = match &wanted.namespace {
        Some(namespace) => {
            command.extend(["--namespace", namespace]);
            Scope::Namespace(namespace)
        }
        None => Scope::Default,
    };
    kubectl.run(&command, &[])?;
    let read = || cluster::get::<RealServer>(kubectl, REAL_SERVERS, scope, name);
    if arguments.undo {
        return wait(&arguments.waiting, LOOK, || Ok(moves::restored(&read()?)));
    }
    let operator = &arguments.operator.operator_namespace;
    wait(&arguments.waiting, LOOK_AT_KERNELS, || {
        let real_server = read()?;
        // Who may not ask agents waits by the status alone.
        let agents = agent::list(kubectl, operator).unwrap_or_default();
        let kernels = agent::ask(kubectl, &agents, &["show", "services", "--output=json"]);
        Ok(moves::drained(&real_server, &kernels))
    })
}

/// Looks until it is done, and tells of each change.
fn wait(
    waiting: &arguments::Waiting,
    pause: Duration,
    mut look: impl FnMut() -> anyhow::Result<Progress>,
) -> anyhow::Result<Outcome> {
    if !waiting.wait {
        return Ok(Outcome::Complete);
    }
    let end = Instant::now()
        .checked_add(Duration::from_secs(waiting.timeout))
        .context("--timeout is too long")?;
    let mut told = String::new();
    loop {
        match look()? {
            Progress::Done(text) => {
                screen::tell(&text);
                return Ok(Outcome::Complete);
            }
            Progress::Under(text) => {
                if text != told {
                    screen::tell(&text);
                }
                told = text;
            }
        }
        ensure!(
            Instant::now() < end,
            "not done within {} s, and asked for still: {told}",
            waiting.timeout
        );
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_service_is_named_as_kubectl_names_things() {
        for object in ["web", "vs/web", "virtualservice/web", "lvsvs/web"] {
            assert_eq!(service_name(object).ok(), Some("web"));
        }
        let error = service_name("realserver/web").map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("virtualservice/NAME")));
    }
}
