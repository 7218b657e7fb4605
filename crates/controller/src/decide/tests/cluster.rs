use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uimgacc_objects::{NodeTotals, find_condition};

use super::super::super::build::{self, JobTask, store_inputs};
use super::super::super::view::{ClusterView, InstallerView, JobEnd, JobView};
use super::super::Action;
use super::super::cluster::{Decision, Input, decide};
use super::super::job::{FoundJob, JobState};
use super::samples::{self, at, cluster, condition, created, deletion, failed, running};

struct Case {
    cluster: ClusterView,
    init: Option<(JobView, JobState)>,
    sweep: Option<(JobView, JobState)>,
    profiles: Option<(JobView, JobState)>,
    records: bool,
    installer: Option<InstallerView>,
    nodes: NodeTotals,
    reach: (u32, u32),
    deleting_images: bool,
    now: Timestamp,
}

fn job(name: &str, end: JobEnd) -> JobView {
    JobView {
        store: store_inputs(&cluster(&json!({})).spec.store),
        end,
        ..samples::job(name)
    }
}

fn found(job: Option<&(JobView, JobState)>) -> FoundJob<'_> {
    FoundJob {
        job: job.map(|(job, _)| job),
        state: job.map_or(JobState::None, |(_, state)| state.clone()),
    }
}

fn wanted() -> (Value, String) {
    build::installer(&cluster(&json!({})).spec)
}

fn installer() -> InstallerView {
    InstallerView {
        inputs: wanted().1,
        current: true,
        desired: 3,
        ready: 2,
        ..InstallerView::default()
    }
}

/// All is well, and the last sweep was at second 0.
fn case(change: impl FnOnce(&mut Case)) -> Decision {
    let mut case = Case {
        cluster: cluster(&json!({})),
        init: Some((
            job("init", JobEnd::Complete(at(1))),
            JobState::Succeeded(at(1)),
        )),
        sweep: None,
        profiles: None,
        records: false,
        installer: Some(installer()),
        nodes: NodeTotals { ready: 2, total: 3 },
        reach: (2, 0),
        deleting_images: false,
        now: at(60),
    };
    change(&mut case);
    decide(&Input {
        cluster: &case.cluster,
        init: found(case.init.as_ref()),
        sweep: found(case.sweep.as_ref()),
        profiles: found(case.profiles.as_ref()),
        records: case.records,
        installer: case.installer.as_ref(),
        restarts: Vec::new(),
        nodes: case.nodes,
        images: 7,
        reach: case.reach,
        deleting_images: case.deleting_images,
        now: case.now,
    })
}

fn shows(decision: &Decision, kind: &str) -> (String, String) {
    let one = find_condition(&decision.status.conditions, kind).unwrap();
    (one.status.clone(), one.reason.clone())
}

fn init_job(state: JobState) -> Option<(JobView, JobState)> {
    Some((job("init", JobEnd::Active), state))
}

fn fresh(case: &mut Case) {
    case.cluster = cluster(&json!({"status": {"conditions": []}}));
}

#[test]
fn the_conditions_say_what_is_missing() {
    let cases = [
        (
            "all well",
            case(|_| ()),
            ("True", "StoreReady"),
            ("True", "Running"),
            ("True", "Ready"),
        ),
        (
            "nothing yet",
            case(|case| {
                fresh(case);
                case.init = None;
                case.installer = None;
            }),
            ("False", "Checking"),
            ("False", "Installing"),
            ("False", "StoreNotReady"),
        ),
        (
            "wrong address",
            case(|case| {
                fresh(case);
                case.init = init_job(failed(1, false, false));
            }),
            ("False", "StoreFailed"),
            ("True", "Running"),
            ("False", "StoreNotReady"),
        ),
        (
            "no node reaches it",
            case(|case| case.reach = (0, 3)),
            ("False", "Unreachable"),
            ("True", "Running"),
            ("False", "StoreNotReady"),
        ),
        (
            "one does",
            case(|case| case.reach = (1, 2)),
            ("True", "StoreReady"),
            ("True", "Running"),
            ("True", "Ready"),
        ),
        (
            "no installer runs",
            case(|case| {
                case.installer = Some(InstallerView {
                    ready: 0,
                    ..installer()
                })
            }),
            ("True", "StoreReady"),
            ("False", "Installing"),
            ("False", "AgentNotReady"),
        ),
        (
            "no node can",
            case(|case| case.nodes.ready = 0),
            ("True", "StoreReady"),
            ("True", "Running"),
            ("False", "NoNode"),
        ),
        (
            "another store",
            case(|case| case.init = Some((samples::job("init"), JobState::Succeeded(at(1))))),
            ("False", "Checking"),
            ("True", "Running"),
            ("False", "StoreNotReady"),
        ),
        (
            "the same store is looked at again",
            case(|case| case.init = None),
            ("True", "StoreReady"),
            ("True", "Running"),
            ("True", "Ready"),
        ),
    ];
    for (name, decision, nfs, agent, ready) in cases {
        let own = |(status, reason): (&str, &str)| (status.to_owned(), reason.to_owned());
        assert_eq!(shows(&decision, "NfsReady"), own(nfs), "{name}");
        assert_eq!(shows(&decision, "AgentReady"), own(agent), "{name}");
        assert_eq!(shows(&decision, "Ready"), own(ready), "{name}");
        assert_eq!(
            (decision.status.images, decision.status.nodes.total),
            (7, 3)
        );
    }
}

/// A Job that was created for another store.
fn other_store() -> (JobView, JobState) {
    (samples::job("init"), running())
}

#[test]
fn what_is_made_and_made_anew() {
    assert!(case(|_| ()).actions.is_empty());
    assert_eq!(
        created(&case(|case| case.init = None).actions),
        [JobTask::Init]
    );
    assert_eq!(
        case(|case| case.init = Some(other_store())).actions,
        [deletion("init")]
    );
    assert_eq!(
        case(|case| case.installer = None).actions,
        [Action::ApplyInstaller(wanted().0, None)]
    );
    let old = || InstallerView {
        inputs: "old".to_owned(),
        ..installer()
    };
    assert_eq!(
        case(|case| case.installer = Some(old())).actions,
        [Action::ApplyInstaller(wanted().0, Some(old().meta))]
    );
    let bare = json!({"metadata": {"finalizers": []}});
    assert_eq!(
        case(|case| case.cluster = cluster(&bare)).actions,
        [Action::ClusterFinalizers(
            cluster(&bare).meta,
            vec!["uimgacc.io/cluster".to_owned()]
        )]
    );
}

#[test]
fn the_store_is_tried_again_with_growing_pauses() {
    // It failed at 50, and NfsReady has been false since `since`.
    let tried = |since: i64, now: i64| {
        case(|case| {
            let conditions = json!([condition("NfsReady", "False", "StoreFailed", since)]);
            case.cluster = cluster(&json!({"status": {"conditions": conditions}}));
            case.init = init_job(failed(1, false, false));
            case.now = at(now);
        })
    };
    for (since, pause) in [(50, 5), (20, 10), (-10_000, 300)] {
        let early = tried(since, 50 + pause - 1);
        assert!(early.actions.is_empty(), "{since}");
        assert_eq!(early.again, Some(SignedDuration::from_millis(1050)));
        assert_eq!(tried(since, 50 + pause).actions.len(), 1, "{since}");
    }
}

#[test]
fn space_is_swept_on_schedule() {
    let hour = 3600;
    let sweeps = |decision: &Decision| created(&decision.actions) == [JobTask::Sweep];
    let early = case(|case| case.now = at(hour - 1));
    assert!(!sweeps(&early));
    assert_eq!(early.again, Some(SignedDuration::from_millis(1050)));
    assert!(sweeps(&case(|case| case.now = at(hour))));
    // Not while images are being deleted: they sweep themselves.
    let busy = case(|case| {
        case.now = at(hour);
        case.deleting_images = true;
    });
    assert!(!sweeps(&busy) && busy.again.is_some());
    // Not while the store is not ready.
    let lost = case(|case| {
        case.now = at(hour);
        case.reach = (0, 1);
    });
    assert!(!sweeps(&lost));
    let told = json!({"status": {"lastSweep": at(hour).to_string()}});
    assert!(!sweeps(&case(|case| {
        case.cluster = cluster(&told);
        case.now = at(2 * hour - 1);
    })));
    // The Job of the last sweep makes room for the next.
    let done = (
        job("sweep", JobEnd::Complete(at(9))),
        JobState::Succeeded(at(9)),
    );
    let next = case(|case| {
        case.sweep = Some(done);
        case.now = at(hour + 9);
    });
    assert_eq!(next.actions, [deletion("sweep")]);
    let failure = (
        job("sweep", JobEnd::Failed(at(50), String::new())),
        failed(1, false, true),
    );
    let failed = case(|case| case.sweep = Some(failure));
    assert_eq!(
        shows(&failed, "Swept"),
        ("False".to_owned(), "SweepFailed".to_owned())
    );
    assert!(
        failed
            .notes
            .iter()
            .any(|note| note.warning && note.reason == "SweepFailed")
    );
}

#[test]
fn what_nodes_recorded_is_taken() {
    let with = |records: bool, profiles: Option<(JobEnd, JobState)>, now: i64| {
        case(|case| {
            case.records = records;
            case.profiles = profiles.map(|(end, state)| (job("profiles", end), state));
            case.now = at(now);
        })
    };
    let delete = deletion("profiles");
    assert!(with(false, None, 60).actions.is_empty());
    assert_eq!(created(&with(true, None, 60).actions), [JobTask::Profiles]);
    let active = (JobEnd::Active, running());
    assert!(with(true, Some(active), 60).actions.is_empty());
    // What came meanwhile is for the next.
    for records in [false, true] {
        let done = (JobEnd::Complete(at(50)), JobState::Succeeded(at(50)));
        let decision = with(records, Some(done), 60);
        assert_eq!(decision.actions, std::slice::from_ref(&delete));
    }
    let failure = || {
        (
            JobEnd::Failed(at(50), String::new()),
            failed(1, true, false),
        )
    };
    let early = with(true, Some(failure()), 349);
    assert!(early.actions.is_empty() && early.again.is_some());
    assert_eq!(with(true, Some(failure()), 350).actions, [delete]);
    // Not while the store is not ready.
    let lost = case(|case| {
        case.records = true;
        case.reach = (0, 1);
    });
    assert!(lost.actions.is_empty());
}

#[test]
fn the_same_state_is_told_once() {
    let first = case(|case| {
        fresh(case);
        case.init = init_job(failed(1, false, false));
    });
    assert!(first.notes.iter().any(|note| note.reason == "StoreFailed"));
    let again = case(|case| {
        case.cluster
            .status
            .conditions
            .clone_from(&first.status.conditions);
        case.init = init_job(failed(1, false, false));
        case.now = at(54);
    });
    assert!(again.notes.is_empty(), "{:?}", again.notes);
    assert_eq!(again.status, first.status);
}
