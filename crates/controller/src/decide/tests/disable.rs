use serde_json::{Value, json};
use uimgacc_objects::{AccelerationNodeSpec, HeldChain, find_condition};

use super::super::super::build::JobTask;
use super::super::super::view::{
    AccelerationNodeView, ClusterView, ImageView, InstallerView, JobView, Meta,
};
use super::super::Action;
use super::super::cluster::Decision;
use super::super::disable::{Input, decide};
use super::super::job::{Failure, FoundJob, JobState};
use super::samples::{at, cluster, condition, deletion, image, job, node};

struct Case {
    cluster: ClusterView,
    users: Vec<String>,
    jobs: Vec<JobView>,
    nodes: Vec<(AccelerationNodeView, bool)>,
    /// How the Job of the leases stands, while the installer is there.
    leases: JobState,
    installer: Option<InstallerView>,
    images: Vec<ImageView>,
    now: i64,
}

fn leaving(forced: bool) -> ClusterView {
    cluster(&json!({"metadata": {
        "deletionTimestamp": at(100).to_string(),
        "annotations": {"uimgacc.io/force": forced.to_string()},
    }}))
}

fn case(change: impl FnOnce(&mut Case)) -> Decision {
    let mut case = Case {
        cluster: leaving(false),
        users: Vec::new(),
        jobs: Vec::new(),
        nodes: Vec::new(),
        leases: JobState::Succeeded(at(100)),
        installer: Some(InstallerView::default()),
        images: Vec::new(),
        now: 101,
    };
    change(&mut case);
    let leases = case.leases != JobState::None && case.installer.is_some();
    let leases = leases.then(|| leases_job(100));
    decide(&Input {
        cluster: &case.cluster,
        users: case.users,
        jobs: case.jobs.iter().chain(&leases).collect(),
        leases: FoundJob {
            job: leases.as_ref(),
            state: case.leases,
        },
        nodes: case
            .nodes
            .iter()
            .map(|(node, exists)| (node, exists.then_some(node.meta.name.as_str())))
            .collect(),
        installer: case.installer.as_ref(),
        images: case.images.iter().collect(),
        now: at(case.now),
    })
}

fn leases_job(created: i64) -> JobView {
    let mut job = job("uimgacc-leases");
    job.meta.created = at(created);
    job
}

fn says(decision: &Decision) -> (String, String) {
    let one = find_condition(&decision.status.conditions, "Ready").unwrap();
    (one.reason.clone(), one.message.clone())
}

fn restarting(decision: &Decision) -> Vec<&str> {
    let listed = decision.status.restarting.iter();
    listed.map(|one| one.name.as_str()).collect()
}

fn ask(name: &str) -> Action {
    let spec = AccelerationNodeSpec {
        uninstall: true,
        ..AccelerationNodeSpec::default()
    };
    Action::AskNode(node(name, &json!({})).meta, spec)
}

fn is(name: &str, with: &Value) -> (AccelerationNodeView, bool) {
    (node(name, with), true)
}

fn asked() -> Value {
    json!({"spec": {"uninstall": true}})
}

fn gone() -> Value {
    json!({"spec": {"uninstall": true}, "status": {"conditions": [condition("Installed", "False", "Uninstalled", 0)]}})
}

fn fine() -> Value {
    json!({"status": {"conditions": [condition("Installed", "True", "Installed", 0)]}})
}

#[test]
fn it_is_refused_while_target_images_are_in_use() {
    let users = || vec!["default/app on n1".to_owned()];
    let refused = case(|case| {
        case.users = users();
        case.nodes = vec![is("n1", &fine())];
    });
    assert!(refused.actions.is_empty());
    let (reason, message) = says(&refused);
    assert_eq!(reason, "InUse");
    assert!(message.contains("default/app on n1") && message.contains("uimgacc.io/force"));
    assert_eq!(refused.notes.len(), 1);
    // Forced, or once it has begun, it goes on.
    let forced = case(|case| {
        case.cluster = leaving(true);
        case.users = users();
        case.nodes = vec![is("n1", &fine())];
    });
    assert_eq!(forced.actions, [ask("n1")]);
    let begun = case(|case| {
        case.users = users();
        case.nodes = vec![is("n1", &gone()), is("n2", &fine())];
    });
    assert_eq!(begun.actions, [ask("n2")]);
}

#[test]
fn one_step_after_the_other() {
    let stop_jobs = case(|case| {
        case.jobs = vec![job("job")];
        case.nodes = vec![is("n1", &fine())];
    });
    assert_eq!(stop_jobs.actions, [deletion("job")]);
    // All nodes are asked at once, and take turns.
    let first = case(|case| case.nodes = vec![is("n1", &fine()), is("n2", &fine())]);
    assert_eq!(first.actions, [ask("n1"), ask("n2")]);
    let waits = case(|case| case.nodes = vec![is("n1", &asked()), is("n2", &asked())]);
    assert!(waits.actions.is_empty());
    assert_eq!(restarting(&waits), ["n1"]);
    let message = says(&waits).1;
    assert!(message.contains("0 of 2 nodes, now on n1"), "{message}");
    let second = case(|case| {
        case.cluster.status.restarting = waits.status.restarting.clone();
        case.nodes = vec![is("n1", &gone()), is("n2", &asked())];
    });
    assert_eq!(restarting(&second), ["n2"]);
    let message = says(&second).1;
    assert!(message.contains("1 of 2 nodes, now on n2"), "{message}");
    // A node that does not exist any more is not waited for.
    let vanished = case(|case| case.nodes = vec![(node("n1", &asked()), false)]);
    let meta = node("n1", &asked()).meta;
    assert_eq!(vanished.actions, [Action::DeleteAccelerationNode(meta)]);
    let no_installer = |images: Vec<ImageView>, nodes| {
        case(|case| {
            case.installer = None;
            case.images = images;
            case.nodes = nodes;
        })
    };
    let held = || vec![image("a", &json!({}))];
    let object = Action::DeleteAccelerationNode(is("n1", &gone()).0.meta);
    let image = Action::ImageFinalizers(image("a", &json!({})).meta, Vec::new());
    assert_eq!(
        no_installer(held(), vec![is("n1", &gone())]).actions,
        [object, image.clone()]
    );
    assert_eq!(no_installer(held(), vec![]).actions, [image]);
    assert_eq!(
        no_installer(vec![], vec![]).actions,
        [Action::ClusterFinalizers(leaving(false).meta, Vec::new())]
    );
}

#[test]
fn forced_no_node_holds_it_up() {
    let stuck = || vec![is("n1", &asked()), is("n2", &fine())];
    let all = case(|case| {
        case.cluster = leaving(true);
        case.nodes = stuck();
    });
    assert_eq!(all.actions, [ask("n2")]);
    assert!(all.again.is_some());
    let all = case(|case| {
        case.cluster = leaving(true);
        case.nodes = vec![is("n1", &asked()), is("n2", &asked())];
    });
    assert_eq!(restarting(&all), ["n1", "n2"]);
    let late = case(|case| {
        case.cluster = leaving(true);
        case.nodes = stuck();
        case.now = 100 + 300;
    });
    assert_eq!(late.actions, [Action::DeleteInstaller(Meta::default())]);
    let patient = case(|case| {
        case.nodes = vec![is("n1", &asked())];
        case.now = 100_000;
    });
    assert!(patient.actions.is_empty());
}

/// One node that is done, and the Job of the leases in that state.
fn released(state: JobState, change: impl FnOnce(&mut Case)) -> Decision {
    case(|case| {
        case.nodes = vec![is("n1", &gone())];
        case.leases = state;
        change(case);
    })
}

fn warning(decision: &Decision) -> &str {
    let note = decision
        .notes
        .iter()
        .find(|note| note.reason == "LeasesLeft");
    let note = note.unwrap();
    assert!(note.warning);
    &note.text
}

#[test]
fn the_leases_go_once_the_nodes_are_done() {
    let begun = released(JobState::None, |_| {});
    assert!(
        matches!(&begun.actions[..], [Action::CreateJob(job)] if job.work == JobTask::Leases),
        "{:?}",
        begun.actions
    );
    assert_eq!(says(&begun).0, "ReleasingStore");
    let runs = || JobState::Running {
        waits: None,
        attempt: 1,
    };
    assert!(released(runs(), |_| {}).actions.is_empty());
    let installer = [Action::DeleteInstaller(Meta::default())];
    let done = released(JobState::Succeeded(at(101)), |_| {});
    assert_eq!(done.actions, installer);
    assert!(done.notes.iter().all(|note| note.reason != "LeasesLeft"));
    // A store or a node that does not answer does not keep the cluster from being disabled.
    let failed = JobState::Failed(Failure {
        at: at(101),
        attempt: 1,
        died: false,
        retry: true,
        message: "no answer from 10.0.0.1".to_owned(),
        outdated: false,
    });
    let failed = released(failed, |_| {});
    assert_eq!(failed.actions, installer);
    assert!(warning(&failed).contains("10.0.0.1"));
    let stuck = released(runs(), |case| case.now = 400);
    assert_eq!(stuck.actions, installer);
    assert!(warning(&stuck).contains("does not end"));
}

#[test]
fn what_nodes_still_hold_is_reported() {
    let held = released(JobState::Succeeded(at(101)), |case| {
        let (node, _) = &mut case.nodes[0];
        node.status.chains.push(HeldChain {
            token: "t".to_owned(),
            ..HeldChain::default()
        });
    });
    assert_eq!(held.actions, [Action::DeleteInstaller(Meta::default())]);
    assert!(warning(&held).contains("n1"));
    // A node that does not exist any more holds nothing.
    let vanished = released(JobState::None, |case| {
        case.nodes.push((node("n2", &asked()), false));
    });
    let meta = node("n2", &asked()).meta;
    assert_eq!(vanished.actions, [Action::DeleteAccelerationNode(meta)]);
}

#[test]
fn the_job_of_the_leases_goes_after_the_installer() {
    let gone = |created: i64, installer: Option<InstallerView>| {
        case(|case| {
            case.jobs = vec![leases_job(created)];
            case.leases = JobState::None;
            case.installer = installer;
        })
    };
    let delete = |created| [Action::delete_job(&leases_job(created))];
    assert_eq!(gone(100, None).actions, delete(100));
    // One that is left from before does not count.
    let early = gone(99, Some(InstallerView::default()));
    assert_eq!(early.actions, delete(99));
}
