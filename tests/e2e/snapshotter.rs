//! The daemon of a node, as it runs on hosts without systemd.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use uimgacc_testkit::process::Daemon;

use crate::support::{StoreFixture, text};

/// The daemon under its supervisor, with its folders in the fixture's.
pub(crate) struct Snapshotter {
    supervisor: Daemon,
    folder: PathBuf,
}

fn start(folder: &Path, store: &str, more: &[&str]) -> Daemon {
    let program = uimgacc_testkit::programs::program("uimgacc-snapshotter");
    let socket = folder.join("snapshotter.sock");
    let mut daemon = Daemon::spawn(
        "uimgacc-snapshotter",
        Command::new(program)
            .args(["supervise", "--address", &text(&socket), "--"])
            .args(["--store", store, "--root", &text(&folder.join("node"))])
            .args(more),
        &folder.join("snapshotter.log"),
    );
    let up = daemon.wait_ready(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
    assert!(up, "{}", daemon.log_tail());
    daemon
}

impl Snapshotter {
    pub(crate) fn start(fixture: &StoreFixture) -> Self {
        Self::start_with(fixture, &[])
    }

    pub(crate) fn start_with(fixture: &StoreFixture, more: &[&str]) -> Self {
        let folder = fixture.path("");
        Self {
            supervisor: start(&folder, &fixture.store(), more),
            folder,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("snapshotter.sock")
    }

    /// `kill -9` of the daemon, with its supervisor held back.
    pub(crate) fn kill(&mut self) {
        self.supervisor.send(Signal::STOP);
        let [daemon] = self.supervisor.children()[..] else {
            panic!("one daemon, not {:?}", self.supervisor.children());
        };
        let pid = Pid::from_raw(i32::try_from(daemon).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    /// Lets the supervisor go on: it starts the daemon again.
    pub(crate) fn resume(&mut self) {
        self.supervisor.send(Signal::CONT);
    }

    /// Files of layers and containers on the node's own disk.
    pub(crate) fn unpacked(&self) -> usize {
        let list = uimgacc_testkit::process::run(
            Command::new("find")
                .arg(self.folder.join("node/snapshots"))
                .args(["-type", "f"]),
        );
        String::from_utf8_lossy(&list.stdout).lines().count()
    }

    /// Mounts of images that this daemon made.
    pub(crate) fn mounts(&self) -> usize {
        let root = text(&self.folder.join("node"));
        std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(&root) && line.contains(" - erofs "))
            .count()
    }
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        self.supervisor.stop();
        // The daemon leaves its mounts behind on purpose; the test takes them away.
        let root = text(&self.folder.join("node"));
        for line in std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap_or_default()
            .lines()
            .rev()
        {
            if let Some(target) = line
                .split(' ')
                .nth(4)
                .filter(|target| target.starts_with(&root))
            {
                let _ = Command::new("umount").arg("--lazy").arg(target).status();
            }
        }
    }
}
