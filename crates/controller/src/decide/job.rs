//! How a Job stands, read from the Job and what its container left behind.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::super::view::{Ended, JobEnd, JobView, OurPod};
use super::Action;

/// How long a Job's end may be known before that of its Pod.
const SETTLING: SignedDuration = SignedDuration::from_secs(15);
/// The longest error that goes into a status.
const LONGEST_ERROR: usize = 2000;

/// A Job that was found, or not.
#[derive(Debug, Clone)]
pub struct FoundJob<'a> {
    /// The Job.
    pub job: Option<&'a JobView>,
    /// How it stands.
    pub state: JobState,
}

impl FoundJob<'_> {
    /// Its deletion, where there is one.
    pub(super) fn delete(&self) -> Option<Action> {
        self.job.map(Action::delete_job)
    }

    pub(super) fn name(&self) -> &str {
        self.job.map_or("", |job| job.meta.name.as_str())
    }
}

/// How a Job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// There is none.
    None,
    /// It runs, or it waits for that.
    Running {
        /// Why its Pod does not run yet.
        waits: Option<String>,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// It is being deleted; its Pod may still run.
    Stopping,
    /// It did its work at that time.
    Succeeded(Timestamp),
    /// It did not.
    Failed(Failure),
}

/// How a Job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// It was ended from outside: killed, evicted, its node gone.
    pub died: bool,
    /// Whether another attempt may help.
    pub retry: bool,
    /// Why, and what to do.
    pub message: String,
    /// What it was made from is not what would be used now.
    pub outdated: bool,
}

/// One line of JSON that `work` writes when it fails.
#[derive(Deserialize)]
struct Left {
    error: String,
    #[serde(default)]
    retry: bool,
}

/// How a Job stands. `inputs` is the digest of what it would be made from now.
///
/// A Job that ended while the cache of Pods does not know it yet counts as running, for a while.
#[must_use]
pub fn state(
    job: Option<&JobView>,
    pod: Option<&OurPod>,
    inputs: &str,
    now: Timestamp,
) -> JobState {
    let Some(job) = job else {
        return JobState::None;
    };
    if job.meta.deleting.is_some() {
        return JobState::Stopping;
    }
    let running = |waits: Option<String>| JobState::Running {
        waits,
        attempt: job.attempt,
    };
    match &job.end {
        JobEnd::Active => running(pod.and_then(|pod| pod.waits.clone())),
        JobEnd::Complete(at) => JobState::Succeeded(*at),
        JobEnd::Failed(at, reason) => {
            let ended = pod.and_then(|pod| pod.ended.as_ref());
            let settling = pod.is_some() && ended.is_none() && now.duration_since(*at) < SETTLING;
            if settling && reason != "DeadlineExceeded" {
                return running(None);
            }
            JobState::Failed(failure(job, *at, reason, ended, inputs))
        }
    }
}

fn failure(
    job: &JobView,
    at: Timestamp,
    reason: &str,
    ended: Option<&Ended>,
    inputs: &str,
) -> Failure {
    let said = ended.and_then(|ended| {
        let line = ended.message.lines().rev().find(|line| !line.is_empty())?;
        serde_json::from_str::<Left>(line).ok()
    });
    let outdated = job.inputs != inputs;
    let (message, retry, died) = match said {
        Some(left) => (left.error, left.retry, false),
        None if reason == "DeadlineExceeded" => (
            "it did not end in time; the store or a registry may not answer: check the addresses"
                .to_owned(),
            true,
            false,
        ),
        None => (how_it_died(ended), true, true),
    };
    Failure {
        at,
        attempt: job.attempt,
        died,
        retry,
        message: message.chars().take(LONGEST_ERROR).collect(),
        outdated,
    }
}

fn how_it_died(ended: Option<&Ended>) -> String {
    let Some(ended) = ended else {
        return "its Pod is gone, perhaps with its node".to_owned();
    };
    let last = ended.message.lines().rev().find(|line| !line.is_empty());
    let last = last.map_or(String::new(), |line| format!(": {line}"));
    match (ended.reason.as_str(), ended.code) {
        ("OOMKilled", _) => "it needed more memory than its Pod may have".to_owned(),
        ("" | "Error", code) => format!("it ended with exit code {code}{last}"),
        (reason, _) => format!("it was ended ({reason}){last}"),
    }
}
