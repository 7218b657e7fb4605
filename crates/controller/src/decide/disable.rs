//! An `ImageAcceleration` that is to go: nobody may use target images, then the nodes become as they
//! were, then our parts go, then the object. The store keeps its data.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::{AccelerationNodeSpec, MAX_UNAVAILABLE, find_condition, names};

use super::super::build::{JobTask, NewJob};
use super::super::view::{AccelerationNodeView, ClusterView, ImageView, InstallerView, JobView};
use super::cluster::{Decision, Status};
use super::job::{FoundJob, JobState};
use super::nodes::{Standing, is_uninstalled};
use super::{Action, Note, list, put, restarts, until};

/// How long a forced deletion waits for nodes that do not answer.
const FORCED_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// How long the leases of nodes may take to be removed: the Job's own deadline, and its Pod's end.
const RELEASE_PATIENCE: SignedDuration = SignedDuration::from_mins(4);

/// What the decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The object.
    pub cluster: &'a ClusterView,
    /// Pods that use target images: `namespace/name on node`.
    pub users: Vec<String>,
    /// All Jobs of ours.
    pub jobs: Vec<&'a JobView>,
    /// The one of them that removes the leases of nodes from the store.
    pub leases: FoundJob<'a>,
    /// All `AccelerationNode`s, and the uids of their Nodes where these exist.
    pub nodes: Vec<(&'a AccelerationNodeView, Option<&'a str>)>,
    /// The DaemonSet.
    pub installer: Option<&'a InstallerView>,
    /// Images that have our finalizer.
    pub images: Vec<&'a ImageView>,
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
        .nodes
        .iter()
        .any(|(node, _)| node.spec.uninstall && !node.spec.leaving);
    if !cluster.forced && !begun && !input.users.is_empty() {
        let message = format!(
            "target images are in use by {}: end these Pods, or set the annotation {}=true",
            list(&input.users, 10),
            names::FORCE_ANNOTATION
        );
        say(&mut decision, "InUse", &message, true, input.now);
        return decision;
    }
    let installer = input.installer.filter(|set| set.meta.deleting.is_none());
    let leases = release(input).filter(|_| installer.is_some());
    let leases = leases.map(|job| job.meta.name.as_str());
    let jobs = input.jobs.iter();
    let jobs: Vec<_> = jobs
        .filter(|job| Some(job.meta.name.as_str()) != leases)
        .collect();
    for job in &jobs {
        if job.meta.deleting.is_none() {
            decision.actions.push(Action::delete_job(job));
        }
    }
    if !jobs.is_empty() {
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
    if let Some(set) = installer {
        // What nodes held that are gone does not count.
        let gone = input.nodes.iter().filter(|(_, uid)| uid.is_none());
        decision.actions.extend(deletions(gone));
        if !decision.actions.is_empty() {
            decision.wake(SignedDuration::from_secs(1));
            return decision;
        }
        if !release_store(&mut decision, input) {
            return decision;
        }
        decision.actions.push(Action::delete_installer(set));
    }
    if input.installer.is_some() {
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
    decision.actions.extend(deletions(input.nodes.iter()));
    // Without these the definitions of our kinds could never be deleted.
    for image in &input.images {
        decision.actions.push(Action::remove_image_finalizer(image));
    }
    if decision.actions.is_empty() && input.nodes.is_empty() {
        let action = Action::remove_cluster_finalizer(cluster);
        decision.actions.push(action);
    }
    decision
}

/// The deletions of those nodes' objects that are not being deleted yet.
fn deletions<'n>(
    nodes: impl Iterator<Item = &'n (&'n AccelerationNodeView, Option<&'n str>)>,
) -> impl Iterator<Item = Action> {
    let staying = nodes.filter(|(node, _)| node.meta.deleting.is_none());
    staying.map(|(node, _)| Action::DeleteAccelerationNode(node.meta.clone()))
}

/// The Job of this very `disable` that removes the leases of nodes.
fn release<'a>(input: &Input<'a>) -> Option<&'a JobView> {
    let since = input.cluster.meta.deleting.unwrap_or(input.now);
    input.leases.job.filter(|job| job.meta.created >= since)
}

/// Has the leases of nodes removed from the store, once; whether that has ended. A store that is gone
/// does not keep a cluster from being disabled.
fn release_store(decision: &mut Decision, input: &Input<'_>) -> bool {
    let held = input.nodes.iter();
    let held = held.filter(|(node, _)| !node.status.chains.is_empty());
    let held: Vec<String> = held.map(|(node, _)| node.meta.name.clone()).collect();
    let left = match (release(input), &input.leases.state) {
        (None, JobState::None) => {
            let job = NewJob::new(JobTask::Leases, &input.cluster.spec, None);
            decision.actions.push(Action::CreateJob(Box::new(job)));
            None
        }
        (Some(_), JobState::Succeeded(_)) if held.is_empty() => return true,
        (Some(_), JobState::Succeeded(_)) => {
            Some(format!("{} still read the store", list(&held, 10)))
        }
        (Some(_), JobState::Failed(failure)) => Some(failure.message.clone()),
        (Some(job), _) => {
            let due = job.meta.created.saturating_add(RELEASE_PATIENCE);
            let due = due.unwrap_or(Timestamp::MAX);
            decision.wake(until(due, input.now));
            (input.now >= due).then(|| "its Job does not end".to_owned())
        }
        (None, _) => None,
    };
    if let Some(why) = left {
        decision.notes.push(Note {
            warning: true,
            reason: "LeasesLeft",
            text: format!(
                "leases of this cluster's nodes may be left in the store, where they keep images from \
                 being deleted: {why}; `uimgacc store lease list` shows them, `uimgacc store lease drop` \
                 removes them"
            ),
        });
        return true;
    }
    let message = "the leases of nodes are being removed from the store";
    say(decision, "ReleasingStore", message, false, input.now);
    false
}

/// Asks all nodes, which begin as they may restart containerd; says which are waited for, if any.
fn uninstall(decision: &mut Decision, input: &Input<'_>) -> Option<String> {
    // Without the installer nobody would answer.
    input.installer.filter(|set| set.meta.deleting.is_none())?;
    let since = input.cluster.meta.deleting.unwrap_or(input.now);
    let overdue = input.now.duration_since(since) >= FORCED_PATIENCE;
    let forced = input.cluster.forced;
    if forced && overdue {
        return None;
    }
    let exist = input.nodes.iter();
    let exist = exist.filter_map(|(node, uid)| uid.map(|uid| (*node, uid)));
    let left = exist.filter(|(node, _)| !is_uninstalled(node));
    let left: Vec<(&AccelerationNodeView, &str)> = left.collect();
    for (node, _) in left.iter().filter(|(node, _)| !node.spec.uninstall) {
        let spec = AccelerationNodeSpec {
            uninstall: true,
            ..AccelerationNodeSpec::default()
        };
        decision
            .actions
            .push(Action::AskNode(node.meta.clone(), spec));
    }
    let candidates = left.iter().map(|(node, uid)| restarts::Candidate {
        name: node.meta.name.as_str(),
        uid,
        need: restarts::Need::of(node, Standing::Selected),
    });
    let candidates: Vec<_> = candidates.collect();
    let most = if forced {
        MAX_UNAVAILABLE
    } else {
        input.cluster.spec.max_unavailable
    };
    decision.restarts(&candidates, most, input.now);
    if forced {
        // Forced, a node that does not answer is not waited for.
        decision.wake(SignedDuration::from_secs(5));
    }
    let (at, _) = left
        .iter()
        .find(|(_, uid)| decision.status.restarting.iter().any(|one| one.uid == *uid))
        .or(left.first())?;
    let why = at.status.error.as_deref();
    let why = why.map_or(String::new(), |error| format!(" ({error})"));
    let all = input.nodes.len();
    Some(format!(
        "uninstalled on {} of {all} nodes, now on {}{why}",
        all - left.len(),
        at.meta.name
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
