//! A director that gives way because of what it tracks: an endpoint on itself, a condition of its Node.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Story;
use super::failover::{HANDOVER, tell_event};
use crate::failover::events::Event;
use crate::failover::events::tracked::{self, CONDITION, ENDPOINT, ENDPOINT_FOLDER};
use crate::failover::operator::{self, Setting};
use crate::lab::Lab;

/// Longest outage of a voluntary handover, in microseconds, beside the time for which the machine itself stood still.
const GAP: i64 = 100_000;

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "tracking_hands_over",
        tells: "the holder's endpoint fails; its Node gets a condition: each hands over without an outage, recovery moves nothing",
        run: tracking,
    }]
}

fn tracking(lab: &Lab) -> Result<()> {
    let _endpoints = Endpoints::start(lab)?;
    track(
        lab,
        &json!({
            "endpoints": [{"url": ENDPOINT, "failureThreshold": 2}],
            "nodeConditions": [{"type": CONDITION, "status": "False"}],
        }),
    )?;
    let told = [tracked::endpoint(), tracked::node_condition()]
        .iter()
        .try_for_each(|event| hands_over(lab, event));
    track(lab, &serde_json::Value::Null)?;
    // The next story finds the router as the chart made it.
    operator::set_up(lab, Setting::AsInstalled)?;
    told
}

/// Without state every director balances alike, so that a handover costs nobody anything.
fn hands_over(lab: &Lab, event: &Event) -> Result<()> {
    let figures = tell_event(lab, Setting::Stateless, event, HANDOVER)?;
    let gap = figures.gap.microseconds - figures.late;
    let is_undisturbed = figures.lost.is_empty() && figures.held_lost.is_empty();
    ensure!(
        figures.moves == 1 && is_undisturbed && gap <= GAP,
        "{}: one move, nothing lost, no outage: {figures:#?}",
        event.title
    );
    Ok(())
}

fn track(lab: &Lab, tracking: &serde_json::Value) -> Result<()> {
    operator::change(lab, &json!({"tracking": tracking}))
}

/// A web server on each director, for the director alone, until dropped.
struct Endpoints<'a> {
    lab: &'a Lab,
    processes: String,
}

impl<'a> Endpoints<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let processes = lab.guest.run(&format!(
            "for host in lb-a lb-b; do
                 folder={ENDPOINT_FOLDER}/$host
                 mkdir -p $folder && echo ok >$folder/ok
                 printf 'server.document-root = \"%s\"\\nserver.bind = \"127.0.0.1\"\\nserver.port = 9101\\n' $folder >$folder.conf
                 setsid ip netns exec $host lighttpd -D -f $folder.conf >$folder.log 2>&1 </dev/null &
                 echo $!
             done
             for host in lb-a lb-b; do
                 for attempt in $(seq 100); do ip netns exec $host curl --silent --fail -o /dev/null {ENDPOINT} && continue 2; sleep 0.05; done
                 exit 1
             done"
        ))?;
        Ok(Self {
            lab,
            processes: processes.split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }
}

impl Drop for Endpoints<'_> {
    fn drop(&mut self) {
        let script = format!("kill -KILL {}; rm -rf {ENDPOINT_FOLDER}", self.processes);
        let _ = self.lab.guest.try_run(&script);
    }
}
