//! This product as a subject: the agents of `lb-a` and `lb-b`, the chart's own router.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::events::Event;
use super::subject::{Director, Subject};
use super::table::Aim;
use crate::lab::Lab;

/// Nodes that are not directors.
const OTHERS: [&str; 4] = ["web-1", "web-2", "web-3", "far-1"];
const ADDRESS: &str = "172.16.2.200";
/// The chart's own router.
pub const ROUTER: &str = "virtualrouters.lvs.dev/default";
/// Agents answer here when every plan is programmed and verified; a director that was not yet sent the connections takes no
/// offer.
pub const ABLE: &str = "[ \"$(curl --silent --max-time 2 -o /dev/null -w '%{http_code}' http://127.0.0.1:9650/readyz)\" = 200 ] \\
    && curl --silent --max-time 2 http://127.0.0.1:9650/metrics | grep -q '^lvs_agent_cold_routers 0'";

/// How the router is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// As the chart makes it: no connection sync, profile Default.
    AsInstalled,
    /// connectionSync Stateless, scheduler mh.
    Stateless,
    /// connectionSync Daemon.
    Daemon,
    /// connectionSync Stateless, scheduler mh, detection profile Fast.
    Fast,
}

impl Setting {
    /// Name of the subject in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AsInstalled => "lvs-operator plain",
            Self::Stateless => "lvs-operator Stateless",
            Self::Daemon => "lvs-operator Daemon",
            Self::Fast => "lvs-operator Fast",
        }
    }

    fn router(self) -> Value {
        let stateless = json!({"type": "Stateless", "daemon": null});
        // What is null is removed.
        let (interfaces, sync, detection) = match self {
            Self::AsInstalled => (Value::Null, Value::Null, Value::Null),
            Self::Stateless => (Value::Null, stateless, Value::Null),
            Self::Daemon => {
                let daemon = json!({"interfaceName": "peers", "syncID": 1});
                let peers = json!([{"name": "peers", "devices": ["in"]}]);
                (
                    peers,
                    json!({"type": "Daemon", "daemon": daemon}),
                    Value::Null,
                )
            }
            Self::Fast => (Value::Null, stateless, json!({"profile": "Fast"})),
        };
        json!({"interfaces": interfaces, "connectionSync": sync, "detection": detection})
    }

    /// What an event aims at in this setting: without connection sync nobody promises that connections go on, and the fast
    /// profile promises a shorter outage.
    pub fn aim(self, event: &Event) -> Aim {
        let mut aim = event.aim;
        let moves =
            !matches!(aim.moves, Some(0)) && event.name != "nothing" && event.before.is_none();
        match self {
            Self::AsInstalled if moves => aim.all_held = false,
            Self::Stateless | Self::Fast if aim.lost == Some(1) => aim.lost = Some(0),
            _ => {}
        }
        if self == Self::Fast && event.name == "node-dies" {
            aim.gap_seconds = Some(0.4);
        }
        aim
    }

    /// Whether an event is measured in this setting. As installed there are all; the others differ from it in how
    /// connections survive a move, and in how soon a crash is noticed.
    pub fn tells(self, event: &Event) -> bool {
        match self {
            Self::AsInstalled => true,
            Self::Stateless | Self::Daemon => {
                ["sigterm", "hand-over", "cordon", "node-dies", "kill-9"].contains(&event.name)
            }
            Self::Fast => {
                ["sigterm", "node-dies", "kill-9", "holder-isolated"].contains(&event.name)
            }
        }
    }

    const fn scheduler(self) -> &'static str {
        match self {
            Self::AsInstalled | Self::Daemon => "wrr",
            Self::Stateless | Self::Fast => "mh",
        }
    }
}

/// Sets the router up.
pub fn set_up(lab: &Lab, setting: Setting) -> Result<()> {
    change(lab, &setting.router())
}

/// Changes fields of the router's specification; `null` removes one.
pub fn change(lab: &Lab, spec: &Value) -> Result<()> {
    lab.cluster.merge_patch(&[ROUTER], &json!({"spec": spec}))
}

/// Sets the router up, applies the service in a namespace and waits until it is served.
pub fn subject(lab: &Lab, namespace: &str, setting: Setting) -> Result<Subject> {
    set_up(lab, setting)?;
    let scheduler = format!("scheduler: {{name: {}}}", setting.scheduler());
    let service = include_str!("service.yaml").replace("scheduler: {name: wrr}", &scheduler);
    lab.cluster.apply_text(namespace, &service)?;
    lab.await_serving(namespace, "web")?;
    let director = |host: &str| -> Result<Director> {
        Ok(Director {
            host: host.to_owned(),
            work: lab.agent_work(host)?,
        })
    };
    Ok(Subject {
        name: setting.name().to_owned(),
        address: ADDRESS.parse()?,
        directors: [director("lb-a")?, director("lb-b")?],
        segments: &["out", "in", "mgmt"],
        api_segment: Some("mgmt"),
        peers_match: "udp dport 8112",
        preempts: None,
        restarts: true,
        bystanders: agents(lab, &OTHERS)?,
        able: ABLE.to_owned(),
    })
}

/// Folders of the agents of some nodes.
pub fn agents(lab: &Lab, nodes: &[&str]) -> Result<Vec<String>> {
    nodes.iter().map(|node| lab.agent_work(node)).collect()
}

/// Whether an echo server listens on `$host`.
const LISTENING: &str = "ip netns exec $host ss -Hltn 'sport = :7' | grep -q .";

/// Echo servers on the real servers, until dropped. Then they are gone: the next would not get the port from one that is
/// still dying, and would take its listening for its own.
pub struct Echo<'a> {
    lab: &'a Lab,
    processes: String,
}

impl<'a> Echo<'a> {
    /// Starts them on port 7 of `web-1` and `web-2`.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let processes = lab.guest.run(&format!(
            "for host in web-1 web-2; do
                 setsid ip netns exec $host socat TCP-LISTEN:7,fork,reuseaddr,backlog=128,nodelay PIPE >/dev/null 2>&1 </dev/null &
                 echo $!
             done
             for host in web-1 web-2; do
                 for attempt in $(seq 100); do {LISTENING} && continue 2; sleep 0.05; done
                 exit 1
             done"
        ))?;
        ensure!(
            processes.lines().count() == 2,
            "echo servers: {processes:?}"
        );
        Ok(Self {
            lab,
            processes: processes.split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }
}

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        // Each is the leader of a group with one process per connection.
        let script = format!(
            "for process in {}; do kill -KILL -- -$process; done\n\
             for host in web-1 web-2; do\n\
             for attempt in $(seq 100); do {LISTENING} || continue 2; sleep 0.05; done\n\
             done",
            self.processes
        );
        let _ = self.lab.guest.try_run(&script);
    }
}
