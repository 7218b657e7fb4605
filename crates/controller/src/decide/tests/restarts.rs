use serde_json::{Value, json};
use uimgacc_objects::RestartingNode;

use super::super::nodes::Standing;
use super::super::restarts::{Candidate, Need, decide};
use super::samples::{at, condition, node};

const MINUTE: i64 = 60;

fn listed(names: &[&str]) -> Vec<RestartingNode> {
    let one = |name: &&str| RestartingNode {
        name: (*name).to_owned(),
        uid: format!("uid-{name}"),
        since: at(0).to_string(),
    };
    names.iter().map(one).collect()
}

/// Who is listed after a decision in which each node needs that.
fn next(before: &[&str], nodes: &[(&'static str, Need)], most: u32, second: i64) -> Vec<String> {
    let uids: Vec<String> = nodes
        .iter()
        .map(|(name, _)| format!("uid-{name}"))
        .collect();
    let candidates: Vec<_> = nodes
        .iter()
        .zip(&uids)
        .map(|((name, need), uid)| Candidate {
            name,
            uid,
            need: *need,
        })
        .collect();
    let (after, _) = decide(&listed(before), &candidates, most, at(second));
    after.into_iter().map(|one| one.name).collect()
}

#[test]
fn so_many_at_once_and_in_turn() {
    use Need::{None, Repair, Restart};
    let all = [("a", Restart), ("b", Restart), ("c", Restart)];
    assert_eq!(next(&[], &all, 1, 0), ["a"]);
    assert_eq!(next(&[], &all, 2, 0), ["a", "b"]);
    assert_eq!(next(&["a"], &all, 1, 1), ["a"], "it is not done");
    assert_eq!(next(&["c"], &all, 2, 1), ["c", "a"]);
    let done = [("a", None), ("b", Restart), ("c", Restart)];
    assert_eq!(next(&["a"], &done, 1, 1), ["b"]);
    assert_eq!(next(&["a", "b"], &done, 2, 1), ["b", "c"]);
    let broken = [("a", Repair), ("b", Restart), ("c", Restart)];
    assert_eq!(
        next(&["a"], &broken, 1, 60 * MINUTE),
        ["a"],
        "no further node breaks"
    );
    assert_eq!(next(&["a"], &broken, 2, 60 * MINUTE), ["a", "b"]);
    assert_eq!(
        next(&[], &broken, 1, 1),
        ["b"],
        "nothing was restarted on a"
    );
    // Where fewer are allowed than before, none is added.
    assert_eq!(next(&["a", "b"], &all, 1, 1), ["a", "b"]);
    let nobody: Vec<String> = Vec::new();
    assert_eq!(next(&["a"], &[("a", None)], 1, 1), nobody);
}

#[test]
fn a_node_that_died_gives_its_place_back() {
    use Need::Restart;
    let all = [("a", Restart), ("b", Restart)];
    assert_eq!(next(&["a"], &all, 1, 15 * MINUTE - 1), ["a"]);
    assert_eq!(next(&["a"], &all, 1, 15 * MINUTE), ["b"]);
    assert_eq!(next(&["b"], &all, 1, 15 * MINUTE), ["a"], "in turn");
    // Alone it may try again.
    let (after, again) = decide(
        &listed(&["a"]),
        &[Candidate {
            name: "a",
            uid: "uid-a",
            need: Restart,
        }],
        1,
        at(20 * MINUTE),
    );
    assert_eq!(after[0].since, at(20 * MINUTE).to_string());
    assert_eq!(again.unwrap().as_secs(), 15 * 60);
    // The Node is gone, or is another of the same name.
    assert_eq!(next(&["a"], &[("b", Restart)], 1, 1), ["b"]);
    let other = Candidate {
        name: "a",
        uid: "other",
        need: Need::None,
    };
    assert_eq!(
        decide(&listed(&["a"]), &[other], 1, at(1)),
        (Vec::new(), None)
    );
}

#[test]
fn what_a_node_needs() {
    let installed =
        |is: &str, reason: &str| json!({"conditions": [condition("Installed", is, reason, 0)]});
    let waits = json!({"needsRestart": true});
    let need = |spec: Value, status: &Value, standing| {
        Need::of(
            &node("a", &json!({"spec": spec, "status": status})),
            standing,
        )
    };
    let leaving = Standing::Leaving {
        labelled: false,
        used: false,
    };
    let here = Standing::Selected;
    let remove = || json!({"uninstall": true});
    for (spec, status, standing, expected) in [
        (json!({}), waits.clone(), here, Need::Restart),
        (json!({}), installed("True", "Installed"), here, Need::None),
        (
            json!({}),
            installed("False", "InstallFailed"),
            here,
            Need::Repair,
        ),
        (json!({}), json!({}), here, Need::Repair),
        (json!({}), waits.clone(), leaving, Need::None),
        (remove(), waits, leaving, Need::Restart),
        (
            remove(),
            installed("True", "Installed"),
            here,
            Need::Restart,
        ),
        (
            remove(),
            installed("False", "UninstallFailed"),
            here,
            Need::Restart,
        ),
        (
            remove(),
            installed("False", "Uninstalled"),
            leaving,
            Need::None,
        ),
    ] {
        assert_eq!(
            need(spec.clone(), &status, standing),
            expected,
            "{spec} {status}"
        );
    }
}
