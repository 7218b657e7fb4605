//! An `ImageAcceleration` that is to go: nobody may use target images, then each node in turn is
//! made as it was, then our parts go, then the object. The store keeps its data.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::{AccelerationNodeSpec, find_condition, names};

use super::super::view::{ClusterView, InstallerView, JobView, LeaseView};
use super::cluster::{Decision, Status};
use super::nodes::is_uninstalled;
use super::{Action, Note, list, put};

/// How long a forced deletion waits for nodes that do not answer.
const FORCED_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// What the decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The object.
    pub cluster: &'a ClusterView,
    /// Pods that use target images: `namespace/name on node`.
    pub users: Vec<String>,
    /// All Jobs of ours.
    pub jobs: Vec<&'a JobView>,
    /// All `AccelerationNode`s, and whether their Node exists.
    pub leases: Vec<(&'a LeaseView, bool)>,
    /// The DaemonSet.
    pub installer: Option<&'a InstallerView>,
    /// Images that have our finalizer.
    pub images: Vec<&'a str>,
    /// Now.
    pub now: Timestamp,
}

/// What is to be done with an `ImageAcceleration` that is being deleted.
#[must_use]
pub fn decide(input: &Input<'_>) -> Decision {
    let cluster = input.cluster;
    let mut decision = Decision {
        status: Status::of(cluster),
        actions: Vec::new(),
        again: None,
        notes: Vec::new(),
    };
    if !cluster.finalizer {
        return decision;
    }
    decision.status.observed_generation = cluster.meta.generation;
    let begun = input
        .leases
        .iter()
        .any(|(lease, _)| lease.spec.uninstall && !lease.spec.leaving);
    if !cluster.forced && !begun && !input.users.is_empty() {
        let message = format!(
            "target images are in use by {}: end these Pods, or set the annotation {}=true",
            list(&input.users, 10),
            names::FORCE_ANNOTATION
        );
        say(&mut decision, "InUse", &message, true, input.now);
        return decision;
    }
    for job in &input.jobs {
        if job.meta.deleting.is_none() {
            let (name, uid) = (job.meta.name.clone(), job.meta.uid.clone());
            decision.actions.push(Action::DeleteJob(name, uid));
        }
    }
    if !input.jobs.is_empty() {
        say(
            &mut decision,
            "StoppingWork",
            "Jobs are being stopped",
            false,
            input.now,
        );
        return decision;
    }
    if let Some(message) = uninstall(&mut decision, input) {
        say(&mut decision, "Uninstalling", &message, false, input.now);
        return decision;
    }
    if let Some(set) = input.installer {
        if set.meta.deleting.is_none() {
            let uid = set.meta.uid.clone();
            decision.actions.push(Action::DeleteInstaller(uid));
        }
        say(
            &mut decision,
            "RemovingInstaller",
            "the installer is being removed",
            false,
            input.now,
        );
        return decision;
    }
    // Only now: an installer that still runs would publish its node again.
    for (lease, _) in &input.leases {
        if lease.meta.deleting.is_none() {
            decision
                .actions
                .push(Action::DeleteLease(lease.meta.clone()));
        }
    }
    // Without these the definitions of our kinds could never be deleted.
    for image in &input.images {
        let image = (*image).to_owned();
        decision.actions.push(Action::ImageFinalizer(image, false));
    }
    if decision.actions.is_empty() && input.leases.is_empty() {
        decision.actions.push(Action::ClusterFinalizer(false));
    }
    decision
}

/// Asks the next node; says which are waited for, if any.
fn uninstall(decision: &mut Decision, input: &Input<'_>) -> Option<String> {
    // Without the installer nobody would answer.
    input.installer.filter(|set| set.meta.deleting.is_none())?;
    let since = input.cluster.meta.deleting.unwrap_or(input.now);
    let overdue = input.now.duration_since(since) >= FORCED_PATIENCE;
    if input.cluster.forced && overdue {
        return None;
    }
    let left: Vec<&LeaseView> = input
        .leases
        .iter()
        .filter(|(lease, exists)| *exists && !is_uninstalled(lease))
        .map(|(lease, _)| *lease)
        .collect();
    if left.is_empty() {
        return None;
    }
    let asked: Vec<&LeaseView> = left
        .iter()
        .copied()
        .filter(|one| one.spec.uninstall)
        .collect();
    // Forced, a node that does not answer holds nobody up.
    if asked.is_empty() || input.cluster.forced {
        for lease in left.iter().filter(|one| !one.spec.uninstall) {
            let spec = AccelerationNodeSpec {
                uninstall: true,
                ..AccelerationNodeSpec::default()
            };
            let name = lease.meta.name.clone();
            decision.actions.push(Action::AskNode(name, spec));
            if !input.cluster.forced {
                break;
            }
        }
    }
    if input.cluster.forced {
        decision.again = Some(SignedDuration::from_secs(5));
    }
    let done = input.leases.len() - left.len();
    let at = asked
        .first()
        .or(left.first())
        .map_or("", |one| one.meta.name.as_str());
    let why = asked
        .first()
        .and_then(|one| one.status.error.as_deref())
        .map_or(String::new(), |error| format!(" ({error})"));
    Some(format!(
        "taken off {done} of {} nodes, now off {at}{why}",
        input.leases.len()
    ))
}

fn say(decision: &mut Decision, reason: &'static str, message: &str, warning: bool, at: Timestamp) {
    let before = find_condition(&decision.status.conditions, "Ready").cloned();
    let generation = decision.status.observed_generation;
    put(
        &mut decision.status.conditions,
        "Ready",
        Some(false),
        reason,
        message,
        generation,
        at,
    );
    if before.is_none_or(|old| old.reason != reason || (warning && old.message != message)) {
        decision.notes.push(Note {
            warning,
            reason,
            text: message.to_owned(),
        });
    }
}
