//! What is asked of the nodes: what each gives back, and what happens to those that are not selected any
//! more.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::{AccelerationNodeSpec, find_condition};

use super::super::view::AccelerationNodeView;
use super::{Action, until, wake};

/// How old an object without a Node must be before it is removed: the caches of the two kinds
/// are not of one moment.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_secs(60);

/// Whether a condition of a node is true.
#[must_use]
pub fn is_true(node: &AccelerationNodeView, kind: &str) -> bool {
    find_condition(&node.status.conditions, kind).is_some_and(|one| one.status == "True")
}

/// Whether everything was taken off a node.
#[must_use]
pub fn is_uninstalled(node: &AccelerationNodeView) -> bool {
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
/// A node that is not selected any more loses its labels, then, once it is not used, everything, and
/// last its object.
#[must_use]
pub fn decide(
    nodes: &BTreeMap<String, std::sync::Arc<AccelerationNodeView>>,
    look: impl Fn(&AccelerationNodeView) -> Standing,
    released: &BTreeSet<String>,
    now: Timestamp,
) -> (Vec<Action>, Option<SignedDuration>) {
    let mut actions = Vec::new();
    let mut again: Option<SignedDuration> = None;
    for node in nodes.values().filter(|node| node.meta.deleting.is_none()) {
        let standing = look(node);
        if matches!(standing, Standing::Left | Standing::Gone) {
            let due = node.meta.created.saturating_add(ORPHAN_AGE);
            let due = due.unwrap_or(Timestamp::MAX);
            if now >= due {
                actions.push(Action::DeleteAccelerationNode(node.meta.clone()));
            } else {
                wake(&mut again, until(due, now));
            }
            continue;
        }
        let leaving = standing != Standing::Selected;
        let uninstall = leaving && (node.spec.uninstall || standing.is_free());
        if leaving && !uninstall {
            wake(&mut again, LEAVING_PAUSE);
        }
        let held = node.status.chains.iter().map(|held| &held.token);
        let release: BTreeSet<&String> = held.filter(|token| released.contains(*token)).collect();
        let spec = AccelerationNodeSpec {
            release: release.into_iter().cloned().collect(),
            leaving,
            uninstall,
        };
        if spec != node.spec {
            actions.push(Action::AskNode(node.meta.clone(), spec));
        }
    }
    (actions, again)
}
