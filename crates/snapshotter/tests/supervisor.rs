//! A supervisor that is killed is succeeded by another, where that was asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use uimgacc_testkit::{Need, ready};

/// Processes of the snapshotter in a folder of their own; none outlives this.
struct Place(TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self) -> std::process::Child {
        let log = fs::File::create(self.path("log")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_uimgacc-snapshotter"))
            .arg("supervise")
            .arg("--address")
            .arg(self.path("sock"))
            .args(["--succeeded", "--", "--store"])
            .arg(self.path("store"))
            .arg("--root")
            .arg(self.path("root"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// How often the log has that.
    fn said(&self, words: &str) -> usize {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(words)).count()
    }

    fn answers(&self) -> bool {
        UnixStream::connect(self.path("sock")).is_ok()
    }

    /// IDs of the processes that work here, the supervisors or all.
    fn processes(&self, only_supervisors: bool) -> Vec<Pid> {
        let here = self.0.path().to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
            .filter(|pid| {
                let file = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
                let words = fs::read(Path::new(&file)).unwrap_or_default();
                let words = String::from_utf8_lossy(&words);
                words.contains(here) && (!only_supervisors || words.contains("\0supervise\0"))
            })
            .collect()
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what}\n{}", log());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        // A daemon whose supervisor is killed leaves another: until none is left.
        while Instant::now() < deadline {
            let left = self.processes(false);
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _gone = kill_process(pid, Signal::KILL);
            }
            sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_supervisor_that_is_killed_is_succeeded() {
    if !ready(&[Need::Root]) {
        return;
    }
    let place = Place(tempfile::tempdir().unwrap());
    let mut first = place.start();
    place.wait("the first", || place.answers());
    // Once more, so that the one that succeeded is succeeded too.
    let mut last = Pid::from_raw(i32::try_from(first.id()).unwrap()).unwrap();
    for time in 1..=2 {
        // As early as can be: the daemon may not even be its own program yet.
        place.wait("a daemon", || place.said("the daemon is started") == time);
        kill_process(last, Signal::KILL).unwrap();
        let _status = first.wait();
        place.wait("another daemon", || place.said("ready") > time);
        let left = place.processes(true);
        assert!(left.len() == 1 && left[0] != last, "{left:?}, {last:?}");
        last = left[0];
    }
    assert!(place.answers());
    kill_process(last, Signal::TERM).unwrap();
    place.wait("the end", || place.processes(false).is_empty());
    assert!(!place.path("sock").exists());
}
