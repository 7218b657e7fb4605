//! The waiting verbs: what ends them, and what does not.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::service::{Reply, Service, get};
use crate::support::{Home, failed, ok};

const TARGET: &str = "r.io/app:fast";

fn status(status: &str) -> Reply {
    get(json!({"Status": status}))
}

fn listed() -> Reply {
    let image = json!({"OriginalImage": "app", "TargetImage": TARGET, "Size": 1_210_000, "Layers": 6, "New": "x"});
    get(json!({"Images": [image]}))
}

fn task(status: &str, percent: u8) -> Value {
    json!({"OriginalImage": "app", "TargetImage": TARGET, "Status": status, "Error": "", "Percent": percent, "Stage": "layers"})
}

#[test]
fn create_waits_until_it_is_listed() {
    // The original script took the second and the third of these for the end.
    let script = [
        status("Creating"),
        status("Unknown"),
        get(json!({})),
        Reply::Text(502, "bad gateway".to_owned()),
        Reply::Broken,
        json!({"RetCode": 150, "Message": "not just now"}).into(),
        listed(),
    ];
    let service = Service::start(script);
    let home = Home::of(&service, "");
    let (out, err) = ok(&home.run(&["create", "app", TARGET]));
    assert!(
        out.starts_with("r.io/app:fast is ready: 1.21 MB in 6 layers, took "),
        "{out}"
    );
    for part in [
        "Creating, store ready",
        "answered HTTP 502 Bad Gateway; asking again (1 of 10)",
        "no answer from",
        "(code 150); asking again (3 of 10)",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let seen = service.seen();
    assert_eq!(
        seen[0],
        "Create OriginalImage=app TargetImage=r.io/app:fast"
    );
    assert_eq!(seen.len(), 8, "{seen:?}");

    let (out, _) = ok(&home.run(&["create", "app", TARGET, "-o", "json"]));
    let image: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(image["New"], "x");
    let (out, _) = ok(&home.run(&["create", "app", TARGET, "--no-wait"]));
    assert!(out.contains("is being made"), "{out}");
}

#[test]
fn unknown_and_empty_are_waiting() {
    let started = Instant::now();
    for reply in [
        status("Unknown"),
        get(json!({})),
        get(json!({"Status": null, "Images": null})),
    ] {
        let service = Service::start([reply]);
        let home = Home::of(&service, "");
        let text = failed(&home.run(&["create", "app", TARGET, "--timeout", "2"]), 5);
        assert!(
            text.contains("r.io/app:fast is not ready after 2 s: "),
            "{text}"
        );
        assert!(text.contains("the work goes on"), "{text}");
    }
    let unreachable =
        json!({"Enable": false, "Status": "Unknown", "Error": "no way to the cluster"});
    let service = Service::start([get(unreachable)]);
    let home = Home::of(&service, "");
    for arguments in [
        ["delete", TARGET].as_slice(),
        &["disable"],
        &["enable", "--nfs", "10.0.0.1"],
    ] {
        let arguments = [arguments, &["--timeout", "2"]].concat();
        let text = failed(&home.run(&arguments), 5);
        assert!(
            text.contains("no way to the cluster"),
            "{arguments:?}: {text}"
        );
    }
    assert!(started.elapsed() >= Duration::from_secs(12));
}

#[test]
fn errors_of_this_image_end_it_and_others_do_not() {
    let fields = |status: &str, tasks: Value| get(json!({"Status": status, "Tasks": tasks}));
    let other = json!({"TargetImage": "r.io/other:1", "Status": "CreateError", "Error": "other"});
    let mine = json!({"TargetImage": TARGET, "Status": "CreateError", "Error": "no space"});
    let service = Service::start([
        fields("CreateError", json!([other])),
        fields("Creating", json!([other, task("Creating", 45)])),
        fields("CreateError", json!([other, mine])),
    ]);
    let text = failed(&Home::of(&service, "").run(&["create", "app", TARGET]), 1);
    assert!(
        text.contains("cannot accelerate r.io/app:fast: no space"),
        "{text}"
    );
    assert!(text.contains("Creating, layers: 45 %"), "{text}");

    let service = Service::start([get(json!({"Status": "CreateError", "Error": "no space"}))]);
    let text = failed(&Home::of(&service, "").run(&["create", "app", TARGET]), 1);
    assert!(
        text.contains("cannot accelerate r.io/app:fast: no space"),
        "{text}"
    );

    let in_use =
        json!({"TargetImage": TARGET, "Status": "DeleteError", "Error": "in use by default/web"});
    let service = Service::start([fields("DeleteError", json!([in_use]))]);
    let text = failed(&Home::of(&service, "").run(&["delete", TARGET]), 1);
    assert!(
        text.contains("cannot delete r.io/app:fast: in use by default/web"),
        "{text}"
    );
}

#[test]
fn delete_and_disable_wait_until_it_is_gone() {
    let service = Service::start([
        listed(),
        status("Unknown"),
        status("Deleting"),
        status("Ready"),
    ]);
    let (out, _) = ok(&Home::of(&service, "").run(&["delete", TARGET]));
    assert_eq!(out, "r.io/app:fast is deleted\n");
    assert_eq!(service.seen()[..2], ["Get", "Delete Image=r.io/app:fast"]);
    assert_eq!(service.seen().len(), 5);

    let off =
        get(json!({"Enable": false, "NfsReady": false, "AgentReady": false, "Status": "Unknown"}));
    let service = Service::start([
        status("Ready"),
        get(json!({"Enable": null, "Status": "Unknown"})),
        off,
    ]);
    let (out, _) = ok(&Home::of(&service, "").run(&["disable"]));
    assert_eq!(out, "image acceleration is disabled in uk8s-1\n");
    assert_eq!(service.seen().len(), 5, "the end is looked at twice");
}

#[test]
fn enable_waits_for_all_parts() {
    let off = |flag: &str| get(json!({flag: false, "Status": "Unknown"}));
    let service = Service::start([
        off("Enable"),
        off("NfsReady"),
        off("AgentReady"),
        status("Ready"),
    ]);
    let (out, err) = ok(&Home::of(&service, "nfs_addr = '10.0.0.1'").run(&["enable"]));
    assert_eq!(out, "image acceleration is ready in uk8s-1\n");
    assert!(
        err.contains("store not ready") && err.contains("agent not ready"),
        "{err}"
    );
    assert_eq!(service.seen().len(), 5);
}

#[test]
fn outages_have_an_end_and_refusals_end_at_once() {
    let denied = json!({"RetCode": 299, "Message": "Permission denied"});
    let service = Service::start([status("Creating"), denied.into()]);
    let text = failed(&Home::of(&service, "").run(&["create", "app", TARGET]), 1);
    assert!(text.contains("code 299"), "{text}");
    assert_eq!(service.seen().len(), 3);
    let service = Service::start([Reply::Broken]);
    let text = failed(
        &Home::of(&service, "").run(&["create", "app", TARGET, "--timeout", "3"]),
        5,
    );
    assert!(text.contains("there was no answer"), "{text}");
}

/// Runs a command until it has asked so often, then interrupts it.
fn interrupted_after(
    questions: usize,
    within: Duration,
    service: &Service,
    arguments: &[&str],
) -> Output {
    let home = Home::of(service, "");
    let mut command = home.command(arguments);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + within;
    while service.seen().len() < questions {
        assert!(Instant::now() < deadline, "asked: {:?}", service.seen());
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_signal_ends_it_with_130() {
    let service = Service::start([status("Creating")]);
    let output = interrupted_after(
        2,
        Duration::from_secs(20),
        &service,
        &["create", "app", TARGET],
    );
    let text = failed(&output, 130);
    assert!(text.contains("the work goes on"), "{text}");
}

#[test]
fn get_watch_of_no_image_says_so() {
    let service = Service::start([get(json!({}))]);
    let home = Home::of(&service, "");
    let text = failed(&home.run(&["get", "r.io/none:1", "-w"]), 1);
    assert!(text.contains("no accelerated image r.io/none:1"), "{text}");
}

#[test]
fn get_watch_shows_each_change_once() {
    let creating =
        |percent| get(json!({"Status": "Creating", "Tasks": [task("Creating", percent)]}));
    let service = Service::start([
        creating(10),
        creating(10),
        Reply::Text(502, "bad gateway".to_owned()),
        listed(),
        get(json!({})),
    ]);
    let (out, err) = ok(&interrupted_after(
        6,
        Duration::from_secs(40),
        &service,
        &["get", "-w", "-o", "json"],
    ));
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let states: Vec<_> = lines
        .iter()
        .map(|line| (line["Status"].as_str(), &line["Layers"], &line["Deleted"]))
        .collect();
    let none = Value::Null;
    let ready = Some("Ready");
    assert_eq!(
        states,
        [
            (Some("Creating"), &none, &none),
            (ready, &json!(6), &none),
            (ready, &json!(6), &json!(true))
        ],
        "{out}"
    );
    assert!(err.contains("asking again (1 of 10)"), "{err}");
    assert_eq!(err.matches("Creating, store ready").count(), 1, "{err}");
}
