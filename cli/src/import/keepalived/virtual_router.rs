//! VRRP instances as a VirtualRouter.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::super::Node;
use super::super::draft::Service;
use super::super::quantity::networks;
use super::super::report::{Fate, Ledger};
use super::router::{Router, logical};

impl Router {
    /// The object, as far as one file knows it.
    pub fn object(mut self, ledger: &mut Ledger, services: &[Service], node: &Node<'_>) -> Value {
        let mut spec = Map::new();
        if let Some(name) = node.name {
            let priority = self
                .priority
                .unwrap_or(100)
                .saturating_add(self.raise)
                .min(254);
            spec.insert(
                "directors".to_owned(),
                json!([{"nodeName": name, "priority": priority}]),
            );
        } else {
            ledger.require(format!("VirtualRouter {}: every node with an agent directs, with the same priority, unless --node-name says which node a file is of", self.name));
        }
        if self.devices.len() > 32 {
            ledger.note(
                self.line,
                Fate::NotOffered,
                "",
                "more than 32 devices: the device of the rest is found by its subnet",
            );
            self.devices.truncate(32);
        }
        let known = |device: &Option<String>| {
            device
                .as_ref()
                .filter(|device| self.devices.contains(device))
                .map(|device| logical(device))
        };
        let interfaces: Vec<Value> = self
            .devices
            .iter()
            .map(|device| json!({"name": logical(device), "devices": [device]}))
            .collect();
        let mut names = BTreeSet::new();
        let interfaces: Vec<Value> = interfaces
            .into_iter()
            .filter(|interface| names.insert(interface["name"].to_string()))
            .collect();
        let mut pools: Vec<Value> = Vec::new();
        let mut additional = Vec::new();
        for held in &self.held {
            let interface = known(&held.device);
            if !held.served {
                let mut entry = json!({"address": held.address.to_string()});
                if let Some(interface) = interface {
                    entry["interfaceName"] = json!(interface);
                }
                additional.push(entry);
                continue;
            }
            let name = interface.clone().unwrap_or_else(|| "addresses".to_owned());
            if let Some(pool) = pools.iter_mut().find(|pool| pool["name"] == json!(name)) {
                if let Some(addresses) = pool["addresses"].as_array_mut() {
                    addresses.push(json!(held.address.to_string()));
                }
            } else {
                let mut pool = json!({"name": name, "addresses": [held.address.to_string()], "assignment": "Explicit"});
                if let Some(interface) = interface {
                    pool["interfaceName"] = json!(interface);
                }
                pools.push(pool);
            }
        }
        // What nothing refers to says nothing.
        if !interfaces.is_empty() {
            spec.insert("interfaces".to_owned(), json!(interfaces));
        }
        if !additional.is_empty() {
            spec.insert("additionalAddresses".to_owned(), json!(additional));
        }
        let own: Vec<&Service> = services
            .iter()
            .filter(|service| service.spec.get("virtualRouterName") == Some(&json!(self.name)))
            .collect();
        if !own.is_empty() {
            let mut grant = json!({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": node.namespace}}}});
            let names: Vec<&Value> = pools.iter().map(|pool| &pool["name"]).collect();
            if !names.is_empty() {
                grant["addressPoolNames"] = json!(names);
            }
            let targets: BTreeSet<IpAddr> =
                own.iter().flat_map(|service| service.targets()).collect();
            let targets: Vec<IpAddr> = targets.into_iter().collect();
            let cidrs = networks(&targets, 16);
            if !cidrs.is_empty() {
                grant["realServerCIDRs"] = json!(cidrs);
            }
            spec.insert("grants".to_owned(), json!([grant]));
        }
        if !pools.is_empty() {
            spec.insert("addressPools".to_owned(), json!(pools));
        }
        if self.preempt == Some(true) {
            let mut preemption = json!({"mode": "Enabled"});
            if self.preempt_delay > 0 {
                preemption["delaySeconds"] = json!(self.preempt_delay);
            }
            spec.insert("preemption".to_owned(), preemption);
        }
        if let Some(id) = self.virtual_router_id {
            spec.insert("virtualRouterID".to_owned(), json!(id));
            if self.virtual_mac {
                spec.insert("virtualMAC".to_owned(), json!("Enabled"));
            }
        }
        let tracked: Vec<Value> = self
            .tracked
            .iter()
            .filter(|(device, _)| self.devices.contains(device))
            .map(|(device, delta)| {
                if *delta == 0 {
                    json!({"interfaceName": logical(device)})
                } else {
                    json!({"interfaceName": logical(device), "priorityDelta": delta})
                }
            })
            .collect();
        let mut names = BTreeSet::new();
        let tracked: Vec<Value> = tracked
            .into_iter()
            .filter(|entry| names.insert(entry["interfaceName"].to_string()))
            .collect();
        if !tracked.is_empty() {
            spec.insert("tracking".to_owned(), json!({"interfaces": tracked}));
        }
        if let Some(announcement) = self.announcement() {
            spec.insert("announcement".to_owned(), announcement);
        }
        if let Some(mut daemon) = self.sync.take()
            && self
                .devices
                .iter()
                .any(|device| daemon["interfaceName"] == json!(logical(device)))
        {
            if daemon["syncID"].is_null() {
                daemon["syncID"] = json!(self.virtual_router_id.unwrap_or(1));
            }
            spec.insert(
                "connectionSync".to_owned(),
                json!({"type": "Daemon", "daemon": daemon}),
            );
        }
        if let Some(timeouts) = self.timeouts.take() {
            spec.insert("timeouts".to_owned(), timeouts);
        }
        json!({"apiVersion": "lvs.dev/v1alpha1", "kind": "VirtualRouter", "metadata": {"name": self.name}, "spec": spec})
    }

    fn announcement(&self) -> Option<Value> {
        let mut announcement = Map::new();
        let burst = self.burst.unwrap_or(5);
        let interval = self.interval.unwrap_or(100).min(5000 / burst.max(1));
        if let Some(burst) = self.burst {
            announcement.insert("burstCount".to_owned(), json!(burst));
        }
        if self.interval.is_some() {
            announcement.insert("intervalMilliseconds".to_owned(), json!(interval));
        }
        if let Some(refresh) = self.refresh.filter(|refresh| *refresh > 0) {
            announcement.insert(
                "refreshSeconds".to_owned(),
                json!(refresh.max((burst * interval).div_ceil(1000))),
            );
        }
        (!announcement.is_empty()).then_some(Value::Object(announcement))
    }
}
