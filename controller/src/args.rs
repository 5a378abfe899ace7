//! Arguments. Every one can also come from the environment.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lvs_crds::mark_range::mark_range;
use lvs_scrape::ScrapeArguments;
use lvs_traces::TraceArguments;

/// Controller of lvs-operator.
#[derive(Debug, Parser)]
#[command(name = "lvs-controller", version)]
pub struct Arguments {
    /// Log level or filter, e.g. info or lvs_controller=debug.
    #[arg(long, env = "LVS_LOG", default_value = "info", global = true)]
    pub log: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch, plan and write until told to stop.
    Run(Box<RunArguments>),
    /// Stop planning and have every node cleaned, or left as it is, before the operator is uninstalled.
    PrepareUninstall(UninstallArguments),
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// Namespace of the operator: NodePlans and Leases are there.
    #[arg(long, env = "LVS_NAMESPACE")]
    pub namespace: String,
    /// Name of this pod: identity in the election and in Events.
    #[arg(long, env = "LVS_POD_NAME")]
    pub pod_name: String,
    /// Where /livez and /readyz are served, and /metrics unless it has an address of its own.
    #[arg(long, env = "LVS_HTTP_ADDRESS", default_value = "0.0.0.0:9660")]
    pub http_address: SocketAddr,
    /// Where /metrics is.
    #[command(flatten)]
    pub scrape: ScrapeArguments,
    /// Where traces of changes go.
    #[command(flatten)]
    pub traces: TraceArguments,
    /// Share of changes that are traced, 0 to 1.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = 1.0, value_parser = ratio)]
    pub otlp_sampling_ratio: f64,
    /// Firewall marks that may be allocated, first-last, decimal or 0x-hexadecimal. Nothing else on the
    /// nodes may use them.
    #[arg(long, env = "LVS_FIREWALL_MARK_RANGE", default_value = "0x2000-0x20ff", value_parser = mark_range)]
    pub firewall_mark_range: RangeInclusive<u32>,
    /// Labels of the agents' pods. A node that runs one can be a director of a router without `directors`.
    #[arg(
        long,
        env = "LVS_AGENT_POD_SELECTOR",
        default_value = "app.kubernetes.io/component=agent"
    )]
    pub agent_pod_selector: String,
    /// Lease by which replicas of the controller choose the one that works.
    #[arg(long, env = "LVS_LEASE_NAME", default_value = "lvs-controller")]
    pub lease_name: String,
}

/// Arguments of `prepare-uninstall`.
#[derive(Clone, Debug, Args)]
pub struct UninstallArguments {
    /// Namespace of the operator.
    #[arg(long, env = "LVS_NAMESPACE")]
    pub namespace: String,
    /// What becomes of the nodes.
    #[arg(long, env = "LVS_UNINSTALL_POLICY")]
    pub policy: UninstallPolicy,
    /// Deployment of the controller, which is stopped first.
    #[arg(
        long,
        env = "LVS_DEPLOYMENT_NAME",
        default_value = "lvs-operator-controller"
    )]
    pub deployment_name: String,
    /// Labels of the controller's pods.
    #[arg(
        long,
        env = "LVS_CONTROLLER_POD_SELECTOR",
        default_value = "app.kubernetes.io/component=controller"
    )]
    pub controller_pod_selector: String,
    /// Seconds to wait for the controller to stop and for the agents to answer.
    #[arg(long, env = "LVS_UNINSTALL_TIMEOUT_SECONDS", default_value_t = 240)]
    pub timeout_seconds: u64,
}

/// What becomes of the nodes when the operator goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UninstallPolicy {
    /// Every node is as it was before.
    #[value(name = "Clean")]
    Clean,
    /// Traffic goes on without the operator.
    #[value(name = "KeepTraffic")]
    KeepTraffic,
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok();
    let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("{text} is no number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_of_the_chart_are_understood() {
        let run = [
            "lvs-controller",
            "run",
            "--namespace=lvs-system",
            "--pod-name=p",
            "--http-address=0.0.0.0:9660",
            "--firewall-mark-range=0x2000-0x20ff",
            "--metrics-address=0.0.0.0:9661",
            "--metrics-tls-directory=/etc/lvs-operator/metrics-tls",
            "--metrics-authentication",
            "--otlp-endpoint=http://collector:4318",
            "--otlp-certificate=/etc/lvs-operator/collector/ca.crt",
            "--otlp-sampling-ratio=0.25",
        ];
        assert!(Arguments::try_parse_from(run).is_ok());
        for policy in ["Clean", "KeepTraffic"] {
            let policy = format!("--policy={policy}");
            let line = [
                "lvs-controller",
                "prepare-uninstall",
                "--namespace=lvs-system",
                &policy,
            ];
            assert!(Arguments::try_parse_from(line).is_ok());
        }
    }
}
