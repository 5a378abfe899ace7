//! Arguments of the command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bundle::BundleArguments;
use crate::keyword::Tool;
use crate::kubectl::Access;
use crate::live::arguments::{
    ConnectionsArguments, DrainArguments, ExplainArguments, GetArguments, HandOverArguments,
    ServicesArguments, SettingsArguments, ZeroArguments,
};
use crate::plan::PlanArguments;
use crate::preflight::CheckArguments;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 an error; 2 answered in part, some agents or objects could not be asked, and which is said.";

/// kubectl lvs: Linux Virtual Server the Kubernetes way.
#[derive(Debug, Parser)]
#[command(name = "kubectl-lvs", bin_name = "kubectl lvs", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Which cluster is asked, and as whom.
    #[command(flatten)]
    pub access: Access,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole picture: routers and who holds their addresses, virtual services, real servers, nodes and whether their plans are in the kernel.
    Get(GetArguments),
    /// List services of the kernels with their real servers, as ipvsadm --list --numeric, with the names of the objects.
    Services(ServicesArguments),
    /// List connections of the kernels, as ipvsadm --list --connection --numeric.
    Connections(ConnectionsArguments),
    /// List what services and real servers have counted, as ipvsadm --list --stats --exact.
    Stats(ServicesArguments),
    /// List rates per second, as ipvsadm --list --rate --exact.
    Rates(ServicesArguments),
    /// List timeouts of connections, as ipvsadm --list --timeout.
    Timeouts(SettingsArguments),
    /// List connection synchronisation daemons, as ipvsadm --list --daemon.
    Daemon(SettingsArguments),
    /// Set counters to zero, as ipvsadm --zero.
    Zero(ZeroArguments),
    /// Say of a VirtualService why each real server is in or out, which node holds the addresses and why, what kernels should hold and hold, and what to do.
    Explain(ExplainArguments),
    /// Hand the addresses of a VirtualRouter over to another director, without a gap.
    HandOver(HandOverArguments),
    /// Let a RealServer end its connections and get no new ones.
    Drain(DrainArguments),
    /// Make VirtualRouters, VirtualServices and RealServers of a keepalived.conf, an ldirectord.cf or the output of `ipvsadm --save --numeric`, and say what became of every line.
    Import(ImportArguments),
    /// Write the script that makes a host outside the cluster a real server of a VirtualService, and undoes it.
    RealserverScript(RealServerScriptArguments),
    /// Say what becomes of a keyword of keepalived, ldirectord or ipvsadm, such as keepalived:quorum.
    ExplainKeyword {
        /// The keyword, with its tool and a colon in front or without.
        keyword: String,
    },
    /// Write what a shell needs to complete kubectl-lvs, such as: source <(kubectl lvs completion bash).
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Say what would change if objects were applied, or deleted: conditions, operations of each node, clients. Nothing is written. Exit status 0: nothing, 2: something, 3: it cannot be told.
    Plan(PlanArguments),
    /// Say what of the cluster and its nodes would keep the operator from working, before it is installed and afterwards. Exit status 1 when something would.
    Check(CheckArguments),
    /// Write an archive of what others need to see of an operator that does not work, without Secrets and credentials.
    Bundle(BundleArguments),
    /// Write the dictionary of all keywords, in Markdown.
    Dictionary,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Files of one tool. The first says what is balanced; each further one is that of another director of the same set. None only with --shadow: the objects of the cluster.
    #[arg(required_unless_present = "shadow")]
    pub files: Vec<PathBuf>,
    /// Tool whose files they are. Default: by the names of the files, or their first words.
    #[arg(long, value_enum)]
    pub from: Option<Tool>,
    /// Name of the Node that a file is of, once for each file; with it the file's priority becomes that of a director.
    #[arg(long)]
    pub node_name: Vec<String>,
    /// Configuration id by which keepalived chooses lines that begin with @, once for each file. Default: the node's name up to its first dot.
    #[arg(long)]
    pub config_id: Vec<String>,
    /// Namespace of the objects; it is granted the addresses and real servers. Default: default.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Compare instead: what `ipvsadm -Sn` says on a director at work, in a file, or - for standard input, with the tables that the objects would give. Nothing is written to the cluster, and no report but to --report-file. Exit status 0: equal, 2: different, 3: it cannot be told.
    #[arg(long, value_name = "TABLE")]
    pub shadow: Option<PathBuf>,
    /// Format of the objects, on standard output; with --shadow of the comparison. Default: yaml, and with --shadow a table.
    #[arg(long, short, value_enum)]
    pub output: Option<Output>,
    /// Format of the report, on standard error or in --report-file.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub report: ReportFormat,
    /// File for the report.
    #[arg(long)]
    pub report_file: Option<PathBuf>,
}

impl ImportArguments {
    /// Namespace of the objects.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// The first flag that says something of files, where no files are named.
    pub fn of_no_file(&self) -> Option<&'static str> {
        let given = [
            ("--from", self.from.is_some()),
            ("--node-name", !self.node_name.is_empty()),
            ("--config-id", !self.config_id.is_empty()),
            ("--namespace", self.namespace.is_some()),
            ("--report-file", self.report_file.is_some()),
        ];
        let mut given = given.into_iter().filter(|_| self.files.is_empty());
        given.find_map(|(flag, is_given)| is_given.then_some(flag))
    }
}

/// Arguments of `realserver-script`.
#[derive(Debug, Args)]
pub struct RealServerScriptArguments {
    /// Files with the VirtualService and the RealServer, in YAML or JSON; - for standard input.
    #[arg(long = "filename", short, required = true)]
    pub filenames: Vec<PathBuf>,
    /// The VirtualService. Default: the only one in the files.
    #[arg(long)]
    pub virtual_service: Option<String>,
    /// The RealServer that the host is; needed for TUN and NAT.
    #[arg(long)]
    pub real_server: Option<String>,
    /// Virtual address; again for another. Default: those in the VirtualService, or in its status.
    #[arg(long = "address")]
    pub addresses: Vec<IpAddr>,
    /// With NAT: the address on the host's subnet that moves with the router; again for the other family.
    #[arg(long = "gateway")]
    pub gateways: Vec<IpAddr>,
}

/// Format of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Documents of YAML.
    Yaml,
    /// A List in JSON.
    Json,
}

/// Format of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// A line for each line.
    Text,
    /// JSON.
    Json,
}
