//! Real containers on each containerd, side by side: what the tests of the snapshotter build on.

use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::{Need, Registry, image, ready};

#[test]
fn a_container_runs_on_every_version_at_once() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let pushed = image::busybox().push(&registry, "busybox:1");
    let all = ContainerdVersion::ALL.map(|version| Containerd::start(version, &Options::default()));
    for containerd in &all {
        containerd.ctr_ok(&["images", "pull", "--plain-http", &pushed.reference]);
        let said = containerd.run_script(&[], &pushed.reference, "hello", "echo $((6 * 7))");
        assert_eq!(said, "42\n", "{:?}", containerd.version());
        let snapshots = containerd.ctr_ok(&["snapshots", "ls"]);
        assert!(snapshots.contains(pushed.chain_id()), "{snapshots}");
    }
}

#[test]
fn containers_outlive_a_killed_containerd_and_end_with_the_guard() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let pushed = image::busybox().push(&registry, "busybox:1");
    for version in [ContainerdVersion::V1_7, ContainerdVersion::V2_1] {
        let mut containerd = Containerd::start(version, &Options::default());
        containerd.ctr_ok(&["images", "pull", "--plain-http", &pushed.reference]);
        containerd.ctr_ok(&["run", "-d", &pushed.reference, "sleeper"]);
        containerd.kill9();
        assert!(
            !containerd
                .ctr(&["--timeout", "2s", "version"])
                .status
                .success()
        );
        containerd.restart();
        let said = containerd.exec_script("sleeper", "e1", "/bin/busybox echo alive");
        assert_eq!(said, "alive\n", "{version:?}");

        let tasks = containerd.ctr_ok(&["tasks", "ls"]);
        let pid = tasks
            .lines()
            .find(|line| line.starts_with("sleeper"))
            .and_then(|line| line.split_whitespace().nth(1))
            .unwrap()
            .to_owned();
        let dir = containerd.dir().to_owned();
        drop(containerd);
        assert!(
            !std::path::Path::new("/proc").join(pid).exists(),
            "the container still runs"
        );
        assert!(!dir.exists());
        assert!(
            !std::fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .contains(&dir.display().to_string()),
            "mounts are left"
        );
    }
}
