//! Each kind of difference is found, and nothing else.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat,
    utimensat,
};

use super::{diff, diff_except, snapshot};
use crate::{Need, ready};

fn make(root: &Path) {
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("dir/a"), "hello").unwrap();
    fs::hard_link(root.join("dir/a"), root.join("dir/b")).unwrap();
    fs::write(root.join("dir/c"), "hello").unwrap();
    symlink("a", root.join("dir/link")).unwrap();
    for (name, kind, device) in [
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("disk", FileType::BlockDevice, makedev(7, 0)),
        ("pipe", FileType::Fifo, 0),
    ] {
        mknodat(
            CWD,
            root.join("dir").join(name),
            kind,
            Mode::from_raw_mode(0o600),
            device,
        )
        .unwrap();
    }
    xattr(root, "dir/a", "user.one", b"1");
    xattr(root, "dir/link", "trusted.two", b"\0\xff");
    for path in [
        "dir/a", "dir/c", "dir/link", "dir/null", "dir/disk", "dir/pipe", "dir", ".",
    ] {
        set_time(&root.join(path), 1_600_000_000, 5);
    }
}

fn xattr(root: &Path, path: &str, name: &str, value: &[u8]) {
    lsetxattr(root.join(path), name, value, XattrFlags::empty()).unwrap();
}

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    utimensat(
        CWD,
        path,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

/// What is found after `change` in one of two trees that are made alike; times of folders set back.
fn found(change: impl Fn(&Path)) -> Vec<String> {
    let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&left, &right] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        make(dir.path());
    }
    change(right.path());
    if right.path().join("dir").is_dir() {
        set_time(&right.path().join("dir"), 1_600_000_000, 5);
    }
    set_time(right.path(), 1_600_000_000, 5);
    diff(&snapshot(left.path()), &snapshot(right.path()))
}

#[test]
fn each_kind_of_difference_is_found() {
    if !ready(&[Need::Root]) {
        return;
    }
    let time = |path: &Path| set_time(path, 1_600_000_000, 5);
    assert_eq!(found(|_| {}), Vec::<String>::new());
    assert_eq!(
        found(|root| fs::remove_file(root.join("dir/pipe")).unwrap()),
        ["dir/pipe: only left (Fifo)"]
    );
    assert_eq!(
        found(|root| fs::create_dir(root.join("dir/new")).unwrap()),
        ["dir/new: only right (Directory)"]
    );
    let mode = |root: &Path| {
        fs::set_permissions(root.join("dir/c"), fs::Permissions::from_mode(0o4755)).unwrap()
    };
    assert_eq!(found(mode), ["dir/c: mode 644 and 4755"]);
    let owner =
        |root: &Path| std::os::unix::fs::lchown(root.join("dir/link"), Some(7), None).unwrap();
    assert_eq!(found(owner), ["dir/link: owner (0, 0) and (7, 0)"]);
    let nanos = |root: &Path| set_time(&root.join("dir/link"), 1_600_000_000, 6);
    assert_eq!(
        found(nanos),
        ["dir/link: mtime in ns 1600000000000000005 and 1600000000000000006"]
    );
    let unlink = |root: &Path| {
        fs::remove_file(root.join("dir/b")).unwrap();
        fs::copy(root.join("dir/a"), root.join("dir/b")).unwrap();
        xattr(root, "dir/b", "user.one", b"1");
        time(&root.join("dir/b"));
    };
    assert_eq!(found(unlink), ["dir/b: links of \"dir/a\" and \"dir/b\""]);
    let link = |root: &Path| {
        fs::remove_file(root.join("dir/c")).unwrap();
        fs::hard_link(root.join("dir/b"), root.join("dir/c")).unwrap();
    };
    assert_eq!(
        found(link),
        [
            "dir/c: links of \"dir/c\" and \"dir/a\"",
            "dir/c: xattr user.one None and Some([49])"
        ]
    );
    let target = |root: &Path| {
        fs::remove_file(root.join("dir/link")).unwrap();
        symlink("b", root.join("dir/link")).unwrap();
        xattr(root, "dir/link", "trusted.two", b"\0\xfe");
        time(&root.join("dir/link"));
    };
    assert_eq!(
        found(target),
        [
            "dir/link: target \"a\" and \"b\"",
            "dir/link: xattr trusted.two Some([0, 255]) and Some([0, 254])"
        ]
    );
    let device = |root: &Path| {
        fs::remove_file(root.join("dir/null")).unwrap();
        mknodat(
            CWD,
            root.join("dir/null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o600),
            makedev(1, 5),
        )
        .unwrap();
        time(&root.join("dir/null"));
    };
    assert_eq!(found(device), ["dir/null: device (1, 3) and (1, 5)"]);
    let kind = |root: &Path| {
        fs::remove_file(root.join("dir/disk")).unwrap();
        mknodat(
            CWD,
            root.join("dir/disk"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o600),
            makedev(7, 0),
        )
        .unwrap();
        time(&root.join("dir/disk"));
    };
    assert_eq!(found(kind), ["dir/disk: type BlockDevice and CharDevice"]);
    let content = |root: &Path| {
        fs::write(root.join("dir/c"), "hellO").unwrap();
        time(&root.join("dir/c"));
    };
    let lines = found(content);
    assert!(
        lines.len() == 1 && lines[0].starts_with("dir/c: content "),
        "{lines:?}"
    );
    let size = |root: &Path| {
        // One more zero: the same blocks, another size.
        File::options()
            .append(true)
            .open(root.join("dir/c"))
            .unwrap()
            .set_len(6)
            .unwrap();
        time(&root.join("dir/c"));
    };
    let lines = found(size);
    assert!(
        lines.len() == 2 && lines[0] == "dir/c: size 5 and 6",
        "{lines:?}"
    );
}

#[test]
fn times_can_be_left_out_for_some_paths() {
    if !ready(&[Need::Root]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let before = snapshot(dir.path());
    set_time(&dir.path().join("dir"), 1, 0);
    let after = snapshot(dir.path());
    assert_eq!(diff(&before, &after).len(), 1);
    assert_eq!(
        diff_except(&before, &after, |path| path == Path::new("dir")),
        Vec::<String>::new()
    );
    assert_eq!(
        diff_except(&before, &after, |path| path == Path::new("dir/a")).len(),
        1
    );
}

#[test]
fn holes_cost_nothing_and_equal_zeros() {
    let dir = tempfile::tempdir().unwrap();
    // A terabyte of hole with a byte in the middle and one at the end.
    for name in ["a", "b", "c"] {
        let file = File::create(dir.path().join(name)).unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(b"x", 1 << 39).unwrap();
        file.write_all_at(b"y", (1 << 40) - 1).unwrap();
    }
    File::options()
        .write(true)
        .open(dir.path().join("b"))
        .unwrap()
        .write_all_at(&[0; 70_000], 4_000_000)
        .unwrap();
    File::options()
        .write(true)
        .open(dir.path().join("c"))
        .unwrap()
        .write_all_at(b"z", 4_000_000)
        .unwrap();
    let seen = snapshot(dir.path());
    assert_eq!(seen[1].content, seen[2].content);
    assert_ne!(seen[1].content, seen[3].content);
}

#[test]
fn content_is_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    for (name, at) in [("a", 0), ("b", 4096)] {
        let file = File::create(dir.path().join(name)).unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all_at(&[1; 4096], at).unwrap();
    }
    let seen = snapshot(dir.path());
    assert_ne!(seen[1].content, seen[2].content);
}
