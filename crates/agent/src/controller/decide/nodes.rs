//! What is asked of the nodes: whose turn it is to restart containerd, what each gives back, and
//! what happens to those that are not selected any more.

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

/// How the Node of an object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is to be set up.
    Selected,
    /// It is not, and something must still be taken off it.
    Leaving {
        /// It has a label that leads Pods to it.
        labelled: bool,
        /// A container there reads the store, or a Pod there is of a target image.
        used: bool,
    },
    /// It is not, and nothing of ours is there.
    Left,
    /// There is none.
    Gone,
}

impl Standing {
    const fn is_free(self) -> bool {
        matches!(
            self,
            Self::Leaving {
                labelled: false,
                used: false
            }
        )
    }
}

/// How soon a node that is still used is looked at again.
const LEAVING_PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// What is to be done.
///
/// A node whose turn it is keeps it until it needs no restart any more *and* is installed. Where
/// its containerd did not come back, the turn stays there and no other node restarts.
///
/// A node that is not selected any more loses its labels, then, once it is not used, everything, one
/// node at a time, and last its object.
#[must_use]
pub fn decide(
    leases: &BTreeMap<String, std::sync::Arc<LeaseView>>,
    look: impl Fn(&LeaseView) -> Standing,
    released: &BTreeSet<String>,
    now: Timestamp,
) -> (Vec<Action>, Option<SignedDuration>) {
    let mut actions = Vec::new();
    let mut again: Option<SignedDuration> = None;
    let mut wake = |wait: SignedDuration| again = Some(again.map_or(wait, |old| old.min(wait)));
    let mut alive = Vec::new();
    for lease in leases.values() {
        if lease.meta.deleting.is_some() {
            continue;
        }
        let standing = look(lease);
        if matches!(standing, Standing::Selected | Standing::Leaving { .. }) {
            alive.push((&**lease, standing));
            continue;
        }
        let due = lease
            .meta
            .created
            .saturating_add(ORPHAN_AGE)
            .unwrap_or(Timestamp::MAX);
        if now >= due {
            actions.push(Action::DeleteLease(lease.meta.clone()));
        } else {
            wake(until(due, now));
        }
    }
    let keeps_turn = |node: &LeaseView, standing: Standing| {
        node.spec.may_restart
            && standing == Standing::Selected
            && (node.status.needs_restart || !is_true(node, "Installed"))
    };
    let is_uninstalling = |node: &LeaseView, standing: Standing| {
        standing != Standing::Selected && node.spec.uninstall && !is_uninstalled(node)
    };
    let mut taken = alive
        .iter()
        .any(|(node, standing)| keeps_turn(node, *standing) || is_uninstalling(node, *standing));
    for (node, standing) in alive {
        let leaving = standing != Standing::Selected;
        let waits = !leaving && node.status.needs_restart && !node.spec.uninstall;
        let may_restart = keeps_turn(node, standing) || (!taken && waits);
        taken |= may_restart;
        let goes = standing.is_free() && !node.spec.uninstall && !taken;
        let uninstall = leaving && (node.spec.uninstall || goes);
        taken |= goes;
        if leaving && !uninstall {
            wake(LEAVING_PAUSE);
        }
        let release: Vec<String> = node
            .status
            .chains
            .iter()
            .filter(|held| released.contains(&held.token))
            .map(|held| held.token.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let spec = AccelerationNodeSpec {
            release,
            may_restart,
            leaving,
            uninstall,
        };
        if spec != node.spec {
            actions.push(Action::AskNode(node.meta.name.clone(), spec));
        }
    }
    (actions, again)
}
