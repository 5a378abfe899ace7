//! A real server that goes keeps the connections that it has, for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::health_checks::{ADDRESS, await_rules, edit, spread};
use super::{NAMESPACE, Story};
use crate::await_condition::until;
use crate::cluster::condition;
use crate::guest::Guest;
use crate::lab::{LIMIT, Lab};

const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn stories() -> Vec<Story> {
    vec![Story {
        name: "drain_deleted",
        tells: "a deleted RealServer answers on the connection it has and gets no new ones, and is out when its time is over",
        run: deleted,
    }]
}

/// A connection of the client that is opened now and used later.
struct Dormant<'a> {
    guest: &'a Guest,
    folder: String,
}

impl<'a> Dormant<'a> {
    fn open(guest: &'a Guest) -> Result<Self> {
        let folder = guest
            .run("mktemp -d /run/dormant.XXXXXX")?
            .trim()
            .to_owned();
        guest.on(
            "client",
            &format!(
                "cd {folder}
                 setsid bash -c 'exec 3<>/dev/tcp/{ADDRESS}/80 || exit 1; touch open
                    until [ -e ask ]; do sleep 0.1; done
                    printf \"GET / HTTP/1.1\\r\\nHost: dormant\\r\\n\\r\\n\" >&3
                    while IFS= read -r -t 5 line <&3; do
                        echo \"$line\" >>answer
                        case $line in web-*) break ;; esac
                    done
                    touch answered
                    exec sleep 600' >/dev/null 2>&1 </dev/null &
                 echo $! >pid
                 for i in $(seq 200); do [ -e open ] && exit 0; kill -0 $(cat pid) || exit 1; sleep 0.05; done
                 exit 1"
            ),
        )?;
        Ok(Self { guest, folder })
    }

    /// What the server answers on it. It stays open.
    fn ask(&self) -> Result<String> {
        self.guest.run(&format!(
            "cd {}; touch ask; for i in $(seq 200); do [ -e answered ] && break; sleep 0.05; done; cat answer",
            self.folder
        ))
    }
}

impl Drop for Dormant<'_> {
    fn drop(&mut self) {
        let folder = &self.folder;
        let _ = self
            .guest
            .try_run(&format!("kill -KILL $(cat {folder}/pid); rm -rf {folder}"));
    }
}

fn deleted(lab: &Lab) -> Result<()> {
    let weigh = |weight: u16| {
        let words = ["-n", NAMESPACE, "lvsrs", "web-2"];
        let patch = json!({"spec": {"weight": weight}});
        lab.cluster.merge_patch(&words, &patch)
    };
    lab.cluster.apply_example(NAMESPACE, "health-checks.yaml")?;
    edit(
        lab,
        &json!({"drain": {"timeoutSeconds": TIMEOUT.as_secs()}}),
    )?;
    weigh(0)?;
    let master = lab.await_serving(NAMESPACE, "web")?;
    await_rules(
        lab,
        &master,
        &["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 0"],
    )?;
    let held = Dormant::open(&lab.guest)?;
    weigh(1)?;
    for director in ["lb-a", "lb-b"] {
        await_rules(
            lab,
            director,
            &["192.168.2.21:80 -g -w 2", "192.168.2.22:80 -g -w 1"],
        )?;
    }

    let begun = Instant::now();
    lab.cluster
        .kubectl(&["delete", "-n", NAMESPACE, "lvsrs", "web-1"])?;
    for director in ["lb-a", "lb-b"] {
        await_rules(
            lab,
            director,
            &["192.168.2.21:80 -g -w 0", "192.168.2.22:80 -g -w 1"],
        )?;
    }
    let answer = held.ask()?;
    ensure!(
        answer.contains("web-1"),
        "the connection it has does not go on: {answer:?}"
    );
    let seen = spread(lab, 6)?;
    ensure!(
        seen == [("web-2".into(), 6)].into(),
        "no new ones: {seen:?}"
    );
    until(LIMIT, "web tells that one drains", || {
        let object = lab.cluster.get(&["-n", NAMESPACE, "lvsvs", "web"])?;
        let (_, _, message) = condition(&object, "Ready");
        Ok(if message.contains("that has left drains") {
            Ok(())
        } else {
            Err(message)
        })
    })?;

    for director in ["lb-a", "lb-b"] {
        await_rules(lab, director, &["192.168.2.22:80 -g -w 1"])?;
    }
    let took = begun.elapsed();
    ensure!(
        took >= TIMEOUT,
        "out after {took:?}, its connection had {TIMEOUT:?}"
    );
    Ok(())
}
