use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uimgacc_objects::Phase;

use super::super::super::build::JobTask;
use super::super::super::view::{ClusterView, ImageView, JobEnd, JobView};
use super::super::image::{Decision, Input, decide, goes_before};
use super::super::job::JobState;
use super::super::{Action, Note};
use super::samples::{
    at, cluster, condition, created, deletion, failed, found, image, job, running,
};

struct Case {
    image: ImageView,
    cluster: Option<ClusterView>,
    store_ready: bool,
    twin: Option<&'static str>,
    secret_usable: bool,
    job: JobState,
    record: Option<JobView>,
    now: Timestamp,
}

impl Case {
    fn new(image: ImageView, job: JobState) -> Self {
        Self {
            image,
            cluster: Some(cluster(&json!({}))),
            store_ready: true,
            twin: None,
            secret_usable: true,
            job,
            record: None,
            now: at(51),
        }
    }

    fn decide(&self) -> Decision {
        decide(&Input {
            image: &self.image,
            cluster: self.cluster.as_ref(),
            store_ready: self.store_ready,
            twin: self.twin,
            secret_usable: self.secret_usable,
            job: found(&job("job"), self.job.clone()),
            record: self.record.as_ref(),
            now: self.now,
        })
    }
}

fn new() -> ImageView {
    image("app", &json!({}))
}

fn delete_job() -> Action {
    deletion("job")
}

#[test]
fn a_start_is_recorded_where_that_is_asked_for() {
    let asked = json!({"profile": {"command": ["true"]}});
    let known = json!({"recorded": "", "origin": "", "starts": 1, "files": 1, "bytes": 1, "readAheadKb": 16});
    let with = |spec: &serde_json::Value,
                phase: &str,
                profile: Option<&serde_json::Value>,
                job: Option<JobEnd>| {
        let mut status = json!({"phase": phase, "chainToken": "chain:a"});
        if let Some(profile) = profile {
            status["profile"] = profile.clone();
        }
        let mut case = Case::new(
            image("app", &json!({"spec": spec, "status": status})),
            JobState::None,
        );
        case.record = job.map(|end| JobView {
            end,
            ..self::job("record")
        });
        case.decide().actions
    };
    let done = || Some(JobEnd::Complete(at(1)));
    let start = JobTask::Record {
        image: "app".to_owned(),
    };
    assert!(with(&json!({}), "Ready", None, None).is_empty());
    assert_eq!(created(&with(&asked, "Ready", None, None)), [start]);
    // Once: what came of it may come late, or not at all.
    assert!(with(&asked, "Ready", None, Some(JobEnd::Active)).is_empty());
    assert!(with(&asked, "Ready", None, done()).is_empty());
    assert!(with(&asked, "Ready", Some(&known), None).is_empty());
    let delete = deletion("record");
    assert_eq!(with(&asked, "Ready", Some(&known), done()), [delete]);
    assert!(created(&with(&asked, "Creating", None, None)).is_empty());
}

#[test]
fn where_an_image_stands() {
    let result =
        json!({"status": {"chainToken": "sha256:c", "targetDigest": "sha256:d", "failures": 2}});
    let with = |change: fn(&mut Case)| {
        let mut case = Case::new(new(), JobState::None);
        change(&mut case);
        case
    };
    let cases = [
        (
            "new",
            Case::new(new(), JobState::None),
            Phase::Creating,
            "Waiting",
        ),
        (
            "not enabled",
            with(|case| case.cluster = None),
            Phase::Creating,
            "NotEnabled",
        ),
        (
            "no store",
            with(|case| case.store_ready = false),
            Phase::Creating,
            "WaitingForStore",
        ),
        (
            "taken",
            with(|case| case.twin = Some("other")),
            Phase::CreateError,
            "TargetTaken",
        ),
        (
            "runs",
            Case::new(new(), running()),
            Phase::Creating,
            "Converting",
        ),
        (
            "done",
            Case::new(image("app", &result), JobState::Succeeded(at(50))),
            Phase::Ready,
            "Ready",
        ),
        (
            "fails for good",
            Case::new(new(), failed(1, false, false)),
            Phase::CreateError,
            "Failed",
        ),
        (
            "fails",
            Case::new(new(), failed(1, false, true)),
            Phase::CreateError,
            "WaitingToRetry",
        ),
        (
            "dies",
            Case::new(new(), failed(1, true, true)),
            Phase::Creating,
            "Restarting",
        ),
        (
            "ends without a result",
            Case {
                now: at(80),
                ..Case::new(new(), JobState::Succeeded(at(50)))
            },
            Phase::Creating,
            "Restarting",
        ),
        (
            "no reference",
            Case::new(
                image("app", &json!({"spec": {"originalImage": "UPPER CASE"}})),
                JobState::None,
            ),
            Phase::CreateError,
            "InvalidReference",
        ),
        (
            "the same but written otherwise",
            Case::new(
                image(
                    "app",
                    &json!({"spec": {"originalImage": "a", "targetImage": "docker.io/library/a:latest"}}),
                ),
                JobState::None,
            ),
            Phase::CreateError,
            "InvalidReference",
        ),
    ];
    for (name, case, phase, reason) in cases {
        let decision = case.decide();
        assert_eq!(decision.status.phase, phase, "{name}");
        assert_eq!(decision.status.reason(), reason, "{name}");
        assert_eq!(decision.status.observed_generation, Some(1), "{name}");
        let wrong = phase == Phase::CreateError || reason == "Restarting";
        assert_eq!(decision.status.error.is_some(), wrong, "{name}");
        assert_eq!(decision.wants.is_some(), name == "new", "{name}");
    }
}

#[test]
fn the_same_state_is_decided_the_same_and_told_once() {
    for job in [
        JobState::None,
        running(),
        failed(1, false, true),
        failed(1, true, true),
        failed(1, false, false),
    ] {
        let mut case = Case::new(new(), job.clone());
        let first = case.decide();
        let failure = matches!(job, JobState::Failed(_));
        assert_eq!(first.note.is_some(), failure, "{job:?}");
        let status = &mut case.image.status;
        status.observed_generation = first.status.observed_generation;
        status.phase = first.status.phase;
        status.error.clone_from(&first.status.error);
        status.failures = first.status.failures;
        status.job.clone_from(&first.status.job);
        status.conditions.clone_from(&first.status.conditions);
        case.now = at(52);
        let second = case.decide();
        assert_eq!(second.status, first.status, "{job:?}");
        assert_eq!(second.note, None, "{job:?}");
    }
}

#[test]
fn pauses_grow_and_what_died_goes_on_sooner() {
    for (attempt, died, pause) in [
        (1, true, 3),
        (2, true, 6),
        (10, true, 300),
        (1, false, 15),
        (2, false, 30),
        (3, false, 60),
        (20, false, 1800),
    ] {
        let mut case = Case::new(new(), failed(attempt, died, true));
        case.now = at(50 + pause - 1);
        let decision = case.decide();
        assert!(decision.actions.is_empty(), "{attempt} {died}");
        assert_eq!(decision.again, Some(SignedDuration::from_millis(1050)));
        assert_eq!(decision.status.failures, attempt);
        case.now = at(50 + pause);
        assert_eq!(case.decide().actions, [delete_job()], "{attempt} {died}");
    }
    let mut never = Case::new(new(), failed(1, false, false));
    never.now = at(1_000_000);
    let decision = never.decide();
    assert!(decision.actions.is_empty() && decision.again.is_none());
}

#[test]
fn the_next_attempt_counts_on_and_queues_behind_what_waits() {
    let conditions = json!([condition("Progressing", "False", "WaitingToRetry", 50)]);
    let status = json!({"status": {"phase": "CreateError", "failures": 2, "error": "e", "conditions": conditions}});
    let decision = Case::new(image("app", &status), JobState::None).decide();
    let work = JobTask::Convert {
        image: "app".to_owned(),
        attempt: 3,
    };
    assert_eq!(decision.wants, Some((work, at(50))));
    assert_eq!(decision.status.phase, Phase::CreateError, "until it runs");
}

#[test]
fn changed_settings_are_tried_at_once() {
    let JobState::Failed(mut failure) = failed(7, false, false) else {
        unreachable!()
    };
    failure.outdated = true;
    let decision = Case::new(new(), JobState::Failed(failure)).decide();
    assert_eq!(decision.actions, [delete_job()]);
    assert_eq!(
        (decision.status.failures, decision.status.reason()),
        (0, "Waiting")
    );

    // So is another pull secret, which is a new generation.
    let status = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}});
    let decision = Case::new(image("app", &status), failed(7, false, false)).decide();
    assert_eq!(decision.actions, [delete_job()]);
}

#[test]
fn nothing_starts_before_the_finalizer_is_set() {
    let case = Case::new(
        image("app", &json!({"metadata": {"finalizers": []}})),
        JobState::None,
    );
    let decision = case.decide();
    assert_eq!(
        decision.actions,
        [Action::ImageFinalizers(
            case.image.meta.clone(),
            vec!["uimgacc.io/store".to_owned()]
        )]
    );
    assert_eq!(decision.wants, None);
}

#[test]
fn a_ready_image_stays_ready_whatever_happens() {
    let conditions = json!([
        condition("Progressing", "False", "Ready", 0),
        condition("Ready", "True", "Ready", 0)
    ]);
    let ready = json!({"status": {"phase": "Ready", "chainToken": "sha256:c", "targetDigest": "d", "conditions": conditions}});
    for change in [
        |_: &mut Case| (),
        |case: &mut Case| case.cluster = None,
        |case: &mut Case| case.store_ready = false,
        |case: &mut Case| case.twin = Some("other"),
    ] {
        let mut case = Case::new(image("app", &ready), JobState::None);
        change(&mut case);
        let decision = case.decide();
        assert_eq!(decision.status.phase, Phase::Ready);
        assert_eq!((decision.note, decision.wants), (None, None));
    }
    let done = Case::new(image("app", &ready), JobState::Succeeded(at(0)));
    assert_eq!(done.decide().actions, [delete_job()]);
}

#[test]
fn success_waits_for_its_result_and_is_told() {
    let decision = Case::new(new(), JobState::Succeeded(at(50))).decide();
    assert_eq!(decision.again, Some(SignedDuration::from_secs(1)));
    let result =
        json!({"status": {"chainToken": "c", "targetDigest": "d", "failures": 3, "error": "old"}});
    let decision = Case::new(image("app", &result), JobState::Succeeded(at(50))).decide();
    assert_eq!(
        (decision.status.failures, decision.status.error.as_ref()),
        (0, None)
    );
    let Some(Note {
        warning: false,
        reason: "Ready",
        ..
    }) = decision.note
    else {
        panic!("{:?}", decision.note)
    };
    // Its Job goes only after the status was written.
    assert!(decision.actions.is_empty());
}

#[test]
fn a_conversion_that_is_asked_for_again_has_not_failed() {
    let conditions = json!([condition("Progressing", "False", "WaitingToRetry", 50)]);
    let status = json!({"status": {"phase": "CreateError", "failures": 4, "error": "old",
        "observedRetry": "1", "conditions": conditions}});
    for job in [JobState::Stopping, JobState::None] {
        let mut old = Case::new(image("app", &status), job.clone());
        assert_eq!(old.decide().status.phase, Phase::CreateError, "{job:?}");
        old.image.retry = Some("2".to_owned());
        let decision = old.decide();
        assert_eq!(decision.status.phase, Phase::Creating, "{job:?}");
        assert_eq!(decision.status.observed_retry.as_deref(), Some("2"));
    }
}

#[test]
fn a_pod_that_does_not_start_says_why() {
    let waits = JobState::Running {
        waits: Some("ImagePullBackOff: no such image".to_owned()),
        attempt: 1,
    };
    let decision = Case::new(new(), waits).decide();
    let message = &decision.status.conditions[1].message;
    assert!(message.contains("ImagePullBackOff"), "{message}");
}

#[test]
fn of_two_with_one_target_the_ready_then_the_older_goes_first() {
    let old = image("z", &json!({}));
    let young = image(
        "a",
        &json!({"metadata": {"creationTimestamp": at(9).to_string()}}),
    );
    let done = image(
        "m",
        &json!({"metadata": {"creationTimestamp": at(99).to_string()}, "status": {"phase": "Ready"}}),
    );
    assert!(goes_before(&old, &young) && !goes_before(&young, &old));
    assert!(goes_before(&done, &old) && !goes_before(&old, &done));
    let same = image("y", &json!({}));
    assert!(goes_before(&same, &old));
}

#[test]
fn what_is_not_allowed_starts_no_job() {
    let secret = json!({"spec": {"pullSecret": {"name": "team"}}});
    let list = |targets: &[&str]| cluster(&json!({"spec": {"allowedTargets": targets}}));
    let mut case = Case::new(image("app", &secret), JobState::None);
    // Without a list, credentials go nowhere.
    let refused = case.decide();
    assert_eq!(refused.status.phase, Phase::CreateError);
    assert_eq!(refused.status.reason(), "TargetNotAllowed");
    let error = refused.status.error.clone().unwrap();
    assert!(error.contains("--allow-target"), "{error}");
    assert_eq!((refused.wants, refused.actions.len()), (None, 0));
    assert!(refused.note.is_some_and(|note| note.warning));

    case.cluster = Some(list(&["other.example"]));
    assert_eq!(case.decide().status.reason(), "TargetNotAllowed");
    case.cluster = Some(list(&["r.example"]));
    case.secret_usable = false;
    let refused = case.decide();
    assert_eq!(refused.status.reason(), "PullSecretNotAllowed");
    let error = refused.status.error.unwrap();
    let command = "`kubectl label secret -n kube-system team uimgacc.io/pull-secret=true`";
    assert!(error.contains(command), "{error}");
    assert_eq!(refused.wants, None);
    // A Job that was started before, or that failed, goes.
    for job in [
        running(),
        failed(1, false, false),
        JobState::Succeeded(at(50)),
    ] {
        case.job = job;
        let refused = case.decide();
        assert_eq!(refused.status.reason(), "PullSecretNotAllowed");
        assert_eq!(refused.actions, [delete_job()]);
    }
    // An image that is there stays.
    let ready = json!({"status": {"phase": "Ready", "chainToken": "c"}});
    let mut old = Case::new(image("app", &ready), JobState::None);
    old.cluster = Some(list(&[]));
    assert_eq!(old.decide().status.phase, Phase::Ready);

    // It goes on by itself.
    case.job = JobState::None;
    case.secret_usable = true;
    case.image = image(
        "app",
        &json!({"spec": {"pullSecret": {"name": "team"}}, "status": {"phase": "CreateError",
            "conditions": [condition("Progressing", "False", "PullSecretNotAllowed", 40)]}}),
    );
    let allowed = case.decide();
    assert_eq!(allowed.status.phase, Phase::Creating);
    assert!(allowed.wants.is_some());
}
