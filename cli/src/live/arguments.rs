//! Arguments of the commands that ask the cluster.

use clap::{ArgAction, Args, ValueEnum};

/// Where the operator is.
#[derive(Clone, Debug, Args)]
pub struct Operator {
    /// Namespace of the operator: agents' pods and NodePlans are there.
    #[arg(long, default_value = crate::chart::DEFAULT_NAMESPACE)]
    pub operator_namespace: String,
}

/// How an answer looks, and how often it is given.
#[derive(Clone, Debug, Args)]
pub struct Display {
    /// Write the values themselves, not a table.
    #[arg(long, short, value_enum)]
    pub output: Option<Structured>,
    /// Ask again and again, until interrupted.
    #[arg(long, short)]
    pub watch: bool,
    /// Seconds between two questions, 1..3600.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
}

/// Form of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Structured {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Which VirtualService.
#[derive(Clone, Debug, Args)]
pub struct Filter {
    /// Only this VirtualService, [NAMESPACE/]NAME; a name alone is of any namespace.
    pub name: Option<String>,
    /// Only this namespace. Default: all.
    #[arg(long, short)]
    pub namespace: Option<String>,
}

impl Filter {
    /// Namespace and name that are asked for.
    ///
    /// # Errors
    /// When two namespaces are given that are not the same.
    pub fn wanted(&self) -> Result<Wanted, String> {
        let (namespace, name) = match self.name.as_deref().map(|name| name.split_once('/')) {
            None => (None, None),
            Some(None) => (None, self.name.clone()),
            Some(Some((namespace, name))) => (Some(namespace.to_owned()), Some(name.to_owned())),
        };
        match (namespace, &self.namespace) {
            (Some(one), Some(other)) if one != *other => Err(format!(
                "{one}/{} is not in namespace {other}: give one of the two",
                name.unwrap_or_default()
            )),
            (namespace, flag) => Ok(Wanted {
                namespace: namespace.or_else(|| flag.clone()),
                name,
            }),
        }
    }
}

/// What is asked for; what is unset is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
}

impl Wanted {
    /// Whether an object is meant.
    pub fn includes(&self, namespace: Option<&str>, name: Option<&str>) -> bool {
        let same = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == is)
        };
        same(&self.namespace, namespace) && same(&self.name, name)
    }

    /// As people write it.
    pub fn text(&self) -> Option<String> {
        let name = self.name.as_ref()?;
        Some(match &self.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.clone(),
        })
    }
}

/// Arguments of `get`.
#[derive(Clone, Debug, Args)]
pub struct GetArguments {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// Only this node; again for another.
    #[arg(long = "node")]
    pub nodes: Vec<String>,
    /// Where the operator is.
    #[command(flatten)]
    pub operator: Operator,
    /// How it looks.
    #[command(flatten)]
    pub display: Display,
}

/// Arguments of `services`, `stats` and `rates`.
#[derive(Clone, Debug, Args)]
pub struct ServicesArguments {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// Which nodes.
    #[command(flatten)]
    pub nodes: Nodes,
    /// How it looks.
    #[command(flatten)]
    pub display: Display,
}

/// Which nodes are asked.
#[derive(Clone, Debug, Args)]
pub struct Nodes {
    /// Only this node; again for another. Default: every node with an agent.
    #[arg(long = "node")]
    pub nodes: Vec<String>,
    /// Where the operator is.
    #[command(flatten)]
    pub operator: Operator,
}

/// Arguments of `connections`.
#[derive(Clone, Debug, Args)]
pub struct ConnectionsArguments {
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// Most connections of each node, 1..1000000; a node that has more is told of.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
    /// Which nodes.
    #[command(flatten)]
    pub nodes: Nodes,
    /// How it looks.
    #[command(flatten)]
    pub display: Display,
}

/// Arguments of `timeouts` and `daemon`.
#[derive(Clone, Debug, Args)]
pub struct SettingsArguments {
    /// Which nodes.
    #[command(flatten)]
    pub nodes: Nodes,
    /// How it looks.
    #[command(flatten)]
    pub display: Display,
}

/// Arguments of `zero`.
#[derive(Clone, Debug, Args)]
pub struct ZeroArguments {
    /// Only this VirtualService, [NAMESPACE/]NAME. Default: all services that are the operator's.
    #[arg(conflicts_with = "all")]
    pub name: Option<String>,
    /// Namespace of the VirtualService, where its name does not say it.
    #[arg(long, short, requires = "name")]
    pub namespace: Option<String>,
    /// Everything that these kernels count, services of others included.
    #[arg(long)]
    pub all: bool,
    /// Which nodes.
    #[command(flatten)]
    pub nodes: Nodes,
    /// Write the values themselves, not a line for each node.
    #[arg(long, short, value_enum)]
    pub output: Option<Structured>,
}

/// Whether and for how long the end is waited for.
#[derive(Clone, Copy, Debug, Args)]
pub struct Waiting {
    /// Whether to wait until it is done.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub wait: bool,
    /// Seconds after which waiting is given up, 1..86400; what was asked for stays so.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// Arguments of `hand-over`.
#[derive(Clone, Debug, Args)]
pub struct HandOverArguments {
    /// The VirtualRouter.
    pub router: String,
    /// Node that is to get the addresses. Default: the ready director with the highest effective priority that does not have them.
    #[arg(long)]
    pub to: Option<String>,
    /// Whether the end is waited for.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// Arguments of `drain`.
#[derive(Clone, Debug, Args)]
pub struct DrainArguments {
    /// The RealServer, [NAMESPACE/]NAME.
    pub real_server: String,
    /// Its namespace, where the name does not say it. Default: that of the context.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Let it serve again.
    #[arg(long)]
    pub undo: bool,
    /// Where the operator is.
    #[command(flatten)]
    pub operator: Operator,
    /// Whether the end is waited for.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// Arguments of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArguments {
    /// What: virtualservice/NAME, or vs/NAME, or NAME.
    pub object: String,
    /// Its namespace. Default: that of the context.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Which nodes.
    #[command(flatten)]
    pub nodes: Nodes,
    /// How it looks.
    #[command(flatten)]
    pub display: Display,
}
