//! Which nodes may restart containerd: so many at once, and none beyond.
//!
//! The list is a part of the status of the `ImageAcceleration`, which is written with the version that
//! it was decided on. So of two leaders only one gives a place away, and a node that reads the list
//! right before it restarts containerd is one of at most `maxUnavailable`.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::RestartingNode;

use super::super::view::AccelerationNodeView;
use super::nodes::{Standing, is_true, is_uninstalled};
use super::{until, wake};

/// After so long a node that has reported nothing about its restart loses its place: it died. Longer
/// than a node lets an installation run.
const SILENCE: SignedDuration = SignedDuration::from_mins(15);

/// A node that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Name of the Node.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// What it needs containerd to be restarted for.
    pub need: Need,
}

/// What a node needs a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    None,
    /// A restart that it waits for, or is at.
    Restart,
    /// It has restarted containerd, and something is wrong since.
    Repair,
}

impl Need {
    /// From what the node says of itself.
    #[must_use]
    pub fn of(node: &AccelerationNodeView, standing: Standing) -> Self {
        if node.meta.deleting.is_some() {
            return Self::None;
        }
        if node.spec.uninstall {
            return if is_uninstalled(node) {
                Self::None
            } else {
                Self::Restart
            };
        }
        if standing != Standing::Selected {
            Self::None
        } else if node.status.needs_restart {
            Self::Restart
        } else if is_true(node, "Installed") {
            Self::None
        } else {
            Self::Repair
        }
    }
}

/// The nodes that may restart containerd from now on, in the order in which they were listed, and when
/// to look again.
///
/// A node keeps its place until it needs no restart any more *and* is installed: where containerd does
/// not come back, the place stays taken, so that a configuration that breaks nodes breaks no more than
/// `most`. Only a node that reports nothing for [`SILENCE`] loses it. Places pass on in the order of the
/// names, from the last node that had one, so that one that died does not get the next place at once.
#[must_use]
pub fn decide(
    listed: &[RestartingNode],
    candidates: &[Candidate<'_>],
    most: u32,
    now: Timestamp,
) -> (Vec<RestartingNode>, Option<SignedDuration>) {
    let mut again: Option<SignedDuration> = None;
    let mut keeps = |one: &&RestartingNode| {
        let node = candidates.iter().find(|node| node.uid == one.uid);
        match node.map_or(Need::None, |node| node.need) {
            Need::None => false,
            Need::Repair => true,
            Need::Restart => {
                let since = one.since.parse().unwrap_or(Timestamp::MIN);
                let due = since.saturating_add(SILENCE).unwrap_or(Timestamp::MAX);
                let is_due = now >= due;
                if !is_due {
                    wake(&mut again, until(due, now));
                }
                !is_due
            }
        }
    };
    let mut restarting: Vec<RestartingNode> = listed.iter().filter(&mut keeps).cloned().collect();
    let last = listed.last().map_or("", |one| one.name.as_str());
    let mut waiting: Vec<&Candidate<'_>> = candidates
        .iter()
        .filter(|node| node.need == Need::Restart)
        .filter(|node| restarting.iter().all(|one| one.uid != node.uid))
        .collect();
    waiting.sort_by_key(|node| (node.name <= last, node.name));
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let free = most.saturating_sub(restarting.len());
    for node in waiting.into_iter().take(free) {
        wake(&mut again, SILENCE);
        restarting.push(RestartingNode {
            name: node.name.to_owned(),
            uid: node.uid.to_owned(),
            since: now.to_string(),
        });
    }
    (restarting, again)
}
