//! The command line.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lvs_crds::mark_range::mark_range;
use lvs_scrape::ScrapeArguments;
use lvs_traces::TraceArguments;

use crate::api_endpoints::ApiEndpoint;

/// Applies the NodePlans of one node to its kernel.
#[derive(Debug, Parser)]
#[command(name = "lvs-agent", version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until told to stop. SIGTERM leaves the kernel as it is.
    Run(Box<RunArguments>),
    /// Write what this node's kernel holds of IPVS to standard output, with the names that the plans give to it. Changes nothing.
    Show(ShowArguments),
    /// Set the counters of services to zero: of all that are ours, or as the flags say.
    Zero(ZeroArguments),
}

/// Where the running agent keeps what it knows.
#[derive(Clone, Debug, Args)]
pub struct Places {
    /// Last good plans of the agent that runs here.
    #[arg(
        long,
        global = true,
        env = "LVS_STATE_DIRECTORY",
        default_value = "/var/lib/lvs-operator"
    )]
    pub state_directory: PathBuf,
    /// Its journal of what is ours.
    #[arg(
        long,
        global = true,
        env = "LVS_RUNTIME_DIRECTORY",
        default_value = "/run/lvs-operator"
    )]
    pub runtime_directory: PathBuf,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// What.
    #[command(subcommand)]
    pub what: Shown,
    /// Where names come from.
    #[command(flatten)]
    pub places: Places,
    /// Form of the answer; its fields are those of `lvs_core::shown`.
    #[arg(long, global = true, value_enum, default_value_t = ShownForm::Json)]
    pub output: ShownForm,
}

/// Form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShownForm {
    /// One JSON object.
    Json,
}

/// What is shown.
#[derive(Debug, Subcommand)]
pub enum Shown {
    /// Services with their real servers, counters and rates.
    Services(OfVirtualService),
    /// Connections and persistence templates, from /proc/net/ip_vs_conn.
    Connections {
        /// Only those of this.
        #[command(flatten)]
        of: OfVirtualService,
        /// Most that are written, 1..1000000; the answer says whether there are more.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
    },
    /// Timeouts, sync daemons, versions.
    Settings,
    /// Kernel, sysctls, modules and devices, as far as the operator depends on them.
    Facts,
}

/// A choice of services.
#[derive(Clone, Debug, Default, Args)]
pub struct OfVirtualService {
    /// Only those of this VirtualService, [NAMESPACE/]NAME.
    #[arg(long)]
    pub virtual_service: Option<String>,
}

/// Arguments of `zero`.
#[derive(Debug, Args)]
pub struct ZeroArguments {
    /// Only those of this.
    #[command(flatten)]
    pub of: OfVirtualService,
    /// Everything that the kernel counts, services of others included.
    #[arg(long, conflicts_with = "virtual_service")]
    pub all: bool,
    /// What is ours.
    #[command(flatten)]
    pub places: Places,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Everything `run` can be told. Every flag is also an environment variable.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Node whose plans are carried out.
    #[arg(long, env = "LVS_NODE_NAME")]
    pub node_name: String,
    /// Namespace of the operator: NodePlans and Leases live there.
    #[arg(long, env = "LVS_NAMESPACE")]
    pub namespace: String,
    /// Direct endpoint of an API server, https://ADDRESS:PORT; may be given several times. One is used as long as it answers.
    /// None: as the cluster's configuration says.
    #[arg(
        long = "api-endpoint",
        env = "LVS_API_ENDPOINTS",
        value_delimiter = ','
    )]
    pub api_endpoints: Vec<ApiEndpoint>,
    /// Last good plans, kept over restarts and reboots.
    #[arg(
        long,
        env = "LVS_STATE_DIRECTORY",
        default_value = "/var/lib/lvs-operator"
    )]
    pub state_directory: PathBuf,
    /// What is ours in the kernel, kept over restarts but not over reboots.
    #[arg(
        long,
        env = "LVS_RUNTIME_DIRECTORY",
        default_value = "/run/lvs-operator"
    )]
    pub runtime_directory: PathBuf,
    /// Stands for /proc/sys; net/ below it must be writable.
    #[arg(long, env = "LVS_SYSCTL_DIRECTORY", default_value = "/proc/sys")]
    pub sysctl_directory: PathBuf,
    /// Where /livez and /readyz are served, and /metrics unless it has an address of its own.
    #[arg(long, env = "LVS_HTTP_ADDRESS", default_value = "0.0.0.0:9650")]
    pub http_address: SocketAddr,
    /// Where /metrics is.
    #[command(flatten)]
    pub scrape: ScrapeArguments,
    /// Where traces of changes go.
    #[command(flatten)]
    pub traces: TraceArguments,
    /// UDP port of heartbeats between directors, the same on every node.
    #[arg(long, env = "LVS_HEARTBEAT_PORT", default_value_t = 8112)]
    pub heartbeat_port: u16,
    /// Directory with the key that authenticates heartbeats: file `key`, and `accepted-key` while keys are changed. Without
    /// it there are no heartbeats, and a director that dies is noticed when its Lease has run out.
    #[arg(long, env = "LVS_HEARTBEAT_KEY_DIRECTORY")]
    pub heartbeat_key_directory: Option<PathBuf>,
    /// Directory with the credentials of health checks: files NAMESPACE.NAME.FIELD, read anew for each check. Without it no
    /// check that names credentials is made.
    #[arg(long, env = "LVS_HEALTH_CHECK_CREDENTIALS_DIRECTORY")]
    pub health_check_credentials_directory: Option<PathBuf>,
    /// Name of the Secret that is mounted there, to be told where credentials are missing.
    #[arg(long, env = "LVS_HEALTH_CHECK_CREDENTIALS_SECRET", default_value = "")]
    pub health_check_credentials_secret: String,
    /// Seconds between looks at the kernel when nothing else happens; drift is repaired within this time. 1..3600.
    #[arg(
        long,
        env = "LVS_RESYNC_SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub resync_seconds: u64,
    /// Firewall marks, first-last, for health checks through virtual addresses: one for each real server that is checked so.
    /// Nothing else may use them.
    #[arg(long, env = "LVS_HEALTH_CHECK_MARK_RANGE", default_value = "0x1000-0x10ff", value_parser = mark_range)]
    pub health_check_mark_range: RangeInclusive<u32>,
    /// What is logged, such as `info` or `warn,lvs_agent=debug`.
    #[arg(long, env = "LVS_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look.
    #[arg(long, env = "LVS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

impl RunArguments {
    /// Time between looks at the kernel when nothing else happens.
    pub const fn resync_interval(&self) -> Duration {
        Duration::from_secs(self.resync_seconds)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_command_of_the_daemon_set_is_understood() {
        let arguments = Arguments::try_parse_from([
            "lvs-agent",
            "run",
            "--node-name=node-a",
            "--namespace=lvs-system",
            "--state-directory=/var/lib/lvs-operator",
            "--runtime-directory=/run/lvs-operator",
            "--sysctl-directory=/host/proc/sys",
            "--http-address=0.0.0.0:9650",
            "--metrics-address=0.0.0.0:9651",
            "--metrics-tls-directory=/etc/lvs-operator/metrics-tls",
            "--metrics-authentication",
            "--otlp-endpoint=http://collector:4318",
            "--otlp-certificate=/etc/lvs-operator/collector/ca.crt",
            "--api-endpoint=https://192.0.2.1:6443",
            "--api-endpoint=https://[2001:db8::1]",
        ])
        .unwrap();
        let Command::Run(run) = arguments.command else {
            unreachable!("{arguments:?}")
        };
        let endpoints = run.api_endpoints.iter().map(ToString::to_string);
        let endpoints: Vec<_> = endpoints.collect();
        assert_eq!(
            endpoints,
            ["https://192.0.2.1:6443", "https://[2001:db8::1]"]
        );
        assert_eq!(run.resync_interval(), Duration::from_secs(10));
        assert_eq!(run.health_check_mark_range, crate::sync::CHECK_MARKS);
        assert_eq!(run.log_format, LogFormat::Json);
    }

    #[test]
    fn what_kubectl_lvs_says_in_a_pod_is_understood() {
        let arguments = Arguments::try_parse_from([
            "lvs-agent",
            "show",
            "connections",
            "--virtual-service=shop/web",
            "--limit=7",
            "--output=json",
        ]);
        let Command::Show(show) = arguments.unwrap().command else {
            unreachable!()
        };
        assert_eq!(
            show.places.runtime_directory,
            PathBuf::from("/run/lvs-operator")
        );
        let Shown::Connections { of, limit } = show.what else {
            unreachable!("{show:?}")
        };
        assert_eq!(
            (of.virtual_service.as_deref(), limit),
            (Some("shop/web"), 7)
        );
        for refused in [
            ["lvs-agent", "zero", "--all", "--virtual-service=web"].as_slice(),
            &["lvs-agent", "show"],
            &["lvs-agent", "show", "connections", "--limit=0"],
        ] {
            assert!(Arguments::try_parse_from(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn an_endpoint_that_is_none_is_refused_with_the_cure() {
        for endpoint in [
            "http://192.0.2.1:6443",
            "192.0.2.1:6443",
            "https://api.example.com:6443",
            "https://192.0.2.1:6443/path",
            "https://user@192.0.2.1",
            "https://192.0.2.1:0",
        ] {
            let refused = Arguments::try_parse_from([
                "lvs-agent",
                "run",
                "--node-name=a",
                "--namespace=b",
                &format!("--api-endpoint={endpoint}"),
            ]);
            let message = refused.unwrap_err().to_string();
            assert!(
                message.contains("https://192.0.2.1:6443;"),
                "{endpoint}: {message}"
            );
        }
    }

    #[test]
    fn a_resync_of_no_time_is_refused() {
        let refused = Arguments::try_parse_from([
            "lvs-agent",
            "run",
            "--node-name=a",
            "--namespace=b",
            "--resync-seconds=0",
        ]);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("--resync-seconds")
        );
    }
}
