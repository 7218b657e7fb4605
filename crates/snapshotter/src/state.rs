//! The snapshots of a node and the rules for changing them: pure, no I/O.
//!
//! Every operation is planned first: a method takes the state as it is and gives a [`Change`], the
//! rows to write and to delete. The caller makes that durable and then calls [`State::apply`]. So
//! the state in memory is never ahead of the disk, and the rules can be tested by themselves.
//!
//! Guarantees (the same as containerd's `core/snapshots/storage`): a parent is committed and stays
//! as long as it has children; ids are never used twice; errors come in the order in which
//! containerd finds them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uimgacc_types::{ChainId, Digest};

use crate::filter::Fields;
use crate::promise::{Claim, Labels};

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Read-only use of its parent.
    View,
    /// Being written.
    Active,
    /// Done, may be a parent.
    Committed,
}

/// Seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Time {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanoseconds: i32,
}

/// What a snapshot takes on the node's disk, without its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Bytes of the blocks in use.
    pub size_bytes: i64,
    /// Inodes in use.
    pub inodes: i64,
}

/// One snapshot. Its name is its key in [`State`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Names its folder.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// The parent's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Without empty values.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// When it was made or committed.
    pub created: Time,
    /// When its labels were last changed.
    pub updated: Time,
    /// What it takes; known once it is committed.
    #[serde(default)]
    pub usage: Usage,
    /// Its content is that of this chain in the store, with all its parents; it has no folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
    /// The digest that the image promised for that chain's index, see [`Claim`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
}

/// What an active snapshot or view of some parent lies on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Lower {
    /// Folders of this disk, top first.
    pub local: Vec<u64>,
    /// What lies below them: a chain of the store.
    pub chain: Option<ChainId>,
    /// The digest that the chain's index must have.
    pub index: Option<Digest>,
}

/// Rows to write and to delete, and the next free id. The order does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// New or replaced rows.
    pub put: Vec<(String, Arc<Snapshot>)>,
    /// Rows that go.
    pub delete: Vec<String>,
    /// The next id to give out.
    pub next_id: u64,
}

/// Why an operation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// No such snapshot.
    #[error("snapshot {0:?} does not exist")]
    NotFound(String),
    /// No such parent.
    #[error("parent snapshot {0:?} does not exist")]
    ParentNotFound(String),
    /// The name is taken.
    #[error("snapshot {0:?} already exists")]
    AlreadyExists(String),
    /// Only committed snapshots can be parents.
    #[error("parent {0:?} is not a committed snapshot")]
    ParentNotCommitted(String),
    /// Only active snapshots can be committed.
    #[error("snapshot {0:?} is not active")]
    NotActive(String),
    /// Only active snapshots and views have mounts.
    #[error("snapshot {0:?} is neither active nor a view")]
    NotMountable(String),
    /// Others lie on it.
    #[error("snapshot {0:?} has children and cannot be removed")]
    HasChildren(String),
    /// Only labels can be changed.
    #[error("field {field:?} of snapshot {name:?} cannot be changed; only labels can")]
    Immutable {
        /// The snapshot.
        name: String,
        /// The field's path.
        field: String,
    },
    /// A snapshot needs a name.
    #[error("a snapshot's name must not be empty")]
    NoName,
}

/// All snapshots of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    snapshots: BTreeMap<String, Arc<Snapshot>>,
    /// How many snapshots have this one as their parent; never 0.
    children: HashMap<String, usize>,
    next_id: u64,
}

impl State {
    /// The state that these rows make.
    #[must_use]
    pub(crate) fn new(rows: impl IntoIterator<Item = (String, Snapshot)>, next_id: u64) -> Self {
        let mut state = Self::default();
        let put: Vec<_> = rows
            .into_iter()
            .map(|(name, snapshot)| (name, Arc::new(snapshot)))
            .collect();
        // A lost counter must not give an id twice.
        let used = put.iter().map(|(_, snapshot)| snapshot.id + 1).max();
        state.apply(&Change {
            put,
            delete: Vec::new(),
            next_id: next_id.max(used.unwrap_or(1)).max(1),
        });
        state
    }

    /// The snapshot of that name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn get(&self, name: &str) -> Result<&Arc<Snapshot>, StateError> {
        self.snapshots
            .get(name)
            .ok_or_else(|| StateError::NotFound(name.to_owned()))
    }

    /// Every snapshot, in the order of the names' bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Snapshot>)> {
        self.snapshots.iter()
    }

    /// The ids of all folders.
    #[must_use]
    pub(crate) fn folders(&self) -> HashSet<u64> {
        let local = self.snapshots.values().filter(|s| s.chain.is_none());
        local.map(|snapshot| snapshot.id).collect()
    }

    /// The chains of the store that are here as snapshots, each once.
    #[must_use]
    pub(crate) fn chains(&self) -> BTreeSet<ChainId> {
        self.snapshots.values().filter_map(|s| s.chain).collect()
    }

    /// Whether some snapshot is that chain of the store.
    #[must_use]
    pub(crate) fn has_chain(&self, chain: ChainId) -> bool {
        self.snapshots
            .values()
            .any(|snapshot| snapshot.chain == Some(chain))
    }

    /// What a child of `parent` lies on.
    ///
    /// # Errors
    /// There is no such parent, or it is not committed.
    pub(crate) fn lower(&self, parent: Option<&str>) -> Result<Lower, StateError> {
        let mut lower = Lower::default();
        let Some(first) = parent else {
            return Ok(lower);
        };
        self.check_parent(first)?;
        let mut next = Some(first);
        while let Some(name) = next {
            let snapshot = self
                .snapshots
                .get(name)
                .ok_or_else(|| StateError::ParentNotFound(name.to_owned()))?;
            if snapshot.chain.is_some() {
                lower.chain = snapshot.chain;
                lower.index = snapshot.index;
                break;
            }
            lower.local.push(snapshot.id);
            next = snapshot.parent.as_deref();
        }
        Ok(lower)
    }

    /// The active snapshot or view of that name.
    ///
    /// # Errors
    /// There is none, or it is committed.
    pub(crate) fn mountable(&self, name: &str) -> Result<&Arc<Snapshot>, StateError> {
        let snapshot = self.get(name)?;
        if snapshot.kind == Kind::Committed {
            return Err(StateError::NotMountable(name.to_owned()));
        }
        Ok(snapshot)
    }

    fn check_parent(&self, name: &str) -> Result<(), StateError> {
        match self.snapshots.get(name).map(|snapshot| snapshot.kind) {
            None => Err(StateError::ParentNotFound(name.to_owned())),
            Some(Kind::Committed) => Ok(()),
            Some(_) => Err(StateError::ParentNotCommitted(name.to_owned())),
        }
    }

    /// A new active snapshot or view, with the next free id.
    ///
    /// # Errors
    /// The parent is missing or not committed, or the name is empty or taken.
    pub(crate) fn create(
        &self,
        kind: Kind,
        name: &str,
        parent: Option<&str>,
        labels: Labels,
        now: Time,
    ) -> Result<(Change, Arc<Snapshot>), StateError> {
        if let Some(parent) = parent {
            self.check_parent(parent)?;
        }
        self.check_free(name)?;
        Ok(self.insert(
            name.to_owned(),
            Snapshot {
                id: self.next_id,
                kind,
                parent: parent.map(str::to_owned),
                labels: without_empty(labels),
                created: now,
                updated: now,
                usage: Usage::default(),
                chain: None,
                index: None,
            },
        ))
    }

    /// A committed snapshot whose content is a chain of the store. `None` where the same chain is
    /// there on the same parent already: asking twice is no error.
    ///
    /// It is called `target` where that name is free; containerd takes any name, as it looks for
    /// the label `containerd.io/snapshot.ref`, which is part of `labels`.
    ///
    /// # Errors
    /// The parent is missing or not committed, or the name is empty.
    pub(crate) fn create_remote(
        &self,
        chain: ChainId,
        target: &str,
        parent: Option<&str>,
        labels: Labels,
        now: Time,
    ) -> Result<Option<Change>, StateError> {
        if let Some(parent) = parent {
            self.check_parent(parent)?;
        }
        if self.has_remote(chain, parent) {
            return Ok(None);
        }
        let name = match self.check_free(target) {
            Ok(()) => target.to_owned(),
            Err(StateError::AlreadyExists(_)) => format!("{target}#{}", self.next_id),
            Err(error) => return Err(error),
        };
        self.check_free(&name)?;
        let index = Claim::of(&labels).index_of(chain);
        let (change, _) = self.insert(
            name,
            Snapshot {
                id: self.next_id,
                kind: Kind::Committed,
                parent: parent.map(str::to_owned),
                labels: without_empty(labels),
                created: now,
                updated: now,
                usage: Usage::default(),
                chain: Some(chain),
                index,
            },
        );
        Ok(Some(change))
    }

    /// Whether that chain is there as a snapshot of the store with just that parent.
    #[must_use]
    pub(crate) fn has_remote(&self, chain: ChainId, parent: Option<&str>) -> bool {
        self.remote(chain, parent).is_some()
    }

    /// The snapshot that [`Self::has_remote`] finds.
    #[must_use]
    pub(crate) fn remote(&self, chain: ChainId, parent: Option<&str>) -> Option<&Arc<Snapshot>> {
        self.snapshots
            .values()
            .find(|found| found.chain == Some(chain) && found.parent.as_deref() == parent)
    }

    /// Every chain of the store that is here, with the number of active snapshots and views that
    /// lie on it.
    #[must_use]
    pub(crate) fn chains_in_use(&self) -> BTreeMap<ChainId, u32> {
        let mut users: BTreeMap<ChainId, u32> = self.chains().into_iter().map(|c| (c, 0)).collect();
        for snapshot in self
            .snapshots
            .values()
            .filter(|s| s.kind != Kind::Committed)
        {
            let lower = self.lower(snapshot.parent.as_deref());
            if let Some(chain) = lower.ok().and_then(|lower| lower.chain) {
                *users.entry(chain).or_default() += 1;
            }
        }
        users
    }

    /// Turns the active snapshot `key` into the committed one `name`. Labels are replaced.
    ///
    /// # Errors
    /// `key` is missing or not active, or `name` is empty or taken.
    pub(crate) fn commit(
        &self,
        name: &str,
        key: &str,
        usage: Usage,
        labels: Labels,
        now: Time,
    ) -> Result<Change, StateError> {
        let active = self.get(key)?;
        self.check_free(name)?;
        if active.kind != Kind::Active {
            return Err(StateError::NotActive(key.to_owned()));
        }
        let committed = Snapshot {
            kind: Kind::Committed,
            labels: without_empty(labels),
            created: now,
            updated: now,
            usage,
            ..active.as_ref().clone()
        };
        Ok(Change {
            put: vec![(name.to_owned(), Arc::new(committed))],
            delete: vec![key.to_owned()],
            next_id: self.next_id,
        })
    }

    /// Removes a snapshot without children.
    ///
    /// # Errors
    /// It is missing or has children.
    pub(crate) fn remove(&self, name: &str) -> Result<(Change, Arc<Snapshot>), StateError> {
        let snapshot = self.get(name)?.clone();
        if self.children.contains_key(name) {
            return Err(StateError::HasChildren(name.to_owned()));
        }
        let change = Change {
            put: Vec::new(),
            delete: vec![name.to_owned()],
            next_id: self.next_id,
        };
        Ok((change, snapshot))
    }

    /// Changes labels: all of them without `fields`, else those that `fields` names, each as
    /// `labels` or `labels.<key>`.
    ///
    /// # Errors
    /// The snapshot is missing, or a field cannot be changed.
    pub(crate) fn update(
        &self,
        name: &str,
        labels: &Labels,
        fields: &[String],
        now: Time,
    ) -> Result<(Change, Arc<Snapshot>), StateError> {
        let mut snapshot = self.get(name)?.as_ref().clone();
        if fields.is_empty() {
            snapshot.labels = labels.clone();
        }
        for field in fields {
            if let Some(key) = field.strip_prefix("labels.") {
                let value = labels.get(key).cloned().unwrap_or_default();
                snapshot.labels.insert(key.to_owned(), value);
            } else if field == "labels" {
                snapshot.labels = labels.clone();
            } else {
                return Err(StateError::Immutable {
                    name: name.to_owned(),
                    field: field.clone(),
                });
            }
        }
        snapshot.labels = without_empty(snapshot.labels);
        snapshot.updated = now;
        let snapshot = Arc::new(snapshot);
        let change = Change {
            put: vec![(name.to_owned(), snapshot.clone())],
            delete: Vec::new(),
            next_id: self.next_id,
        };
        Ok((change, snapshot))
    }

    /// A change that changes nothing.
    #[must_use]
    pub(crate) fn no_change(&self) -> Change {
        Change {
            put: Vec::new(),
            delete: Vec::new(),
            next_id: self.next_id,
        }
    }

    /// Whether everything that a change says is so already.
    #[must_use]
    pub(crate) fn has(&self, change: &Change) -> bool {
        let is_gone = |name: &String| !self.snapshots.contains_key(name);
        let is_there =
            |(name, new): &(String, Arc<Snapshot>)| self.snapshots.get(name) == Some(new);
        change.delete.iter().all(is_gone) && change.put.iter().all(is_there)
    }

    /// Takes a change in that was planned on this very state.
    pub(crate) fn apply(&mut self, change: &Change) {
        for name in &change.delete {
            if let Some(old) = self.snapshots.remove(name) {
                self.unlink(&old);
            }
        }
        for (name, snapshot) in &change.put {
            if let Some(parent) = &snapshot.parent {
                *self.children.entry(parent.clone()).or_default() += 1;
            }
            if let Some(old) = self.snapshots.insert(name.clone(), snapshot.clone()) {
                self.unlink(&old);
            }
        }
        self.next_id = change.next_id;
    }

    fn unlink(&mut self, old: &Snapshot) {
        let Some(parent) = &old.parent else { return };
        if let Some(count) = self.children.get_mut(parent) {
            *count -= 1;
            if *count == 0 {
                self.children.remove(parent);
            }
        }
    }

    fn check_free(&self, name: &str) -> Result<(), StateError> {
        if name.is_empty() {
            return Err(StateError::NoName);
        }
        if self.snapshots.contains_key(name) {
            return Err(StateError::AlreadyExists(name.to_owned()));
        }
        Ok(())
    }

    fn insert(&self, name: String, snapshot: Snapshot) -> (Change, Arc<Snapshot>) {
        let snapshot = Arc::new(snapshot);
        let change = Change {
            put: vec![(name, snapshot.clone())],
            delete: Vec::new(),
            next_id: self.next_id + 1,
        };
        (change, snapshot)
    }
}

impl Fields for (&str, &Snapshot) {
    fn field(&self, path: &[String]) -> Option<&str> {
        let (name, snapshot) = self;
        match path.split_first()? {
            (field, _) if field == "kind" => Some(match snapshot.kind {
                Kind::View => "view",
                Kind::Active => "active",
                Kind::Committed => "committed",
            }),
            (field, _) if field == "name" => Some(name),
            (field, _) if field == "parent" => Some(snapshot.parent.as_deref().unwrap_or_default()),
            (field, rest) if field == "labels" => {
                snapshot.labels.get(&rest.join(".")).map(String::as_str)
            }
            _ => None,
        }
    }
}

/// containerd's database drops labels with an empty value.
fn without_empty(mut labels: Labels) -> Labels {
    labels.retain(|_, value| !value.is_empty());
    labels
}
