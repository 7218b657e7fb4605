//! A child process as a guard: its output goes to a log file, it is waited for until ready, and killed and reaped on drop.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a part may take to get ready, or to end after `SIGTERM`.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running child.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with stdout and stderr appended to `log`.
    ///
    /// # Panics
    /// Where the program cannot be started.
    #[must_use]
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log file can be written");
        let err = out.try_clone().expect("a second descriptor for the log");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child =
            child.unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        }
    }

    /// Waits until `ready` says so. `false` where the child ended before that.
    ///
    /// # Panics
    /// Where it neither ends nor gets ready within 30 s; the log's tail is shown.
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            if self.exit_status().is_some() {
                return false;
            }
            assert!(
                Instant::now() < deadline,
                "{} is not ready after {PATIENCE:?}\n{}",
                self.name,
                self.log_tail()
            );
            sleep(Duration::from_millis(20));
        }
        true
    }

    /// The process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether and how the child has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("waiting for one's own child works")
    }

    /// `SIGTERM`, then `SIGKILL` where that takes longer than 30 s; reaps the child.
    pub fn stop(&mut self) {
        if self.exit_status().is_some() {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while self.exit_status().is_none() {
            if Instant::now() > deadline {
                eprintln!(
                    "{} does not end: killing it\n{}",
                    self.name,
                    self.log_tail()
                );
                return self.kill();
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// `SIGKILL`, and reaps the child.
    pub fn kill(&mut self) {
        if self.exit_status().is_none() {
            self.signal(Signal::KILL);
            let _status = self.child.wait();
        }
    }

    /// Sends a signal to the running child.
    pub fn send(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            self.signal(signal);
        }
    }

    /// The process IDs of the child's own children.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let tasks = tasks.into_iter().flatten().flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| {
                text.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn signal(&self, signal: Signal) {
        // The child is not reaped yet (all callers looked), so its ID cannot belong to another process.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _sent = kill_process(pid, signal);
        }
    }

    /// The last 4 KiB of the log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- {}: end of {}\n{}",
                self.name,
                self.log.display(),
                self.log_tail()
            );
        }
    }
}

fn log_tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let start = bytes.len().saturating_sub(4096);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

/// Runs a program to its end and returns its output.
///
/// # Panics
/// Where it cannot be started or ends with an error; its output is shown.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
