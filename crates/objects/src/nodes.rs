//! Which nodes are ours.

use std::collections::BTreeMap;

/// Label of the operating system, set by the kubelet.
pub const OS_LABEL: &str = "kubernetes.io/os";
/// Label of nodes that are none: a Pod there runs elsewhere.
pub const TYPE_LABEL: &str = "type";
/// Its value.
pub const VIRTUAL: &str = "virtual-kubelet";

/// Whether a node with these labels is to be set up. The affinity of the installer's DaemonSet says
/// the same.
#[must_use]
pub fn is_selected(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|one| one == value);
    has(OS_LABEL, "linux")
        && !has(TYPE_LABEL, VIRTUAL)
        && selector.iter().all(|(key, value)| has(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn linux_nodes_with_the_labels_of_the_selector() {
        let linux = (OS_LABEL, "linux");
        for (node, selector, expected) in [
            (&[linux][..], &[][..], true),
            (&[linux, ("pool", "gpu")], &[("pool", "gpu")], true),
            (&[linux, ("pool", "cpu")], &[("pool", "gpu")], false),
            (&[linux], &[("pool", "gpu")], false),
            (&[(OS_LABEL, "windows")], &[], false),
            (&[], &[], false),
            (&[linux, (TYPE_LABEL, VIRTUAL)], &[], false),
        ] {
            let selected = is_selected(&labels(node), &labels(selector));
            assert_eq!(selected, expected, "{node:?} {selector:?}");
        }
    }
}
