//! The `ImageAcceleration`: the store is made, the nodes' installer runs, space is swept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uimgacc_objects::{NodeTotals, RestartingNode, find_condition};

use super::super::build::{self, JobTask, NewJob};
use super::super::view::{ClusterView, InstallerView, JobEnd};
use super::job::{FoundJob, JobState};
use super::{Action, Note, put, restarts, until, wake};

/// Between a Job that could not take what nodes recorded and the next.
const PROFILES_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// What the decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The object.
    pub cluster: &'a ClusterView,
    /// The Job that makes the store.
    pub init: FoundJob<'a>,
    /// The Job that sweeps.
    pub sweep: FoundJob<'a>,
    /// The Job that takes what nodes recorded.
    pub profiles: FoundJob<'a>,
    /// Whether nodes have recorded something.
    pub records: bool,
    /// The DaemonSet.
    pub installer: Option<&'a InstallerView>,
    /// Nodes that restart containerd, or wait for that.
    pub restarts: Vec<restarts::Candidate<'a>>,
    /// Nodes.
    pub nodes: NodeTotals,
    /// Images that are ready.
    pub images: u32,
    /// Nodes that reach the store, and nodes that do not.
    pub reach: (u32, u32),
    /// Whether a Job frees an image's space now.
    pub deleting_images: bool,
    /// Now.
    pub now: Timestamp,
}

/// The part of the status that is the controller's.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Generation of the spec.
    pub observed_generation: Option<i64>,
    /// All conditions.
    pub conditions: Vec<Condition>,
    /// Nodes.
    pub nodes: NodeTotals,
    /// Images that are ready.
    pub images: u32,
    /// Nodes that may restart containerd.
    pub restarting: Vec<RestartingNode>,
}

impl Status {
    /// What the object has now.
    #[must_use]
    pub fn of(cluster: &ClusterView) -> Self {
        Self {
            observed_generation: cluster.status.observed_generation,
            conditions: cluster.status.conditions.clone(),
            nodes: cluster.status.nodes,
            images: cluster.status.images,
            restarting: cluster.status.restarting.clone(),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The status it is to have.
    pub status: Status,
    /// What else is to be done.
    pub actions: Vec<Action>,
    /// When to look again though nothing changes.
    pub again: Option<SignedDuration>,
    /// What people are told.
    pub notes: Vec<Note>,
}

impl Decision {
    pub(super) fn wake(&mut self, pause: SignedDuration) {
        wake(&mut self.again, pause);
    }

    /// Says which nodes may restart containerd.
    pub(super) fn restarts(
        &mut self,
        candidates: &[restarts::Candidate<'_>],
        most: u32,
        now: Timestamp,
    ) {
        let (restarting, again) = restarts::decide(&self.status.restarting, candidates, most, now);
        self.status.restarting = restarting;
        if let Some(again) = again {
            self.wake(again);
        }
    }

    fn create(&mut self, input: &Input<'_>, work: JobTask) {
        let job = NewJob::new(work, &input.cluster.spec, None);
        self.actions.push(Action::CreateJob(Box::new(job)));
    }

    /// Sets a condition, and tells of it where its reason or a problem's text changed.
    fn put(
        &mut self,
        kind: &str,
        is_true: Option<bool>,
        reason: &'static str,
        message: &str,
        at: Timestamp,
        tell: bool,
    ) {
        let before = find_condition(&self.status.conditions, kind).cloned();
        let generation = self.status.observed_generation;
        put(
            &mut self.status.conditions,
            kind,
            is_true,
            reason,
            message,
            generation,
            at,
        );
        let news = before.is_none_or(|old| {
            old.reason != reason || (is_true == Some(false) && old.message != message)
        });
        if tell && news {
            self.notes.push(Note {
                warning: is_true == Some(false),
                reason,
                text: format!("{kind}: {message}"),
            });
        }
    }
}

/// Whether the store was made and can be written, as the status says.
#[must_use]
pub fn is_store_ready(cluster: &ClusterView) -> bool {
    find_condition(&cluster.status.conditions, "NfsReady").is_some_and(|one| one.status == "True")
}

/// What is to be done with an `ImageAcceleration` that is not being deleted.
#[must_use]
pub fn decide(input: &Input<'_>) -> Decision {
    let mut decision = Decision {
        status: Status::of(input.cluster),
        actions: Vec::new(),
        again: None,
        notes: Vec::new(),
    };
    decision.status.observed_generation = input.cluster.meta.generation;
    decision.status.nodes = input.nodes;
    decision.status.images = input.images;
    if !input.cluster.finalizer {
        let action = Action::add_cluster_finalizer(input.cluster);
        decision.actions.push(action);
    }
    decision.restarts(
        &input.restarts,
        input.cluster.spec.max_unavailable,
        input.now,
    );
    let store = store(&mut decision, input);
    let agent = agent(&mut decision, input);
    let (ready, reason, message) = match (store, agent, input.nodes.ready) {
        (false, ..) => (
            false,
            "StoreNotReady",
            "the store is not ready: see NfsReady".to_owned(),
        ),
        (_, false, _) => (
            false,
            "AgentNotReady",
            "the installer is not ready: see AgentReady".to_owned(),
        ),
        (_, _, 0) => (
            false,
            "NoNode",
            format!(
                "none of {} nodes can run accelerated images yet: see the AccelerationNodes",
                input.nodes.total
            ),
        ),
        (_, _, ready) => (
            true,
            "Ready",
            format!(
                "{ready} of {} nodes can run accelerated images",
                input.nodes.total
            ),
        ),
    };
    decision.put("Ready", Some(ready), reason, &message, input.now, ready);
    if store {
        sweep(&mut decision, input);
        profiles(&mut decision, input);
    }
    decision
}

/// The condition `NfsReady`, and the Job behind it.
fn store(decision: &mut Decision, input: &Input<'_>) -> bool {
    let FoundJob { job, state } = &input.init;
    let store = build::store_inputs(&input.cluster.spec.store);
    let stale = job.is_some_and(|job| job.store != store);
    let delete = input.init.delete();
    // While the same store is only looked at again, what was known of it stays.
    let known = is_store_ready(input.cluster)
        && input.cluster.status.observed_generation == input.cluster.meta.generation;
    let checking = |decision: &mut Decision, waits: Option<&String>| {
        if known && !stale {
            return true;
        }
        let message = waits.map_or_else(
            || "the store is being looked at".to_owned(),
            |waits| format!("the Pod that looks at the store does not run yet: {waits}"),
        );
        decision.put(
            "NfsReady",
            Some(false),
            "Checking",
            &message,
            input.now,
            false,
        );
        false
    };
    match state {
        JobState::None => {
            decision.create(input, JobTask::Init);
            checking(decision, None)
        }
        JobState::Stopping => checking(decision, None),
        JobState::Running { waits, .. } => {
            if stale {
                decision.actions.extend(delete);
            }
            checking(decision, waits.as_ref())
        }
        JobState::Succeeded(_) if stale => {
            decision.actions.extend(delete);
            checking(decision, None)
        }
        JobState::Succeeded(_) => match input.reach {
            (0, lost) if lost > 0 => {
                let message = format!(
                    "none of {lost} nodes reaches the store: check the server, its address and the network"
                );
                decision.put(
                    "NfsReady",
                    Some(false),
                    "Unreachable",
                    &message,
                    input.now,
                    true,
                );
                false
            }
            (_, lost) => {
                let message = match lost {
                    0 => "the store can be written".to_owned(),
                    lost => format!("the store can be written, but {lost} nodes do not reach it"),
                };
                decision.put(
                    "NfsReady",
                    Some(true),
                    "StoreReady",
                    &message,
                    input.now,
                    true,
                );
                true
            }
        },
        JobState::Failed(failure) => {
            let message = format!("the store cannot be used: {}", failure.message);
            decision.put(
                "NfsReady",
                Some(false),
                "StoreFailed",
                &message,
                failure.at,
                true,
            );
            // The longer it has failed, the longer the pause.
            let since = find_condition(&decision.status.conditions, "NfsReady")
                .map_or(failure.at, |one| one.last_transition_time.0);
            let pause = SignedDuration::from_secs(
                (failure.at.duration_since(since).as_secs() / 3).clamp(5, 300),
            );
            let due = failure.at.saturating_add(pause).unwrap_or(Timestamp::MAX);
            if stale || failure.outdated || input.now >= due {
                decision.actions.extend(delete);
            } else {
                decision.wake(until(due, input.now));
            }
            false
        }
    }
}

/// The condition `AgentReady`, and the DaemonSet behind it.
fn agent(decision: &mut Decision, input: &Input<'_>) -> bool {
    let (wanted, inputs) = build::installer(&input.cluster.spec);
    let seen = input.installer;
    let is_going = seen.is_some_and(|set| set.meta.deleting.is_some());
    let same = seen.filter(|set| set.inputs == inputs && !is_going);
    if same.is_none() && !is_going {
        let seen = seen.map(|set| set.meta.clone());
        decision.actions.push(Action::ApplyInstaller(wanted, seen));
    }
    let Some(set) = same.filter(|set| set.current) else {
        let message = "the installer of the nodes is being brought to what the spec says";
        decision.put(
            "AgentReady",
            Some(false),
            "Installing",
            message,
            input.now,
            false,
        );
        return false;
    };
    let ready = set.ready > 0 || set.desired == 0;
    let message = format!(
        "the installer runs on {} of {} nodes",
        set.ready, set.desired
    );
    let reason = if ready { "Running" } else { "Installing" };
    decision.put(
        "AgentReady",
        Some(ready),
        reason,
        &message,
        input.now,
        ready,
    );
    ready
}

/// The condition `Swept`, and the Job behind it.
fn sweep(decision: &mut Decision, input: &Input<'_>) {
    let FoundJob { job, state } = &input.sweep;
    let interval = SignedDuration::from_mins(i64::from(input.cluster.spec.sweep.interval_minutes));
    match state {
        JobState::Running { .. } | JobState::Stopping => return,
        JobState::Failed(failure) => {
            let message = format!("space could not be freed: {}", failure.message);
            decision.put(
                "Swept",
                Some(false),
                "SweepFailed",
                &message,
                failure.at,
                true,
            );
        }
        JobState::Succeeded(at) => {
            decision.put(
                "Swept",
                Some(true),
                "Swept",
                "unused space was freed",
                *at,
                false,
            );
        }
        JobState::None => {}
    }
    let ended = job.and_then(|job| match &job.end {
        JobEnd::Complete(at) | JobEnd::Failed(at, _) => Some(*at),
        JobEnd::Active => None,
    });
    let told = input.cluster.status.last_sweep.as_deref();
    let told = told.and_then(|text| text.parse::<Timestamp>().ok());
    // A sweep that failed is known by its condition once its Job is gone.
    let failed = find_condition(&decision.status.conditions, "Swept")
        .filter(|one| one.status == "False")
        .map(|one| one.last_transition_time.0);
    let last = [ended, told, failed].into_iter().flatten().max();
    let last = last.unwrap_or(input.cluster.meta.created);
    let due = last.saturating_add(interval).unwrap_or(Timestamp::MAX);
    if input.now < due {
        decision.wake(until(due, input.now));
    } else if let Some(old) = input.sweep.delete() {
        decision.actions.push(old);
    } else if input.deleting_images {
        decision.wake(SignedDuration::from_secs(10));
    } else {
        decision.create(input, JobTask::Sweep);
    }
}

/// The Job that takes what nodes recorded: there is one while there are records.
fn profiles(decision: &mut Decision, input: &Input<'_>) {
    let due = match &input.profiles.state {
        JobState::None if input.records => {
            decision.create(input, JobTask::Profiles);
            return;
        }
        JobState::None | JobState::Running { .. } | JobState::Stopping => return,
        JobState::Succeeded(at) => *at,
        JobState::Failed(failure) => {
            let due = failure.at.saturating_add(PROFILES_PAUSE);
            due.unwrap_or(Timestamp::MAX)
        }
    };
    if input.now < due {
        decision.wake(until(due, input.now));
    } else {
        decision.actions.extend(input.profiles.delete());
    }
}
