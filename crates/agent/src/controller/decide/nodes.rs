//! What is asked of the nodes: whose turn it is to restart containerd, and what each gives back.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::{AccelerationNodeSpec, find_condition};

use super::super::view::LeaseView;
use super::{Action, until};

/// How old an object without a Node must be before it is removed: the caches of the two kinds
/// are not of one moment.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_secs(60);

/// Whether a condition of a node is true.
#[must_use]
pub fn is_true(node: &LeaseView, kind: &str) -> bool {
    find_condition(&node.status.conditions, kind).is_some_and(|one| one.status == "True")
}

/// Whether everything was taken off a node.
#[must_use]
pub fn is_uninstalled(node: &LeaseView) -> bool {
    find_condition(&node.status.conditions, "Installed")
        .is_some_and(|one| one.status == "False" && one.reason == "Uninstalled")
}

/// What is to be done.
///
/// A node whose turn it is keeps it until it needs no restart any more *and* is installed. Where
/// its containerd did not come back, the turn stays there and no other node restarts.
#[must_use]
pub fn decide(
    leases: &BTreeMap<String, std::sync::Arc<LeaseView>>,
    exists: impl Fn(&str) -> bool,
    released: &BTreeSet<String>,
    now: Timestamp,
) -> (Vec<Action>, Option<SignedDuration>) {
    let mut actions = Vec::new();
    let mut again: Option<SignedDuration> = None;
    let mut alive = Vec::new();
    for (name, lease) in leases {
        if lease.meta.deleting.is_some() {
            continue;
        }
        if exists(name) {
            alive.push(&**lease);
            continue;
        }
        let due = lease
            .meta
            .created
            .saturating_add(ORPHAN_AGE)
            .unwrap_or(Timestamp::MAX);
        if now >= due {
            actions.push(Action::DeleteLease(name.clone(), lease.meta.uid.clone()));
        } else {
            let wait = until(due, now);
            again = Some(again.map_or(wait, |old| old.min(wait)));
        }
    }
    let keeps_turn = |node: &LeaseView| {
        node.spec.may_restart
            && !node.spec.uninstall
            && (node.status.needs_restart || !is_true(node, "Installed"))
    };
    let mut taken = alive.iter().any(|node| keeps_turn(node));
    for node in alive {
        let waits = node.status.needs_restart && !node.spec.uninstall;
        let may_restart = keeps_turn(node) || (!taken && waits);
        taken |= may_restart;
        let release: Vec<String> = node
            .status
            .chains
            .iter()
            .filter(|held| released.contains(&held.chain_id))
            .map(|held| held.chain_id.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let spec = AccelerationNodeSpec {
            release,
            may_restart,
            uninstall: node.spec.uninstall,
        };
        if spec != node.spec {
            actions.push(Action::AskNode(node.meta.name.clone(), spec));
        }
    }
    (actions, again)
}
