//! `create` killed at any moment leaves a clean store, and the same `create` then succeeds.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use uimgacc_testkit::image::{Compression, ImageBuilder};
use uimgacc_testkit::tar::TarBuilder;

use crate::support::{StoreFixture, copy, ok, ready, text, uimgacc};

const POINTS: u32 = 50;

/// Some megabytes in three layers, so that there is something to do at each moment.
fn image() -> ImageBuilder {
    let layer = |number: u32| {
        (0..60u32).fold(TarBuilder::new(), |tar, file| {
            let bytes = 1000 + 1700 * file;
            let content: Vec<u8> = (0..bytes)
                .map(|at| (at.wrapping_mul(2_654_435_761) ^ file ^ (number << 7)).to_be_bytes()[0])
                .collect();
            tar.file(&format!("layer-{number}/file-{file}"), 0o644, content)
        })
    };
    (0..3).fold(ImageBuilder::new(), |image, number| {
        image.layer(layer(number).finish(), Compression::Gzip)
    })
}

#[test]
fn killed_at_fifty_points() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    image().push(&fixture.registry, "app:1");
    let (original, target) = (
        fixture.registry.reference("app:1"),
        fixture.registry.reference("app:2"),
    );
    let create = |store: &str| {
        let mut command = Command::new(uimgacc_testkit::programs::program("uimgacc"));
        command
            .args([
                "create",
                &original,
                &target,
                "--store",
                store,
                "--plain-http",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let store = |name: &str| {
        let store = text(&fixture.path(name));
        ok(&uimgacc(&["store", "init", "--store", &store]));
        store
    };
    // The middle one of some runs: others work on this machine at the same time.
    let mut runs: Vec<Duration> = (0..3)
        .map(|number| {
            let store = store(&format!("whole-{number}"));
            let start = Instant::now();
            assert!(create(&store).status().unwrap().success());
            start.elapsed()
        })
        .collect();
    runs.sort();
    let mut run = runs[1];
    let mut cut_short = 0;
    for point in 0..POINTS {
        let store = store(&format!("point-{point}"));
        let mut child = create(&store).spawn().unwrap();
        std::thread::sleep(run * point / POINTS + Duration::from_millis(1));
        child.kill().unwrap();
        let is_whole = child.wait().unwrap().success();
        cut_short += u32::from(!is_whole);
        if is_whole {
            // Less goes on beside it than when it was measured.
            run = run * 19 / 20;
        }
        ok(&uimgacc(&["store", "verify", "--store", &store]));
        let images = uimgacc(&["get", "--store", &store, "-o", "json"]);
        let images: serde_json::Value = serde_json::from_str(&ok(&images)).unwrap();
        let count = images["Images"].as_array().unwrap().len();
        assert!(count <= 1 && (count == 1 || !is_whole), "point {point}");
        if count == 1 {
            // What has a record is whole, however early its maker died.
            assert_eq!(images["Images"][0]["Layers"], 3, "point {point}");
        }
        assert!(create(&store).status().unwrap().success(), "point {point}");
        ok(&uimgacc(&["store", "verify", "--store", &store]));
        // What the dead run left is gone: only folders of records remain in tmp.
        let left: Vec<_> = std::fs::read_dir(format!("{store}/tmp"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| {
                let name = name.to_string_lossy();
                name.starts_with("create-") || name.starts_with("over-")
            })
            .collect();
        assert!(left.is_empty(), "point {point}: {left:?}");
        std::fs::remove_dir_all(&store).unwrap();
    }
    // Most points must really have hit it at work.
    assert!(
        cut_short >= POINTS / 2,
        "only {cut_short} of {POINTS} runs were cut short"
    );
}

#[test]
fn layers_that_were_reported_as_done_survive_a_kill() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    // Too long to share a pack.
    let layer = |seed: u64| {
        let mut state = seed;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()
        })
        .take(5 << 20)
        .flatten()
        .collect();
        TarBuilder::new().file("file", 0o644, content).finish()
    };
    (1..=3)
        .fold(ImageBuilder::new(), |image, seed| {
            image.layer(layer(seed), Compression::None)
        })
        .push(&fixture.registry, "app:1");
    let (original, target) = (
        fixture.registry.reference("app:1"),
        fixture.registry.reference("app:2"),
    );
    let store = fixture.store();
    let create = ["create", &original, &target, "--store", &store];
    let create = [&create[..], &["--plain-http", "--jobs", "1"]].concat();
    let mut child = uimgacc_testkit::programs::uimgacc(&create)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let done = |line: &str| {
        let line = line.split_once(": done (")?.0;
        Some(line.to_owned())
    };
    let first = lines.by_ref().find_map(|line| done(&line.unwrap()));
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let reported: Vec<String> = lines.filter_map(|line| done(&line.unwrap())).collect();
    let again = uimgacc(&create);
    ok(&again);
    let again = String::from_utf8(again.stderr).unwrap();
    for layer in first.iter().chain(&reported) {
        assert!(
            again.contains(&format!("{layer}: was in the store")),
            "{layer}: {again}"
        );
    }
    assert!(first.is_some() && again.contains(": done ("), "{again}");
    fixture.assert_clean();
    let stat = fixture.json(&["store", "stat"]);
    assert_eq!(stat["packs"], 3, "{stat}");
}

#[test]
fn delete_killed_at_twenty_points() {
    if !ready() {
        return;
    }
    const POINTS: u32 = 20;
    let fixture = StoreFixture::new();
    image().push(&fixture.registry, "app:1");
    let base = TarBuilder::new()
        .file("layer-0/file-59", 0o644, vec![1; 100_000])
        .finish();
    ImageBuilder::new()
        .layer(base, Compression::Gzip)
        .push(&fixture.registry, "other:1");
    ok(&fixture.create("app:1", "app:2", &["--no-push"]));
    ok(&fixture.create("other:1", "other:2", &["--no-push"]));
    let target = fixture.registry.reference("app:2");
    let delete = |store: &str| {
        let mut command = Command::new(uimgacc_testkit::programs::program("uimgacc"));
        command
            .args(["delete", &target, "--store", store])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let store = |name: String| {
        let store = text(&fixture.path(&name));
        copy(&fixture.store(), &store);
        store
    };
    let whole = store("whole".to_owned());
    let start = Instant::now();
    assert!(delete(&whole).status().unwrap().success());
    // All but the moment in which gc waits for leases to settle.
    let settle = Duration::from_secs(1);
    let mut busy = start.elapsed().saturating_sub(settle);
    let mut cut_short = 0;
    for point in 0..POINTS {
        let store = store(format!("point-{point}"));
        let mut child = delete(&store).spawn().unwrap();
        let mut after = busy * point / POINTS;
        if after > busy / 2 {
            after += settle;
        }
        std::thread::sleep(after);
        child.kill().unwrap();
        let is_whole = child.wait().unwrap().success();
        cut_short += u32::from(!is_whole);
        if is_whole {
            busy = busy * 19 / 20;
        }
        ok(&uimgacc(&["store", "verify", "--store", &store]));
        // What it left, its marker too, is no hindrance: to create, to gc.
        let (original, again) = (fixture.registry.reference("app:1"), "again.local/app:3");
        let create = ["create", &original, again, "--store", &store, "--no-push"];
        ok(&uimgacc(&[&create[..], &["--plain-http"]].concat()));
        ok(&uimgacc(&["store", "verify", "--store", &store]));
        for image in [again, &target] {
            // The killed one may have deleted the latter.
            uimgacc(&["delete", image, "--store", &store, "--no-gc"]);
        }
        let gc = ["store", "gc", "--grace", "0", "--store", &store];
        ok(&uimgacc(&gc));
        ok(&uimgacc(&["store", "verify", "--store", &store]));
        let stat = uimgacc(&["store", "stat", "--store", &store, "-o", "json"]);
        let stat: serde_json::Value = serde_json::from_str(&ok(&stat)).unwrap();
        assert_eq!((&stat["images"], &stat["packs"]), (&1.into(), &1.into()));
        std::fs::remove_dir_all(&store).unwrap();
    }
    assert!(
        cut_short >= POINTS / 2,
        "only {cut_short} of {POINTS} runs were cut short"
    );
}
