use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use uimgacc_objects::AccelerationNodeSpec;

use super::super::super::view::AccelerationNodeView;
use super::super::Action;
use super::super::nodes::{Standing, decide};
use super::samples::{at, condition, node};

fn installed(is: &str) -> Value {
    json!([condition("Installed", is, "Any", 0)])
}

fn nodes(all: &[(&str, Value)]) -> BTreeMap<String, Arc<AccelerationNodeView>> {
    all.iter()
        .map(|(name, with)| ((*name).to_owned(), Arc::new(node(name, with))))
        .collect()
}

#[test]
fn each_node_gives_back_what_it_has_of_what_goes() {
    let released: BTreeSet<String> = ["sha256:x".to_owned(), "sha256:y".to_owned()].into();
    let chain = |id: &str| json!({"token": id, "containers": 0});
    let all = nodes(&[
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
        Action::AskNode(node(name, &json!({})).meta, spec)
    };
    assert_eq!(
        actions,
        [ask("both", &["sha256:x", "sha256:y"]), ask("gave", &[])]
    );
}

#[test]
fn objects_of_nodes_that_are_gone_go() {
    let created = |second| json!({"metadata": {"creationTimestamp": at(second).to_string()}});
    let all = nodes(&[("gone", created(0)), ("new", created(90))]);
    let (actions, again) = decide(&all, |_| Standing::Gone, &BTreeSet::new(), at(100));
    let delete = Action::DeleteAccelerationNode(all["gone"].meta.clone());
    assert_eq!(actions, [delete]);
    // The new one's Node may not be known yet.
    assert_eq!(again.unwrap().as_secs(), 50);
}

#[test]
fn nodes_that_are_not_selected_any_more_leave() {
    let installed = json!({"status": {"conditions": installed("True")}});
    let asked = |uninstall: bool| AccelerationNodeSpec {
        leaving: true,
        uninstall,
        ..AccelerationNodeSpec::default()
    };
    let spec = |uninstall: bool| json!({"leaving": true, "uninstall": uninstall});
    let leaving = |labelled, used| Standing::Leaving { labelled, used };
    let look = |of: Vec<(&'static str, Standing)>| {
        move |node: &AccelerationNodeView| {
            let mut of = of.iter();
            of.find(|(name, _)| *name == node.meta.name).unwrap().1
        }
    };
    let decided = |all: &[(&str, Value)], of: Vec<(&'static str, Standing)>| {
        decide(&nodes(all), look(of), &BTreeSet::new(), at(100))
    };
    let ask = |name: &str, spec| Action::AskNode(node(name, &json!({})).meta, spec);

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
    let free = leaving(false, false);
    let (actions, _) = decided(&[("a", told)], vec![("a", free)]);
    assert_eq!(actions, [ask("a", asked(true))]);
    let begun = json!({"spec": spec(true), "status": {"conditions": self::installed("True")}});
    for standing in [free, leaving(true, true)] {
        let (actions, _) = decided(&[("a", begun.clone())], vec![("a", standing)]);
        assert_eq!(actions, [], "{standing:?}");
    }
    let gone = json!({
        "spec": spec(true),
        "status": {"conditions": [condition("Installed", "False", "Uninstalled", 0)]},
    });
    // Its object goes last; a node that is selected again is set up again.
    let left = nodes(&[("a", gone.clone())]);
    let (actions, _) = decided(&[("a", gone.clone())], vec![("a", Standing::Left)]);
    assert_eq!(
        actions,
        [Action::DeleteAccelerationNode(left["a"].meta.clone())]
    );
    let (actions, _) = decided(&[("a", gone)], vec![("a", Standing::Selected)]);
    assert_eq!(actions, [ask("a", AccelerationNodeSpec::default())]);
}
