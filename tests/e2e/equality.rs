//! What the store shows is what containerd's own overlayfs shows, entry by entry.

use std::path::Path;

use serde_json::Value;
use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::debian;
use uimgacc_testkit::image::{Compression, ImageBuilder, MediaTypes};
use uimgacc_testkit::tar::{Entry, Kind, Segment, SparseFormat, TarBuilder};
use uimgacc_testkit::tree::{Entry as Seen, diff_except, snapshot};

use crate::support::{StoreFixture, ok, ready, text};

/// The tree of an image as containerd mounts it for a container, changes and all.
fn with_containerd(fixture: &StoreFixture, name: &str, version: ContainerdVersion) -> Vec<Seen> {
    let containerd = Containerd::start(version, &Options::default());
    containerd.trust(&fixture.registry);
    let reference = fixture.registry.reference(name);
    containerd.ctr_ok(&["images", "pull", "--plain-http", &reference]);
    let target = fixture.path(&format!("overlay-{}", name.replace([':', '/'], "-")));
    std::fs::create_dir(&target).unwrap();
    let target = text(&target);
    containerd.ctr_ok(&["images", "mount", "--rw", &reference, &target]);
    let seen = snapshot(Path::new(&target));
    containerd.ctr_ok(&["images", "unmount", "--rm", &target]);
    seen
}

fn compare(
    fixture: &StoreFixture,
    name: &str,
    version: ContainerdVersion,
    any_mtime: impl Fn(&Path) -> bool,
) {
    ok(&fixture.create(name, &format!("{name}-fast"), &["--no-push"]));
    fixture.assert_clean();
    let theirs = with_containerd(fixture, name, version);
    let mounted = fixture.mount(&format!("{name}-fast"), &["--read-write"]);
    let ours = snapshot(&mounted.path);
    let differences = diff_except(&theirs, &ours, any_mtime);
    assert!(
        differences.is_empty(),
        "{} differences (left containerd, right ours), the first:\n{}",
        differences.len(),
        differences
            .iter()
            .take(40)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert!(ours.len() > 10);
}

/// A version 2 file capability: `cap_net_raw=ep`.
const NET_RAW: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// An ACL: owner rwx, user 1000 r-x, group r-x, mask r-x, others nothing.
fn acl() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1u16, 7u16, u32::MAX),
        (2, 5, 1000),
        (4, 5, u32::MAX),
        (0x10, 5, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// An ACL that says no more than a mode.
fn mode_acl() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions) in [(1u16, 7u16), (4, 5), (0x20, 4)] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(u32::MAX.to_le_bytes());
    }
    acl
}

fn awkward_base() -> Vec<u8> {
    let long = "long/".to_owned() + &"n".repeat(255);
    let large: Vec<u8> = (0..3_000_000u32)
        .map(|at| (at / 7).to_le_bytes()[0])
        .collect();
    TarBuilder::new()
        .dir("./", 0o700)
        .dir("./plain", 0o711)
        .entry(
            &Entry::new("plain/owned", Kind::File)
                .owner(70_000, 3)
                .mode(0o6755)
                .content("x"),
        )
        .entry(
            &Entry::new("plain/nanos", Kind::File)
                .mtime(1_500_000_000, 123_456_789)
                .content("y"),
        )
        .file("plain/empty", 0o400, "")
        .file("plain/block", 0o644, vec![7u8; 4096])
        .file("plain/large", 0o644, large)
        .file("/absolute", 0o644, "a")
        .file("../../escaped", 0o644, "b")
        .file("implied/by/a/file", 0o644, "c")
        .symlink("through", "plain")
        .file("through/symlink", 0o644, "d")
        .symlink("up", "../../../plain/../plain")
        .file("up/clamped", 0o644, "e")
        .symlink("dangling", "/not/yet")
        .file("dangling/made", 0o644, "f")
        .file(&long, 0o644, "g")
        .entry(
            &Entry::new(format!("gnu/{}", "m".repeat(200)), Kind::File)
                .gnu()
                .content("h"),
        )
        .file("twice", 0o644, "first")
        .file("twice", 0o600, "second")
        .dir("folder-then-file", 0o755)
        .file("folder-then-file/inside", 0o644, "i")
        .file("folder-then-file", 0o644, "j")
        .file("file-then-folder", 0o644, "k")
        .dir("file-then-folder", 0o700)
        .file("file-then-folder/inside", 0o644, "l")
        .file("links/one", 0o644, "m")
        .hard_link("elsewhere/two", "links/one")
        .hard_link("links/three", "/elsewhere/two")
        .symlink("links/symlink", "one")
        .hard_link("links/linked-symlink", "links/symlink")
        .entry(
            &Entry::new("dev/char", Kind::CharDevice)
                .device(1, 3)
                .mode(0o666),
        )
        .entry(
            &Entry::new("dev/block", Kind::BlockDevice)
                .device(259, 70_000)
                .mode(0o660),
        )
        .entry(&Entry::new("dev/fifo", Kind::Fifo).mode(0o600))
        .entry(
            &Entry::new("caps/ping", Kind::File)
                .mode(0o755)
                .xattr("security.capability", NET_RAW)
                .content("n"),
        )
        .entry(
            &Entry::new("caps/lost", Kind::File)
                .mode(0o755)
                .xattr("security.capability", NET_RAW)
                .content("o"),
        )
        .hard_link("caps/link", "caps/lost")
        .entry(
            &Entry::new("xattrs/user", Kind::File)
                .xattr("user.empty", "")
                .xattr("user.b", vec![0u8, 255])
                .content("p"),
        )
        .entry(
            &Entry::new("xattrs/ignored", Kind::File)
                .xattr("trusted.no", "x")
                .xattr("strange", "y")
                .content("q"),
        )
        .entry(
            &Entry::new("xattrs/link", Kind::Symlink)
                .link("user")
                .xattr("user.no", "z"),
        )
        .entry(&Entry::new("xattrs/folder", Kind::Directory).xattr("user.folder", "r"))
        .entry(
            &Entry::new("xattrs/acl", Kind::File)
                .mode(0o750)
                .xattr("system.posix_acl_access", acl())
                .content("s"),
        )
        .sparse(
            &Entry::new("sparse/pax", Kind::File),
            SparseFormat::Pax10,
            10 << 20,
            &[
                Segment {
                    offset: 5000,
                    data: b"hole before and after".to_vec(),
                },
                Segment {
                    offset: 9 << 20,
                    data: vec![3; 70_000],
                },
            ],
        )
        .entry(
            &Entry::new("shadowed/folder", Kind::Directory)
                .mode(0o750)
                .owner(5, 6)
                .xattr("user.kept", "t"),
        )
        .file("shadowed/folder/old", 0o644, "u")
        .file("opaque/hidden", 0o644, "v")
        .dir("opaque", 0o755)
        .file("whited/out", 0o644, "w")
        .dir("whited/whole", 0o755)
        .file("whited/whole/inside", 0o644, "x")
        .dir("to-file", 0o755)
        .file("to-file/inside", 0o644, "y")
        .symlink("to-folder", "plain")
        .file(".wh.never-there", 0o644, "")
        .file(".wh.early", 0o644, "")
        .file("early/inside/file", 0o644, "z")
        .entry(
            &Entry::new("inherit", Kind::Directory)
                .mode(0o2775)
                .owner(1, 50)
                .xattr("system.posix_acl_default", acl()),
        )
        .file("inherit/file", 0o640, "0")
        .dir("inherit/folder", 0o711)
        .file("inherit/folder/file", 0o604, "1")
        .file("inherit/implied/deep/file", 0o600, "2")
        .symlink("inherit/link", "file")
        .hard_link("inherit/hard", "plain/empty")
        .entry(&Entry::new("inherit/fifo", Kind::Fifo).mode(0o660))
        .entry(
            &Entry::new("inherit/own", Kind::File)
                .mode(0o700)
                .xattr("system.posix_acl_access", mode_acl()),
        )
        .entry(
            &Entry::new("inherit-mode", Kind::Directory)
                .xattr("system.posix_acl_default", mode_acl()),
        )
        .file("inherit-mode/file", 0o666, "3")
        .file("inherit-mode/implied/file", 0o666, "3")
        .entry(
            &Entry::new("group", Kind::Directory)
                .mode(0o2755)
                .owner(0, 50),
        )
        .file("group/implied/deep/file", 0o644, "4")
        .dir("group/folder", 0o755)
        .finish()
}

fn awkward_top() -> Vec<u8> {
    TarBuilder::new()
        .global_pax(&[("comment", b"ignored")])
        .file(
            "shadowed/folder/new",
            0o644,
            "needs a folder of the layer below",
        )
        .file("to-folder/new", 0o644, "below a symlink of the layer below")
        .file("opaque/.wh..wh..opq", 0o644, "")
        .file("opaque/shown", 0o644, "z")
        .dir("whited", 0o755)
        .whiteout("whited/out")
        .whiteout("whited/whole")
        .dir("whited/whole", 0o711)
        .file("whited/whole/again", 0o644, "1")
        .file("to-file", 0o644, "2")
        .whiteout("links/one")
        .entry(&Entry::new("dev/char", Kind::File).content("no longer a device"))
        .file("plain/large", 0o600, "now small")
        .file(
            "never-there/inside/file",
            0o644,
            "the base had it whited out",
        )
        .file("inherit/later", 0o640, "5")
        .file("inherit/new/deep/file", 0o640, "6")
        .dir("inherit/new-folder", 0o700)
        .file("inherit/new-folder/file", 0o640, "7")
        .file("inherit/implied/new", 0o640, "8")
        .file("inherit/folder/new", 0o640, "its folder comes after it")
        .dir("inherit/folder", 0o750)
        .file("group/new/deep/file", 0o644, "9")
        .finish()
}

#[test]
fn awkward_layers_by_hand() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    ImageBuilder::new()
        .media_types(MediaTypes::Docker)
        .layer(awkward_base(), Compression::Gzip)
        .layer(awkward_top(), Compression::None)
        .layer(
            TarBuilder::new()
                .opaque("implied")
                .file("implied/only", 0o644, "3")
                .finish(),
            Compression::Gzip,
        )
        .push(&fixture.registry, "awkward:1");
    // Folders that containerd makes, or whose whiteouts it sets, get the time of unpacking.
    let made = [
        "",
        ".",
        "caps",
        "dev",
        "early",
        "early/inside",
        "elsewhere",
        "gnu",
        "group",
        "group/implied",
        "group/implied/deep",
        "group/new",
        "group/new/deep",
        "implied",
        "implied/by",
        "implied/by/a",
        "inherit",
        "inherit/implied",
        "inherit/implied/deep",
        "inherit/new",
        "inherit/new/deep",
        "inherit-mode/implied",
        "links",
        "long",
        "never-there",
        "never-there/inside",
        "not",
        "not/yet",
        "opaque",
        "plain",
        "PaxHeaders",
        "shadowed",
        "shadowed/folder",
        "sparse",
        "to-folder",
        "whited",
        "xattrs",
    ];
    for version in [ContainerdVersion::V1_7, ContainerdVersion::V2_1] {
        compare(&fixture, "awkward:1", version, |path| {
            made.iter().any(|made| path == Path::new(made))
        });
        std::fs::remove_dir_all(fixture.path("overlay-awkward-1")).unwrap();
    }
}

#[test]
fn times_before_1970_are_kept() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let tar = TarBuilder::new()
        .entry(&Entry::new("old", Kind::File).mtime(-86_400, 250_000_000))
        .finish();
    ImageBuilder::new()
        .layer(tar, Compression::Zstd)
        .push(&fixture.registry, "old:1");
    ok(&fixture.create("old:1", "old:fast", &["--no-push"]));
    let mounted = fixture.mount("old:fast", &[]);
    let seen = snapshot(&mounted.path);
    let old = seen
        .iter()
        .find(|entry| entry.path == Path::new("old"))
        .unwrap();
    assert_eq!(old.mtime_ns, -86_400_000_000_000 + 250_000_000);
}

/// The root has the time of unpacking, and so have folders that a layer needs without naming.
fn unnamed(path: &Path) -> bool {
    ["", ".", "usr", "usr/local", "usr/local/lib"]
        .iter()
        .any(|made| path == Path::new(made))
        || path.parent() == Some(Path::new("usr/local/lib"))
}

#[test]
fn debian_with_many_packages() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let rootfs = debian::rootfs(&[
        "git",
        "perl",
        "gcc",
        "iputils-ping",
        "sudo",
        "openssh-client",
    ]);
    ImageBuilder::new()
        .layer(rootfs.as_path(), Compression::Gzip)
        .push(&fixture.registry, "debian:1");
    compare(&fixture, "debian:1", ContainerdVersion::V2_1, unnamed);
}

#[test]
fn python_with_native_libraries() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    ImageBuilder::new()
        .layer(debian::rootfs(&["python3"]).as_path(), Compression::Gzip)
        .layer(
            debian::python_packages(&["numpy", "scipy", "pandas"]).as_path(),
            Compression::Zstd,
        )
        .push(&fixture.registry, "python:1");
    compare(&fixture, "python:1", ContainerdVersion::V2_1, unnamed);
    let images: Value = fixture.json(&["get"]);
    assert!(images["Images"][0]["Size"].as_u64().unwrap() > 200_000_000);
}
