//! Files that survive a restart: the plans last understood, and the journal of what is ours.
//!
//! A file appears whole or not at all (written beside, synced, renamed). A file that cannot be read is an error,
//! never "nothing".

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use lvs_core::journal::{Journal, JournalError};
use lvs_crds::node_plan::NodePlanSpec;
use serde::{Deserialize, Serialize};

use crate::book::{CacheChange, CachedPlan};

/// Version of the text of a cached plan.
const CACHE_VERSION: u32 = 1;
/// Ending of a cached plan.
const ENDING: &str = ".json";

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A system call failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The plan could not be turned into text.
    #[error("writing plan {name}: {source}")]
    Encode {
        /// Name of the plan.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The journal's text is not understood.
    #[error("{}: {source}{}", path.display(), cause(source))]
    Journal {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: JournalError,
    },
}

fn cause(error: &JournalError) -> String {
    std::error::Error::source(error)
        .map(|source| format!(": {source}"))
        .unwrap_or_default()
}

fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> DiskError + 'a {
    move |source| DiskError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Writes a file so that a reader sees the old text or the new one, also after a power failure.
fn replace(path: &Path, text: &str) -> Result<(), DiskError> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(failed("creating", &beside))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("writing", &beside))?;
    fs::rename(&beside, path).map_err(failed("renaming into", path))?;
    match path.parent() {
        Some(directory) => File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("syncing", directory)),
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct WrittenPlan<'a> {
    version: u32,
    uid: &'a str,
    generation: i64,
    spec: &'a NodePlanSpec,
}

#[derive(Deserialize)]
struct ReadPlan {
    version: u32,
    uid: String,
    generation: i64,
    spec: NodePlanSpec,
}

/// A cached plan by name, or why it cannot be read.
pub type LoadedPlan = (String, Result<CachedPlan, String>);

/// Plans last understood, one file each, so that a change writes what has changed.
#[derive(Debug)]
pub struct PlanCache {
    directory: PathBuf,
}

impl PlanCache {
    /// Opens the cache below the state directory, making it if need be.
    pub fn open(state_directory: &Path) -> Result<Self, DiskError> {
        let cache = Self::of(state_directory);
        fs::create_dir_all(&cache.directory).map_err(failed("creating", &cache.directory))?;
        Ok(cache)
    }

    /// The cache below the state directory for one who only reads: nothing is made.
    pub fn of(state_directory: &Path) -> Self {
        Self {
            directory: state_directory.join("plans"),
        }
    }

    /// Every cached plan by name; an unreadable one with the reason. An error of the directory itself is one of the
    /// whole: what was in it is not known.
    pub fn load(&self) -> Result<Vec<LoadedPlan>, DiskError> {
        let reading = || failed("reading", &self.directory);
        let mut plans = Vec::new();
        for file in fs::read_dir(&self.directory).map_err(reading())? {
            let path = file.map_err(reading())?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if let Some(name) = name.strip_suffix(ENDING) {
                plans.push((name.to_owned(), Self::read(&path)));
            }
        }
        plans.sort_by(|(left, _), (right, _)| left.cmp(right));
        Ok(plans)
    }

    fn read(path: &Path) -> Result<CachedPlan, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| told(&error))?;
        let plan: ReadPlan = serde_json::from_str(&text).map_err(|error| told(&error))?;
        if plan.version != CACHE_VERSION {
            return Err(told(&format!("version {} is not known", plan.version)));
        }
        Ok(CachedPlan {
            uid: plan.uid,
            generation: plan.generation,
            spec: plan.spec,
        })
    }

    /// Brings one change to disk.
    pub fn store(&self, change: &CacheChange) -> Result<(), DiskError> {
        match change {
            CacheChange::Write(name, plan) => {
                let written = WrittenPlan {
                    version: CACHE_VERSION,
                    uid: &plan.uid,
                    generation: plan.generation,
                    spec: &plan.spec,
                };
                let text = serde_json::to_string(&written).map_err(|source| DiskError::Encode {
                    name: name.clone(),
                    source,
                })?;
                replace(&self.path(name), &text)
            }
            CacheChange::Remove(name) => {
                let path = self.path(name);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        Err(failed("removing", &path)(error))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        // Names of Kubernetes objects hold no slash; nothing else may leave the directory either.
        self.directory
            .join(format!("{}{ENDING}", name.replace('/', "_")))
    }
}

/// The journal on disk.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    boot_id: String,
}

impl JournalFile {
    /// The journal below the runtime directory, which is made if need be.
    pub fn open(runtime_directory: &Path, boot_id: &str) -> Result<Self, DiskError> {
        fs::create_dir_all(runtime_directory).map_err(failed("creating", runtime_directory))?;
        Ok(Self::of(runtime_directory, boot_id))
    }

    /// The journal below the runtime directory for one who only reads: nothing is made.
    pub fn of(runtime_directory: &Path, boot_id: &str) -> Self {
        Self {
            path: runtime_directory.join("journal.json"),
            boot_id: boot_id.to_owned(),
        }
    }

    /// Reads the journal. No file means that nothing is ours; a file that cannot be understood is an error.
    pub fn read(&self) -> Result<Journal, DiskError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => {
                Journal::from_text(&text, &self.boot_id).map_err(|source| DiskError::Journal {
                    path: self.path.clone(),
                    source,
                })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Journal::new(&self.boot_id)),
            Err(error) => Err(failed("reading", &self.path)(error)),
        }
    }

    /// Writes the journal.
    pub fn write(&self, journal: &Journal) -> Result<(), DiskError> {
        let text = journal.to_text().map_err(|source| DiskError::Journal {
            path: self.path.clone(),
            source,
        })?;
        replace(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lvs_crds::node_plan::{PlanSource, PlanState, SourceKind};

    use super::*;

    fn plan() -> CachedPlan {
        CachedPlan {
            uid: "u".into(),
            generation: 3,
            spec: NodePlanSpec {
                node_name: "node-a".into(),
                state: PlanState::Active,
                source: PlanSource {
                    kind: SourceKind::VirtualRouter,
                    namespace: String::new(),
                    name: "edge".into(),
                    uid: "r".into(),
                    generation: 1,
                },
                virtual_router_name: "edge".into(),
                director: None,
                real_server: None,
            },
        }
    }

    #[test]
    fn a_plan_is_read_back_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = PlanCache::open(directory.path()).unwrap();
        cache
            .store(&CacheChange::Write("vr-1".into(), Box::new(plan())))
            .unwrap();
        assert_eq!(cache.load().unwrap(), [("vr-1".to_owned(), Ok(plan()))]);
        for _ in 0..2 {
            cache.store(&CacheChange::Remove("vr-1".into())).unwrap();
        }
        assert!(cache.load().unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_told_not_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let cache = PlanCache::open(directory.path()).unwrap();
        cache
            .store(&CacheChange::Write("vr-1".into(), Box::new(plan())))
            .unwrap();
        let path = directory.path().join("plans/vr-1.json");
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [&text[..text.len() / 2], "", "{\"version\":9}"] {
            fs::write(&path, damaged).unwrap();
            let loaded = cache.load().unwrap();
            let [(name, Err(told))] = loaded.as_slice() else {
                unreachable!("{loaded:?}")
            };
            assert_eq!(name, "vr-1");
            assert!(told.contains("vr-1.json"), "{told}");
        }
    }

    #[test]
    fn a_journal_of_this_boot_is_read_back_and_one_of_another_is_void() {
        let directory = tempfile::tempdir().unwrap();
        let file = JournalFile::open(directory.path(), "boot-1").unwrap();
        assert!(file.read().unwrap().is_empty());
        let mut journal = Journal::new("boot-1");
        journal
            .links
            .insert("lvs-dr".into(), lvs_core::host::LinkKind::Dummy);
        file.write(&journal).unwrap();
        assert_eq!(file.read().unwrap(), journal);
        let later = JournalFile::open(directory.path(), "boot-2").unwrap();
        assert!(later.read().unwrap().is_empty());
    }

    #[test]
    fn a_damaged_journal_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = JournalFile::open(directory.path(), "boot-1").unwrap();
        for damaged in ["", "{", "{\"version\":99}"] {
            fs::write(directory.path().join("journal.json"), damaged).unwrap();
            assert!(
                matches!(file.read(), Err(DiskError::Journal { .. })),
                "{damaged}"
            );
        }
    }
}
