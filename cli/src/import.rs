//! Configurations of keepalived, ldirectord and ipvsadm, as VirtualRouters, VirtualServices and RealServers; and
//! what became of every line.

mod draft;
mod files;
mod http;
mod ipvsadm;
mod judge;
mod keepalived;
mod ldirectord;
mod merge;
mod own_checks;
mod quantity;
mod report;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) use ipvsadm::{Options as IpvsadmOptions, options as ipvsadm_options};
pub(crate) use quantity::saved_mark as ipvsadm_mark;

pub use files::{Files, LocalFiles, NoFiles, read};
pub use report::{Fate, FileReport, Ledger, LineReport, Note, Report};

use crate::keyword::Tool;
use draft::Service;

/// One file, and the node whose configuration it is.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path; included files are looked for beside it.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// Name of the node, if known.
    pub node_name: Option<String>,
    /// keepalived's configuration id, by which lines that begin with `@` are chosen.
    pub config_id: String,
}

/// What was made of the files.
#[derive(Clone, Debug)]
pub struct Imported {
    /// VirtualRouters, VirtualServices, RealServers.
    pub objects: Vec<Value>,
    /// What became of every line.
    pub report: Report,
}

/// What one file is read for.
struct Node<'a> {
    name: Option<&'a str>,
    config_id: &'a str,
    namespace: &'a str,
}

/// What one file holds.
#[derive(Default)]
struct Parts {
    routers: Vec<Value>,
    services: Vec<Service>,
}

/// Makes objects of files of one tool. The first file says what is balanced; others add what their nodes say of
/// themselves as directors.
pub fn import(tool: Tool, sources: &[Source], namespace: &str, files: &dyn Files) -> Imported {
    let mut ledger = Ledger::default();
    let mut merged: Option<Parts> = None;
    for source in sources {
        let node = Node {
            name: source.node_name.as_deref(),
            config_id: &source.config_id,
            namespace,
        };
        let parts = match tool {
            Tool::Keepalived => {
                keepalived::import(&mut ledger, files, &source.path, &source.text, &node)
            }
            Tool::Ldirectord => {
                ldirectord::import(&mut ledger, &source.path, &source.text, namespace)
            }
            Tool::Ipvsadm => ipvsadm::import(&mut ledger, &source.path, &source.text),
        };
        merged = Some(match merged {
            None => parts,
            Some(first) => merge::merge(&mut ledger, first, parts),
        });
    }
    let parts = merged.unwrap_or_default();
    let (virtual_services, real_servers) = draft::objects(&parts.services, namespace, &mut ledger);
    draft::require_default_router(&parts.services, namespace, &mut ledger);
    let objects = parts
        .routers
        .into_iter()
        .chain(virtual_services)
        .chain(real_servers)
        .collect();
    Imported {
        objects,
        report: ledger.report(tool.comment()),
    }
}

/// Which tool's configuration a text is, by its first words.
pub fn guess(path: &Path, text: &str) -> Option<Tool> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    for (part, tool) in [
        ("keepalived", Tool::Keepalived),
        ("ldirectord", Tool::Ldirectord),
        ("ipvsadm", Tool::Ipvsadm),
    ] {
        if name.contains(part) {
            return Some(tool);
        }
    }
    text.lines().map(str::trim).find_map(|line| {
        let first = line.split([' ', '\t', '=', '{']).next().unwrap_or_default();
        if matches!(first, "-A" | "-a" | "--add-service" | "ipvsadm") {
            return Some(Tool::Ipvsadm);
        }
        if matches!(
            first,
            "virtual" | "virtual6" | "checktimeout" | "checkinterval" | "quiescent" | "autoreload"
        ) && line.contains('=')
        {
            return Some(Tool::Ldirectord);
        }
        matches!(
            first,
            "global_defs"
                | "vrrp_instance"
                | "vrrp_sync_group"
                | "vrrp_script"
                | "virtual_server"
                | "virtual_server_group"
                | "include"
        )
        .then_some(Tool::Keepalived)
    })
}
