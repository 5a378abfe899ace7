//! This product as a subject: the agents of `lb-a` and `lb-b`, the chart's own router.

use anyhow::{Result, ensure};

use super::subject::{Director, Subject};
use crate::lab::Lab;

/// Nodes that are not directors.
const OTHERS: [&str; 4] = ["web-1", "web-2", "web-3", "far-1"];
const ADDRESS: &str = "172.16.2.200";
/// Agents answer here when every plan is programmed and verified.
const ABLE: &str = "[ \"$(curl --silent --max-time 2 -o /dev/null -w '%{http_code}' http://127.0.0.1:9650/readyz)\" = 200 ]";

/// Applies the service in a namespace and waits until it is served.
pub fn subject(lab: &Lab, namespace: &str) -> Result<Subject> {
    lab.cluster
        .apply_text(namespace, include_str!("service.yaml"))?;
    lab.await_serving(namespace, "web")?;
    let director = |host: &str| -> Result<Director> {
        Ok(Director {
            host: host.to_owned(),
            work: lab.agent_work(host)?,
        })
    };
    Ok(Subject {
        name: "lvs-operator".to_owned(),
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

/// Echo servers on the real servers, until dropped.
pub struct Echo<'a> {
    lab: &'a Lab,
    processes: String,
}

impl<'a> Echo<'a> {
    /// Starts them on port 7 of `web-1` and `web-2`.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let processes = lab.guest.run(
            "for host in web-1 web-2; do
                 setsid ip netns exec $host socat TCP-LISTEN:7,fork,reuseaddr,backlog=128,nodelay PIPE >/dev/null 2>&1 </dev/null &
                 echo $!
             done
             for host in web-1 web-2; do
                 for attempt in $(seq 100); do ip netns exec $host ss -Hltn 'sport = :7' | grep -q . && continue 2; sleep 0.05; done
                 exit 1
             done",
        )?;
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
            "for process in {}; do kill -KILL -- -$process; done",
            self.processes
        );
        let _ = self.lab.guest.try_run(&script);
    }
}
