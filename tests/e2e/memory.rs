//! The memory that metadata of an image may take follows the limit of a real cgroup.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use uimgacc_testkit::image::{Compression, ImageBuilder};
use uimgacc_testkit::tar::{Entry, Kind, TarBuilder};

use crate::support::{StoreFixture, ok, ready, text};

const LIMIT_BYTES: u64 = 256 << 20;

/// A cgroup with a limit of memory, of whichever version is here.
#[derive(Debug)]
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(limit_bytes: u64) -> Self {
        let name = format!("uimgacc-memory-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (parent, file) = match v1.is_dir() {
            true => (v1, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let group = Self(parent.join(name));
        std::fs::create_dir(&group.0).expect("a cgroup can be made");
        std::fs::write(group.0.join(file), limit_bytes.to_string()).expect("memory can be limited");
        // Else what does not fit goes to swap.
        let _ = std::fs::write(group.0.join("memory.swap.max"), "0");
        let _ = std::fs::write(
            group.0.join("memory.memsw.limit_in_bytes"),
            limit_bytes.to_string(),
        );
        group
    }

    /// `create` in it, and the most memory that it had.
    fn create(&self, fixture: &StoreFixture, name: &str) -> (Output, u64) {
        let reference = fixture.registry.reference(name);
        let child = Command::new("sh")
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.0)
            .arg(uimgacc_testkit::programs::program("uimgacc"))
            .args([
                "create",
                &reference,
                &fixture.registry.reference("target:1"),
            ])
            .args(["--store", &fixture.store(), "--plain-http", "--no-push"])
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", child.id());
        let ended = std::thread::spawn(move || child.wait_with_output().unwrap());
        let mut most = 0;
        while !ended.is_finished() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib =
                line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
            most = most.max(kib.unwrap_or_default() << 10);
            std::thread::sleep(Duration::from_millis(5));
        }
        (ended.join().unwrap(), most)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn push(fixture: &StoreFixture, name: &str, tar: TarBuilder) {
    ImageBuilder::new()
        .layer(tar.finish(), Compression::Gzip)
        .push(&fixture.registry, name);
}

#[test]
fn metadata_is_bounded_by_the_memory_there_is() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let group = Cgroup::new(LIMIT_BYTES);
    // More than the limit could hold: refused in words, before the kernel kills.
    let folders = (0..120_000).fold(TarBuilder::new(), |tar, number| {
        tar.file(&format!("{number:07}/x"), 0o644, "")
    });
    push(&fixture, "many:1", folders);
    let (output, most) = group.create(&fixture, "many:1");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("refused with at most {} MiB", most >> 20);
    assert_eq!(output.status.signal(), None, "killed: {said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "the metadata of the image's files needs more than",
        "256 MiB",
        text(&group.0).as_str(),
    ] {
        assert!(said.contains(part), "{said}");
    }
    fixture.assert_clean();
    // Somewhat less than the budget, which is 46 MiB, fits: files with short names, and folders of one
    // file with an xattr, which take most beside their length.
    let files = (0..60_000).fold(TarBuilder::new(), |tar, number| {
        tar.file(&format!("{number:07}"), 0o644, "")
    });
    let all = (0..14_000).fold(files, |tar, number| {
        let path = format!("d{number:07}/x");
        tar.entry(&Entry::new(path, Kind::Fifo).xattr("user.x", vec![1]))
    });
    push(&fixture, "fits:1", all);
    let (output, most) = group.create(&fixture, "fits:1");
    println!("what fits took at most {} MiB", most >> 20);
    ok(&output);
}
