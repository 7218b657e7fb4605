//! `uimgacc-snapshotter supervise` as a process of its own session, for hosts without systemd.
//!
//! It is known by process ID and start time, kept in a file, so that a process that got the ID
//! later is never taken for it; where a crash came before the file, by its arguments.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::error::NodeError;
use crate::files;
use crate::settings::{DAEMON, Settings};

/// How long it may take to end the daemon's requests, the daemon and itself.
const STOP: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct Running {
    pid: i32,
    /// Clock ticks after boot.
    start_time: u64,
}

fn pid_file(settings: &Settings) -> PathBuf {
    settings.run_dir.join("supervisor.json")
}

fn log_file(settings: &Settings) -> PathBuf {
    settings.log_dir.join(format!("{DAEMON}.log"))
}

pub(super) fn start(settings: &Settings, is_changed: bool) -> Result<(), NodeError> {
    if running(settings)?.is_some() {
        if !is_changed {
            return Ok(());
        }
        stop(settings)?;
    }
    fs::create_dir_all(&settings.run_dir).map_err(NodeError::file("make", &settings.run_dir))?;
    fs::create_dir_all(&settings.log_dir).map_err(NodeError::file("make", &settings.log_dir))?;
    let log = log_file(settings);
    let open = || {
        let file = File::options().create(true).append(true).open(&log)?;
        Ok((file.try_clone()?, file))
    };
    let (out, err) = open().map_err(NodeError::file("open", &log))?;
    // setsid(1) replaces itself, so the ID stays.
    let mut command = Command::new("setsid");
    command
        .arg(settings.installed_binary())
        .arg("supervise")
        .arg("--address")
        .arg(settings.address())
        .arg("--succeeded")
        .arg("--")
        .args(settings.supervised_arguments())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let child = command.spawn().map_err(|source| NodeError::Run {
        command: format!("setsid {DAEMON} supervise"),
        source,
    })?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let record = Running {
        pid,
        start_time: start_time(pid).unwrap_or_default(),
    };
    let text = serde_json::to_vec(&record).unwrap_or_default();
    files::replace(&pid_file(settings), &text, 0o600)
}

pub(super) fn stop(settings: &Settings) -> Result<(), NodeError> {
    let Some(Running {
        pid,
        start_time: born,
    }) = running(settings)?
    else {
        return files::remove(&pid_file(settings));
    };
    let deadline = Instant::now() + STOP;
    signal(pid, Signal::TERM);
    while start_time(pid) == Some(born) {
        if Instant::now() > deadline + Duration::from_secs(5) {
            return Err(NodeError::Stuck { pid });
        }
        if Instant::now() > deadline {
            signal(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    files::remove(&pid_file(settings))
}

pub(super) fn log(settings: &Settings) -> String {
    let text = fs::read(log_file(settings)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// The supervisor that was started last, where it still runs.
fn running(settings: &Settings) -> Result<Option<Running>, NodeError> {
    let text = files::read(&pid_file(settings))?;
    let record = text.and_then(|text| serde_json::from_slice::<Running>(&text).ok());
    let known = record.filter(|record| start_time(record.pid) == Some(record.start_time));
    Ok(known.or_else(|| search(&settings.address().display().to_string())))
}

/// A supervisor of this socket among all processes.
fn search(address: &str) -> Option<Running> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find_map(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let wanted: [&[u8]; 3] = [b"supervise", b"--address", address.as_bytes()];
        let is_ours = words.windows(3).any(|three| three == wanted);
        let start_time = start_time(pid).filter(|_| is_ours)?;
        Some(Running { pid, start_time })
    })
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself, which is what we want.
        let _ = kill_process(pid, signal);
    }
}

/// When a process was started; `None` where there is none, or only its exit status is left.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): after the name in brackets come state (3) and, as 22nd, the start time.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let time = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_of_a_process_is_the_same_each_time_and_gone_with_it() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let time = start_time(pid);
        assert!(time.is_some());
        assert_eq!(start_time(pid), time);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }
}
