//! keepalived.conf(5).

mod check;
mod globals;
mod group;
mod router;
mod service;
mod text;
mod tree;
mod virtual_router;
mod virtual_service;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde_json::json;

use super::draft::Service;
use super::files::Files;
use super::report::{Fate, Ledger};
use super::{Node, Parts};
use crate::keyword::Tool;
use router::Router;
use tree::Directive;

pub use check::query_name;
pub use group::addresses_between;

/// Reads one node's file and what it includes.
pub fn import(
    ledger: &mut Ledger,
    files: &dyn Files,
    path: &Path,
    text: &str,
    node: &Node<'_>,
) -> Parts {
    let words = text::read(ledger, files, path, text, node.config_id);
    let directives = tree::parse(ledger, &words);
    hide_passwords(ledger, &directives);
    let mut groups = group::Groups::new();
    for directive in of(&directives, "virtual_server_group") {
        if take(ledger, "top", directive, "") {
            let heads = group::group(ledger, directive);
            groups
                .entry(directive.argument(0).to_owned())
                .or_default()
                .extend(heads);
        }
    }
    let mut routers = router::routers(ledger, &directives, node);
    let mut taken = BTreeSet::new();
    let mut services = Vec::new();
    let moves = |address: &IpAddr| routers.iter().any(|router| router.holds(address));
    for directive in of(&directives, "virtual_server") {
        services.extend(service::virtual_server(
            ledger, directive, &groups, &mut taken, &moves,
        ));
    }
    assign(ledger, &mut routers, &mut services);
    for directive in &directives {
        match directive.keyword() {
            "global_defs" if known(directive) => {
                globals::global_defs(ledger, directive, &mut routers);
            }
            "virtual_server_group" | "virtual_server" | "vrrp_instance" | "vrrp_sync_group" => {}
            _ => {
                take(ledger, "top", directive, "");
            }
        }
    }
    let routers = routers
        .into_iter()
        .map(|router| router.object(ledger, &services, node))
        .collect();
    Parts { routers, services }
}

/// Keeps what VRRP and TLS authenticate with out of the report.
fn hide_passwords(ledger: &mut Ledger, directives: &[Directive]) {
    for directive in directives {
        if matches!(directive.keyword(), "auth_pass" | "password") {
            ledger.hide(directive.line, directive.argument(0));
        }
        hide_passwords(ledger, &directive.children);
    }
}

fn known(directive: &Directive) -> bool {
    !directive.braces.is_empty()
}

fn of<'a>(
    directives: &'a [Directive],
    keyword: &'static str,
) -> impl Iterator<Item = &'a Directive> {
    directives
        .iter()
        .filter(move |directive| directive.keyword() == keyword)
}

/// Each service belongs to the router that holds its addresses.
fn assign(ledger: &mut Ledger, routers: &mut [Router], services: &mut [Service]) {
    for service in &mut *services {
        let addresses = service.addresses();
        if addresses.is_empty() {
            continue;
        }
        let holder = routers
            .iter()
            .position(|router| addresses.iter().any(|address| router.holds(address)));
        let holder = match (holder, routers.len()) {
            (Some(holder), _) => holder,
            (None, 1) => 0,
            (None, 0) => continue,
            (None, _) => {
                ledger.note(
                    service.line,
                    Fate::Changed,
                    "",
                    "no vrrp_instance holds its addresses: the default VirtualRouter does",
                );
                continue;
            }
        };
        let Some(router) = routers.get_mut(holder) else {
            continue;
        };
        service
            .spec
            .insert("virtualRouterName".to_owned(), json!(router.name));
        for address in addresses {
            if !router.holds(&address) {
                ledger.note(
                    service.line,
                    Fate::Changed,
                    format!("VirtualRouter {} spec.addressPools", router.name),
                    format!("no vrrp_instance of it holds {address}: it does so now"),
                );
            }
            router.serve(address);
        }
    }
    // A mark has no addresses here: those of the one router that nobody else uses.
    let [router] = routers else { return };
    for service in services
        .iter_mut()
        .filter(|service| !service.spec.contains_key("addresses"))
    {
        let is_ipv6 = service.spec.remove("addressFamilies").is_some();
        let free = router.unserved(16, |address| address.is_ipv6() == is_ipv6);
        service
            .spec
            .insert("virtualRouterName".to_owned(), json!(router.name));
        if !free.is_empty() {
            let texts: Vec<String> = free.iter().map(ToString::to_string).collect();
            ledger.note(
                service.line,
                Fate::Changed,
                format!("VirtualService {} spec.addresses", service.name),
                format!("{}, which no other virtual_server uses", texts.join(", ")),
            );
            service.spec.insert("addresses".to_owned(), json!(texts));
            for address in free {
                router.serve(address);
            }
            continue;
        }
        ledger.require(format!(
            "VirtualService {} has spec.addresses: no vrrp_instance holds one that no other virtual_server uses",
            service.name
        ));
        if is_ipv6 {
            let families = json!(["IPv6"]);
            service.spec.insert("addressFamilies".to_owned(), families);
        }
    }
}

/// Says what becomes of a directive by the table; whether its value is to be read.
fn take(ledger: &mut Ledger, place: &str, directive: &Directive, object: &str) -> bool {
    let Some(row) = Tool::Keepalived.find(place, directive.keyword()) else {
        let what = if place == "top" {
            "no block of keepalived.conf".to_owned()
        } else {
            format!("not a keyword of {place}")
        };
        directive.note_all(ledger, Fate::NotOffered, "", &what);
        return false;
    };
    let field = match row.field.split_once(' ') {
        Some((kind, rest)) if kind != "RealServer" && !object.is_empty() => {
            format!("{kind} {object} {rest}")
        }
        _ => row.field.to_owned(),
    };
    if matches!(row.fate, Fate::Replaced | Fate::NotOffered) {
        directive.note_all(ledger, row.fate, &field, row.remark);
        return false;
    }
    ledger.note(directive.line, row.fate, field, row.remark);
    true
}

/// Says that a directive is not offered, by the table.
fn refuse(ledger: &mut Ledger, place: &str, directive: &Directive) {
    let remark = Tool::Keepalived
        .find(place, directive.keyword())
        .map_or("", |row| row.remark);
    directive.note_all(ledger, Fate::NotOffered, "", remark);
}
