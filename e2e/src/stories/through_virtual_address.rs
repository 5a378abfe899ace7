//! Health checks that take the path of a client's packet notice what those that go straight to the real server do not.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::lab::{LIMIT, Lab};
use crate::traffic;

/// Asked straight.
const STRAIGHT: &str = "172.16.2.221";
/// Asked through it, DR, with an IPv6 twin.
const DIRECT: &str = "172.16.2.222";
const DIRECT_IPV6: &str = "fd00:2::222";
/// Asked through it, TUN.
const TUNNEL: &str = "172.16.2.223";
/// The machines are nobody's nodes: nobody mends them.
const MACHINES: [&str; 2] = ["plain-1", "plain-2"];

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "through_virtual_address",
        tells: "a real server without the address (IPv4, IPv6), with its tunnel down, or with a strict source check is out on both directors",
        run: through,
    }]
}

fn through(lab: &Lab) -> Result<()> {
    let on_each = |script: &str| {
        let mut machines = MACHINES.into_iter();
        machines.try_for_each(|machine| lab.guest.on(machine, script).map(drop))
    };
    // They forward packets, as every node of a cluster does.
    on_each(&format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.in.arp_ignore=1 net.ipv4.conf.in.arp_announce=2 \
             net.ipv4.conf.tunl0.rp_filter=0
         ip address add {STRAIGHT}/32 dev lo
         ip address add {DIRECT}/32 dev lo
         ip address add {DIRECT_IPV6}/128 dev lo nodad
         ip link set tunl0 up
         ip address add {TUNNEL}/32 dev tunl0"
    ))?;
    let told = told(lab);
    on_each(&format!(
        "ip address del {STRAIGHT}/32 dev lo
         ip address del {DIRECT}/32 dev lo
         ip address del {DIRECT_IPV6}/128 dev lo
         ip address del {TUNNEL}/32 dev tunl0
         ip link set tunl0 down
         sysctl -qw net.ipv4.conf.in.arp_ignore=0 net.ipv4.conf.in.arp_announce=0 net.ipv4.conf.tunl0.rp_filter=0
         sysctl -qw net.ipv4.ip_forward=0"
    ))?;
    told
}

fn virtual_service(name: &str, addresses: &str, forwarding: &str, path: &str) -> String {
    format!(
        "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  addresses: [{addresses}]
  ports: [{{port: 80}}]
  forwarding: {{type: {forwarding}}}
  scheduler: {{name: rr}}
  realServerSelector: {{}}
  healthChecks:
  - {{name: page, type: HTTP, path: {path}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 2}}
---"
    )
}

fn told(lab: &Lab) -> Result<()> {
    let mut objects = virtual_service("straight", STRAIGHT, "DR", "RealServer");
    let both = format!("{DIRECT}, \"{DIRECT_IPV6}\"");
    objects += &virtual_service("direct", &both, "DR", "VirtualAddress");
    objects += &virtual_service("tunnel", TUNNEL, "TUN", "VirtualAddress");
    for (machine, last) in MACHINES.iter().zip([31, 32]) {
        let _ = write!(
            objects,
            "
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {machine}}}
spec: {{target: {{type: Addresses, addresses: [192.168.2.{last}, \"fd00:192::{last}\"]}}}}
---"
        );
    }
    lab.cluster.apply_text(NAMESPACE, &objects)?;
    for name in ["straight", "direct", "tunnel"] {
        lab.await_serving(NAMESPACE, name)?;
    }
    for address in [STRAIGHT, DIRECT, TUNNEL] {
        await_serving(lab, address, &MACHINES)?;
    }
    await_serving(lab, DIRECT_IPV6, &MACHINES)?;

    let fault = |address, machine: &str, breaks: &str, mends: &str| -> Result<()> {
        let other = MACHINES.into_iter().filter(|one| *one != machine);
        let others: Vec<&str> = other.collect();
        lab.guest.on(machine, breaks)?;
        await_serving(lab, address, &others)?;
        await_words(lab, machine, &format!("through {address}: "))?;
        let spread = traffic::spread(
            &lab.guest,
            "client",
            &format!("http://{}/", url(address)),
            4,
        );
        ensure!(
            spread? == [(others.join(" "), 4)].into(),
            "clients of {address} are sent to {machine}, which cannot answer them"
        );
        ensure!(
            serving(lab, "lb-a", STRAIGHT)? == MACHINES,
            "the check that goes straight to {machine} noticed something"
        );
        lab.guest.on(machine, mends)?;
        await_serving(lab, address, &MACHINES)
    };
    fault(
        DIRECT,
        "plain-1",
        &format!("ip address del {DIRECT}/32 dev lo"),
        &format!("ip address add {DIRECT}/32 dev lo"),
    )
    .context("without the address")?;
    fault(
        DIRECT_IPV6,
        "plain-2",
        &format!("ip address del {DIRECT_IPV6}/128 dev lo"),
        &format!("ip address add {DIRECT_IPV6}/128 dev lo nodad"),
    )
    .context("without the IPv6 address")?;
    fault(
        TUNNEL,
        "plain-1",
        "ip link set tunl0 down",
        "ip link set tunl0 up",
    )
    .context("with its tunnel down")?;
    fault(
        TUNNEL,
        "plain-2",
        "sysctl -qw net.ipv4.conf.tunl0.rp_filter=1",
        "sysctl -qw net.ipv4.conf.tunl0.rp_filter=0",
    )
    .context("with a strict source check")
}

/// An address as it stands in a URL and in ipvsadm's rules.
fn url(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

/// Machines that get clients of an address from a director, by its kernel.
fn serving(lab: &Lab, director: &str, address: &str) -> Result<Vec<&'static str>> {
    let begin = format!("-a -t {}:80 -r ", url(address));
    let rules = lab.ipvs_rules(director)?;
    let known = [(".31:80 ", "plain-1"), (".32:80 ", "plain-2")];
    let known_ipv6 = [("::31]:80 ", "plain-1"), ("::32]:80 ", "plain-2")];
    let machines = known.into_iter().chain(known_ipv6);
    Ok(machines
        .filter(|(end, _)| {
            let mut rules = rules.iter();
            rules.any(|rule| rule.starts_with(&begin) && rule.contains(end))
        })
        .map(|(_, machine)| machine)
        .collect())
}

/// Waits until these alone get clients, on both directors.
fn await_serving(lab: &Lab, address: &str, machines: &[&str]) -> Result<()> {
    for director in ["lb-a", "lb-b"] {
        let what = format!("{machines:?} serve {address} on {director}");
        until(LIMIT, &what, || {
            let seen = serving(lab, director, address)?;
            Ok(if seen == machines { Ok(()) } else { Err(seen) })
        })?;
    }
    Ok(())
}

/// Waits until the real server's status says why it is down.
fn await_words(lab: &Lab, machine: &str, words: &str) -> Result<()> {
    until(LIMIT, &format!("{machine} is down: {words}"), || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsrs", machine])?;
        let services = object["status"]["virtualServices"].as_array();
        let ports = services.into_iter().flatten();
        let mut ports = ports.flat_map(|service| service["ports"].as_array().into_iter().flatten());
        let told = |port: &Value| {
            port["state"] == "Down"
                && port["message"]
                    .as_str()
                    .is_some_and(|said| said.contains(words))
        };
        Ok(if ports.any(told) {
            Ok(())
        } else {
            Err(object["status"].to_string())
        })
    })
}
