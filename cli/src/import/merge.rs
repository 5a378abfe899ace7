//! The files of several nodes of one set of directors, made one.

use serde_json::{Value, json};

use super::Parts;
use super::draft::Service;
use super::report::{Fate, Ledger};

/// What a further node adds: itself as a director, and its names of devices. Where it says otherwise of what is
/// balanced, the first file counts.
pub fn merge(ledger: &mut Ledger, mut first: Parts, other: Parts) -> Parts {
    for router in other.routers {
        let known = first
            .routers
            .iter_mut()
            .find(|known| known["metadata"]["name"] == router["metadata"]["name"]);
        match known {
            Some(known) => add_director(ledger, known, &router),
            None => first.routers.push(router),
        }
    }
    for mut service in other.services {
        match first
            .services
            .iter_mut()
            .find(|known| known.name == service.name)
        {
            Some(known) => {
                if leave_out_source_addresses(known, &service) {
                    for line in [known.line, service.line] {
                        ledger.note(
                            line,
                            Fate::Changed,
                            format!("VirtualService {} spec.healthChecks[].sourceAddress", known.name),
                            "left out, as each file has another: every director asks from the address that its routes say",
                        );
                    }
                    without_source_addresses(&mut service);
                }
                if known.spec != service.spec {
                    let fields: Vec<&str> = known
                        .spec
                        .keys()
                        .chain(
                            service
                                .spec
                                .keys()
                                .filter(|key| !known.spec.contains_key(*key)),
                        )
                        .filter(|key| known.spec.get(*key) != service.spec.get(*key))
                        .map(String::as_str)
                        .collect();
                    ledger.note(
                        service.line,
                        Fate::Changed,
                        "",
                        format!(
                            "another file says otherwise of {}: the first counts",
                            fields.join(", ")
                        ),
                    );
                }
                for server in service.servers {
                    match known
                        .servers
                        .iter()
                        .find(|known| (&known.host, known.port) == (&server.host, server.port))
                    {
                        Some(same)
                            if same.weight == server.weight
                                && same.forwarding == server.forwarding
                                && same.thresholds == server.thresholds
                                && same.checks == server.checks =>
                        {
                            ledger.note(server.line, Fate::Translated, "", "as in the first file");
                        }
                        Some(_) => ledger.note(
                            server.line,
                            Fate::Changed,
                            "",
                            "the first file says otherwise, and counts",
                        ),
                        None => ledger.note(
                            server.line,
                            Fate::NotOffered,
                            "",
                            "the first file does not have it, and counts",
                        ),
                    }
                }
            }
            None => first.services.push(service),
        }
    }
    first
}

/// Checks of a service and of its real servers.
fn checks(service: &mut Service) -> impl Iterator<Item = &mut Value> {
    let of_service = service.spec.get_mut("healthChecks");
    let of_service = of_service
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    let of_servers = service.servers.iter_mut();
    of_service.chain(of_servers.flat_map(|server| &mut server.checks))
}

fn without_source_addresses(service: &mut Service) {
    for check in checks(service) {
        if let Some(check) = check.as_object_mut() {
            check.remove("sourceAddress");
        }
    }
}

/// Leaves the source addresses of checks out of a service that is there already, if another file has the same checks from
/// other addresses: one that is another on each director cannot be said. Whether it did.
fn leave_out_source_addresses(known: &mut Service, other: &Service) -> bool {
    let sources = |service: &mut Service| -> Vec<Value> {
        let checks = checks(service);
        checks.map(|check| check["sourceAddress"].clone()).collect()
    };
    let mut other = other.clone();
    let differ = sources(known) != sources(&mut other);
    let is_named = !sources(known)
        .iter()
        .chain(&sources(&mut other))
        .all(Value::is_null);
    if differ && is_named {
        without_source_addresses(known);
    }
    differ && is_named
}

fn add_director(ledger: &mut Ledger, known: &mut Value, router: &Value) {
    let name = known["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for director in router["spec"]["directors"].as_array().into_iter().flatten() {
        if known["spec"]["directors"].is_null() {
            known["spec"]["directors"] = json!([]);
        }
        if let Some(directors) = known["spec"]["directors"].as_array_mut() {
            if directors
                .iter()
                .any(|other| other["nodeName"] == director["nodeName"])
            {
                ledger.require(format!("VirtualRouter {name}: two files name the node {}: give each its own --node-name", director["nodeName"]));
            } else {
                directors.push(director.clone());
            }
        }
    }
    // A device that holds the same address there is the same logical interface.
    for list in ["addressPools", "additionalAddresses"] {
        for entry in router["spec"][list].as_array().into_iter().flatten() {
            let key = if list == "addressPools" {
                "addresses"
            } else {
                "address"
            };
            let same = known["spec"][list]
                .as_array()
                .into_iter()
                .flatten()
                .find(|other| shares(&other[key], &entry[key]))
                .cloned();
            match same {
                Some(same) => add_device(
                    known,
                    router,
                    &same["interfaceName"],
                    &entry["interfaceName"],
                ),
                None => ledger.require(format!(
                    "VirtualRouter {name}: only one file holds {}",
                    entry[key]
                )),
            }
        }
    }
    for field in [
        "preemption",
        "virtualRouterID",
        "virtualMAC",
        "announcement",
        "connectionSync",
        "timeouts",
        "tracking",
    ] {
        if known["spec"][field] != router["spec"][field] {
            ledger.require(format!(
                "VirtualRouter {name}: files differ in what gives {field}; that of the first counts"
            ));
        }
    }
}

/// Whether two addresses, or lists of them, have one in common.
fn shares(one: &Value, other: &Value) -> bool {
    match (one.as_array(), other.as_array()) {
        (Some(one), Some(other)) => one.iter().any(|address| other.contains(address)),
        _ => one == other,
    }
}

fn add_device(known: &mut Value, router: &Value, name: &Value, name_there: &Value) {
    let there = router["spec"]["interfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|interface| interface["name"] == *name_there);
    let devices: Vec<Value> = there
        .and_then(|interface| interface["devices"].as_array())
        .cloned()
        .unwrap_or_default();
    let here = known
        .pointer_mut("/spec/interfaces")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .find(|interface| interface["name"] == *name);
    if let Some(list) = here.and_then(|interface| interface["devices"].as_array_mut()) {
        for device in devices {
            if !list.contains(&device) && list.len() < 16 {
                list.push(device);
            }
        }
    }
}
