//! Whether a copy holds all that a consistent read saw. Pure.

use std::collections::BTreeMap;

/// Objects of one kind by uid, each with its resource version.
pub(super) type Versions = BTreeMap<String, String>;

/// What a consistent read saw of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The version of the list.
    pub(super) version: String,
    /// Its objects.
    pub(super) objects: Versions,
}

/// Whether `one` is not older than `other`. Versions of one kind are numbers that grow
/// (Kubernetes enhancement 5504; etcd's revisions are); others only tell that they are the same.
fn is_at_least(one: &str, other: &str) -> bool {
    match (one.parse::<u128>(), other.parse::<u128>()) {
        (Ok(one), Ok(other)) => one >= other,
        _ => one == other,
    }
}

impl Seen {
    /// Whether a copy is not older than this: it has each object in this or a later version, and
    /// none that had gone by then.
    pub(super) fn is_covered_by(&self, copy: &Versions) -> bool {
        let has_all = self.objects.iter().all(|(uid, version)| {
            // One that has gone since is told by the next read.
            copy.get(uid)
                .is_some_and(|copied| is_at_least(copied, version))
        });
        let is_later =
            |version: &str| version != self.version && is_at_least(version, &self.version);
        has_all
            && copy
                .iter()
                .filter(|(uid, _)| !self.objects.contains_key(*uid))
                .all(|(_, version)| is_later(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(pairs: &[(&str, &str)]) -> Versions {
        pairs
            .iter()
            .map(|(uid, version)| ((*uid).to_owned(), (*version).to_owned()))
            .collect()
    }

    #[test]
    fn copies() {
        let seen = Seen {
            version: "20".to_owned(),
            objects: versions(&[("a", "10"), ("b", "15")]),
        };
        for (copy, is_covered) in [
            (&[("a", "10"), ("b", "15")][..], true),
            (&[("a", "10"), ("b", "21")], true),
            (&[("a", "9"), ("b", "15")], false),
            (&[("a", "10")], false),
            (&[], false),
            // Made since.
            (&[("a", "10"), ("b", "15"), ("c", "22")], true),
            // Gone by then, and the copy does not know it.
            (&[("a", "10"), ("b", "15"), ("c", "12")], false),
        ] {
            assert_eq!(seen.is_covered_by(&versions(copy)), is_covered, "{copy:?}");
        }
        assert!(Seen::default().is_covered_by(&Versions::new()));
    }

    #[test]
    fn versions_that_are_no_numbers_must_be_the_same() {
        let seen = Seen {
            version: "x".to_owned(),
            objects: versions(&[("a", "k")]),
        };
        assert!(seen.is_covered_by(&versions(&[("a", "k")])));
        assert!(!seen.is_covered_by(&versions(&[("a", "l")])));
    }
}
