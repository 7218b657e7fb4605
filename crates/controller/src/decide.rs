//! The decisions: what is in, what is to be done out. No I/O, no clock, no memory between calls.
//!
//! Each function looks at the objects as the caches have them and says which status an object is
//! to have and what else is to be done. Called again with the same state it says the same, so a
//! new leader, or a controller that lost an answer, simply goes on.

pub mod cluster;
pub mod deletion;
pub mod disable;
pub mod image;
pub mod job;
pub mod job_limit;
pub mod nodes;
pub mod restarts;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uimgacc_objects::{AccelerationNodeSpec, condition, names, set_condition};
use uimgacc_types::backoff;

use super::build::NewJob;
use super::view::{CLUSTER_FINALIZER, ClusterView, ImageView, InstallerView, JobView, Meta};

/// Something to do at the API server.
///
/// Each action carries the object that it was decided on, with uid and version: the write names both,
/// so the API server refuses it where another has written since. What is created names no version; a
/// Job names the uid of its image.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create a Job.
    CreateJob(Box<NewJob>),
    /// Delete a Job and its Pods.
    DeleteJob(Meta),
    /// Delete a Job that is not of this image, if the image is still as it was seen: the Job, the image.
    DeleteStray(Meta, Meta),
    /// Create the DaemonSet, or replace the one that was seen.
    ApplyInstaller(Value, Option<Meta>),
    /// Delete the DaemonSet and its Pods.
    DeleteInstaller(Meta),
    /// Set the finalizers of an image.
    ImageFinalizers(Meta, Vec<String>),
    /// Set the finalizers of the `ImageAcceleration`.
    ClusterFinalizers(Meta, Vec<String>),
    /// Ask this of a node.
    AskNode(Meta, AccelerationNodeSpec),
    /// Delete an `AccelerationNode`.
    DeleteAccelerationNode(Meta),
}

impl Action {
    fn delete_job(job: &JobView) -> Self {
        Self::DeleteJob(job.meta.clone())
    }

    fn delete_installer(installer: &InstallerView) -> Self {
        Self::DeleteInstaller(installer.meta.clone())
    }

    fn add_image_finalizer(image: &ImageView) -> Self {
        let all = finalizers(&image.finalizers, names::FINALIZER, true);
        Self::ImageFinalizers(image.meta.clone(), all)
    }

    fn remove_image_finalizer(image: &ImageView) -> Self {
        let all = finalizers(&image.finalizers, names::FINALIZER, false);
        Self::ImageFinalizers(image.meta.clone(), all)
    }

    fn add_cluster_finalizer(cluster: &ClusterView) -> Self {
        let all = finalizers(&cluster.finalizers, CLUSTER_FINALIZER, true);
        Self::ClusterFinalizers(cluster.meta.clone(), all)
    }

    fn remove_cluster_finalizer(cluster: &ClusterView) -> Self {
        let all = finalizers(&cluster.finalizers, CLUSTER_FINALIZER, false);
        Self::ClusterFinalizers(cluster.meta.clone(), all)
    }
}

/// The actions of a decision after the status of its object was written, based on that version: our
/// own write must not make the API server refuse the others.
#[must_use]
pub fn after_status(mut actions: Vec<Action>, written: &Meta) -> Vec<Action> {
    for action in &mut actions {
        if let Action::ImageFinalizers(seen, _) | Action::ClusterFinalizers(seen, _) = action
            && seen.uid == written.uid
        {
            seen.clone_from(written);
        }
    }
    actions
}

/// All finalizers with ours, or without it.
fn finalizers(all: &[String], ours: &str, is_wanted: bool) -> Vec<String> {
    let others = all.iter().filter(|one| *one != ours).cloned();
    others.chain(is_wanted.then(|| ours.to_owned())).collect()
}

/// Something to tell people about an object, as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether something is wrong.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What happened and what to do.
    pub text: String,
}

/// Sets a condition; the reason is ours, so it is known at compile time.
fn put(
    conditions: &mut Vec<Condition>,
    kind: &str,
    is_true: Option<bool>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    at: Timestamp,
) {
    set_condition(
        conditions,
        condition(kind, is_true, reason, message, generation, Time(at)),
    );
}

/// Brings the next look forward to `wait` from now.
fn wake(again: &mut Option<SignedDuration>, wait: SignedDuration) {
    *again = Some(again.map_or(wait, |old| old.min(wait)));
}

/// Until that moment; at least a little, so that rounding wakes nobody too early.
fn until(due: Timestamp, now: Timestamp) -> SignedDuration {
    due.duration_since(now)
        .max(SignedDuration::ZERO)
        .saturating_add(SignedDuration::from_millis(50))
}

/// [`backoff`], in seconds.
fn growing(first: u64, failures: u32, longest: u64) -> SignedDuration {
    let [first, longest] = [first, longest].map(Duration::from_secs);
    let pause = backoff(first, failures, longest);
    SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX)
}

/// The first of them in words, and how many more there are.
fn list(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).cloned().collect::<Vec<_>>();
    match names.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
