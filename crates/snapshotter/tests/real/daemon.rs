//! The daemon as a guard: killed on drop, and what it mounted is unmounted.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use uimgacc_testkit::process::Daemon;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_uimgacc-snapshotter");

/// An argument for [`Snapshotter::start`]: the daemon gets no right to mount.
pub(crate) const WITHOUT_MOUNTING: &str = "--without-mounting";

pub(crate) struct Snapshotter {
    process: Daemon,
    dir: TempDir,
    extra: Vec<String>,
}

impl Snapshotter {
    /// Starts one on an empty folder; `store` need not be there. It takes the word of images for what
    /// they are made of: most tests ask by chain ID alone.
    pub(crate) fn start(store: &Path, extra: &[&str]) -> Self {
        let trusting = ["--original-images", "accelerate-without-proof"];
        Self::start_strict(store, &[&trusting, extra].concat())
    }

    /// The same with the daemon's own defaults.
    pub(crate) fn start_strict(store: &Path, extra: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("uimgacc-snap-")
            .tempdir()
            .unwrap();
        let mut extra: Vec<String> = extra.iter().map(|word| (*word).to_owned()).collect();
        extra.extend(["--store".to_owned(), store.display().to_string()]);
        let process = spawn(dir.path(), &extra);
        Self {
            process,
            dir,
            extra,
        }
    }

    /// Starts one with its root in `root`.
    pub(crate) fn start_in(root: &Path, store: &Path, extra: &[&str]) -> Self {
        let root = root.to_str().unwrap();
        Self::start(store, &[&["--root", root], extra].concat())
    }

    pub(crate) fn status_socket(&self) -> PathBuf {
        self.dir.path().join("status.sock")
    }

    pub(crate) fn exit_status(&mut self) -> Option<std::process::ExitStatus> {
        self.process.exit_status()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn kill9(&mut self) {
        self.process.kill();
    }

    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it again on the same folder.
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.dir.path(), &self.extra);
    }

    /// A second one on the same folder, which must refuse.
    pub(crate) fn second(&self) -> std::process::Output {
        command(self.dir.path(), &self.extra).output().unwrap()
    }

    /// Where images are mounted below its folder.
    pub(crate) fn image_mounts(&self) -> Vec<PathBuf> {
        mounts_below(&self.root().join("chains"))
    }
}

fn command(dir: &Path, extra: &[String]) -> Command {
    // "--without-mounting" is ours: the daemon runs without the right to mount.
    let mut extra = extra.to_vec();
    let mut command = match extra.iter().position(|word| word == WITHOUT_MOUNTING) {
        None => Command::new(PROGRAM),
        Some(at) => {
            extra.remove(at);
            let mut command = Command::new("setpriv");
            command.args(["--inh-caps=-sys_admin", "--bounding-set=-sys_admin"]);
            command.arg(PROGRAM);
            command
        }
    };
    if !extra.iter().any(|word| word == "--root") {
        command.arg("--root").arg(dir.join("root"));
    }
    command
        .arg("--address")
        .arg(dir.join("s.sock"))
        .args([
            "--log",
            "info,uimgacc_snapshotter=debug,uimgacc_mount=debug",
        ])
        .args(extra)
        .env_remove("UIMGACC_STORE");
    command
}

fn spawn(dir: &Path, extra: &[String]) -> Daemon {
    let socket = dir.join("s.sock");
    let mut command = command(dir, extra);
    let mut process = Daemon::spawn("uimgacc-snapshotter", &mut command, &dir.join("log"));
    let ready = process.wait_ready(|| UnixStream::connect(&socket).is_ok());
    assert!(ready, "the daemon ended:\n{}", process.log_tail());
    process
}

fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(folder))
        .collect()
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- snapshotter\n{}", self.log());
        }
        self.process.kill();
        for point in mounts_below(self.dir.path()).iter().rev() {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
