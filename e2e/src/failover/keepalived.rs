//! Debian's keepalived as a subject: two directors of its own in the same machine, the same real servers, the same
//! service by direct routing; VRRP between the directors, health checks and the kernel's connection synchronisation as
//! its users have them.

use std::fmt::Write as _;

use anyhow::Result;

use super::operator::agents;
use super::subject::{Director, Subject};
use crate::lab::{Lab, nodes};

const ADDRESS: &str = "172.16.2.240";
/// Namespaces with the last number of their addresses and their VRRP priority.
const DIRECTORS: [(&str, u8, u8); 2] = [("ka-a", 13, 110), ("ka-b", 14, 100)];
/// Two services of two real servers; keepalived adds a real server when its check has succeeded.
const ABLE: &str = "[ $(ipvsadm -Ln | grep -c Route) -eq 4 ]";

/// A version of VRRP with its advertisement interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vrrp {
    /// Version 2, 1 s: what keepalived does unless told otherwise.
    V2EverySecond,
    /// Version 3, 0.1 s: tuned for speed.
    V3EveryTenth,
}

impl Vrrp {
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::V2EverySecond => ("keepalived VRRPv2 1 s", "2", "1"),
            Self::V3EveryTenth => ("keepalived VRRPv3 0.1 s", "3", "0.1"),
        }
    }
}

/// Makes the directors' namespaces, and the real servers answer for the address without telling it by ARP.
pub fn prepare(lab: &Lab) -> Result<()> {
    let mut script = format!(". {}/e2e/machine/hosts.sh\n", lab.repository.display());
    for (host, last, _) in DIRECTORS {
        let _ = writeln!(script, "host {host} {last} out in && gateway {host} out");
    }
    for web in ["web-1", "web-2"] {
        let _ = writeln!(
            script,
            "ip netns exec {web} sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2\n\
             ip -n {web} address add {ADDRESS}/32 dev lo"
        );
    }
    lab.guest.run(&script).map(drop)
}

/// Starts keepalived on both directors.
pub fn start(lab: &Lab, vrrp: Vrrp) -> Result<Subject> {
    let mut script = "set -e\n".to_owned();
    let mut directors = Vec::new();
    for (host, _, priority) in DIRECTORS {
        let work = format!("/run/keepalived/{host}");
        let _ = write!(
            script,
            "mkdir -p {work}; rm -f {work}/stop {work}/hold; : >{work}/log\n\
             cat >{work}/keepalived.conf <<'C'\n{}C\n\
             echo 'rm -f {work}/main.pid {work}/vrrp.pid {work}/checkers.pid\n\
             exec ip netns exec {host} keepalived --dont-fork --log-console --use-file {work}/keepalived.conf \
             --pid {work}/main.pid --vrrp_pid {work}/vrrp.pid --checkers_pid {work}/checkers.pid' >{work}/start.sh\n\
             setsid bash {}/e2e/machine/supervise.sh {work} >/dev/null 2>&1 </dev/null &\n",
            configuration(host, priority, vrrp),
            lab.repository.display()
        );
        directors.push(Director {
            host: host.to_owned(),
            work,
        });
    }
    lab.guest.run(&script)?;
    let [first, second] = &directors[..] else {
        anyhow::bail!("two directors");
    };
    Ok(Subject {
        name: vrrp.words().0.to_owned(),
        address: ADDRESS.parse()?,
        directors: [first.clone(), second.clone()],
        segments: &["out", "in"],
        api_segment: None,
        peers_match: "meta l4proto 112",
        preempts: Some(0),
        restarts: false,
        bystanders: agents(
            lab,
            &nodes().iter().map(|node| &*node.name).collect::<Vec<_>>(),
        )?,
        able: ABLE.to_owned(),
    })
}

/// Ends keepalived on both directors, and waits until nothing of it is left.
pub fn stop(lab: &Lab, subject: &Subject) -> Result<()> {
    let mut script = String::new();
    for Director { work, .. } in &subject.directors {
        let _ = writeln!(
            script,
            "touch {work}/stop; rm -f {work}/hold; [ ! -e {work}/pid ] || kill -TERM $(<{work}/pid)"
        );
    }
    for Director { work, .. } in &subject.directors {
        let _ = writeln!(
            script,
            "for attempt in $(seq 200); do [ -e {work}/pid ] || break; sleep 0.1; done; [ ! -e {work}/pid ]"
        );
    }
    lab.guest.run(&script).map(drop)
}

fn configuration(host: &str, priority: u8, vrrp: Vrrp) -> String {
    let (_, version, interval) = vrrp.words();
    let mut text = format!(
        "global_defs {{\n  router_id {host}\n  vrrp_version {version}\n  lvs_sync_daemon in directors\n}}\n\
         vrrp_instance directors {{\n  state BACKUP\n  interface out\n  virtual_router_id 51\n  priority {priority}\n  \
         advert_int {interval}\n  virtual_ipaddress {{\n    {ADDRESS}/32 dev out\n  }}\n}}\n"
    );
    for port in [80, 7] {
        let _ = write!(
            text,
            "virtual_server {ADDRESS} {port} {{\n  delay_loop 2\n  lb_algo wrr\n  lb_kind DR\n  protocol TCP\n"
        );
        for real_server in ["192.168.2.21", "192.168.2.22"] {
            let _ = write!(
                text,
                "  real_server {real_server} {port} {{\n    weight 1\n    TCP_CHECK {{\n      connect_timeout 2\n      \
                 retry 1\n      delay_before_retry 1\n    }}\n  }}\n"
            );
        }
        text.push_str("}\n");
    }
    text
}
