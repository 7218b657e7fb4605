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
pub mod nodes;
pub mod places;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::{AccelerationNodeSpec, condition, set_condition};

use super::build::Work;
use super::view::Meta;

/// Something to do at the API server.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the Job for that work.
    CreateJob(Work),
    /// Delete a Job and its Pods: its name and uid.
    DeleteJob(String, String),
    /// Delete a Job, by its name and uid, that is not of this image; if the image is still as it was seen.
    DeleteStray(String, String, Meta),
    /// Make the DaemonSet what the spec says.
    ApplyInstaller,
    /// Delete the DaemonSet and its Pods.
    DeleteInstaller(String),
    /// Set or remove the finalizer of an image.
    ImageFinalizer(String, bool),
    /// Set or remove the finalizer of the `ImageAcceleration`.
    ClusterFinalizer(bool),
    /// Ask this of a node.
    AskNode(String, AccelerationNodeSpec),
    /// Delete an `AccelerationNode` as it was seen.
    DeleteLease(Meta),
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

/// Until that moment; at least a little, so that rounding wakes nobody too early.
fn until(due: Timestamp, now: Timestamp) -> SignedDuration {
    due.duration_since(now)
        .max(SignedDuration::ZERO)
        .saturating_add(SignedDuration::from_millis(50))
}

/// `first`, doubled with each failure after the first, at most `longest`; in seconds.
fn growing(first: i64, failures: u32, longest: i64) -> SignedDuration {
    let factor = 1_i64 << failures.saturating_sub(1).min(20);
    SignedDuration::from_secs(first.saturating_mul(factor).min(longest))
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
