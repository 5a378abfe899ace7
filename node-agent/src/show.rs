//! `lvs-agent show`: the IPVS of this node for people, started beside the agent that runs, in its pod.
//!
//! It reads the kernel and the files of the running agent, and changes nothing: a kernel that has not loaded IPVS is told as
//! such, since asking for its family would load it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use lvs_core::desired::PlanInput;
use lvs_core::journal::Journal;
use lvs_core::shown::connection::{ShownConnection, ShownConnections};
use lvs_core::shown::owner::Owners;
use lvs_core::shown::{
    self, ShownIpvs, ShownServices, ShownSettings, ShownSyncDaemon, ShownTimeouts,
};
use lvs_ipvs::{Client, ClientOptions, Dump, IpvsKernel};

use crate::args::{OfVirtualService, Places, ShowArguments, Shown};
use crate::disk::{JournalFile, PlanCache};
use crate::limits::KERNEL_ANSWER;
use crate::run::BOOT_ID;
use crate::show_facts;

/// Is there while the kernel has IPVS loaded.
const LOADED: &str = "/proc/net/ip_vs";
/// The kernel's list of connections: generic netlink has none.
const CONNECTIONS: &str = "/proc/net/ip_vs_conn";
const KERNEL_RELEASE: &str = "/proc/sys/kernel/osrelease";

/// What is asked for, in JSON.
///
/// # Errors
/// When the kernel cannot be read. What says only how things are called is told within the answer when it cannot be.
pub fn show(arguments: &ShowArguments) -> anyhow::Result<String> {
    let knowledge = || Knowledge::read(&arguments.places);
    let text = match &arguments.what {
        Shown::Services(of) => serde_json::to_string(&services(knowledge(), of)?),
        Shown::Connections { of, limit } => {
            serde_json::to_string(&connections(knowledge(), of, *limit)?)
        }
        Shown::Settings => serde_json::to_string(&settings(knowledge())?),
        Shown::Facts => serde_json::to_string(&show_facts::read(show_facts::Sources::default())),
    };
    Ok(format!("{}\n", text.context("writing the answer")?))
}

/// What the running agent knows of what is ours.
#[derive(Debug)]
pub(crate) struct Knowledge {
    /// `None`: it could not be read.
    pub journal: Option<Journal>,
    pub plans: Vec<PlanInput>,
    pub problems: Vec<String>,
}

impl Knowledge {
    /// From the files of the agent.
    pub fn read(places: &Places) -> Self {
        let mut problems = Vec::new();
        let boot_id = std::fs::read_to_string(BOOT_ID);
        let journal = match boot_id {
            Ok(boot_id) => JournalFile::of(&places.runtime_directory, boot_id.trim())
                .read()
                .map_err(|error| error.to_string()),
            Err(error) => Err(format!("reading {BOOT_ID}: {error}")),
        };
        let journal = journal.map_err(|error| problems.push(error)).ok();
        let mut plans = Vec::new();
        if places.state_directory.join("plans").exists() {
            match PlanCache::of(&places.state_directory).load() {
                Err(error) => problems.push(error.to_string()),
                Ok(loaded) => {
                    for (name, plan) in loaded {
                        match plan {
                            Ok(plan) => plans.push(PlanInput {
                                name,
                                spec: plan.spec,
                            }),
                            Err(error) => problems.push(error),
                        }
                    }
                }
            }
        }
        Self {
            journal,
            plans,
            problems,
        }
    }

    /// Whose things are; `None`: it is not known.
    pub fn owners(&self) -> Option<Owners<'_>> {
        let journal = self.journal.as_ref()?;
        Some(Owners::new(journal, &self.plans))
    }
}

/// A VirtualService as people name it.
pub(crate) fn named(of: &OfVirtualService) -> Option<(Option<&str>, &str)> {
    let text = of.virtual_service.as_deref()?;
    Some(match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    })
}

pub(crate) fn client() -> Client {
    Client::new(ClientOptions {
        timeout: KERNEL_ANSWER,
        ..ClientOptions::default()
    })
}

/// Whether asking does not load it.
pub(crate) fn is_loaded() -> bool {
    Path::new(LOADED).exists()
}

fn ipvs(client: &mut Client) -> anyhow::Result<ShownIpvs> {
    let info = client.info()?;
    let (major, minor, patch) = info.version;
    Ok(ShownIpvs {
        version: format!("{major}.{minor}.{patch}"),
        connection_table_size: info.connection_table_size,
    })
}

fn services(knowledge: Knowledge, of: &OfVirtualService) -> anyhow::Result<ShownServices> {
    let owners = knowledge.owners();
    let mut answer = ShownServices {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ownership_known: owners.is_some(),
        ..ShownServices::default()
    };
    if is_loaded() {
        let mut client = client();
        answer.ipvs = Some(ipvs(&mut client)?);
        let (readings, unnameable) = client.readings()?;
        answer.services = shown::services(readings, owners.as_ref());
        answer.unnameable = unnameable;
    }
    if let Some((namespace, name)) = named(of) {
        answer.unnameable.clear();
        answer.services.retain(|service| {
            let mut owner = service.owner.iter();
            owner.any(|owner| owner.is_of(namespace, name))
        });
    }
    answer.problems = knowledge.problems;
    Ok(answer)
}

fn connections(
    knowledge: Knowledge,
    of: &OfVirtualService,
    limit: u32,
) -> anyhow::Result<ShownConnections> {
    let owners = knowledge.owners();
    let mut answer = ShownConnections {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ownership_known: owners.is_some(),
        ..ShownConnections::default()
    };
    if is_loaded() {
        let file = File::open(CONNECTIONS).with_context(|| format!("opening {CONNECTIONS}"))?;
        let read = read_connections(BufReader::new(file), owners.as_ref(), named(of), limit);
        (answer.connections, answer.is_cut) =
            read.with_context(|| format!("reading {CONNECTIONS}"))?;
    }
    answer.problems = knowledge.problems;
    Ok(answer)
}

/// Connections, no more than `limit`, and whether there are more.
fn read_connections(
    lines: impl BufRead,
    owners: Option<&Owners<'_>>,
    of: Option<(Option<&str>, &str)>,
    limit: u32,
) -> anyhow::Result<(Vec<ShownConnection>, bool)> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut connections = Vec::new();
    // The first line is the heading.
    for line in lines.lines().skip(1) {
        let mut connection = ShownConnection::parse(&line?)?;
        let mut owner = None;
        if let Some(owners) = owners {
            (connection, owner) = connection.named(owners);
        }
        let is_wanted = of.is_none_or(|(namespace, name)| {
            owner
                .as_ref()
                .is_some_and(|owner| owner.is_of(namespace, name))
        });
        if !is_wanted {
            continue;
        }
        if connections.len() == limit {
            return Ok((connections, true));
        }
        connections.push(connection);
    }
    Ok((connections, false))
}

fn settings(knowledge: Knowledge) -> anyhow::Result<ShownSettings> {
    let release = std::fs::read_to_string(KERNEL_RELEASE)
        .with_context(|| format!("reading {KERNEL_RELEASE}"))?;
    let mut answer = ShownSettings {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: release.trim().to_owned(),
        ownership_known: knowledge.journal.is_some(),
        problems: knowledge.problems,
        ..ShownSettings::default()
    };
    if is_loaded() {
        let mut client = client();
        answer.ipvs = Some(ipvs(&mut client)?);
        let Dump {
            timeouts,
            sync_daemons,
            ..
        } = client.dump()?;
        let journal = knowledge.journal.unwrap_or_default();
        let ours = journal.sync_daemons_of_ours(&sync_daemons);
        let written = journal.timeouts.map(|record| record.written);
        answer.timeouts = Some(ShownTimeouts::new(timeouts, written == Some(timeouts)));
        answer.sync_daemons = sync_daemons
            .iter()
            .map(|(role, daemon)| ShownSyncDaemon::new(*role, daemon, ours.contains_key(role)))
            .collect();
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEADING: &str =
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";
    const LINE: &str = "TCP C0000264 D431 C0000201 0050 C000020B 0050 ESTABLISHED     899\n";

    #[test]
    fn a_list_is_cut_at_its_bound_and_says_so() {
        for (count, limit, shown, is_cut) in [(0, 1, 0, false), (1, 1, 1, false), (3, 2, 2, true)] {
            let text = format!("{HEADING}{}", LINE.repeat(count));
            let read = read_connections(text.as_bytes(), None, None, limit).unwrap();
            assert_eq!((read.0.len(), read.1), (shown, is_cut), "{count} {limit}");
        }
    }

    #[test]
    fn those_of_others_do_not_count_against_the_bound() {
        let text = format!("{HEADING}{}", LINE.repeat(3));
        let journal = Journal::default();
        let owners = Owners::new(&journal, &[]);
        let read = read_connections(text.as_bytes(), Some(&owners), Some((None, "web")), 1);
        assert_eq!(read.unwrap(), (vec![], false));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error_not_a_shorter_list() {
        let text = format!("{HEADING}{LINE}TCP nonsense\n");
        let error = read_connections(text.as_bytes(), None, None, 10).unwrap_err();
        assert!(error.to_string().contains("TCP nonsense"), "{error}");
    }

    #[test]
    fn without_files_nothing_is_made_and_nothing_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places {
            state_directory: directory.path().join("state"),
            runtime_directory: directory.path().join("run"),
        };
        let knowledge = Knowledge::read(&places);
        assert_eq!(knowledge.problems, [""; 0]);
        assert!(knowledge.journal.as_ref().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        std::fs::create_dir(directory.path().join("run")).unwrap();
        std::fs::write(directory.path().join("run/journal.json"), "{").unwrap();
        let knowledge = Knowledge::read(&places);
        assert!(knowledge.owners().is_none());
        assert!(knowledge.problems[0].contains("journal.json"));
    }
}
