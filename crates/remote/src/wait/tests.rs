use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const TARGET: &str = "reg.example/app:fast";

fn answer(fields: Value) -> Answer {
    let mut whole = json!({"RetCode": 0, "Enable": true, "NfsReady": true, "AgentReady": true,
        "Error": "", "Images": []});
    for (key, value) in fields.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

/// `Creating`, ... without Tasks; a word with a target behind it lists that.
fn plain(status: &str) -> Answer {
    answer(json!({"Status": status}))
}

fn listed(status: &str, targets: &[&str]) -> Answer {
    let images: Vec<_> = targets
        .iter()
        .map(|target| json!({"TargetImage": target}))
        .collect();
    answer(json!({"Status": status, "Images": images}))
}

fn task(target: &str, status: &str) -> Value {
    json!({"TargetImage": target, "Status": status, "Error": format!("{status} of {target}"), "Percent": 45})
}

fn tasks(status: &str, tasks: &[Value], targets: &[&str]) -> Answer {
    let images: Vec<_> = targets
        .iter()
        .map(|target| json!({"TargetImage": target}))
        .collect();
    answer(json!({"Status": status, "Tasks": tasks, "Images": images}))
}

/// `.` waiting, `D` done, `F` failed; nothing comes behind an end.
fn steps(goal: Goal, answers: &[Answer]) -> String {
    let mut wait = Wait::new(goal);
    let mut text = String::new();
    for answer in answers {
        text.push(match wait.see(answer) {
            Outcome::Waiting(_) => '.',
            Outcome::Done => 'D',
            Outcome::Failed(_) => 'F',
        });
        if !text.ends_with('.') {
            break;
        }
    }
    text
}

fn create() -> Goal {
    Goal::Created(TARGET.to_owned())
}

fn delete() -> Goal {
    Goal::Deleted(TARGET.to_owned())
}

#[test]
fn created_on_the_original_service() {
    for (answers, expected) in [
        (vec![plain("Creating"), listed("Ready", &[TARGET])], ".D"),
        // The traps: what is not known, and what does not list it.
        (vec![plain("Unknown"); 9], "........."),
        (
            vec![answer(json!({})), answer(json!({"Images": null}))],
            "..",
        ),
        (vec![listed("Unknown", &[TARGET]); 3], "..."),
        (vec![plain("Ready"); 9], "........."),
        (
            vec![
                plain("Ready"),
                listed("Ready", &["reg.example/app:other"]),
                listed("Ready", &[TARGET]),
            ],
            "..D",
        ),
        (vec![listed("Creating", &[TARGET]); 2], ".."),
        // An error counts twice seen: it may be there from before.
        (
            vec![
                plain("CreateError"),
                plain("Creating"),
                plain("CreateError"),
                plain("CreateError"),
            ],
            "...F",
        ),
        (
            vec![
                plain("CreateError"),
                plain("Unknown"),
                plain("CreateError"),
                plain("Ready"),
            ],
            "....",
        ),
        (vec![listed("CreateError", &[TARGET]); 2], ".F"),
        (vec![plain("DeleteError"), plain("DeleteError")], ".F"),
        (
            vec![answer(json!({"Enable": false, "Status": "Unknown"})); 2],
            ".F",
        ),
        (
            vec![answer(json!({"Enable": false, "Status": "Unknown", "Error": "no way there"})); 9],
            ".........",
        ),
        (
            vec![
                answer(
                    json!({"Status": "Ready", "AgentReady": false, "Images": [{"TargetImage": TARGET}]})
                );
                2
            ],
            "..",
        ),
    ] {
        assert_eq!(steps(create(), &answers), expected, "{answers:?}");
    }
    let short = listed("Ready", &["docker.io/library/app:latest"]);
    assert_eq!(steps(Goal::Created("app".to_owned()), &[short]), "D");
}

#[test]
fn created_on_ours() {
    let other = "reg.example/other:fast";
    for (answers, expected) in [
        (
            vec![
                tasks("Creating", &[task(TARGET, "Creating")], &[]),
                tasks("Ready", &[], &[TARGET]),
            ],
            ".D",
        ),
        (
            vec![tasks("CreateError", &[task(TARGET, "CreateError")], &[])],
            "F",
        ),
        // Errors of others are not ours.
        (
            vec![tasks("CreateError", &[task(other, "CreateError")], &[]); 3],
            "...",
        ),
        (
            vec![
                tasks(
                    "Creating",
                    &[task(TARGET, "Creating"), task(other, "CreateError")],
                    &[]
                );
                3
            ],
            "...",
        ),
        (
            vec![tasks(
                "CreateError",
                &[task(other, "CreateError")],
                &[TARGET],
            )],
            "D",
        ),
        (
            vec![tasks(
                "Creating",
                &[task(other, "Creating"), task(TARGET, "Ready")],
                &[],
            )],
            "D",
        ),
        // Not there is not ready.
        (vec![tasks("Ready", &[], &[]); 3], "..."),
        (vec![tasks("Unknown", &[], &[TARGET]); 3], "..."),
        (
            vec![tasks("Unknown", &[task(TARGET, "Creating")], &[]); 3],
            "...",
        ),
        (
            vec![tasks("Deleting", &[task(TARGET, "Deleting")], &[]); 2],
            ".F",
        ),
    ] {
        assert_eq!(steps(create(), &answers), expected, "{answers:?}");
    }
}

#[test]
fn deleted_on_the_original_service() {
    let other = "reg.example/other:fast";
    for (answers, expected) in [
        (vec![plain("Deleting"), plain("Ready")], ".D"),
        (vec![plain("Deleting"), listed("Ready", &[other])], ".D"),
        (vec![listed("Ready", &[other])], "D"),
        // A first empty answer is no end.
        (vec![plain("Ready"), listed("Ready", &[TARGET])], ".."),
        (vec![plain("Ready"), plain("Ready")], ".D"),
        (
            vec![
                plain("Ready"),
                plain("Unknown"),
                plain("Ready"),
                plain("Ready"),
            ],
            "...D",
        ),
        (vec![plain("Unknown"); 9], "........."),
        (
            vec![answer(json!({"Status": "Ready", "Images": null})); 3],
            "...",
        ),
        (
            vec![answer(json!({"Status": "Ready", "AgentReady": false})); 3],
            "...",
        ),
        (vec![listed("Ready", &[TARGET]); 3], "..."),
        (vec![plain("Creating"); 3], "..."),
        (
            vec![
                plain("Deleting"),
                plain("DeleteError"),
                plain("DeleteError"),
            ],
            "..F",
        ),
        // Another one could not be made.
        (vec![plain("CreateError"); 3], "..."),
        (
            vec![
                plain("Deleting"),
                plain("CreateError"),
                plain("CreateError"),
            ],
            "..D",
        ),
    ] {
        assert_eq!(steps(delete(), &answers), expected, "{answers:?}");
    }
}

#[test]
fn deleted_on_ours() {
    let other = "reg.example/other:fast";
    for (answers, expected) in [
        (
            vec![
                tasks("Deleting", &[task(TARGET, "Deleting")], &[]),
                tasks("Ready", &[], &[]),
            ],
            ".D",
        ),
        // Others may still be at work.
        (
            vec![
                tasks("Deleting", &[task(TARGET, "Deleting")], &[]),
                tasks("Creating", &[task(other, "Creating")], &[]),
            ],
            ".D",
        ),
        (
            vec![tasks("Creating", &[task(other, "Creating")], &[]); 3],
            "...",
        ),
        (
            vec![
                tasks("Deleting", &[task(TARGET, "Deleting")], &[]),
                tasks("Unknown", &[], &[]),
            ],
            "..",
        ),
        (vec![tasks("Ready", &[], &[]); 2], ".D"),
        (vec![tasks("Ready", &[], &[TARGET]); 3], "..."),
        (
            vec![tasks("DeleteError", &[task(other, "DeleteError")], &[]); 2],
            ".D",
        ),
        (
            vec![tasks("DeleteError", &[task(TARGET, "DeleteError")], &[])],
            "F",
        ),
    ] {
        assert_eq!(steps(delete(), &answers), expected, "{answers:?}");
    }
}

#[test]
fn nodes_are_waited_for() {
    let nodes = |ready: u32, all: u32| {
        answer(json!({"Status": "Ready", "Nodes": all, "ReadyNodes": ready}))
    };
    assert_eq!(
        steps(Goal::Enabled, &[nodes(0, 2), nodes(1, 2), nodes(2, 2)]),
        "..D"
    );
    // One that is down.
    let still = usize::try_from(SETTLED).unwrap();
    let expected = format!("{}D", ".".repeat(still - 1));
    assert_eq!(
        steps(Goal::Enabled, &vec![nodes(1, 2); 2 * still]),
        expected
    );
    assert_eq!(
        steps(Goal::Enabled, &vec![nodes(0, 0); 2 * still]),
        expected
    );
    assert_eq!(
        steps(Goal::Enabled, &vec![nodes(0, 2); 2 * still]),
        ".".repeat(2 * still)
    );
}

#[test]
fn enabled_and_disabled() {
    let off = |flag: &str| answer(json!({"Status": "Ready", flag: false}));
    for (answers, expected) in [
        (vec![plain("Ready")], "D"),
        (
            vec![
                off("Enable"),
                off("NfsReady"),
                off("AgentReady"),
                plain("Unknown"),
                plain("Ready"),
            ],
            "....D",
        ),
        (
            vec![answer(json!({"Status": "Ready", "NfsReady": null}))],
            ".",
        ),
        (vec![plain("Creating"); 2], ".."),
        (vec![plain("CreateError")], "D"),
        (
            vec![tasks("Creating", &[task(TARGET, "Creating")], &[])],
            "D",
        ),
        (vec![tasks("Unknown", &[], &[])], "."),
    ] {
        assert_eq!(steps(Goal::Enabled, &answers), expected, "{answers:?}");
    }
    let gone = || answer(json!({"Enable": false, "Status": "Unknown"}));
    let unreachable =
        || answer(json!({"Enable": false, "Status": "Unknown", "Error": "no way there"}));
    let silent = || answer(json!({"Enable": null, "Status": "Unknown"}));
    for (answers, expected) in [
        (vec![plain("Ready"), gone(), gone()], "..D"),
        (
            vec![gone(), unreachable(), gone(), silent(), gone(), gone()],
            ".....D",
        ),
        (vec![unreachable(); 9], "........."),
        (vec![silent(); 9], "........."),
        (vec![plain("Ready"); 3], "..."),
    ] {
        assert_eq!(steps(Goal::Disabled, &answers), expected, "{answers:?}");
    }
}

#[test]
fn errors_and_states_are_told() {
    let own = |goal: Goal, answer: &Answer| Wait::new(goal).see(answer);
    let failed = tasks(
        "CreateError",
        &[
            task("reg.example/other:1", "CreateError"),
            task(TARGET, "CreateError"),
        ],
        &[],
    );
    let Outcome::Failed(error) = own(create(), &failed) else {
        panic!("no end");
    };
    assert_eq!(
        error.to_string(),
        format!("cannot accelerate {TARGET}: CreateError of {TARGET}")
    );

    let goes_on = json!({"TargetImage": TARGET, "Status": "Creating", "Percent": 145, "Stage": "layers\u{1b}[2J"});
    let Outcome::Waiting(state) = own(create(), &tasks("Creating", &[goes_on], &[])) else {
        panic!("an end");
    };
    assert_eq!(
        state,
        State {
            text: "Creating, layers [2J".to_owned(),
            percent: Some(100)
        }
    );

    let some = answer(
        json!({"Status": "Unknown", "AgentReady": false, "Nodes": 5, "ReadyNodes": 2, "Error": "a\nb"}),
    );
    assert_eq!(
        whole(&some).text,
        "Unknown, store ready, agent not ready, 2 of 5 nodes ready, a b"
    );
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let flag = || prop_oneof![Just(Value::Null), Just(json!(true)), Just(json!(false))];
    let status = || {
        prop::sample::select(vec![
            "Ready",
            "Creating",
            "CreateError",
            "Deleting",
            "DeleteError",
            "Unknown",
            "Odd",
        ])
    };
    let target = || prop::sample::select(vec![TARGET, "reg.example/other:1", "no reference"]);
    let images = prop::option::of(prop::collection::vec(target(), 0..3));
    let tasks = prop::option::of(prop::collection::vec((target(), status()), 0..3));
    (
        flag(),
        flag(),
        flag(),
        status(),
        prop::sample::select(vec!["", "bad"]),
        images,
        tasks,
    )
        .prop_map(|(enable, nfs, agent, status, error, images, tasks)| {
            let images = images.map(|all| {
                all.iter()
                    .map(|one| json!({"TargetImage": one}))
                    .collect::<Vec<_>>()
            });
            let tasks = tasks.map(|all| {
                all.iter()
                    .map(|(one, status)| task(one, status))
                    .collect::<Vec<_>>()
            });
            answer(
                json!({"Enable": enable, "NfsReady": nfs, "AgentReady": agent, "Status": status,
                "Error": error, "Images": images, "Tasks": tasks}),
            )
        })
}

proptest! {
    /// Whatever came before: an answer that does not know ends nothing well.
    #[test]
    fn unknown_is_never_success(before in prop::collection::vec(any_answer(), 0..5), last in any_answer(), which in 0..4_usize) {
        let goal = [Goal::Enabled, create(), delete(), Goal::Disabled][which].clone();
        let mut wait = Wait::new(goal.clone());
        for answer in &before {
            let _ = wait.see(answer);
        }
        let is_done = matches!(wait.see(&last), Outcome::Done);
        let has_ready_task = last.task(TARGET).is_some_and(|task| task.status == Status::Ready);
        let is_listed = last.image(TARGET).is_some();
        if is_done {
            match goal {
                Goal::Enabled => prop_assert!(last.enable == Some(true) && last.state() != Status::Unknown),
                Goal::Created(_) => prop_assert!(has_ready_task || is_listed && last.state() != Status::Unknown),
                Goal::Deleted(_) => prop_assert!(!is_listed && last.images.is_some()
                    && last.state() != Status::Unknown && last.task(TARGET).is_none()),
                Goal::Disabled => prop_assert_eq!(last.enable, Some(false)),
            }
        }
    }

    /// The first answer alone never ends a deletion or a disabling for what it lacks.
    #[test]
    fn a_first_empty_answer_is_never_success(answer in any_answer(), which in 0..3_usize) {
        let goal = [create(), delete(), Goal::Disabled][which].clone();
        let step = Wait::new(goal).see(&answer);
        let is_empty = answer.images.as_ref().is_none_or(Vec::is_empty) && answer.task(TARGET).is_none();
        prop_assert!(!(is_empty && matches!(step, Outcome::Done)));
    }
}
