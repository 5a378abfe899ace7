//! What is in the kernels of the hosts: addresses, rules, and all that the product could change.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{LIMIT, Lab};
use crate::await_condition::until;

/// Every host of the machine; see `e2e/machine/machine-init.sh`.
pub const HOSTS: [&str; 10] = [
    "client", "router", "lb-a", "lb-b", "web-1", "web-2", "web-3", "plain-1", "plain-2", "far-1",
];

/// Facts about every host, see `e2e/machine/look.sh`.
pub type Hosts = BTreeMap<String, BTreeSet<String>>;

/// A line of `e2e/machine/look.sh` without what changes by itself: numbers of links, remaining lifetimes.
fn fact(line: &str) -> Option<String> {
    let line = line.trim();
    let line = match line.split_once(": ") {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line,
    };
    let fact = match line.split_once(": <") {
        // State and counters of a link are its own; only that it is there counts.
        Some((device, _)) => format!("link {}", device.split('@').next().unwrap_or(device)),
        None => match line.split_once("valid_lft") {
            Some((address, _)) => address.trim_end().to_owned(),
            None => match line.split_once(" expires ") {
                Some((route, rest)) => {
                    let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
                    format!("{route} {rest}")
                }
                None => line.to_owned(),
            },
        },
    };
    (!fact.is_empty()).then_some(fact)
}

impl Lab {
    /// The node in whose kernel an address is now.
    pub fn holders(&self, address: &str) -> Result<Vec<String>> {
        let output = self.guest.run(&format!(
            "for host in lb-a lb-b; do ip -n $host -br address show dev out | grep -qw '{address}' && echo $host; done; true"
        ))?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// Waits until exactly one director holds an address; returns it.
    pub fn await_holder(&self, address: &str) -> Result<String> {
        until(LIMIT, &format!("one holder of {address}"), || {
            let holders = self.holders(address)?;
            Ok(match &holders[..] {
                [one] => Ok(one.clone()),
                _ => Err(holders),
            })
        })
    }

    /// IPVS rules of a host as `ipvsadm -Sn` prints them, sorted.
    pub fn ipvs_rules(&self, host: &str) -> Result<Vec<String>> {
        let mut rules: Vec<String> = self
            .guest
            .on(host, "ipvsadm -Sn")?
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        rules.sort();
        Ok(rules)
    }

    /// Everything of the hosts that the product could change.
    pub fn hosts(&self) -> Result<Hosts> {
        let script = format!(
            "bash {}/e2e/machine/look.sh {}",
            self.repository.display(),
            HOSTS.join(" ")
        );
        let mut hosts = Hosts::new();
        let mut name = String::new();
        for line in self.guest.run(&script)?.lines() {
            if let Some(host) = line.strip_prefix("== ") {
                host.clone_into(&mut name);
                hosts.insert(name.clone(), BTreeSet::new());
            } else if let (Some(text), Some(fact)) = (hosts.get_mut(&name), fact(line)) {
                text.insert(fact);
            }
        }
        Ok(hosts)
    }

    /// Waits until every host is as it was; the error shows the lines that differ.
    pub fn await_hosts(&self, before: &Hosts) -> Result<()> {
        until(LIMIT, "every host as it was before", || {
            let now = self.hosts()?;
            let mut differences = Vec::new();
            for (host, was) in before {
                let is = now.get(host).cloned().unwrap_or_default();
                differences.extend(
                    was.difference(&is)
                        .map(|line| format!("{host} lost: {line}")),
                );
                differences.extend(is.difference(was).map(|line| format!("{host} has: {line}")));
            }
            Ok(if differences.is_empty() {
                Ok(())
            } else {
                Err(differences)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::fact;

    #[test]
    fn a_fact_is_without_what_changes_by_itself() {
        let of = |line| fact(line).unwrap_or_default();
        assert_eq!(of("7: out@if6: <BROADCAST,UP> mtu 1500 qdisc"), "link out");
        assert_eq!(
            of(
                "7: out    inet 172.16.2.200/32 scope global noprefixroute out\\       valid_lft 2sec preferred_lft 0sec"
            ),
            "out    inet 172.16.2.200/32 scope global noprefixroute out\\"
        );
        assert_eq!(
            of("default via fe80::1 dev out expires 12sec pref medium"),
            "default via fe80::1 dev out pref medium"
        );
        assert_eq!(
            of("32766:\tfrom all lookup main"),
            "32766:\tfrom all lookup main"
        );
        assert_eq!(fact("   "), None);
    }
}
