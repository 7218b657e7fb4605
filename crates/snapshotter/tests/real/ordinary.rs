//! Images that the store does not have: all is to be as with containerd's overlayfs.

use std::path::Path;

use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::image::{self, Compression, ImageBuilder};
use uimgacc_testkit::tar::TarBuilder;
use uimgacc_testkit::tree::{self, Kind};
use uimgacc_testkit::{Need, Registry, ready};

use crate::daemon::Snapshotter;

const VERSIONS: [ContainerdVersion; 2] = [ContainerdVersion::V1_7, ContainerdVersion::V2_1];

fn image() -> ImageBuilder {
    let second = TarBuilder::new()
        .dir("data", 0o2750)
        .file("data/kept", 0o4755, "kept")
        .file("data/removed", 0o600, "removed")
        .dir("opaque", 0o700)
        .file("opaque/hidden", 0o644, "hidden")
        .symlink("link", "data/kept")
        .finish();
    let third = TarBuilder::new()
        .file("data/.wh.removed", 0o644, "")
        .file("opaque/.wh..wh..opq", 0o644, "")
        .file("opaque/shown", 0o644, "shown")
        .finish();
    image::busybox()
        .layer(second, Compression::Gzip)
        .layer(third, Compression::Zstd)
}

fn walk(containerd: &Containerd, snapshotter: &str, reference: &str) -> Vec<tree::Entry> {
    let target = tempfile::tempdir().unwrap();
    let path = target.path().to_str().unwrap();
    let mount = [
        "images",
        "mount",
        "--snapshotter",
        snapshotter,
        reference,
        path,
    ];
    containerd.ctr_ok(&mount);
    let entries = tree::snapshot(target.path());
    containerd.ctr_ok(&[
        "images",
        "unmount",
        "--rm",
        "--snapshotter",
        snapshotter,
        path,
    ]);
    entries
}

#[test]
fn an_ordinary_image_is_as_with_overlayfs() {
    if !ready(&[Need::Root, Need::Parts]) {
        return;
    }
    let registry = Registry::start();
    let pushed = image().push(&registry, "app:1");
    for version in VERSIONS {
        let snapshotter = Snapshotter::start(Path::new("/nowhere/store"), &[]);
        let containerd = Containerd::start(version, &Options::proxy(&snapshotter.socket()));
        for name in ["overlayfs", "uimgacc"] {
            let reference = &pushed.reference;
            containerd.ctr_ok(&[
                "images",
                "pull",
                "--plain-http",
                "--snapshotter",
                name,
                reference,
            ]);
        }
        let theirs = walk(&containerd, "overlayfs", &pushed.reference);
        let ours = walk(&containerd, "uimgacc", &pushed.reference);
        // Folders that a whiteout touches keep the time of unpacking.
        let is_folder = |path: &Path| {
            let found = theirs.iter().find(|entry| entry.path == path);
            found.is_some_and(|entry| entry.kind == Kind::Directory)
        };
        let differences = tree::diff_except(&theirs, &ours, is_folder);
        assert!(differences.is_empty(), "{version:?}: {differences:#?}");
        assert!(
            theirs
                .iter()
                .any(|entry| entry.path == Path::new("opaque/shown"))
        );

        let said = containerd.run_script(
            &["--snapshotter", "uimgacc"],
            &pushed.reference,
            "c1",
            "echo new > /data/new && cat /data/new /data/kept /opaque/shown && ls /opaque /data",
        );
        assert_eq!(
            said, "new\nkeptshown/data:\nkept\nnew\n\n/opaque:\nshown\n",
            "{version:?}"
        );
        // Writes of a container, committed, are the ground of the next.
        let chain = pushed.chain_id();
        let snapshots = |words: &[&str]| {
            let mut all = vec!["snapshots", "--snapshotter", "uimgacc"];
            all.extend(words);
            containerd.ctr_ok(&all)
        };
        snapshots(&["prepare", "work", chain]);
        snapshots(&["commit", "done", "work"]);
        snapshots(&["prepare", "next", "done"]);
        assert!(snapshots(&["ls"]).contains("done"));
        let usage = snapshots(&["usage", "done"]);
        assert!(usage.contains("done"), "{usage}");
        for name in ["next", "done"] {
            snapshots(&["rm", name]);
        }
        // Everything goes with the image.
        containerd.ctr_ok(&["images", "rm", "--sync", &pushed.reference]);
        let left: Vec<_> = std::fs::read_dir(snapshotter.root().join("snapshots"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "{version:?}: {left:?}");
        // ctr 1.7 fetches first and never asks.
        let asked = snapshotter.log().contains("not taken from the store");
        assert_eq!(asked, version == ContainerdVersion::V2_1);
    }
}

#[test]
fn a_second_daemon_on_the_same_folder_refuses() {
    if !ready(&[Need::Root]) {
        return;
    }
    let mut snapshotter = Snapshotter::start(Path::new("/nowhere/store"), &[]);
    let output = snapshotter.second();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("another snapshotter works in"), "{text}");
    // A killed one leaves its socket and lock: neither is in the way.
    snapshotter.kill9();
    assert!(snapshotter.socket().exists());
    snapshotter.restart();
    snapshotter.stop();
    assert!(!snapshotter.socket().exists());
}
