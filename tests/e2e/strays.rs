//! Named pipes, broken leases and broken records in a store: the command says which file and what to do.

use std::path::Path;
use std::process::Command;

use uimgacc_testkit::image::busybox;
use uimgacc_testkit::process::run;

use crate::support::{StoreFixture, failed, ok, ready, text, uimgacc};

/// The command, ended where it hangs: then it fails with 124.
fn soon(fixture: &StoreFixture, verb: &[&str]) -> std::process::Output {
    let mut command = Command::new("timeout");
    command
        .arg("30")
        .arg(uimgacc_testkit::programs::program("uimgacc"));
    command.args(verb).args(["--store", &fixture.store()]);
    command.env_remove("UIMGACC_CONFIG");
    command.env_remove("UIMGACC_BASE_URL");
    command.output().unwrap()
}

fn pipe(path: &Path) {
    run(Command::new("mkfifo").arg(path));
}

#[test]
fn a_pipe_in_place_of_the_stores_own_file() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let store_json = fixture.path("store/store.json");
    std::fs::remove_file(&store_json).unwrap();
    pipe(&store_json);
    for verb in [
        &["get"][..],
        &["store", "stat"],
        &["store", "verify"],
        &["store", "gc"],
        &["store", "lease", "list"],
    ] {
        let said = failed(&soon(&fixture, verb), 1);
        assert!(
            said.contains("store.json") && said.contains("a named pipe"),
            "{said}"
        );
    }
}

#[test]
fn a_lease_that_cannot_be_read() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    busybox().push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "app:fast", &["--no-push"]));
    let target = fixture.registry.reference("app:fast");
    let leases = fixture.path("store/leases");
    std::fs::write(leases.join("empty.json"), "").unwrap();
    pipe(&leases.join("pipe.json"));
    for verb in [&["store", "gc"][..], &["delete", &target]] {
        let said = failed(&soon(&fixture, verb), 1);
        assert!(said.contains("store lease drop empty"), "{said}");
    }
    let said = ok(&soon(&fixture, &["store", "stat"]));
    assert!(said.contains("leases         2"), "{said}");
    let verify = soon(&fixture, &["store", "verify"]);
    failed(&verify, 3);
    let said = String::from_utf8_lossy(&verify.stdout).into_owned();
    for name in ["empty.json", "pipe.json"] {
        assert!(said.contains(name), "{said}");
    }
    ok(&soon(&fixture, &["get"]));
    let listed = fixture.json(&["store", "lease", "list"]);
    for (at, name) in ["empty", "pipe"].into_iter().enumerate() {
        let lease = &listed["leases"][at];
        assert_eq!(
            (&lease["name"], &lease["holds"]),
            (&name.into(), &true.into())
        );
        assert!(lease["error"].is_string(), "{lease}");
    }
    let table = ok(&soon(&fixture, &["store", "lease", "list"]));
    assert!(table.contains("unknown: it cannot be read"), "{table}");
    // Deleted as was asked; what the leases may hold stays.
    let deleted = soon(&fixture, &["delete", &target, "--force"]);
    assert!(ok(&deleted).contains("is deleted"));
    let said = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert!(said.contains("store lease drop"), "{said}");
    let images = fixture.json(&["get"]);
    assert!(images["Images"].as_array().unwrap().is_empty());
    let refused = failed(&soon(&fixture, &["store", "lease", "drop", "empty"]), 1);
    assert!(refused.contains("--force"), "{refused}");
    for name in ["empty", "pipe"] {
        let said = ok(&soon(
            &fixture,
            &["store", "lease", "drop", name, "--force"],
        ));
        assert!(
            said.contains(&format!("dropped the lease {name}")),
            "{said}"
        );
    }
    ok(&soon(&fixture, &["store", "gc", "--grace", "0"]));
    fixture.assert_clean();
}

#[test]
fn the_lease_of_a_mount_is_shown_and_dropped() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    busybox().push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "app:fast", &["--no-push"]));
    let mounted = fixture.mount("app:fast", &[]);
    let listed = fixture.json(&["store", "lease", "list"]);
    let lease = &listed["leases"][0];
    assert_eq!(
        (&lease["holds"], &lease["images"][0]),
        (&true.into(), &fixture.registry.reference("app:fast").into())
    );
    let holder = lease["holder"].as_str().unwrap();
    assert!(holder.contains(&text(&mounted.path)), "{holder}");
    let name = lease["name"].as_str().unwrap();
    failed(&soon(&fixture, &["store", "lease", "drop", name]), 1);
    ok(&soon(
        &fixture,
        &["store", "lease", "drop", name, "--force"],
    ));
    let said = uimgacc(&["store", "lease", "list", "--store", &fixture.store()]);
    assert!(ok(&said).is_empty());
}

#[test]
fn a_broken_image_record_is_named_and_hides_no_other() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    busybox().push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "app:fast", &["--no-push"]));
    let images = fixture.path("store/images");
    let fan = std::fs::read_dir(images).unwrap().next().unwrap().unwrap();
    let record = std::fs::read_dir(fan.path()).unwrap().next().unwrap();
    let record = record.unwrap().path();
    ok(&fixture.create("app:1", "other:fast", &["--no-push"]));
    std::fs::write(&record, "").unwrap();
    let [app, other] = ["app:fast", "other:fast"].map(|name| fixture.registry.reference(name));

    let listed = soon(&fixture, &["get"]);
    let said = failed(&listed, 3);
    assert!(said.contains(&text(&record)), "{said}");
    assert!(said.contains("run `uimgacc create`"), "{said}");
    let table = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(table.contains(&other), "{table}");
    let listed = soon(&fixture, &["get", "-o", "json"]);
    failed(&listed, 3);
    let all: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(all["Images"][0]["TargetImage"], other);
    let problem = all["Problems"][0].as_str().unwrap();
    assert!(problem.contains(&text(&record)), "{problem}");

    // What is asked for by its name is there, or is named with its file.
    ok(&soon(&fixture, &["get", &other]));
    for verb in [&["get", &app][..], &["delete", &app]] {
        let said = failed(&soon(&fixture, verb), 1);
        assert!(
            said.contains(&text(&record)) && said.contains(&app),
            "{said}"
        );
    }
    let said = failed(&soon(&fixture, &["store", "gc"]), 1);
    assert!(said.contains(&text(&record)), "{said}");
    failed(&soon(&fixture, &["store", "verify"]), 3);
    // New images are made all the same.
    ok(&fixture.create("app:1", "third:fast", &["--no-push"]));

    std::fs::remove_file(&record).unwrap();
    ok(&fixture.create("app:1", "app:fast", &["--no-push"]));
    fixture.assert_clean();
    let all = fixture.json(&["get"]);
    assert_eq!(all["Images"].as_array().unwrap().len(), 3);
    assert!(all["Problems"].is_null(), "{all}");
}
