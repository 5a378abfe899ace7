//! Two directors that are measured, and what can be done to them. Everything is a script for the guest, so that what
//! belongs together is one command and one moment.
//!
//! | way | where it runs in tier 2 | how it is cut |
//! |---|---|---|
//! | service | segment `out` | the director's port on the bridge goes down: its interface loses the carrier |
//! | real servers | segment `in` | likewise, only when the node dies |
//! | API server | segment `mgmt` | likewise |
//! | peers | segment `in` (heartbeats), `out` (VRRP) | an nftables table of ours in the director's namespace drops it both ways |

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::record::Microseconds;
use crate::await_condition::until;
use crate::lab::Lab;

/// After a node was away its process, its routes and its neighbours come back.
const CALM_LIMIT: Duration = Duration::from_secs(90);
/// The table of the drops.
const CUT: &str = "inet failover_cut";

/// A director.
#[derive(Clone, Debug)]
pub struct Director {
    /// Its network namespace.
    pub host: String,
    /// Folder of its process in the guest (`e2e/machine/supervise.sh`).
    pub work: String,
}

/// Two directors and the service they balance.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name in the table.
    pub name: String,
    /// The address of the service; port 80 is a web server, port 7 echo.
    pub address: IpAddr,
    /// The two directors.
    pub directors: [Director; 2],
    /// Segments that the directors are on.
    pub segments: &'static [&'static str],
    /// The one on which they reach the API server, where they do.
    pub api_segment: Option<&'static str>,
    /// What they tell each other, as a match of nftables.
    pub peers_match: &'static str,
    /// The director that takes the address back whenever it can, where there is one.
    pub preempts: Option<usize>,
    /// Ended by SIGTERM, the process starts again at once (a DaemonSet does that).
    pub restarts: bool,
    /// Folders of processes that stand still while traffic is measured: they belong to nodes that only look on, and in
    /// this machine they would take the directors' only processor.
    pub bystanders: Vec<String>,
    /// A script whose success on a director says that it could carry the address.
    pub able: String,
}

impl Subject {
    /// A signal to a director's process and its children; with `hold` it is not started again before [`Subject::mend`].
    pub fn signal(&self, director: usize, signal: &str, hold: bool) -> String {
        let work = &self.directors[director].work;
        let hold = if hold {
            format!("touch {work}/hold; ")
        } else {
            String::new()
        };
        format!("{hold}kill -{signal} -- -$(<{work}/pid)\n")
    }

    /// SIGTERM to a director's process alone, as its supervisor sends it.
    pub fn terminate(&self, director: usize) -> String {
        let work = &self.directors[director].work;
        let hold = if self.restarts {
            String::new()
        } else {
            format!("touch {work}/hold; ")
        };
        format!("{hold}kill -TERM $(<{work}/pid)\n")
    }

    /// A director's interfaces on these segments lose the carrier.
    pub fn unplug(&self, director: usize, segments: &[&str]) -> String {
        self.ports(director, segments, "down")
    }

    fn ports(&self, director: usize, segments: &[&str], state: &str) -> String {
        let host = &self.directors[director].host;
        let mut script = "ip -batch - <<B\n".to_owned();
        for segment in segments {
            let _ = writeln!(script, "link set {host}-{segment} {state}");
        }
        script + "B\n"
    }

    /// A director neither hears its peers nor is heard by them.
    pub fn deafen(&self, director: usize) -> String {
        let (host, peers) = (&self.directors[director].host, self.peers_match);
        format!(
            "ip netns exec {host} nft -f - <<N\n\
             table {CUT} {{\n\
             chain input {{ type filter hook input priority -300; {peers} drop; }}\n\
             chain output {{ type filter hook output priority -300; {peers} drop; }}\n\
             }}\nN\n"
        )
    }

    /// Everything that was done is undone; what is as it should be stays.
    pub fn mend(&self) -> String {
        let mut script = String::new();
        for (index, Director { host, work }) in self.directors.iter().enumerate() {
            script += &self.ports(index, self.segments, "up");
            let _ = writeln!(
                script,
                "ip netns exec {host} nft delete table {CUT} 2>/dev/null\n\
                 [ ! -e {work}/pid ] || kill -CONT -- -$(<{work}/pid) 2>/dev/null\n\
                 rm -f {work}/hold"
            );
        }
        script + "true\n"
    }

    /// Bystanders stand still until the answer is dropped.
    pub fn still<'a>(&self, lab: &'a Lab) -> Result<Still<'a>> {
        let all = |signal: &str| -> String {
            let one = |work: &String| format!("kill -{signal} -- -$(<{work}/pid)\n");
            self.bystanders.iter().map(one).collect()
        };
        lab.guest.run(&(all("STOP") + "true\n"))?;
        Ok(Still {
            lab,
            resume: all("CONT"),
        })
    }

    /// For each director whether it is able, and whether it carries the address.
    fn look(&self, lab: &Lab) -> Result<Vec<(bool, bool)>> {
        let mut script = String::new();
        for Director { host, .. } in &self.directors {
            let _ = writeln!(
                script,
                "ip netns exec {host} bash -c {} >/dev/null 2>&1; able=$?\n\
                 ip -n {host} -o address show | grep -qwF '{}'; echo $able $?",
                crate::guest::quote(&self.able),
                self.address
            );
        }
        let seen: Vec<(bool, bool)> = lab
            .guest
            .run(&script)?
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(able, carries)| (able == "0", carries == "0"))
            .collect();
        ensure!(
            seen.len() == self.directors.len(),
            "looking at {}",
            self.name
        );
        Ok(seen)
    }

    /// Waits until both directors are able and one carries the address, the preferred one where there is one; its index.
    pub fn await_calm(&self, lab: &Lab) -> Result<usize> {
        until(CALM_LIMIT, &format!("{} in calm", self.name), || {
            let seen = self.look(lab)?;
            let able = seen.iter().all(|(able, _)| *able);
            let carriers: Vec<usize> = (0..seen.len()).filter(|index| seen[*index].1).collect();
            Ok(match carriers[..] {
                [one] if able && self.preempts.is_none_or(|preferred| preferred == one) => Ok(one),
                _ => Err(seen),
            })
        })
    }

    /// Waits until a director carries the address.
    pub fn await_carrier(&self, lab: &Lab, director: usize) -> Result<()> {
        let what = format!("{} carries {}", self.directors[director].host, self.address);
        until(CALM_LIMIT, &what, || {
            let seen = self.look(lab)?;
            Ok(if seen[director].1 { Ok(()) } else { Err(seen) })
        })
    }

    /// Waits until a director carries the address no more.
    pub fn await_not_carrying(&self, lab: &Lab, director: usize) -> Result<()> {
        let what = format!("{} lets {} go", self.directors[director].host, self.address);
        until(CALM_LIMIT, &what, || {
            let seen = self.look(lab)?;
            Ok(if seen[director].1 { Err(seen) } else { Ok(()) })
        })
    }
}

/// See [`Subject::still`].
pub struct Still<'a> {
    lab: &'a Lab,
    resume: String,
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let _ = self.lab.guest.try_run(&self.resume);
    }
}

/// Runs a script in the guest; when it began, by the guest's clock.
pub fn strike(lab: &Lab, script: &str) -> Result<Microseconds> {
    let output = lab.guest.run(&format!("echo $EPOCHREALTIME\n{script}"))?;
    let stamp = output.lines().next().unwrap_or_default();
    let (seconds, microseconds) = stamp
        .split_once('.')
        .with_context(|| format!("a time of the guest: {stamp:?}"))?;
    Ok(seconds.parse::<i64>()? * 1_000_000 + microseconds.parse::<i64>()?)
}
