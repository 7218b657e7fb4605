//! Accelerated roots through the daemon's own mount, for each version of NFS and each method.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use uimgacc_testkit::process::run;
use uimgacc_testkit::tree::{diff, snapshot};
use uimgacc_testkit::uml::Kernel;

use crate::support::{NfsFixture, Node, drop_caches, inside, source, visible};

/// Reads the image through a store of that version of NFS and compares it with what `tar` unpacked; kills the daemon under a reader.
fn check(fixture: &NfsFixture, name: &str, version: &str, method: &str) {
    drop_caches();
    let mut node = Node::start(name, &source("127.0.0.1", version));
    let started = Instant::now();
    let pulled = node.pull(fixture, "app:fast");
    assert!(pulled.status.success(), "{pulled:?}\n{}", node.log());
    let pull = started.elapsed();
    assert_eq!(node.files_unpacked(), 0, "{}", node.log());
    let started = Instant::now();
    let root = node.mount(fixture, "app:fast");
    let mount = started.elapsed();
    let log = node.log();
    let line = |part: &str| {
        let found = log.lines().find(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("{part}\n{log}")).to_owned()
    };
    println!(
        "{name}: pull {pull:?}, mount {mount:?}\n{}\n{}",
        line("store mounted"),
        line(" mounted chain")
    );
    assert!(line(" mounted chain").contains(method), "{log}");
    assert!(
        line("store mounted").contains(&format!("version={version} ")),
        "{log}"
    );

    // Entry by entry; only the root, which the test made, is not the image's.
    let expected = snapshot(fixture.expected());
    let found = snapshot(&root);
    assert!(expected.len() > 20, "{}", expected.len());
    let differences: Vec<_> = diff(&expected, &found)
        .into_iter()
        .filter(|line| !line.starts_with(".: "))
        .collect();
    assert_eq!(differences, Vec::<String>::new());
    assert_eq!(visible(), Vec::<String>::new());
    fs::write(root.join("data/null"), "gone").unwrap();
    works_as_an_image(&root);

    killed_under_a_reader(&mut node, &root, fixture);
    let listed = node
        .containerd
        .ctr_ok(&["snapshots", "--snapshotter", "uimgacc", "ls"]);
    assert!(listed.contains("sha256:"), "{listed}");
    run(Command::new("umount").arg(&root));
    // Made anew by a daemon that has just started, and so knows of no mount of the store.
    let before = node.log().matches("store mounted").count();
    run(Command::new("umount").arg(chain_mount()));
    node.kill_and_restart();
    let listed = node
        .containerd
        .ctr_ok(&["snapshots", "--snapshotter", "uimgacc", "ls"]);
    assert!(listed.contains("sha256:"), "{listed}");
    let again = node.folder.join("again");
    fs::create_dir_all(&again).unwrap();
    let reference = fixture.registry.reference("app:fast");
    let path = again.to_str().unwrap();
    node.containerd.ctr_ok(&[
        "images",
        "mount",
        "--snapshotter",
        "uimgacc",
        &reference,
        path,
    ]);
    assert!(node.log().matches("store mounted").count() > before);
    assert_eq!(
        fs::read(again.join("data/other")).unwrap(),
        fs::read(fixture.expected().join("data/other")).unwrap()
    );
    works_as_an_image(&again);
    assert_eq!(visible(), Vec::<String>::new());
    run(Command::new("umount").arg(&again));
    run(Command::new("umount").arg(chain_mount()));
}

/// Set-user-id programs and devices work, in a container's root as in a read-only view.
fn works_as_an_image(root: &Path) {
    assert_eq!(fs::read(root.join("data/null")).unwrap(), b"");
    let euid = run(Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups"])
        .arg(root.join("data/id"))
        .arg("-u"));
    assert_eq!(euid.stdout, b"0\n");
}

/// Where the only mounted image is.
fn chain_mount() -> String {
    let table = fs::read_to_string("/proc/mounts").unwrap();
    let mut mounts = table
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some("erofs"));
    let line = mounts.next().expect("a mounted image").to_owned();
    assert!(mounts.next().is_none(), "{table}");
    // The EROFS mount itself takes no set-user-id programs and devices; what lies on it does.
    assert!(line.contains("nosuid,nodev"), "{line}");
    line.split(' ').nth(1).unwrap().to_owned()
}

fn killed_under_a_reader(node: &mut Node, root: &Path, fixture: &NfsFixture) {
    let expected = fs::read(fixture.expected().join("data/large")).unwrap();
    let file = fs::File::open(root.join("data/large")).unwrap();
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buffer = vec![0; expected.len()];
            while !stop.load(Ordering::Relaxed) {
                drop_caches();
                file.read_exact_at(&mut buffer, 0).unwrap();
                assert!(buffer == expected, "other bytes than before");
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let more = |count: usize| {
            let target = rounds.load(Ordering::Relaxed) + count;
            while rounds.load(Ordering::Relaxed) < target && !reader.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        more(1);
        node.daemon.kill();
        more(3);
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert!(rounds.into_inner() >= 4);
    assert_eq!(visible(), Vec::<String>::new());
    node.kill_and_restart();
}

#[test]
fn v3_on_linux_7_2() {
    inside(Kernel::V7_2, "versions::v3_on_linux_7_2", || {
        check(&NfsFixture::new(), "v3", "3", "file-directio");
    });
}

#[test]
fn v4_on_linux_7_2() {
    inside(Kernel::V7_2, "versions::v4_on_linux_7_2", || {
        let fixture = NfsFixture::new();
        check(&fixture, "v40", "4.0", "file-directio");
        check(&fixture, "v42", "4.2", "file-directio");
    });
}

#[test]
fn v3_and_v4_on_linux_6_12() {
    inside(Kernel::V6_12, "versions::v3_and_v4_on_linux_6_12", || {
        let fixture = NfsFixture::new();
        check(&fixture, "v3", "3", "file");
        check(&fixture, "v41", "4.1", "file");
    });
}

#[test]
fn v3_and_v4_on_linux_6_1_by_loop_devices() {
    let name = "versions::v3_and_v4_on_linux_6_1_by_loop_devices";
    inside(Kernel::V6_1, name, || {
        let fixture = NfsFixture::new();
        check(&fixture, "v3", "3", "loop");
        check(&fixture, "v40", "4.0", "loop");
    });
}
