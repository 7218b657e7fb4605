//! An `AcceleratedImage` that is to be there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::access::access;
use uimgacc_objects::{Phase, find_condition, names};

use super::super::build::{JobTask, NewJob};
use super::super::view::{ClusterView, ImageView, JobEnd, JobView};
use super::job::{Failure, FoundJob, JobState};
use super::{Action, Note, growing, put, until};

/// How long the result of a conversion may be on its way after the end of its Job.
const RESULT_PATIENCE: SignedDuration = SignedDuration::from_secs(15);

/// What the decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The image.
    pub image: &'a ImageView,
    /// The `ImageAcceleration`, where there is one.
    pub cluster: Option<&'a ClusterView>,
    /// Whether the store can be written.
    pub store_ready: bool,
    /// The object that has the same target and goes before this one.
    pub twin: Option<&'a str>,
    /// Whether it names no Secret, or one with the label that lets images name it.
    pub secret_usable: bool,
    /// The Job that converts.
    pub job: FoundJob<'a>,
    /// The Job that starts it once to record that.
    pub record: Option<&'a JobView>,
    /// Now.
    pub now: Timestamp,
}

/// The part of the status that is the controller's.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Generation of the spec.
    pub observed_generation: Option<i64>,
    /// Where it stands.
    pub phase: Phase,
    /// Why it does not go on.
    pub error: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// The mark for another attempt that this takes account of.
    pub observed_retry: Option<String>,
    /// The Job that converts, or did.
    pub job: Option<String>,
    /// `Ready` and `Progressing`.
    pub conditions: Vec<Condition>,
}

impl Status {
    /// What the object has now.
    #[must_use]
    pub fn of(image: &ImageView) -> Self {
        let status = &image.status;
        Self {
            observed_generation: status.observed_generation,
            phase: status.phase,
            error: status.error.clone(),
            failures: status.failures,
            observed_retry: status.observed_retry.clone(),
            job: status.job.clone(),
            conditions: status.conditions.clone(),
        }
    }

    /// The reason of the condition `Progressing`.
    #[must_use]
    pub fn reason(&self) -> &str {
        find_condition(&self.conditions, "Progressing").map_or("", |one| one.reason.as_str())
    }

    /// Sets phase, error and both conditions.
    pub(super) fn set(
        &mut self,
        phase: Phase,
        progressing: bool,
        reason: &'static str,
        message: &str,
        at: Timestamp,
    ) {
        let failed = matches!(phase, Phase::CreateError | Phase::DeleteError);
        self.phase = phase;
        self.error = (failed || reason == "Restarting").then(|| message.to_owned());
        let generation = self.observed_generation;
        let ready = phase == Phase::Ready;
        let name = format!("{phase:?}");
        let text = if ready { "" } else { message };
        put(
            &mut self.conditions,
            "Ready",
            Some(ready),
            &name,
            text,
            generation,
            at,
        );
        put(
            &mut self.conditions,
            "Progressing",
            Some(progressing),
            reason,
            message,
            generation,
            at,
        );
    }
}

/// What is to be done with an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The status it is to have.
    pub status: Status,
    /// What else is to be done.
    pub actions: Vec<Action>,
    /// When to look again though nothing changes.
    pub again: Option<SignedDuration>,
    /// What people are told.
    pub note: Option<Note>,
    /// The Job that waits for a free place, and since when.
    pub wants: Option<(JobTask, Timestamp)>,
}

impl Decision {
    pub(super) fn keep(image: &ImageView) -> Self {
        Self {
            status: Status::of(image),
            actions: Vec::new(),
            again: None,
            note: None,
            wants: None,
        }
    }

    /// Nothing but that these Jobs are to go first: they are not of this image.
    #[must_use]
    pub fn without(image: &ImageView, strays: &[&JobView]) -> Self {
        let going = strays.iter().filter(|job| job.meta.deleting.is_none());
        let delete = |job: &&JobView| Action::DeleteStray(job.meta.clone(), image.meta.clone());
        Self {
            actions: going.map(delete).collect(),
            ..Self::keep(image)
        }
    }
}

/// What is to be done with an image that is not being deleted.
#[must_use]
pub fn decide(input: &Input<'_>) -> Decision {
    let image = input.image;
    let mut decision = Decision::keep(image);
    let Some(cluster) = input.cluster else {
        if image.status.phase != Phase::Ready {
            wait(
                &mut decision,
                input,
                "NotEnabled",
                "there is no ImageAcceleration named default: make one, or run `uimgacc enable`",
            );
        }
        return decision;
    };
    if cluster.meta.deleting.is_some() {
        return decision;
    }
    if !image.finalizer {
        decision.actions.push(Action::add_image_finalizer(image));
    }
    let observed = image.status.observed_generation;
    let changed = observed.is_some() && observed != image.meta.generation;
    decision.status.observed_generation = image.meta.generation;
    decision.status.observed_retry.clone_from(&image.retry);

    if image.status.phase == Phase::Ready && image.status.chain_token.is_some() {
        if let JobState::Succeeded(_) | JobState::Failed(_) = input.job.state {
            decision.actions.extend(input.job.delete());
        }
        let message = "the image is in the store and in the registry";
        decision
            .status
            .set(Phase::Ready, false, "Ready", message, input.now);
        decision.actions.extend(record(input, cluster));
        return decision;
    }
    if let Some((reason, message)) = refusal(input) {
        fail(&mut decision, reason, &message, input.now);
        return decision;
    }
    let job = &input.job.state;
    if let Some((reason, message)) = forbidden(input, cluster) {
        // What was allowed before goes no further, and what failed is not tried again before it is.
        if !matches!(job, JobState::None | JobState::Stopping) {
            decision.actions.extend(input.job.delete());
        }
        fail(&mut decision, reason, &message, input.now);
        return decision;
    }
    match job {
        JobState::Stopping => {
            if image.is_asked_again() {
                let message = "the attempt before it is being stopped";
                wait(&mut decision, input, "Waiting", message);
            }
        }
        JobState::Running { waits, attempt } => {
            decision.status.job = Some(input.job.name().to_owned());
            let message = match (waits, attempt) {
                (Some(waits), _) => format!("its Pod does not run yet: {waits}"),
                (None, 1) => "the image is being converted".to_owned(),
                (None, attempt) => format!("the image is being converted, attempt {attempt}"),
            };
            decision
                .status
                .set(Phase::Creating, true, "Converting", &message, input.now);
        }
        JobState::Succeeded(at) => succeeded(&mut decision, input, *at),
        JobState::Failed(failure) => {
            let changed = changed || failure.outdated;
            failed(&mut decision, input, failure, changed);
        }
        JobState::None => start(&mut decision, input),
    }
    decision
}

/// Starts a ready image once where that is asked for. The Job stays until the image has a profile: so it
/// is not started again, and tells why there is none.
fn record(input: &Input<'_>, cluster: &ClusterView) -> Option<Action> {
    let image = input.image;
    match (&image.status.profile, input.record) {
        (None, None) => image.spec.profile.as_ref().map(|_| {
            let work = JobTask::Record {
                image: image.meta.name.clone(),
            };
            let job = NewJob::new(work, &cluster.spec, Some(image.into()));
            Action::CreateJob(Box::new(job))
        }),
        (Some(_), Some(job)) if job.end != JobEnd::Active && job.meta.deleting.is_none() => {
            Some(Action::delete_job(job))
        }
        _ => None,
    }
}

/// Why the image cannot be made whatever is tried.
fn refusal(input: &Input<'_>) -> Option<(&'static str, String)> {
    let (original, target) = match (&input.image.original, &input.image.target) {
        (Ok(original), Ok(target)) => (original, target),
        (Err(why), _) | (_, Err(why)) => {
            return Some((
                "InvalidReference",
                format!("{why}: delete this object and create another"),
            ));
        }
    };
    if original == target {
        return Some((
            "InvalidReference",
            format!(
                "original and target are both {target}: the target must have another name or tag"
            ),
        ));
    }
    let twin = input.twin?;
    Some((
        "TargetTaken",
        format!(
            "the target image {target} belongs to the AcceleratedImage {twin} already: delete one of the two"
        ),
    ))
}

/// Why the image may not be made with what it asks for; it goes on by itself once it may.
fn forbidden(input: &Input<'_>, cluster: &ClusterView) -> Option<(&'static str, String)> {
    let spec = &input.image.spec;
    if let Err(refused) = access(spec, &cluster.spec) {
        return Some(("TargetNotAllowed", format!("{refused}: {}", refused.hint())));
    }
    let secret = spec.pull_secret.as_ref().filter(|_| !input.secret_usable)?;
    let (namespace, name, label) = (names::NAMESPACE, &secret.name, names::PULL_SECRET_LABEL);
    Some((
        "PullSecretNotAllowed",
        format!(
            "the Secret {namespace}/{name} does not exist or is not released for images: \
             make it, then run `kubectl label secret -n {namespace} {name} {label}=true`"
        ),
    ))
}

fn fail(decision: &mut Decision, reason: &'static str, message: &str, at: Timestamp) {
    let before = (
        decision.status.reason().to_owned(),
        decision.status.error.clone(),
    );
    decision
        .status
        .set(Phase::CreateError, false, reason, message, at);
    if before != (reason.to_owned(), Some(message.to_owned())) {
        decision.note = Some(Note {
            warning: true,
            reason: "CreateError",
            text: message.to_owned(),
        });
    }
}

fn wait(decision: &mut Decision, input: &Input<'_>, reason: &'static str, message: &str) {
    decision.status.observed_generation = input.image.meta.generation;
    decision
        .status
        .set(Phase::Creating, false, reason, message, input.now);
}

fn succeeded(decision: &mut Decision, input: &Input<'_>, at: Timestamp) {
    let status = &input.image.status;
    if status.chain_token.is_some() && status.target_digest.is_some() {
        decision.status.failures = 0;
        let message = "the image is in the store and in the registry";
        decision
            .status
            .set(Phase::Ready, false, "Ready", message, input.now);
        decision.note = Some(Note {
            warning: false,
            reason: "Ready",
            text: format!("{} can be used", input.image.spec.target_image),
        });
    } else if input.now.duration_since(at) < RESULT_PATIENCE {
        decision.again = Some(SignedDuration::from_secs(1));
    } else {
        let failure = Failure {
            at,
            attempt: input.image.status.failures.saturating_add(1),
            died: true,
            retry: true,
            message: "the conversion ended without telling its result".to_owned(),
            outdated: false,
        };
        failed(decision, input, &failure, false);
    }
}

fn failed(decision: &mut Decision, input: &Input<'_>, failure: &Failure, changed: bool) {
    let name = input.job.name();
    if changed {
        decision.status.failures = 0;
        wait(
            decision,
            input,
            "Waiting",
            "it is tried again, as asked for or for changed settings",
        );
        decision.actions.extend(input.job.delete());
        return;
    }
    decision.status.failures = failure.attempt;
    decision.status.job = Some(name.to_owned());
    if !failure.retry {
        let message = format!(
            "{} (to try again, run `uimgacc create` as before, or delete the Job {name})",
            failure.message
        );
        fail(decision, "Failed", &message, failure.at);
        return;
    }
    let pause = pause(failure);
    let due = failure.at.saturating_add(pause).unwrap_or(Timestamp::MAX);
    if failure.died {
        let message = format!(
            "the conversion stopped and goes on soon: {}",
            failure.message
        );
        if decision.status.error.as_ref() != Some(&message)
            || decision.status.reason() != "Restarting"
        {
            decision.note = Some(Note {
                warning: true,
                reason: "ConversionDied",
                text: message.clone(),
            });
        }
        let at = failure.at;
        decision
            .status
            .set(Phase::Creating, false, "Restarting", &message, at);
    } else {
        let message = format!(
            "{} (attempt {}; the next follows {} s after it)",
            failure.message,
            failure.attempt,
            pause.as_secs()
        );
        fail(decision, "WaitingToRetry", &message, failure.at);
    }
    if input.now >= due {
        decision.actions.extend(input.job.delete());
    } else {
        decision.again = Some(until(due, input.now));
    }
}

/// A conversion that was ended goes on soon; one that failed has a reason that takes time.
fn pause(failure: &Failure) -> SignedDuration {
    if failure.died {
        growing(3, failure.attempt, 300)
    } else {
        growing(15, failure.attempt, 1800)
    }
}

/// No Job: it is made as soon as a place is free. Its pause is over, for a Job that failed is
/// kept until then (whoever deletes it by hand wants another attempt).
fn start(decision: &mut Decision, input: &Input<'_>) {
    let image = input.image;
    if !input.store_ready {
        let message = "the store is not ready: see the condition NfsReady of the ImageAcceleration";
        wait(decision, input, "WaitingForStore", message);
        return;
    }
    let again = !image.is_asked_again()
        && matches!(
            decision.status.reason(),
            "WaitingToRetry" | "Restarting" | "Failed"
        );
    let since = if again {
        // What failed queues behind what waits, so that it keeps no place from others.
        find_condition(&image.status.conditions, "Progressing")
            .map_or(image.meta.created, |one| one.last_transition_time.0)
            .max(image.meta.created)
    } else {
        wait(decision, input, "Waiting", "waits for a free place");
        image.meta.created
    };
    // Nothing of it may be in the store while nothing holds the object.
    if !image.finalizer {
        return;
    }
    let work = JobTask::Convert {
        image: image.meta.name.clone(),
        attempt: image.status.failures.saturating_add(1),
    };
    decision.wants = Some((work, since));
}

/// Which of several objects with one target goes first: one that is ready, then the oldest.
#[must_use]
pub fn goes_before(one: &ImageView, other: &ImageView) -> bool {
    let rank = |image: &ImageView| {
        (
            image.status.phase != Phase::Ready,
            image.meta.created,
            image.meta.name.clone(),
        )
    };
    rank(one) < rank(other)
}
