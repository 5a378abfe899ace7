//! The book of plans: what this node was asked to do, whatever happens to the messenger.
//!
//! Unknown is not none. A plan that cannot be decoded keeps its last good content; a plan that vanishes without
//! having been withdrawn is kept; before the first complete list nothing counts as gone.

use std::collections::{BTreeMap, BTreeSet};

use lvs_core::desired::PlanInput;
use lvs_crds::node_plan::{NodePlanSpec, NodePlanStatus, PlanState};

use crate::plan_traces::PlanTrace;

/// A NodePlan as it came from the API, decoded or not.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedPlan {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The specification, or why it cannot be understood.
    pub spec: Result<NodePlanSpec, String>,
    /// Status as far as it can be read: what was reported last.
    pub status: NodePlanStatus,
    /// The trace of which its write was a part, if it says so. Whatever it is, it changes nothing of what is done.
    pub trace: Option<PlanTrace>,
}

/// What the watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanEvent {
    /// A complete list begins.
    ListBegins,
    /// One plan of the list.
    Listed(ReceivedPlan),
    /// The list is complete: what was not in it is gone from the API.
    ListEnds,
    /// A plan was made or changed.
    Applied(ReceivedPlan),
    /// A plan was deleted.
    Deleted {
        /// Name.
        name: String,
        /// UID of the object that was deleted.
        uid: String,
    },
}

/// A plan from the cache on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedPlan {
    /// UID of the object it came from.
    pub uid: String,
    /// Generation of the object it came from.
    pub generation: i64,
    /// What was asked.
    pub spec: NodePlanSpec,
}

/// Where a plan is, apart from here.
#[derive(Clone, Debug, PartialEq)]
pub enum Presence {
    /// Only in the cache so far: the API has not been read.
    Cached,
    /// In the API.
    Live {
        /// UID.
        uid: String,
        /// Newest generation.
        generation: i64,
        /// Status as last seen.
        status: Box<NodePlanStatus>,
    },
    /// It vanished from the API without having been withdrawn.
    Orphaned,
}

/// What is known of one plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// UID and generation of the content that is carried out; `None` = no content was ever understood.
    pub good: Option<(String, i64)>,
    /// Why the newest content cannot be understood.
    pub trouble: Option<String>,
    /// Where the plan is.
    pub presence: Presence,
}

/// What a restart must find on disk.
#[derive(Clone, Debug, PartialEq)]
pub enum CacheChange {
    /// Keep this.
    Write(String, Box<CachedPlan>),
    /// Forget this.
    Remove(String),
}

/// Every plan of this node.
#[derive(Debug)]
pub struct PlanBook {
    node_name: String,
    entries: BTreeMap<String, Entry>,
    /// Contents that are carried out, sorted by name. One vector, as the pure core takes it as it is.
    inputs: Vec<PlanInput>,
    /// Names seen while a list is under way.
    listing: Option<BTreeSet<String>>,
    listed: bool,
    dirty: BTreeSet<String>,
}

impl PlanBook {
    /// A book with what the cache held; `Err` is the reason why a cached plan cannot be read.
    pub fn new(
        node_name: &str,
        cached: impl IntoIterator<Item = (String, Result<CachedPlan, String>)>,
    ) -> Self {
        let mut book = Self {
            node_name: node_name.to_owned(),
            entries: BTreeMap::new(),
            inputs: Vec::new(),
            listing: None,
            listed: false,
            dirty: BTreeSet::new(),
        };
        for (name, plan) in cached {
            let entry = match plan {
                // A disk that was copied to another node.
                Ok(plan) if plan.spec.node_name != node_name => {
                    book.dirty.insert(name);
                    continue;
                }
                Ok(plan) => {
                    book.set_input(&name, plan.spec);
                    Entry {
                        good: Some((plan.uid, plan.generation)),
                        trouble: None,
                        presence: Presence::Cached,
                    }
                }
                Err(trouble) => Entry {
                    good: None,
                    trouble: Some(trouble),
                    presence: Presence::Cached,
                },
            };
            book.entries.insert(name, entry);
        }
        book
    }

    /// Contents to carry out, sorted by name.
    pub fn inputs(&self) -> &[PlanInput] {
        &self.inputs
    }

    /// Every plan.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Content of one plan.
    pub fn spec(&self, name: &str) -> Option<&NodePlanSpec> {
        let position = self.position(name).ok()?;
        self.inputs.get(position).map(|input| &input.spec)
    }

    /// Whether the API was listed completely since the start.
    pub const fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether everything that was ever asked of this node is known. While it is not, nothing may be removed.
    pub fn is_complete(&self) -> bool {
        self.listed && self.entries.values().all(|entry| entry.good.is_some())
    }

    /// Takes an event. Returns whether what is to be done, or what is to be reported, has changed.
    pub fn take(&mut self, event: PlanEvent) -> bool {
        match event {
            PlanEvent::ListBegins => {
                self.listing = Some(BTreeSet::new());
                false
            }
            PlanEvent::Listed(plan) => {
                if let Some(names) = &mut self.listing {
                    names.insert(plan.name.clone());
                }
                self.received(plan)
            }
            PlanEvent::ListEnds => {
                let seen = self.listing.take().unwrap_or_default();
                let vanished: Vec<String> = self
                    .entries
                    .keys()
                    .filter(|name| !seen.contains(*name))
                    .cloned()
                    .collect();
                let mut changed = !self.listed;
                self.listed = true;
                for name in vanished {
                    changed |= self.vanished(&name);
                }
                changed
            }
            PlanEvent::Applied(plan) => self.received(plan),
            PlanEvent::Deleted { name, uid } => {
                let same = self.entries.get(&name).is_some_and(|entry| {
                    !matches!(&entry.presence, Presence::Live { uid: live, .. } if *live != uid)
                });
                same && self.vanished(&name)
            }
        }
    }

    /// What the cache on disk must be told since the last call.
    pub fn take_cache_changes(&mut self) -> Vec<CacheChange> {
        std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|name| {
                let good = self.entries.get(&name).and_then(|entry| entry.good.clone());
                match (good, self.spec(&name)) {
                    (Some((uid, generation)), Some(spec)) => CacheChange::Write(
                        name.clone(),
                        Box::new(CachedPlan {
                            uid,
                            generation,
                            spec: spec.clone(),
                        }),
                    ),
                    _ => CacheChange::Remove(name),
                }
            })
            .collect()
    }

    /// A change that could not be brought to disk: it is due again.
    pub fn cache_again(&mut self, name: String) {
        self.dirty.insert(name);
    }

    fn received(&mut self, plan: ReceivedPlan) -> bool {
        let ReceivedPlan {
            name,
            uid,
            generation,
            spec,
            status,
            trace: _,
        } = plan;
        let before = self.entries.get(&name).cloned();
        let presence = Presence::Live {
            uid: uid.clone(),
            generation,
            status: Box::new(status),
        };
        let mut input_changed = false;
        let spec = spec.and_then(|spec| {
            if spec.node_name == self.node_name {
                Ok(spec)
            } else {
                Err(format!(
                    "spec.nodeName is {}, this node is {}",
                    spec.node_name, self.node_name
                ))
            }
        });
        let entry = match spec {
            Ok(spec) => {
                if self.spec(&name) != Some(&spec) {
                    self.set_input(&name, spec);
                    input_changed = true;
                }
                Entry {
                    good: Some((uid, generation)),
                    trouble: None,
                    presence,
                }
            }
            Err(trouble) => Entry {
                good: before.as_ref().and_then(|entry| entry.good.clone()),
                trouble: Some(trouble),
                presence,
            },
        };
        if input_changed || before.as_ref().map(|entry| &entry.good) != Some(&entry.good) {
            self.dirty.insert(name.clone());
        }
        let meaning = |entry: &Entry| {
            let live = matches!(entry.presence, Presence::Live { .. });
            (entry.good.clone(), entry.trouble.clone(), live)
        };
        let changed = input_changed || before.as_ref().map(meaning) != Some(meaning(&entry));
        self.entries.insert(name, entry);
        changed
    }

    fn vanished(&mut self, name: &str) -> bool {
        let withdrawn = self
            .spec(name)
            .is_some_and(|spec| spec.state == PlanState::Withdrawn);
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        if withdrawn {
            // Removed on purpose. What the kernel still holds of it is in the journal and goes as unwanted.
            self.entries.remove(name);
            if let Ok(position) = self.position(name) {
                self.inputs.remove(position);
            }
            self.dirty.insert(name.to_owned());
            return true;
        }
        if entry.good.is_none() && matches!(entry.presence, Presence::Live { .. }) {
            // Never understood, never carried out, and now gone: there is nothing to keep. (Content that only a
            // damaged cache held is another matter: it was carried out once, and stays unknown.)
            self.entries.remove(name);
            self.dirty.insert(name.to_owned());
            return true;
        }
        let changed = entry.presence != Presence::Orphaned;
        entry.presence = Presence::Orphaned;
        changed
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.inputs
            .binary_search_by(|input| input.name.as_str().cmp(name))
    }

    fn set_input(&mut self, name: &str, spec: NodePlanSpec) {
        match self.position(name) {
            Ok(position) => {
                if let Some(input) = self.inputs.get_mut(position) {
                    input.spec = spec;
                }
            }
            Err(position) => {
                self.inputs.insert(
                    position,
                    PlanInput {
                        name: name.to_owned(),
                        spec,
                    },
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lvs_crds::node_plan::{PlanSource, SourceKind};

    use super::*;

    fn spec(node_name: &str, state: PlanState) -> NodePlanSpec {
        NodePlanSpec {
            node_name: node_name.into(),
            state,
            source: PlanSource {
                kind: SourceKind::VirtualService,
                namespace: "default".into(),
                name: "web".into(),
                uid: "1".into(),
                generation: 1,
            },
            virtual_router_name: "edge".into(),
            director: None,
            real_server: None,
        }
    }

    fn received(name: &str, generation: i64, spec: Result<NodePlanSpec, String>) -> ReceivedPlan {
        ReceivedPlan {
            name: name.into(),
            uid: format!("uid-{name}"),
            generation,
            spec,
            status: NodePlanStatus::default(),
            trace: None,
        }
    }

    fn active(name: &str) -> ReceivedPlan {
        received(name, 1, Ok(spec("node-a", PlanState::Active)))
    }

    fn listed(plans: Vec<ReceivedPlan>) -> PlanBook {
        let mut book = PlanBook::new("node-a", []);
        list(&mut book, plans);
        book
    }

    fn list(book: &mut PlanBook, plans: Vec<ReceivedPlan>) {
        book.take(PlanEvent::ListBegins);
        for plan in plans {
            book.take(PlanEvent::Listed(plan));
        }
        book.take(PlanEvent::ListEnds);
    }

    fn names(book: &PlanBook) -> Vec<&str> {
        book.inputs()
            .iter()
            .map(|input| input.name.as_str())
            .collect()
    }

    #[test]
    fn an_undecodable_plan_freezes_at_its_last_good_content() {
        let mut book = listed(vec![active("vs-1")]);
        assert!(book.take(PlanEvent::Applied(received(
            "vs-1",
            2,
            Err("unknown variant".into())
        ))));
        assert_eq!(names(&book), ["vs-1"]);
        let entry = &book.entries()["vs-1"];
        assert_eq!(entry.good, Some(("uid-vs-1".into(), 1)));
        assert_eq!(entry.trouble.as_deref(), Some("unknown variant"));
        assert!(book.is_complete());
    }

    #[test]
    fn a_plan_that_was_never_understood_makes_the_book_incomplete() {
        let book = listed(vec![received("vs-1", 1, Err("unknown variant".into()))]);
        assert!(names(&book).is_empty());
        assert!(!book.is_complete());
    }

    #[test]
    fn a_vanished_plan_is_kept_whether_deleted_or_missing_in_a_list() {
        let mut book = listed(vec![active("vs-1"), active("vs-2")]);
        let deleted = PlanEvent::Deleted {
            name: "vs-1".into(),
            uid: "uid-vs-1".into(),
        };
        assert!(book.take(deleted));
        list(&mut book, vec![]);
        assert_eq!(names(&book), ["vs-1", "vs-2"]);
        for entry in book.entries().values() {
            assert_eq!(entry.presence, Presence::Orphaned);
        }
        book.take(PlanEvent::Applied(active("vs-1")));
        assert!(matches!(
            book.entries()["vs-1"].presence,
            Presence::Live { .. }
        ));
    }

    #[test]
    fn a_withdrawn_plan_is_forgotten_once_it_is_gone() {
        let mut book = listed(vec![received(
            "vs-1",
            2,
            Ok(spec("node-a", PlanState::Withdrawn)),
        )]);
        book.take_cache_changes();
        assert!(book.take(PlanEvent::Deleted {
            name: "vs-1".into(),
            uid: "uid-vs-1".into()
        }));
        assert!(book.entries().is_empty() && book.inputs().is_empty());
        assert_eq!(
            book.take_cache_changes(),
            [CacheChange::Remove("vs-1".into())]
        );
    }

    #[test]
    fn the_late_deletion_of_an_older_object_changes_nothing() {
        let mut book = listed(vec![active("vs-1")]);
        assert!(!book.take(PlanEvent::Deleted {
            name: "vs-1".into(),
            uid: "older".into()
        }));
        assert!(matches!(
            book.entries()["vs-1"].presence,
            Presence::Live { .. }
        ));
    }

    #[test]
    fn an_interrupted_list_removes_nothing() {
        let mut book = listed(vec![active("vs-1"), active("vs-2")]);
        book.take(PlanEvent::ListBegins);
        book.take(PlanEvent::Listed(active("vs-1")));
        // The connection breaks; the next list begins anew.
        list(&mut book, vec![active("vs-1"), active("vs-2")]);
        assert!(
            book.entries()
                .values()
                .all(|entry| matches!(entry.presence, Presence::Live { .. }))
        );
    }

    #[test]
    fn a_status_write_is_no_change() {
        let mut book = listed(vec![active("vs-1")]);
        let mut plan = active("vs-1");
        plan.status.agent_version = Some("1".into());
        assert!(!book.take(PlanEvent::Applied(plan)));
    }

    #[test]
    fn the_cache_alone_is_carried_out_but_is_not_complete() {
        let cached = CachedPlan {
            uid: "uid-vs-1".into(),
            generation: 1,
            spec: spec("node-a", PlanState::Active),
        };
        let mut book = PlanBook::new("node-a", [("vs-1".to_owned(), Ok(cached))]);
        assert_eq!(names(&book), ["vs-1"]);
        assert!(!book.is_complete());
        list(&mut book, vec![active("vs-1")]);
        assert!(book.is_complete());
        assert!(book.take_cache_changes().is_empty());
    }

    #[test]
    fn a_damaged_cache_stays_unknown_until_the_plan_is_seen() {
        let mut book = PlanBook::new("node-a", [("vs-1".to_owned(), Err("cut short".to_owned()))]);
        list(&mut book, vec![]);
        assert!(!book.is_complete());
        book.take(PlanEvent::Applied(active("vs-1")));
        assert!(book.is_complete());
    }

    #[test]
    fn plans_of_another_node_are_not_carried_out() {
        let cached = CachedPlan {
            uid: "uid".into(),
            generation: 1,
            spec: spec("node-b", PlanState::Active),
        };
        let mut book = PlanBook::new("node-a", [("vs-1".to_owned(), Ok(cached))]);
        assert!(book.entries().is_empty());
        assert_eq!(
            book.take_cache_changes(),
            [CacheChange::Remove("vs-1".into())]
        );
        book.take(PlanEvent::Applied(received(
            "vs-2",
            1,
            Ok(spec("node-b", PlanState::Active)),
        )));
        assert!(book.inputs().is_empty());
        assert!(book.entries()["vs-2"].trouble.is_some());
    }
}
