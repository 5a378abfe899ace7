//! Who carries the address, as `ip monitor` tells it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use lvs_e2e::failover::record::{Line, Microseconds};

use super::{ip, now};

/// `ip -ts monitor address` of all hosts, each line about `address` told; then who has it at the beginning. One program
/// with one socket, so that what happened on different hosts is told in the order in which it happened.
pub fn monitor(hosts: &[String], address: IpAddr, lines: &Sender<Line>) -> Result<Child> {
    let ids = namespace_ids(hosts)?;
    let mut child = Command::new("ip")
        .args(["-o", "-ts", "monitor", "address", "all-nsid"])
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting ip monitor")?;
    let output = child
        .stdout
        .take()
        .context("standard output of ip monitor")?;
    let told = lines.clone();
    std::thread::Builder::new()
        .name("monitor".into())
        .spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((at, id, present)) = carried(&line, address)
                    && let Some(host) = ids.get(&id).cloned()
                {
                    let _ = told.send(Line::Carried { host, at, present });
                }
            }
        })?;
    for host in hosts {
        let shown = ip(&["-n", host, "-o", "address", "show"])?;
        if shown.lines().any(|line| names(line, address)) {
            let (host, at) = (host.clone(), now());
            let _ = lines.send(Line::Carried {
                host,
                at,
                present: true,
            });
        }
    }
    Ok(child)
}

/// The ids by which the kernel tells the hosts' network namespaces apart here; a host without one gets it.
fn namespace_ids(hosts: &[String]) -> Result<BTreeMap<u32, String>> {
    let known = || -> Result<BTreeMap<u32, String>> {
        let listed = ip(&["netns", "list"])?;
        Ok(listed.lines().filter_map(namespace_id).collect())
    };
    let before = known()?;
    for host in hosts {
        if !before.values().any(|name| name == host) {
            ip(&["netns", "set", host, "auto"])?;
        }
    }
    known()
}

/// A line of `ip netns list`, such as `lb-a (id: 3)`.
fn namespace_id(line: &str) -> Option<(u32, String)> {
    let (name, id) = line.split_once(" (id: ")?;
    Some((id.strip_suffix(')')?.parse().ok()?, name.to_owned()))
}

/// Whether a line of `ip address` is about an address.
fn names(line: &str, address: IpAddr) -> bool {
    line.split_whitespace().any(|word| {
        word.split('/')
            .next()
            .and_then(|word| word.parse::<IpAddr>().ok())
            == Some(address)
    })
}

/// `[2026-01-31T12:00:00.123456] [nsid 3]Deleted 7: out    inet 172.16.2.200/32 …`: when, where, and whether it is there now.
fn carried(line: &str, address: IpAddr) -> Option<(Microseconds, u32, bool)> {
    let (stamp, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (id, rest) = rest.trim_start().strip_prefix("[nsid ")?.split_once(']')?;
    let id = id.parse().ok()?;
    let stamp: jiff::civil::DateTime = stamp.parse().ok()?;
    let at = stamp
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()?
        .timestamp()
        .as_microsecond();
    names(rest, address).then(|| (at, id, !rest.trim_start().starts_with("Deleted ")))
}

#[cfg(test)]
mod tests {
    use super::{carried, namespace_id};

    #[test]
    fn a_line_of_ip_monitor_is_read() {
        let address = "172.16.2.200".parse().unwrap();
        let added = "[2026-01-31T12:00:00.123456] [nsid 3]7: out    inet 172.16.2.200/32 scope global out\\       valid_lft 2sec preferred_lft 0sec";
        assert_eq!(
            carried(added, address),
            Some((1_769_860_800_123_456, 3, true))
        );
        let deleted = "[2026-01-31T12:00:00.123456] [nsid 12]Deleted 7: out    inet 172.16.2.200/32 scope global out\\       valid_lft forever";
        assert_eq!(
            carried(deleted, address),
            Some((1_769_860_800_123_456, 12, false))
        );
        let here = added.replace("nsid 3", "nsid current");
        assert_eq!(carried(&here, address), None);
        let other =
            "[2026-01-31T12:00:00.123456] [nsid 3]7: out    inet 172.16.2.20/32 scope global out";
        assert_eq!(carried(other, address), None);
        assert_eq!(carried("172.16.2.200", address), None);
    }

    #[test]
    fn a_namespace_without_an_id_has_none() {
        assert_eq!(namespace_id("lb-a (id: 3)"), Some((3, "lb-a".to_owned())));
        assert_eq!(namespace_id("lb-a"), None);
    }
}
