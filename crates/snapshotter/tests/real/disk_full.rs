//! A disk that is full, and has room again: on a small file system of its own.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;
use tonic::Code;
use uimgacc_testkit::{Need, ready};

use crate::client::Client;
use crate::daemon::Snapshotter;
use crate::remote::eventually;

struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount(
            "small",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        Self(dir)
    }

    /// Takes all that is left; gone with the file.
    fn fill(&self, name: &str) -> std::path::PathBuf {
        let path = self.0.path().join(name);
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

fn folders(root: &Path) -> usize {
    let entries = fs::read_dir(root.join("snapshots")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| !name.to_string_lossy().starts_with("gone-"))
        .count()
}

#[test]
fn a_full_disk_is_emptied_by_removals_and_then_used_again() {
    if !ready(&[Need::Root]) {
        return;
    }
    let disk = SmallDisk::new("8m");
    let root = disk.0.path().join("root");
    let mut snapshotter = Snapshotter::start_in(&root, Path::new("/nowhere/store"), &[]);
    let client = Client::connect(&snapshotter.socket());
    let mut names = Vec::new();
    for number in 0..4 {
        let name = format!("s{number}");
        client.prepare(&name, "").unwrap();
        names.push(name);
    }
    // A snapshot that is worth its removal.
    let big = root.join("snapshots/1/fs/big");
    fs::write(&big, vec![1; 1 << 20]).unwrap();
    let fill = disk.fill("fill");
    let mut failed = None;
    for number in 4..2000 {
        let name = format!("s{number}");
        match client.prepare(&name, "") {
            Ok(_) => names.push(name),
            Err(status) => {
                failed = Some(status);
                break;
            }
        }
    }
    let failed = failed.expect("the disk was never full");
    assert_eq!(failed.code(), Code::Internal, "{failed}");
    // What failed is not there, what was there is.
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(client.names(), sorted);
    assert_eq!(folders(&root), names.len());

    // The disk is still full: a removal works all the same, and gives room.
    client.remove("s0").unwrap();
    names.retain(|name| name != "s0");
    // Its folder is moved out of the way, and deleted a little later.
    eventually("room", || client.prepare("after", "").is_ok());
    assert!(!big.exists());
    names.push("after".to_owned());

    // Several times over: full, a failure, room again.
    fs::remove_file(fill).unwrap();
    for round in 0..3 {
        let fill = disk.fill("fill");
        let mut failures = 0;
        for number in 0..2000 {
            let name = format!("r{round}-{number}");
            match client.prepare(&name, "") {
                Ok(_) => names.push(name),
                Err(_) => failures += 1,
            }
            if failures == 3 {
                break;
            }
        }
        assert_eq!(failures, 3);
        fs::remove_file(fill).unwrap();
        client.commit(&format!("done{round}"), "after").unwrap();
        names.retain(|name| name != "after");
        names.push(format!("done{round}"));
        client.prepare("after", &format!("done{round}")).unwrap();
        names.push("after".to_owned());
    }
    names.sort();
    assert_eq!(client.names(), names);
    assert!(
        snapshotter.exit_status().is_none(),
        "it went on all the time"
    );

    // All of it is on the disk.
    snapshotter.kill9();
    snapshotter.restart();
    let client = Client::connect(&snapshotter.socket());
    assert_eq!(client.names(), names);
    assert_eq!(folders(&root), names.len());
}

#[test]
fn a_database_that_is_lost_ends_the_process_and_deletes_nothing() {
    if !ready(&[Need::Root]) {
        return;
    }
    let disk = SmallDisk::new("8m");
    let root = disk.0.path().join("root");
    let mut snapshotter = Snapshotter::start_in(&root, Path::new("/nowhere/store"), &[]);
    let client = Client::connect(&snapshotter.socket());
    client.prepare("kept", "").unwrap();
    // Its file is gone from under it, and another thing has its name: it cannot be opened again.
    let database = root.join("snapshots.redb");
    fs::rename(&database, root.join("away")).unwrap();
    fs::create_dir(&database).unwrap();
    let fill = disk.fill("fill");
    let mut number = 0;
    while client.prepare(&format!("s{number}"), "").is_ok() {
        number += 1;
        assert!(number < 2000, "the disk was never full");
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let status = loop {
        if let Some(status) = snapshotter.exit_status() {
            break status;
        }
        assert!(std::time::Instant::now() < deadline, "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(!status.success());
    assert!(
        folders(&root) > number,
        "the folder of the last change stays"
    );
    fs::remove_file(fill).unwrap();
    fs::remove_dir(&database).unwrap();
    fs::rename(root.join("away"), &database).unwrap();
    snapshotter.restart();
    let names = Client::connect(&snapshotter.socket()).names();
    assert!(names.contains(&"kept".to_owned()));
    assert!(names.len() > number);
}
