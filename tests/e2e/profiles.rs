//! What starts read: recorded, kept in the store, read ahead on a node.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::image::{Compression, ImageBuilder, busybox_layer};
use uimgacc_testkit::parts;
use uimgacc_testkit::tar::TarBuilder;

use crate::snapshotter::Snapshotter;
use crate::support::{StoreFixture, failed, ok, ready, text, uimgacc};

/// Length of the large files.
const LARGE_BYTES: usize = 8 << 20;

fn large(seed: u32) -> Vec<u8> {
    (0..u32::try_from(LARGE_BYTES).unwrap())
        .map(|at| (at ^ seed).wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

/// An image with files that its own command reads, and files that it does not.
fn push(fixture: &StoreFixture, name: &str, version: u32) {
    let second = TarBuilder::new()
        .file("data/read", 0o644, large(1))
        .file("data/built-anew", 0o644, large(version))
        .file("data/not-read", 0o644, large(9));
    let script = "head -c 4096 /data/read; dd if=/data/built-anew bs=65536 skip=64 count=16; true";
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .layer(second.finish(), Compression::Gzip)
        .cmd(&["/bin/busybox", "sh", "-c", script])
        .push(&fixture.registry, name);
}

/// `profile VERB IMAGE` with more arguments.
fn profile(fixture: &StoreFixture, verb: &str, image: &str, more: &[&str]) -> std::process::Output {
    let (image, store) = (fixture.registry.reference(image), fixture.store());
    let words = ["profile", verb, &image, "--store", &store];
    uimgacc(&[&words[..], more].concat())
}

fn record(fixture: &StoreFixture, image: &str, more: &[&str]) -> std::process::Output {
    let runc = text(&parts::program("runc"));
    let how = ["--plain-http", "--runc", &runc, "--silence", "2s"];
    profile(fixture, "record", image, &[&how[..], more].concat())
}

fn export(fixture: &StoreFixture, image: &str) -> Value {
    serde_json::from_str(&ok(&profile(fixture, "export", image, &[]))).unwrap()
}

fn paths(profile: &Value) -> Vec<String> {
    let files = profile["files"].as_array().unwrap();
    let path = |file: &Value| file["path"].as_str().unwrap().to_owned();
    files.iter().map(path).collect()
}

fn pages(profile: &Value, path: &str) -> Vec<u64> {
    let files = profile["files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == path).unwrap();
    let runs = file["runs"].as_array().unwrap();
    let pages = |run: &Value| {
        let first = run[0].as_u64().unwrap();
        first..first + run[1].as_u64().unwrap()
    };
    runs.iter().flat_map(pages).collect()
}

/// A store with `app:fast`, and its profile.
fn recorded() -> StoreFixture {
    let _cache = uimgacc_testkit::page_cache::kept();
    let fixture = StoreFixture::new();
    push(&fixture, "app:1", 2);
    ok(&fixture.create("app:1", "app:fast", &[]));
    ok(&record(&fixture, "app:fast", &[]));
    fixture
}

#[test]
fn a_start_is_recorded() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    push(&fixture, "app:1", 2);
    ok(&fixture.create("app:1", "app:fast", &[]));
    let none = failed(&profile(&fixture, "show", "app:fast", &[]), 1);
    assert!(none.contains("profile record"), "{none}");
    // A container runs the image's own command.
    ok(&record(&fixture, "app:fast", &[]));
    let first = export(&fixture, "app:fast");
    let found = paths(&first);
    assert!(found.contains(&"bin/busybox".to_owned()), "{found:?}");
    assert!(!found.contains(&"data/not-read".to_owned()), "{found:?}");
    assert_eq!(found[0], "bin/busybox");
    let read = pages(&first, "data/built-anew");
    assert!((1024..1280).all(|page| read.contains(&page)), "{read:?}");
    assert!(read.len() < 300, "{read:?}");
    assert!(first["files"][0]["content"].is_string());
    // Another command adds what it reads, unless it is to take the place of the first.
    let cat = ["--", "/bin/busybox", "cat", "/data/not-read"];
    ok(&record(&fixture, "app:fast", &cat));
    let both = export(&fixture, "app:fast");
    assert_eq!(both["starts"], 2);
    assert_eq!(pages(&both, "data/not-read").len(), LARGE_BYTES / 4096);
    assert_eq!(pages(&both, "data/built-anew"), read);
    ok(&record(
        &fixture,
        "app:fast",
        &[&["--replace"], &cat[..]].concat(),
    ));
    let last = export(&fixture, "app:fast");
    assert!(!paths(&last).contains(&"data/read".to_owned()));
    // A command that goes on is ended.
    let started = Instant::now();
    ok(&record(
        &fixture,
        "app:fast",
        &["--", "/bin/busybox", "sleep", "600"],
    ));
    assert!(started.elapsed() < Duration::from_secs(30));
    let lost = failed(&record(&fixture, "app:fast", &["--", "/no/such"]), 1);
    assert!(lost.contains("/no/such"), "{lost}");
    let shown = fixture.json(&["profile", "show", &fixture.registry.reference("app:fast")]);
    assert_eq!(shown["Starts"], 2);
    assert!(shown["Bytes"].as_u64().unwrap() > 8 << 20, "{shown}");
    // Nothing of it stays but the profile.
    let left = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!left.contains("uimgacc-record-"), "{left}");
    fixture.assert_clean();
    ok(&profile(&fixture, "drop", "app:fast", &[]));
    failed(&profile(&fixture, "export", "app:fast", &[]), 1);
}

#[test]
fn a_new_build_takes_the_profile_over() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    push(&fixture, "app:1", 2);
    let runc = parts::program("runc");
    let bin = text(runc.parent().unwrap());
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let (original, target) = ("app:1", "app:fast");
    let created = std::process::Command::new(uimgacc_testkit::programs::program("uimgacc"))
        .args(["create", &fixture.registry.reference(original)])
        .args([&fixture.registry.reference(target), "--plain-http"])
        .args(["--store", &fixture.store(), "--profile", ""])
        .env("PATH", path)
        .output()
        .unwrap();
    ok(&created);
    let first = export(&fixture, "app:fast");
    assert!(paths(&first).contains(&"data/built-anew".to_owned()));
    let file = fixture.path("profile.json");
    fs::write(&file, first.to_string()).unwrap();
    push(&fixture, "app:2", 3);
    ok(&fixture.create("app:2", "app:fast", &[]));
    let second = export(&fixture, "app:fast");
    assert_ne!(second["chainId"], first["chainId"]);
    let files = paths(&second);
    assert!(files.contains(&"data/read".to_owned()), "{files:?}");
    assert!(!files.contains(&"data/built-anew".to_owned()), "{files:?}");
    // The same by a file, for an image of another name; and one that has nothing in common.
    ok(&profile(&fixture, "drop", "app:fast", &[]));
    ok(&profile(&fixture, "import", "app:fast", &[&text(&file)]));
    assert_eq!(paths(&export(&fixture, "app:fast")), files);
    let alone = TarBuilder::new().file("alone", 0o644, large(77));
    ImageBuilder::new()
        .layer(alone.finish(), Compression::Gzip)
        .push(&fixture.registry, "other:1");
    ok(&fixture.create("other:1", "other:fast", &[]));
    let refused = profile(&fixture, "import", "other:fast", &[&text(&file)]);
    let refused = failed(&refused, 1);
    assert!(refused.contains("another image"), "{refused}");
    let from = ["--profile-from", &text(&file)];
    ok(&fixture.create("app:1", "again:fast", &from));
    assert_eq!(paths(&export(&fixture, "again:fast")), paths(&first));
    // Hostile files are refused.
    for (old, new) in [("data/read", "../../etc/shadow"), ("[[", "[[0,0],[")] {
        fs::write(&file, first.to_string().replace(old, new)).unwrap();
        let refused = profile(&fixture, "import", "app:fast", &[&text(&file)]);
        let refused = failed(&refused, 1);
        assert!(refused.contains("profile.json"), "{refused}");
    }
    // It goes with its image.
    for image in ["again:fast", "app:fast", "other:fast"] {
        ok(&uimgacc(&[
            "delete",
            &fixture.registry.reference(image),
            "--store",
            &fixture.store(),
        ]));
    }
    ok(&uimgacc(&[
        "store",
        "gc",
        "--store",
        &fixture.store(),
        "--grace",
        "0",
    ]));
    let left = uimgacc_testkit::process::run(
        std::process::Command::new("find")
            .arg(Path::new(&fixture.store()).join("profiles"))
            .args(["-type", "f"]),
    );
    assert!(left.stdout.is_empty(), "{left:?}");
}

/// A node: the daemon with these arguments, and a containerd.
fn node(fixture: &StoreFixture, more: &[&str]) -> (Snapshotter, Containerd) {
    let snapshotter = Snapshotter::start_with(fixture, more);
    let containerd = Containerd::start(
        ContainerdVersion::V2_1,
        &Options::proxy(&snapshotter.socket()),
    );
    containerd.trust(&fixture.registry);
    (snapshotter, containerd)
}

fn is_unmounted(snapshotter: &Snapshotter) {
    let began = Instant::now();
    while snapshotter.mounts() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn get(snapshotter: &Snapshotter, path: &str) -> String {
    let socket = snapshotter.socket().with_file_name("status.sock");
    let body = uimgacc_testkit::unix_http::get(&socket, path).unwrap();
    String::from_utf8(body).unwrap()
}

/// A part of what the daemon says of itself.
fn start_of(snapshotter: &Snapshotter) -> Value {
    let status: Value = serde_json::from_str(&get(snapshotter, "/status")).unwrap();
    let chains = status["chains"].as_array().unwrap();
    let started = chains.iter().find(|chain| !chain["start"].is_null());
    started.map_or(Value::Null, |chain| chain["start"].clone())
}

fn wait_for(snapshotter: &Snapshotter, what: &str) -> Value {
    let began = Instant::now();
    loop {
        let start = start_of(snapshotter);
        if !start[what].is_null() {
            return start;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{start}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_node_reads_ahead_what_is_listed() {
    if !ready() {
        return;
    }
    let fixture = recorded();
    let shown = fixture.json(&["profile", "show", &fixture.registry.reference("app:fast")]);
    let (snapshotter, containerd) = node(&fixture, &[]);
    let image = fixture.registry.reference("app:fast");
    ok(&containerd.pull(&image));
    // Reads nothing of what is listed but its own program.
    let script = "test -e /data/read";
    containerd.run_script(&["--snapshotter", "uimgacc"], &image, "one", script);
    let start = wait_for(&snapshotter, "fetchedMs");
    assert_eq!(start["profile"], true);
    assert_eq!(start["listedBytes"], shown["Bytes"]);
    // Files end within their last pages.
    let (listed, fetched) = (shown["Bytes"].as_u64(), start["fetchedBytes"].as_u64());
    let missing = listed.unwrap() - fetched.unwrap();
    assert!(missing < 4096 * shown["Files"].as_u64().unwrap(), "{start}");
    let mounted = fs::read_dir(fixture.path("node/chains"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("mnt"))
        .find(|path| path.join("data/built-anew").exists())
        .unwrap();
    let file = fs::File::open(mounted.join("data/built-anew")).unwrap();
    let cached = uimgacc_sys::resident(&file).unwrap();
    assert!(
        cached
            .iter()
            .any(|range| range.start <= 1024 * 4096 && range.end >= 1280 * 4096),
        "{cached:?}"
    );
    drop(file);
    // The start ends by itself, and then files are read in large steps.
    let start = wait_for(&snapshotter, "servingMs");
    assert!(start["filesOpened"].as_u64().unwrap() >= 1, "{start}");
    let kept = fs::read(mounted.with_file_name("read-ahead.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    let bdi = kept["readAhead"].as_str().unwrap().to_owned();
    let setting = format!("/sys/class/bdi/{bdi}/read_ahead_kb");
    assert_eq!(fs::read_to_string(&setting).unwrap().trim(), "1024");
    // A second container finds the mount as it is.
    containerd.run_script(&["--snapshotter", "uimgacc"], &image, "two", script);
    assert_eq!(start_of(&snapshotter), start);
    assert_eq!(fs::read_to_string(&setting).unwrap().trim(), "1024");
    // Nothing of it keeps the image on the node.
    containerd.ctr_ok(&["images", "rm", "--sync", &image]);
    is_unmounted(&snapshotter);
}

/// Kills the daemon again and again, at random moments of mount, list, record and change of read-ahead,
/// while a container starts. `UIMGACC_KILLS` says how often, `UIMGACC_SEED` when.
#[test]
fn a_daemon_that_is_killed_meanwhile_leaves_a_mount_that_serves() {
    if !ready() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let rounds = number("UIMGACC_KILLS").unwrap_or(8);
    let mut seed = number("UIMGACC_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_secs() ^ u64::from(since.subsec_nanos())
    });
    println!("UIMGACC_SEED={seed}");
    let fixture = recorded();
    let exported = fixture.path("profile.json");
    fs::write(&exported, export(&fixture, "app:fast").to_string()).unwrap();
    let image = fixture.registry.reference("app:fast");
    // The list takes some seconds.
    let (mut snapshotter, containerd) =
        node(&fixture, &["--fetch-rate-mb", "1", "--record-starts"]);
    let options = ["--snapshotter", "uimgacc"];
    let script = "md5sum /data/built-anew";
    ok(&containerd.pull(&image));
    let expected = containerd.run_script(&options, &image, "undisturbed", script);
    containerd.ctr_ok(&["images", "rm", "--sync", &image]);
    is_unmounted(&snapshotter);
    let mut started = 0;
    for round in 0..rounds {
        // Every third start is one that is recorded.
        match round % 3 {
            0 => ok(&profile(&fixture, "drop", "app:fast", &[])),
            _ => ok(&profile(
                &fixture,
                "import",
                "app:fast",
                &[&text(&exported)],
            )),
        };
        ok(&containerd.pull(&image));
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let delay = Duration::from_millis((seed >> 33) % if round % 4 == 0 { 6500 } else { 600 });
        let (was_mounted, first) = std::thread::scope(|scope| {
            let id = format!("first-{round}");
            let (containerd, image) = (&containerd, &image);
            let first = scope.spawn(move || containerd.try_script(&options, image, &id, script));
            std::thread::sleep(delay);
            let was_mounted = start_of(&snapshotter).is_object();
            snapshotter.kill();
            snapshotter.resume();
            (was_mounted, first.join().unwrap())
        });
        // It may have asked the dead daemon for its start; what runs reads what is right.
        if first.status.success() {
            started += 1;
            assert_eq!(
                String::from_utf8_lossy(&first.stdout),
                expected,
                "{delay:?}"
            );
        }
        let began = Instant::now();
        // containerd's client connects again after a pause that grows.
        while !containerd
            .ctr(&["snapshots", "--snapshotter", "uimgacc", "ls"])
            .status
            .success()
        {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(200));
        }
        // What the dead daemon mounted serves; else the next one mounts it, and that starts.
        if was_mounted {
            assert_eq!(settings(&fixture), ["1024\n"], "{delay:?}");
        }
        let id = format!("second-{round}");
        assert_eq!(
            containerd.run_script(&options, &image, &id, script),
            expected
        );
        // What a start that died left in containerd.
        for kind in ["tasks", "containers"] {
            let _ = containerd.ctr(&[kind, "rm", "--force", &format!("first-{round}")]);
            let _ = containerd.ctr(&[kind, "rm", &format!("first-{round}")]);
        }
        let _ = containerd.ctr(&[
            "snapshots",
            "--snapshotter",
            "uimgacc",
            "rm",
            &format!("first-{round}"),
        ]);
        containerd.ctr_ok(&["images", "rm", "--sync", &image]);
        is_unmounted(&snapshotter);
    }
    println!("{rounds} kills, {started} containers started through them");
    fixture.assert_clean();
}

fn settings(fixture: &StoreFixture) -> Vec<String> {
    fs::read_dir(fixture.path("node/chains"))
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("read-ahead.json")).ok())
        .map(|kept| serde_json::from_slice::<Value>(&kept).unwrap())
        .map(|kept| kept["readAhead"].as_str().unwrap().to_owned())
        .map(|name| format!("/sys/class/bdi/{name}/read_ahead_kb"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn many_containers_at_once_read_the_list_once() {
    if !ready() {
        return;
    }
    let fixture = recorded();
    let shown = fixture.json(&["profile", "show", &fixture.registry.reference("app:fast")]);
    let (snapshotter, containerd) = node(&fixture, &[]);
    let image = fixture.registry.reference("app:fast");
    ok(&containerd.pull(&image));
    let options = ["--snapshotter", "uimgacc"];
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (containerd, image) = (&containerd, &image);
            scope.spawn(move || {
                let id = format!("one-of-{number}");
                let said = containerd.run_script(&options, image, &id, "echo started");
                assert_eq!(said, "started\n");
            });
        }
    });
    let start = wait_for(&snapshotter, "fetchedMs");
    let fetched = start["fetchedBytes"].as_u64().unwrap();
    assert!(fetched > 0 && fetched <= shown["Bytes"].as_u64().unwrap());
    let metrics = get(&snapshotter, "/metrics");
    let line = format!("uimgacc_snapshotter_fetched_bytes_total {fetched}\n");
    assert!(metrics.contains(&line), "{metrics}");
    assert!(
        metrics.contains("uimgacc_snapshotter_starts_total{profile=\"yes\"} 1\n"),
        "{metrics}"
    );
}

#[test]
fn an_image_starts_whatever_its_profile_is() {
    if !ready() {
        return;
    }
    let fixture = recorded();
    let find = uimgacc_testkit::process::run(
        std::process::Command::new("find")
            .arg(Path::new(&fixture.store()).join("profiles"))
            .args(["-name", "*.json.zst"]),
    );
    let path = String::from_utf8(find.stdout).unwrap().trim().to_owned();
    let good = fs::read(&path).unwrap();
    let image = fixture.registry.reference("app:fast");
    for (number, bad) in [
        Vec::new(),
        b"no profile".to_vec(),
        good[..good.len() / 2].to_vec(),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&path, bad).unwrap();
        let verify = uimgacc(&["store", "verify", "--store", &fixture.store()]);
        assert_eq!(verify.status.code(), Some(3));
        let (_snapshotter, containerd) = node(&fixture, &[]);
        ok(&containerd.pull(&image));
        let id = format!("one-{number}");
        let options = ["--snapshotter", "uimgacc"];
        let said = containerd.run_script(&options, &image, &id, "echo started");
        assert_eq!(said, "started\n");
        let log = fs::read_to_string(fixture.path("snapshotter.log")).unwrap();
        assert!(log.contains("its profile is not used"), "{log}");
        containerd.ctr_ok(&["images", "rm", "--sync", &image]);
    }
    // A damaged one is no reason to have none.
    ok(&record(&fixture, "app:fast", &[]));
    fixture.assert_clean();
}
