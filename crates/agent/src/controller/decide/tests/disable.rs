use serde_json::{Value, json};
use uimgacc_objects::{AccelerationNodeSpec, find_condition};

use super::super::super::view::{ClusterView, InstallerView, JobView, LeaseView, Meta};
use super::super::Action;
use super::super::cluster::Decision;
use super::super::disable::{Input, decide};
use super::samples::{at, cluster, condition, node};

struct Case {
    cluster: ClusterView,
    users: Vec<String>,
    jobs: Vec<JobView>,
    leases: Vec<(LeaseView, bool)>,
    installer: Option<InstallerView>,
    images: Vec<&'static str>,
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
        leases: Vec::new(),
        installer: Some(InstallerView::default()),
        images: Vec::new(),
        now: 101,
    };
    change(&mut case);
    decide(&Input {
        cluster: &case.cluster,
        users: case.users,
        jobs: case.jobs.iter().collect(),
        leases: case
            .leases
            .iter()
            .map(|(lease, exists)| (lease, *exists))
            .collect(),
        installer: case.installer.as_ref(),
        images: case.images,
        now: at(case.now),
    })
}

fn says(decision: &Decision) -> (String, String) {
    let one = find_condition(&decision.status.conditions, "Ready").unwrap();
    (one.reason.clone(), one.message.clone())
}

fn ask(name: &str) -> Action {
    let spec = AccelerationNodeSpec {
        uninstall: true,
        ..AccelerationNodeSpec::default()
    };
    Action::AskNode(name.to_owned(), spec)
}

fn is(name: &str, with: &Value) -> (LeaseView, bool) {
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
        case.leases = vec![is("n1", &fine())];
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
        case.leases = vec![is("n1", &fine())];
    });
    assert_eq!(forced.actions, [ask("n1")]);
    let begun = case(|case| {
        case.users = users();
        case.leases = vec![is("n1", &gone()), is("n2", &fine())];
    });
    assert_eq!(begun.actions, [ask("n2")]);
}

#[test]
fn one_step_after_the_other() {
    let job = JobView {
        meta: Meta {
            name: "job".to_owned(),
            uid: "uid-job".to_owned(),
            ..Meta::default()
        },
        ..JobView::default()
    };
    let stop_jobs = case(|case| {
        case.jobs = vec![job];
        case.leases = vec![is("n1", &fine())];
    });
    assert_eq!(
        stop_jobs.actions,
        [Action::DeleteJob("job".to_owned(), "uid-job".to_owned())]
    );
    let first = case(|case| case.leases = vec![is("n1", &fine()), is("n2", &fine())]);
    assert_eq!(first.actions, [ask("n1")]);
    let waits = case(|case| case.leases = vec![is("n1", &asked()), is("n2", &fine())]);
    assert!(waits.actions.is_empty());
    assert!(
        says(&waits).1.contains("0 of 2 nodes, now off n1"),
        "{:?}",
        says(&waits)
    );
    let second = case(|case| case.leases = vec![is("n1", &gone()), is("n2", &fine())]);
    assert_eq!(second.actions, [ask("n2")]);
    // A node that does not exist any more is not waited for.
    let vanished = case(|case| case.leases = vec![(node("n1", &asked()), false)]);
    assert_eq!(vanished.actions, [Action::DeleteInstaller(String::new())]);
    let no_installer = |images: Vec<&'static str>, leases| {
        case(|case| {
            case.installer = None;
            case.images = images;
            case.leases = leases;
        })
    };
    let lease = Action::DeleteLease(is("n1", &gone()).0.meta.clone());
    let image = Action::ImageFinalizer("a".to_owned(), false);
    assert_eq!(
        no_installer(vec!["a"], vec![is("n1", &gone())]).actions,
        [lease, image.clone()]
    );
    assert_eq!(no_installer(vec!["a"], vec![]).actions, [image]);
    assert_eq!(
        no_installer(vec![], vec![]).actions,
        [Action::ClusterFinalizer(false)]
    );
}

#[test]
fn forced_no_node_holds_it_up() {
    let stuck = || vec![is("n1", &asked()), is("n2", &fine())];
    let all = case(|case| {
        case.cluster = leaving(true);
        case.leases = stuck();
    });
    assert_eq!(all.actions, [ask("n2")]);
    assert!(all.again.is_some());
    let late = case(|case| {
        case.cluster = leaving(true);
        case.leases = stuck();
        case.now = 100 + 300;
    });
    assert_eq!(late.actions, [Action::DeleteInstaller(String::new())]);
    let patient = case(|case| {
        case.leases = stuck();
        case.now = 100_000;
    });
    assert!(patient.actions.is_empty());
}
