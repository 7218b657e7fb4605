//! What the kernel shows of an image, mounted with its devices.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{lgetxattr, llistxattr, major, minor};
use uimgacc_erofs::tree::Tree;
use uimgacc_erofs::write;

use crate::mounted::Mounted;
use crate::seen::{Paths, Seen, WINDOW_BYTES, assert_same, expected};
use crate::{devices, random, samples};

/// Whether this test may mount. Where not, it says so, and fails in CI.
pub(crate) fn may_mount() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let why = if !rustix::process::geteuid().is_root() {
        "not run as root"
    } else if !known.split_whitespace().any(|word| word == "erofs") {
        "this kernel has no EROFS"
    } else {
        return true;
    };
    println!("SKIPPED, nothing was mounted: {why}");
    assert!(
        std::env::var_os("UIMGACC_CI").is_none_or(|ci| ci != "1"),
        "{why}"
    );
    false
}

fn walk(root: &Path) -> Paths {
    let mut found: BTreeMap<Vec<u8>, (Seen, u64)> = BTreeMap::new();
    let mut least: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let name = OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path));
        let full = root.join(name);
        let meta = fs::symlink_metadata(&full).unwrap();
        if meta.is_dir() {
            for entry in fs::read_dir(&full).unwrap() {
                let entry = entry.unwrap();
                let child = [&path[..], b"/", entry.file_name().as_bytes()].concat();
                let by_folder = entry.file_type().unwrap();
                let by_inode = fs::symlink_metadata(entry.path()).unwrap().file_type();
                assert_eq!(by_folder, by_inode);
                open.push(child);
            }
        }
        let inode = meta.ino();
        let least = least.entry(inode).or_insert_with(|| path.clone());
        if path < *least {
            least.clone_from(&path);
        }
        found.insert(path, (seen(&full, &meta), inode));
    }
    found
        .into_iter()
        .map(|(path, (mut seen, inode))| {
            seen.least_path.clone_from(&least[&inode]);
            (path, seen)
        })
        .collect()
}

fn seen(path: &Path, meta: &fs::Metadata) -> Seen {
    let is_device = matches!(meta.mode() & 0o170_000, 0o020_000 | 0o060_000);
    let window = |offset: u64| {
        if !meta.is_file() {
            return Vec::new();
        }
        let left = usize::try_from(meta.size().saturating_sub(offset)).unwrap_or(WINDOW_BYTES);
        // One more, so that a file that goes on past its size is noticed.
        let mut bytes = vec![0; left.min(WINDOW_BYTES - 1) + 1];
        let mut length = 0;
        let file = File::open(path).unwrap();
        loop {
            let read = file
                .read_at(&mut bytes[length..], offset + length as u64)
                .unwrap();
            length += read;
            if read == 0 {
                bytes.truncate(length);
                return bytes;
            }
        }
    };
    Seen {
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        links: meta.nlink(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if meta.is_dir() { 0 } else { meta.size() },
        device: is_device.then(|| (major(meta.rdev()), minor(meta.rdev()))),
        xattrs: xattrs(path),
        target: meta
            .is_symlink()
            .then(|| fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
        first: window(0),
        last: window(meta.size().saturating_sub(WINDOW_BYTES as u64)),
        least_path: Vec::new(),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 1 << 16];
    let length = llistxattr(path, &mut names[..]).unwrap();
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() {
            continue;
        }
        let mut value = vec![0_u8; 1 << 16];
        let length = lgetxattr(path, OsStr::from_bytes(name), &mut value[..])
            .unwrap_or_else(|error| panic!("{:?}: {error}", String::from_utf8_lossy(name)));
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    found
}

/// Writes a tree, mounts it and compares.
fn check(tree: &Tree, mount: impl Fn(&Path, &[PathBuf]) -> Mounted) {
    let folder = tempfile::tempdir().unwrap();
    let mut image = Vec::new();
    let summary = write(tree, &mut image).unwrap();
    assert_eq!(summary.bytes, image.len() as u64);
    let path = folder.path().join("image");
    fs::write(&path, image).unwrap();
    let devices = devices::write_all(tree, folder.path());
    let mounted = mount(&path, &devices);
    assert_same(&expected(tree), &walk(&mounted.root()));
}

#[test]
fn kernel_shows_every_sample() {
    if !may_mount() {
        return;
    }
    for (name, tree) in samples::all() {
        println!("sample {name}");
        check(&tree, Mounted::new);
    }
}

#[test]
fn kernel_mounts_loop_devices() {
    if !may_mount() {
        return;
    }
    check(&samples::every_kind(), Mounted::on_loops);
}

#[test]
fn kernel_shows_random_trees() {
    if !may_mount() {
        return;
    }
    let config = Config {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&random::trees(), |tree| {
        check(&tree, Mounted::new);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}
