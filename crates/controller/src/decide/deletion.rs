//! An `AcceleratedImage` that is to go: nobody may use it, no node may hold it, then its space
//! in the store is freed, then the object goes.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::{Phase, names};

use super::super::build::JobTask;
use super::super::view::{ClusterView, ImageView};
use super::image::Decision;
use super::job::{FoundJob, JobState};
use super::{Action, Note, growing, list, until};

/// How long after the deletion was asked for a node may still tell of containers whose Pods have gone: the kubelet removes ended ones
/// once a minute, and the node tells that a little later.
const CONTAINERS_END: SignedDuration = SignedDuration::from_secs(90);

/// What the decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The image.
    pub image: &'a ImageView,
    /// The `ImageAcceleration`, where there is one.
    pub cluster: Option<&'a ClusterView>,
    /// Whether the store can be written.
    pub store_ready: bool,
    /// The Job that converts.
    pub convert: FoundJob<'a>,
    /// The Job that deletes.
    pub delete: FoundJob<'a>,
    /// Pods that use it: `namespace/name on node`.
    pub users: Vec<String>,
    /// Nodes that exist and have its chain, with their containers on it.
    pub holders: Vec<(String, u32)>,
    /// Another image has the same content, so nodes may keep it.
    pub shared: bool,
    /// Now.
    pub now: Timestamp,
}

/// Whether nodes are to give the image back now.
#[must_use]
pub fn is_released(image: &ImageView, users: &[String], shared: bool) -> bool {
    image.meta.deleting.is_some()
        && image.finalizer
        && !shared
        && (image.forced || users.is_empty())
}

/// What is to be done with an image that is being deleted.
#[must_use]
pub fn decide(input: &Input<'_>) -> Decision {
    let image = input.image;
    let mut decision = Decision::keep(image);
    if !image.finalizer {
        return decision;
    }
    let Some(cluster) = input.cluster else {
        // No store is known that could be freed.
        decision.actions.push(Action::remove_image_finalizer(image));
        return decision;
    };
    if cluster.meta.deleting.is_some() {
        return decision;
    }
    decision.status.observed_generation = image.meta.generation;
    decision.status.observed_retry.clone_from(&image.retry);
    match &input.convert.state {
        JobState::None => {}
        state => {
            if *state != JobState::Stopping {
                decision.actions.extend(input.convert.delete());
            }
            go_on(
                &mut decision,
                "Stopping",
                "the conversion is being stopped",
                input.now,
            );
            return decision;
        }
    }
    if image.status.job.is_none() && image.status.chain_token.is_none() {
        decision.actions.push(Action::remove_image_finalizer(image));
        go_on(&mut decision, "Deleted", "nothing was made yet", input.now);
        return decision;
    }
    match &input.delete.state {
        JobState::Stopping => {
            if image.is_asked_again() {
                let message = "the attempt before it is being stopped";
                go_on(&mut decision, "Waiting", message, input.now);
            }
        }
        JobState::Running { waits, .. } => {
            let message = waits.as_ref().map_or_else(
                || "its space in the store is being freed".to_owned(),
                |waits| format!("the Pod that frees its space does not run yet: {waits}"),
            );
            go_on(&mut decision, "Freeing", &message, input.now);
        }
        JobState::Succeeded(_) => {
            // The finalizer last: what is left of a crash between the two is removed by this again.
            decision.actions.extend(input.delete.delete());
            decision.actions.push(Action::remove_image_finalizer(image));
            go_on(
                &mut decision,
                "Deleted",
                "its space in the store is free",
                input.now,
            );
        }
        JobState::Failed(failure) => {
            decision.status.failures = failure.attempt;
            let pause = growing(5, failure.attempt, 600);
            let due = failure.at.saturating_add(pause).unwrap_or(Timestamp::MAX);
            if image.is_asked_again() || failure.outdated {
                decision.actions.extend(input.delete.delete());
                go_on(
                    &mut decision,
                    "Waiting",
                    "it is tried again, as asked for or for changed settings",
                    input.now,
                );
                return decision;
            }
            let message = format!("its space cannot be freed: {}", failure.message);
            stop(&mut decision, "Failed", &message, failure.at);
            if input.now >= due {
                decision.actions.extend(input.delete.delete());
            } else {
                decision.again = Some(until(due, input.now));
            }
        }
        JobState::None if decision.status.reason() == "Deleted" => {
            // The Job is gone already, only the finalizer was not removed.
            decision.actions.push(Action::remove_image_finalizer(image));
        }
        JobState::None => free(&mut decision, input),
    }
    decision
}

fn free(decision: &mut Decision, input: &Input<'_>) {
    let image = input.image;
    if !image.forced && !input.users.is_empty() {
        let message = format!(
            "in use by {}: end these Pods, or set the annotation {}=true",
            list(&input.users, 10),
            names::FORCE_ANNOTATION
        );
        stop(decision, "InUse", &message, input.now);
        return;
    }
    if !image.forced && !input.shared {
        let busy: Vec<String> = input
            .holders
            .iter()
            .filter(|(_, containers)| *containers > 0)
            .map(|(node, containers)| format!("{node} ({containers})"))
            .collect();
        let ended = image.meta.deleting.unwrap_or(input.now);
        let late = ended
            .saturating_add(CONTAINERS_END)
            .unwrap_or(Timestamp::MAX);
        if !busy.is_empty() && input.now < late {
            let message = format!(
                "containers of nodes are ending, by number: {}",
                list(&busy, 10)
            );
            go_on(decision, "Releasing", &message, input.now);
            decision.again = Some(until(late, input.now));
            return;
        }
        if !busy.is_empty() {
            let message = format!(
                "containers of nodes use it, by number: {}; end them, or set the annotation {}=true",
                list(&busy, 10),
                names::FORCE_ANNOTATION
            );
            stop(decision, "InUse", &message, input.now);
            return;
        }
        let nodes: Vec<String> = input.holders.iter().map(|(node, _)| node.clone()).collect();
        if !nodes.is_empty() {
            let message = format!("nodes are giving it back: {}", list(&nodes, 10));
            go_on(decision, "Releasing", &message, input.now);
            return;
        }
    }
    if !input.store_ready {
        let message = "the store is not ready: see the condition NfsReady of the ImageAcceleration";
        stop(decision, "WaitingForStore", message, input.now);
        return;
    }
    let tried = !image.is_asked_again()
        && decision.status.reason() == "Failed"
        && decision.status.phase == Phase::DeleteError;
    let attempt = if tried {
        decision.status.failures.saturating_add(1)
    } else {
        decision.status.failures = 0;
        1
    };
    if !tried {
        go_on(decision, "Waiting", "waits for a free place", input.now);
    }
    let since = image.meta.deleting.unwrap_or(input.now);
    let work = JobTask::Delete {
        image: image.meta.name.clone(),
        attempt,
        force: image.forced,
    };
    decision.wants = Some((work, since));
    decision.again = Some(SignedDuration::from_secs(60));
}

fn go_on(decision: &mut Decision, reason: &'static str, message: &str, at: Timestamp) {
    if decision.status.reason() != reason && reason == "Deleted" {
        decision.note = Some(Note {
            warning: false,
            reason: "Deleted",
            text: message.to_owned(),
        });
    }
    decision
        .status
        .set(Phase::Deleting, true, reason, message, at);
}

fn stop(decision: &mut Decision, reason: &'static str, message: &str, at: Timestamp) {
    if decision.status.error.as_deref() != Some(message) {
        decision.note = Some(Note {
            warning: true,
            reason: "DeleteError",
            text: message.to_owned(),
        });
    }
    decision
        .status
        .set(Phase::DeleteError, false, reason, message, at);
}
