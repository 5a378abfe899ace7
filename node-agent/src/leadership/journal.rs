//! The fence's journal: which addresses we put into the kernel in this boot, and under which epoch.
//!
//! Written before an address is added, so that a process killed at any moment leaves nothing that its
//! successor does not know of. It lives in the runtime directory, which a reboot empties; the boot-id
//! makes sure.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use lvs_core::fence::JournalEntry;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent runs on this node.
    #[error("another agent holds {path}: two on one node would both carry the addresses")]
    Locked {
        /// Lock file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{doing} {path}: {source}")]
    File {
        /// What we were doing.
        doing: &'static str,
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(rename = "bootID")]
    boot_id: String,
    routers: BTreeMap<String, JournalEntry>,
}

/// The journal of this process, which is the only one on the node as long as this exists.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    boot_id: String,
    written: BTreeMap<String, JournalEntry>,
    _lock: Flock<File>,
}

/// What an earlier process left.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or what another boot left: no address of it is in the kernel.
    Nothing,
    /// The journal of this boot.
    Routers(BTreeMap<String, JournalEntry>),
    /// Something that is no journal. Addresses with a lifetime go by themselves; the text says why.
    Unreadable(String),
}

impl Journal {
    /// Takes the lock and reads what an earlier process left.
    pub fn open(directory: &Path, boot_id: &str) -> Result<(Self, Found), JournalError> {
        let file = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::File {
                doing,
                path,
                source,
            }
        };
        std::fs::create_dir_all(directory).map_err(file("creating", directory))?;
        let lock_path = directory.join("leadership.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(file("opening", &lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| JournalError::Locked { path: lock_path })?;
        let path = directory.join("leadership.json");
        let found = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Nothing,
            Err(error) => return Err(file("reading", &path)(error)),
            Ok(bytes) => match serde_json::from_slice::<Content>(&bytes) {
                Err(error) => Found::Unreadable(format!("{}: {error}", path.display())),
                Ok(content) if content.boot_id != boot_id => Found::Nothing,
                Ok(content) => Found::Routers(content.routers),
            },
        };
        let written = match &found {
            Found::Routers(routers) => routers.clone(),
            Found::Nothing | Found::Unreadable(_) => BTreeMap::new(),
        };
        let journal = Self {
            path,
            boot_id: boot_id.to_owned(),
            written,
            _lock: lock,
        };
        Ok((journal, found))
    }

    /// Makes the file say this; does nothing when it does already.
    pub fn write(&mut self, routers: BTreeMap<String, JournalEntry>) -> Result<(), JournalError> {
        if routers == self.written {
            return Ok(());
        }
        let temporary = self.path.with_extension("json.new");
        let content = Content {
            boot_id: self.boot_id.clone(),
            routers,
        };
        let written = serde_json::to_vec(&content)
            .map_err(std::io::Error::from)
            .and_then(|bytes| {
                let mut file = File::create(&temporary)?;
                file.write_all(&bytes)?;
                // The directory is a tmpfs that ends with the boot, as the addresses do: no fsync.
                std::fs::rename(&temporary, &self.path)
            });
        written.map_err(|source| JournalError::File {
            doing: "writing",
            path: self.path.clone(),
            source,
        })?;
        self.written = content.routers;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn entry() -> BTreeMap<String, JournalEntry> {
        let entry = JournalEntry {
            epoch: 7,
            sent_at_nanoseconds: 1,
            lifetime_seconds: Some(2),
            held: true,
            addresses: BTreeSet::new(),
        };
        BTreeMap::from([("edge".to_owned(), entry)])
    }

    #[test]
    fn a_successor_of_the_same_boot_finds_it_and_one_of_another_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, found) = Journal::open(directory.path(), "boot-1").unwrap();
        assert_eq!(found, Found::Nothing);
        journal.write(entry()).unwrap();
        drop(journal);
        let (journal, found) = Journal::open(directory.path(), "boot-1").unwrap();
        assert_eq!(found, Found::Routers(entry()));
        drop(journal);
        let (_, found) = Journal::open(directory.path(), "boot-2").unwrap();
        assert_eq!(found, Found::Nothing);
    }

    #[test]
    fn a_second_agent_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = Journal::open(directory.path(), "boot-1").unwrap();
        let error = Journal::open(directory.path(), "boot-1").unwrap_err();
        assert!(matches!(error, JournalError::Locked { .. }), "{error}");
        drop(first);
        Journal::open(directory.path(), "boot-1").unwrap();
    }

    #[test]
    fn damage_is_said_and_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("leadership.json"), b"{\"bootID\":").unwrap();
        let (mut journal, found) = Journal::open(directory.path(), "boot-1").unwrap();
        assert!(matches!(found, Found::Unreadable(_)), "{found:?}");
        journal.write(entry()).unwrap();
        drop(journal);
        let (_, found) = Journal::open(directory.path(), "boot-1").unwrap();
        assert_eq!(found, Found::Routers(entry()));
    }
}
