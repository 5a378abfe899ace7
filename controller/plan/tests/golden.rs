//! Golden cases: `golden/<case>/input.yaml` gives `plan.yaml` and `report.txt`.
//! `UPDATE_GOLDEN=1 cargo test -p lvs-plan --test golden` writes them anew; read the difference.

#![allow(
    clippy::disallowed_methods,
    reason = "a test may read files and its environment"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that unwraps says what it expects"
)]

mod support;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use lvs_plan::resolution::Resolution;
use support::Cluster;

#[test]
fn every_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in cases {
        let input = std::fs::read_to_string(case.join("input.yaml")).unwrap();
        let mut cluster = Cluster::from_yaml(&input);
        // A real server that is a node gets its weight once the node has answered.
        cluster.pass();
        for plan in cluster.stored().into_values() {
            if plan.real_server.is_some() {
                cluster.acknowledge(&plan.node_name);
            }
        }
        let resolution = cluster.pass();
        for (file, text) in [
            ("plan.yaml", plans(&resolution)),
            ("report.txt", report(&resolution)),
        ] {
            let path = case.join(file);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            if golden != text {
                wrong.push(format!("{} differs; now it is\n{text}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn plans(resolution: &Resolution) -> String {
    let mut specs: Vec<_> = resolution
        .plans
        .values()
        .map(|planned| &planned.spec)
        .collect();
    specs.sort_by(|left, right| {
        let key = |spec: &&lvs_crds::NodePlanSpec| {
            (
                spec.source.kind,
                spec.source.namespace.clone(),
                spec.source.name.clone(),
                spec.node_name.clone(),
            )
        };
        key(right)
            .0
            .cmp(&key(left).0)
            .then(key(left).cmp(&key(right)))
    });
    let texts: Vec<String> = specs
        .iter()
        .map(|spec| serde_saphyr::to_string(spec).unwrap())
        .collect();
    texts.join("---\n")
}

fn report(resolution: &Resolution) -> String {
    let mut text = String::new();
    for (name, lease) in &resolution.leases {
        writeln!(text, "Lease {name}: {}", lease.directors.join(", ")).unwrap();
    }
    let report = &resolution.report;
    let routers = report.virtual_routers.iter().map(|(key, report)| {
        let pools: Vec<_> = report
            .status
            .address_pools
            .iter()
            .map(|p| format!("{} {}/{}", p.name, p.allocated, p.total))
            .collect();
        (
            format!("VirtualRouter {key}: {}", pools.join(", ")),
            &report.verdicts,
        )
    });
    let services = report.virtual_services.iter().map(|(key, report)| {
        let summary = &report.status.summary;
        let title = format!(
            "VirtualService {key}: {} {} {}",
            summary.addresses, summary.ports, summary.real_servers
        );
        (title, &report.verdicts)
    });
    let real_servers = report.real_servers.iter().map(|(key, report)| {
        let summary = &report.status.summary;
        (
            format!(
                "RealServer {key}: {} {} {}",
                summary.target, summary.state, summary.used_by
            ),
            &report.verdicts,
        )
    });
    for (title, verdicts) in routers.chain(services).chain(real_servers) {
        writeln!(text, "{}", title.trim_end()).unwrap();
        for verdict in verdicts {
            let (condition, truth) = (verdict.condition.as_str(), verdict.truth.as_str());
            writeln!(
                text,
                "  {condition}={truth} {}: {}",
                verdict.reason, verdict.message
            )
            .unwrap();
        }
    }
    text
}
