use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use uimgacc_objects::AccelerationNodeSpec;

use super::super::super::view::LeaseView;
use super::super::Action;
use super::super::nodes::decide;
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
    let (actions, _) = decide(&leases(all), |_| true, &BTreeSet::new(), at(10));
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
            "not where it is being taken off",
            vec![
                (
                    "a",
                    json!({"spec": {"uninstall": true}, "status": {"needsRestart": true}}),
                ),
                ("b", waits),
            ],
            gives("b", true),
        ),
    ];
    for (name, nodes, expected) in cases {
        assert_eq!(turns(&nodes), expected, "{name}");
    }
}

#[test]
fn each_node_gives_back_what_it_has_of_what_goes() {
    let released: BTreeSet<String> = ["sha256:x".to_owned(), "sha256:y".to_owned()].into();
    let chain = |id: &str| json!({"chainId": id, "containers": 0});
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
    let (actions, _) = decide(&all, |_| true, &released, at(10));
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
    let (actions, again) = decide(&all, |name| name == "waits", &BTreeSet::new(), at(100));
    let turn = AccelerationNodeSpec {
        may_restart: true,
        ..AccelerationNodeSpec::default()
    };
    assert_eq!(
        actions,
        [
            Action::DeleteLease("gone".to_owned(), "uid-gone".to_owned()),
            Action::AskNode("waits".to_owned(), turn),
        ]
    );
    // The new one's Node may not be known yet.
    assert_eq!(again.unwrap().as_secs(), 50);
}
