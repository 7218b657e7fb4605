use serde_json::json;
use uimgacc_objects::Phase;

use super::super::super::build::JobTask;
use super::super::super::view::{ClusterView, ImageView};
use super::super::Action;
use super::super::deletion::{Input, decide, is_released};
use super::super::image::Decision;
use super::super::job::JobState;
use super::samples::{
    at, cluster, condition, deletion, failed, found, image, job, leaving, running,
};

struct Case {
    image: ImageView,
    cluster: Option<ClusterView>,
    store_ready: bool,
    convert: JobState,
    delete: JobState,
    users: Vec<String>,
    holders: Vec<(String, u32)>,
    shared: bool,
    now: i64,
}

fn case(change: impl FnOnce(&mut Case)) -> Decision {
    let mut case = Case {
        image: leaving(&json!({})),
        cluster: Some(cluster(&json!({}))),
        store_ready: true,
        convert: JobState::None,
        delete: JobState::None,
        users: Vec::new(),
        holders: Vec::new(),
        shared: false,
        now: 101,
    };
    change(&mut case);
    decide(&Input {
        image: &case.image,
        cluster: case.cluster.as_ref(),
        store_ready: case.store_ready,
        convert: found(&job("convert"), case.convert),
        delete: found(&job("delete"), case.delete),
        users: case.users,
        holders: case.holders,
        shared: case.shared,
        now: at(case.now),
    })
}

fn forced() -> ImageView {
    leaving(&json!({"metadata": {"annotations": {"uimgacc.io/force": "true"}}}))
}

fn user() -> Vec<String> {
    vec!["default/app on n1".to_owned()]
}

fn free_it() -> Action {
    Action::ImageFinalizers(leaving(&json!({})).meta, Vec::new())
}

#[test]
fn where_a_deletion_stands() {
    let holds =
        |containers| move |case: &mut Case| case.holders = vec![("n1".to_owned(), containers)];
    let cases = [
        ("starts", case(|_| ()), Phase::Deleting, "Waiting", None),
        (
            "converting",
            case(|case| case.convert = running()),
            Phase::Deleting,
            "Stopping",
            None,
        ),
        (
            "in use",
            case(|case| case.users = user()),
            Phase::DeleteError,
            "InUse",
            Some("default/app on n1"),
        ),
        (
            "a container whose Pod has just gone",
            case(holds(2)),
            Phase::Deleting,
            "Releasing",
            None,
        ),
        (
            "a container without a Pod",
            case(|case| {
                holds(2)(case);
                case.now = 190;
            }),
            Phase::DeleteError,
            "InUse",
            Some("n1 (2)"),
        ),
        (
            "nodes have it",
            case(holds(0)),
            Phase::Deleting,
            "Releasing",
            None,
        ),
        (
            "no store",
            case(|case| case.store_ready = false),
            Phase::DeleteError,
            "WaitingForStore",
            Some("NfsReady"),
        ),
        (
            "being freed",
            case(|case| case.delete = running()),
            Phase::Deleting,
            "Freeing",
            None,
        ),
        (
            "fails",
            case(|case| case.delete = failed(1, false, true)),
            Phase::DeleteError,
            "Failed",
            Some("what to do"),
        ),
        (
            "freed",
            case(|case| case.delete = JobState::Succeeded(at(100))),
            Phase::Deleting,
            "Deleted",
            None,
        ),
    ];
    for (name, decision, phase, reason, error) in cases {
        assert_eq!(decision.status.phase, phase, "{name}");
        assert_eq!(decision.status.reason(), reason, "{name}");
        let told = decision.status.error.as_deref();
        assert_eq!(told.is_some(), error.is_some(), "{name}");
        assert!(
            told.unwrap_or_default().contains(error.unwrap_or_default()),
            "{name}: {told:?}"
        );
        assert_eq!(decision.wants.is_some(), name == "starts", "{name}");
    }
}

#[test]
fn a_conversion_is_stopped_before_anything_is_freed() {
    assert_eq!(
        case(|case| case.convert = running()).actions,
        [deletion("convert")]
    );
    let stopping = case(|case| case.convert = JobState::Stopping);
    assert!(stopping.actions.is_empty() && stopping.wants.is_none());
}

#[test]
fn the_object_goes_only_when_its_space_is_free() {
    let freed = case(|case| case.delete = JobState::Succeeded(at(100)));
    assert_eq!(freed.actions, [deletion("delete"), free_it()]);
    // The Job is gone, but the finalizer could not be removed: nothing is freed twice.
    let conditions = json!([condition("Progressing", "True", "Deleted", 100)]);
    let left = leaving(&json!({"status": {"phase": "Deleting", "conditions": conditions}}));
    let again = case(|case| case.image = left);
    assert_eq!((again.actions, again.wants), (vec![free_it()], None));
    // Nothing was begun, or no store is known: there is nothing to free.
    let new = image(
        "app",
        &json!({"metadata": {"deletionTimestamp": at(100).to_string()}}),
    );
    assert_eq!(case(|case| case.image = new).actions, [free_it()]);
    assert_eq!(case(|case| case.cluster = None).actions, [free_it()]);
}

#[test]
fn forced_it_goes_although_it_is_in_use() {
    let decision = case(|case| {
        case.image = forced();
        case.users = user();
        case.holders = vec![("n1".to_owned(), 3)];
    });
    let work = JobTask::Delete {
        image: "app".to_owned(),
        attempt: 1,
        force: true,
    };
    assert_eq!(decision.wants, Some((work, at(100))));
}

#[test]
fn what_another_image_needs_is_not_taken_from_nodes() {
    let decision = case(|case| {
        case.shared = true;
        case.holders = vec![("n1".to_owned(), 3)];
    });
    assert!(decision.wants.is_some());
    let image = leaving(&json!({}));
    assert!(is_released(&image, &[], false));
    assert!(!is_released(&image, &[], true));
    assert!(!is_released(&image, &user(), false));
    assert!(is_released(&forced(), &user(), false));
}

#[test]
fn a_deletion_that_failed_is_tried_again_after_its_pause() {
    let soon = case(|case| case.delete = failed(20, false, true));
    assert!(soon.actions.is_empty() && soon.again.is_some());
    let due = case(|case| case.delete = failed(1, false, false));
    assert_eq!(due.actions, [deletion("delete")]);
    let conditions = json!([condition("Progressing", "False", "Failed", 50)]);
    let tried = leaving(
        &json!({"status": {"phase": "DeleteError", "failures": 4, "conditions": conditions}}),
    );
    let next = case(|case| case.image = tried);
    assert!(matches!(
        next.wants,
        Some((JobTask::Delete { attempt: 5, .. }, _))
    ));
}

#[test]
fn a_deletion_that_is_asked_for_again_has_not_failed() {
    let conditions = json!([condition("Progressing", "False", "Failed", 50)]);
    let status = json!({"phase": "DeleteError", "failures": 4, "observedRetry": "1",
        "error": "old", "conditions": conditions});
    let image = || {
        let mut image = leaving(&json!({"status": status}));
        image.retry = Some("2".to_owned());
        image
    };
    let outdated = || match failed(20, false, true) {
        JobState::Failed(failure) => JobState::Failed(super::super::job::Failure {
            outdated: true,
            ..failure
        }),
        other => other,
    };
    for job in [outdated(), JobState::Stopping, JobState::None] {
        let decision = case(|case| {
            case.image = image();
            case.delete = job.clone();
        });
        assert_eq!(decision.status.phase, Phase::Deleting, "{job:?}");
        assert_eq!(decision.status.observed_retry.as_deref(), Some("2"));
        // The cache may know the old Job for a while longer.
        let next = case(|case| {
            case.image = image();
            case.image.status.observed_retry = Some("2".to_owned());
            case.image.status.phase = decision.status.phase;
            case.image.status.conditions = decision.status.conditions.clone();
            case.delete = job.clone();
        });
        assert_eq!(next.status.phase, Phase::Deleting, "{job:?}");
    }
    let used = case(|case| {
        case.image = image();
        case.users = user();
    });
    assert_eq!(used.status.phase, Phase::DeleteError, "it was tried");
}

#[test]
fn many_users_are_cut_and_told_once() {
    let many = || {
        (0..25)
            .map(|index| format!("ns/pod-{index} on n"))
            .collect::<Vec<_>>()
    };
    let first = case(|case| case.users = many());
    let error = first.status.error.clone().unwrap();
    assert!(
        error.contains("ns/pod-9") && !error.contains("ns/pod-10 ") && error.contains("15 more"),
        "{error}"
    );
    assert!(first.note.is_some());
    let again = case(|case| {
        case.users = many();
        case.image.status.error = first.status.error.clone();
        case.image.status.phase = first.status.phase;
        case.image
            .status
            .conditions
            .clone_from(&first.status.conditions);
    });
    assert_eq!(again.note, None);
    assert_eq!(again.status.conditions, first.status.conditions);
}

#[test]
fn nothing_is_done_for_others_or_while_the_cluster_is_disabled() {
    let other =
        case(|case| case.image = leaving(&json!({"metadata": {"finalizers": ["somebody/else"]}})));
    assert!(other.actions.is_empty() && other.wants.is_none());
    let deleting = json!({"metadata": {"deletionTimestamp": at(99).to_string()}});
    let disabling = case(|case| case.cluster = Some(cluster(&deleting)));
    assert!(disabling.actions.is_empty() && disabling.wants.is_none());
}
