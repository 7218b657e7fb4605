use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use uimgacc_objects::AccelerationNodeSpec;

use super::super::super::view::LeaseView;
use super::super::Action;
use super::super::nodes::{Standing, decide};
use super::samples::{at, condition, node};

fn installed(is: &str) -> Value {
    json!([condition("Installed", is, "Any", 0)])
}

fn leases(all: &[(&str, Value)]) -> BTreeMap<String, Arc<LeaseView>> {
    all.iter()
        .map(|(name, with)| ((*name).to_owned(), Arc::new(node(name, with))))
        .collect()
}

fn turns(all: &[(&str, Value)]) -> Vec<(String, bool)> {
    let (actions, _) = decide(
        &leases(all),
        |_| Standing::Selected,
        &BTreeSet::new(),
        at(10),
    );
    actions
        .into_iter()
        .map(|action| match action {
            Action::AskNode(name, spec) => (name, spec.may_restart),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn one_node_at_a_time_restarts() {
    let waits = json!({"status": {"needsRestart": true}});
    let has = |status: Value| json!({"spec": {"mayRestart": true}, "status": status});
    let works = has(json!({"needsRestart": true}));
    let done = has(json!({"needsRestart": false, "conditions": installed("True")}));
    let broken = has(json!({"needsRestart": false, "conditions": installed("False")}));
    let silent = has(json!({"needsRestart": false}));
    let fine = json!({"status": {"conditions": installed("True")}});
    let unfit = json!({"status": {"conditions": installed("False")}});
    let gives = |name: &str, turn: bool| vec![(name.to_owned(), turn)];
    let cases = [
        (
            "the first of those that wait",
            vec![("a", waits.clone()), ("b", waits.clone())],
            gives("a", true),
        ),
        (
            "not while another restarts",
            vec![("a", waits.clone()), ("b", works)],
            vec![],
        ),
        (
            "not where another did not come back",
            vec![("a", waits.clone()), ("b", broken)],
            vec![],
        ),
        (
            "nor where it says nothing",
            vec![("a", waits.clone()), ("b", silent)],
            vec![],
        ),
        (
            "after it came back",
            vec![("a", waits.clone()), ("b", done)],
            vec![("a".to_owned(), true), ("b".to_owned(), false)],
        ),
        (
            "a node that never can is no reason",
            vec![("a", unfit), ("b", waits.clone())],
            gives("b", true),
        ),
        (
            "nobody waits",
            vec![("a", fine.clone()), ("b", fine)],
            vec![],
        ),
        (
            "where it was being taken off, it is first told to stay",
            vec![
                (
                    "a",
                    json!({"spec": {"uninstall": true}, "status": {"needsRestart": true}}),
                ),
                ("b", waits),
            ],
            vec![("a".to_owned(), false), ("b".to_owned(), true)],
        ),
    ];
    for (name, nodes, expected) in cases {
        assert_eq!(turns(&nodes), expected, "{name}");
    }
}

#[test]
fn each_node_gives_back_what_it_has_of_what_goes() {
    let released: BTreeSet<String> = ["sha256:x".to_owned(), "sha256:y".to_owned()].into();
    let chain = |id: &str| json!({"token": id, "containers": 0});
    let all = leases(&[
        (
            "both",
            json!({"status": {"chains": [chain("sha256:y"), chain("sha256:x"), chain("sha256:stays")]}}),
        ),
        (
            "none",
            json!({"status": {"chains": [chain("sha256:stays")]}}),
        ),
        ("gave", json!({"spec": {"release": ["sha256:x"]}})),
        (
            "asked",
            json!({"spec": {"release": ["sha256:x"]}, "status": {"chains": [chain("sha256:x")]}}),
        ),
    ]);
    let (actions, _) = decide(&all, |_| Standing::Selected, &released, at(10));
    let ask = |name: &str, release: &[&str]| {
        let release = release.iter().map(|one| (*one).to_owned()).collect();
        let spec = AccelerationNodeSpec {
            release,
            ..AccelerationNodeSpec::default()
        };
        Action::AskNode(name.to_owned(), spec)
    };
    assert_eq!(
        actions,
        [ask("both", &["sha256:x", "sha256:y"]), ask("gave", &[])]
    );
}

#[test]
fn objects_of_nodes_that_are_gone_go_and_take_their_turn_along() {
    let all = leases(&[
        (
            "gone",
            json!({"spec": {"mayRestart": true}, "status": {"needsRestart": true}}),
        ),
        (
            "new",
            json!({"metadata": {"creationTimestamp": at(90).to_string()}}),
        ),
        ("waits", json!({"status": {"needsRestart": true}})),
    ]);
    let look = |lease: &LeaseView| match lease.meta.name.as_str() {
        "waits" => Standing::Selected,
        _ => Standing::Gone,
    };
    let (actions, again) = decide(&all, look, &BTreeSet::new(), at(100));
    let turn = AccelerationNodeSpec {
        may_restart: true,
        ..AccelerationNodeSpec::default()
    };
    assert_eq!(
        actions,
        [
            Action::DeleteLease(all["gone"].meta.clone()),
            Action::AskNode("waits".to_owned(), turn),
        ]
    );
    // The new one's Node may not be known yet.
    assert_eq!(again.unwrap().as_secs(), 50);
}

#[test]
fn nodes_that_are_not_selected_any_more_leave_one_by_one() {
    let installed = json!({"status": {"conditions": installed("True")}});
    let asked = |uninstall: bool| AccelerationNodeSpec {
        leaving: true,
        uninstall,
        ..AccelerationNodeSpec::default()
    };
    let spec = |uninstall: bool| json!({"leaving": true, "uninstall": uninstall});
    let leaving = |labelled, used| Standing::Leaving { labelled, used };
    let look = |of: Vec<(&'static str, Standing)>| {
        move |lease: &LeaseView| {
            let mut of = of.iter();
            of.find(|(name, _)| *name == lease.meta.name).unwrap().1
        }
    };
    let decided = |all: &[(&str, Value)], of: Vec<(&'static str, Standing)>| {
        decide(&leases(all), look(of), &BTreeSet::new(), at(100))
    };
    let ask = |name: &str, spec| Action::AskNode(name.to_owned(), spec);

    // Its labels first, then what uses it.
    let (actions, again) = decided(
        &[("a", installed.clone())],
        vec![("a", leaving(true, true))],
    );
    assert_eq!(actions, [ask("a", asked(false))]);
    assert!(again.is_some());
    let told = json!({"spec": spec(false), "status": {"conditions": self::installed("True")}});
    for standing in [leaving(false, true), leaving(true, false)] {
        let (actions, again) = decided(&[("a", told.clone())], vec![("a", standing)]);
        assert_eq!(actions, [], "{standing:?}");
        assert!(again.is_some());
    }
    // One at a time, and not while a containerd is restarted.
    let two = [("a", told.clone()), ("b", told.clone())];
    let free = leaving(false, false);
    let (actions, _) = decided(&two, vec![("a", free), ("b", free)]);
    assert_eq!(actions, [ask("a", asked(true))]);
    let begun = json!({"spec": spec(true), "status": {"conditions": self::installed("True")}});
    let gone = json!({
        "spec": spec(true),
        "status": {"conditions": [condition("Installed", "False", "Uninstalled", 0)]},
    });
    for (other, next) in [
        (begun.clone(), vec![]),
        (gone.clone(), vec![ask("b", asked(true))]),
    ] {
        let two = [("a", other), ("b", told.clone())];
        let (actions, _) = decided(&two, vec![("a", free), ("b", free)]);
        assert_eq!(actions, next);
    }
    let restarts = json!({"spec": {"mayRestart": true}, "status": {"needsRestart": true}});
    let two = [("a", restarts.clone()), ("b", told.clone())];
    let (actions, _) = decided(&two, vec![("a", Standing::Selected), ("b", free)]);
    assert_eq!(actions, []);
    // Nor does a node restart while another is uninstalled, nor one that leaves.
    let waits = json!({"status": {"needsRestart": true}});
    let two = [("a", waits), ("b", begun.clone())];
    let (actions, _) = decided(&two, vec![("a", Standing::Selected), ("b", free)]);
    assert_eq!(actions, []);
    let (actions, _) = decided(&[("a", restarts)], vec![("a", leaving(true, true))]);
    assert_eq!(actions, [ask("a", asked(false))]);
    // Its object goes last; a node that is selected again is set up again.
    let left = leases(&[("a", gone.clone())]);
    let (actions, _) = decided(&[("a", gone.clone())], vec![("a", Standing::Left)]);
    assert_eq!(actions, [Action::DeleteLease(left["a"].meta.clone())]);
    let (actions, _) = decided(&[("a", gone)], vec![("a", Standing::Selected)]);
    assert_eq!(actions, [ask("a", AccelerationNodeSpec::default())]);
}
