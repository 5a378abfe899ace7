//! Imports of whole configurations, compared with what is in tests/goldens. `LVS_WRITE_GOLDENS=1` writes it anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod schema;

use std::path::{Path, PathBuf};

use kubectl_lvs::import::{LocalFiles, Source, import};
use kubectl_lvs::keyword::Tool;
use kubectl_lvs::yaml;

/// Imports files of a folder, each of a node, and compares objects and report.
fn golden(folder: &str, tool: Tool, files: &[(&str, Option<&str>)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens")
        .join(folder);
    let sources: Vec<Source> = files
        .iter()
        .map(|(file, node)| Source {
            path: folder.join(file),
            text: std::fs::read_to_string(folder.join(file)).unwrap(),
            node_name: node.map(str::to_owned),
            config_id: node.unwrap_or_default().to_owned(),
        })
        .collect();
    let imported = import(tool, &sources, "shop", &LocalFiles);
    schema::objects_are_valid(&imported.objects);
    same(
        &folder.join("objects.yaml"),
        &yaml::stream(&imported.objects).unwrap(),
    );
    let prefix = format!("{}/", folder.display());
    same(
        &folder.join("report.txt"),
        &imported.report.text().replace(&prefix, ""),
    );
}

fn same(path: &PathBuf, text: &str) {
    if std::env::var_os("LVS_WRITE_GOLDENS").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == text,
        "{} differs; it would be:\n{text}",
        path.display()
    );
}

#[test]
fn a_nat_pair_with_two_addresses_that_move_as_one() {
    golden(
        "s1-nat-pair",
        Tool::Keepalived,
        &[("lb-a.conf", Some("lb-a")), ("lb-b.conf", Some("lb-b"))],
    );
}

#[test]
fn ldirectord_over_direct_routing_and_a_database() {
    golden(
        "s4-ldirectord",
        Tool::Ldirectord,
        &[("ldirectord.cf", None)],
    );
}

#[test]
fn a_firewall_mark_with_persistence() {
    golden(
        "s11-firewall-mark",
        Tool::Keepalived,
        &[("keepalived.conf", Some("lb-a"))],
    );
}

#[test]
fn parameters_conditions_sequences_and_includes() {
    golden(
        "parameters",
        Tool::Keepalived,
        &[("keepalived.conf", Some("lb-a"))],
    );
}

#[test]
fn checkers_quorum_sorry_server_tunnel_and_global_definitions() {
    golden(
        "checkers",
        Tool::Keepalived,
        &[("keepalived.conf", Some("lb-a"))],
    );
}

#[test]
fn a_table_that_ipvsadm_saved() {
    golden("saved-table", Tool::Ipvsadm, &[("ipvsadm.save", None)]);
}
