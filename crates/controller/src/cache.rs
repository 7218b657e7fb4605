//! A cache of one kind, filled by a watch and by the answers to our own writes.
//!
//! **Guarantees.** An older version never replaces a newer one, so what we just wrote stays until
//! the watch has caught up. Objects that a new listing does not have are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use super::election::is_older;
use super::view::Cached;

/// What changed about an object: what it was, and what it is.
#[derive(Debug)]
pub struct Change<T> {
    /// Its key.
    pub key: String,
    /// Before.
    pub old: Option<Arc<T>>,
    /// Now.
    pub new: Option<Arc<T>>,
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Cache<T> {
    objects: BTreeMap<String, Arc<T>>,
    // Keys that a listing under way has brought so far.
    listed: Option<BTreeSet<String>>,
    synced: bool,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listed: None,
            synced: false,
        }
    }
}

impl<T: Cached + Clone + PartialEq> Cache<T> {
    /// Whether the first listing is complete.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.synced
    }

    /// All objects, by key.
    #[must_use]
    pub const fn all(&self) -> &BTreeMap<String, Arc<T>> {
        &self.objects
    }

    /// The object of that key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<T>> {
        self.objects.get(key)
    }

    /// What a watch tells. Returns what changed, but for the version.
    pub fn apply<K: Into<T>>(&mut self, event: Event<K>) -> Vec<Change<T>> {
        match event {
            Event::Init => {
                self.listed = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let object = object.into();
                if let Some(listed) = &mut self.listed {
                    listed.insert(object.key());
                }
                self.put(object)
            }
            Event::Apply(object) => self.put(object.into()),
            Event::Delete(object) => self.remove(&object.into()),
            Event::InitDone => {
                self.synced = true;
                let Some(listed) = self.listed.take() else {
                    return Vec::new();
                };
                let gone: Vec<String> = self
                    .objects
                    .keys()
                    .filter(|key| !listed.contains(*key))
                    .cloned()
                    .collect();
                gone.into_iter()
                    .map(|key| Change {
                        old: self.objects.remove(&key),
                        new: None,
                        key,
                    })
                    .collect()
            }
        }
    }

    /// Puts an object in, unless a newer version is there.
    pub fn put(&mut self, object: T) -> Vec<Change<T>> {
        let key = object.key();
        let old = self.objects.get(&key).cloned();
        if let Some(old) = &old {
            if is_older(object.version(), old.version()) {
                return Vec::new();
            }
            let mut same = object.clone();
            same.set_version(old.version());
            if same == **old {
                self.objects.insert(key, Arc::new(object));
                return Vec::new();
            }
        }
        let new = Arc::new(object);
        self.objects.insert(key.clone(), new.clone());
        vec![Change {
            key,
            old,
            new: Some(new),
        }]
    }

    /// Takes an object out, unless a newer version is there: another of the same name.
    fn remove(&mut self, object: &T) -> Vec<Change<T>> {
        let key = object.key();
        match self.objects.get(&key) {
            Some(old) if !is_older(object.version(), old.version()) => vec![Change {
                old: self.objects.remove(&key),
                new: None,
                key,
            }],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::view::{InstallerView, Meta};
    use super::*;

    fn object(name: &str, version: &str, ready: i32) -> InstallerView {
        InstallerView {
            meta: Meta {
                name: name.to_owned(),
                version: version.to_owned(),
                ..Meta::default()
            },
            ready,
            ..InstallerView::default()
        }
    }

    #[test]
    fn an_older_version_replaces_nothing() {
        let mut cache = Cache::default();
        assert_eq!(cache.put(object("a", "5", 1)).len(), 1);
        // The same but for the version is no change, and is remembered.
        assert!(cache.put(object("a", "7", 1)).is_empty());
        assert!(cache.apply(Event::Apply(object("a", "6", 9))).is_empty());
        assert_eq!(cache.get("a").unwrap().ready, 1);
        assert!(cache.apply(Event::Delete(object("a", "6", 1))).is_empty());
        assert_eq!(cache.apply(Event::Delete(object("a", "8", 1))).len(), 1);
        assert!(cache.all().is_empty());
    }

    #[test]
    fn a_new_listing_removes_what_it_does_not_have() {
        let mut cache = Cache::<InstallerView>::default();
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1", 0)),
            Event::InitApply(object("b", "2", 0)),
        ] {
            cache.apply(event);
            assert!(!cache.is_synced());
        }
        assert!(cache.apply(Event::<InstallerView>::InitDone).is_empty());
        assert!(cache.is_synced());
        cache.apply(Event::<InstallerView>::Init);
        cache.apply(Event::InitApply(object("b", "2", 0)));
        assert!(cache.is_synced(), "a new listing makes nobody unready");
        let changes = cache.apply(Event::<InstallerView>::InitDone);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].key, "a");
        assert!(changes[0].new.is_none());
    }
}
