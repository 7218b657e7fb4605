//! A small supervisor, for hosts without systemd: it holds the socket while the daemon comes and goes.
//!
//! The listening socket is this process' own and handed down by systemd's protocol
//! (`sd_listen_fds(3)`), so a call of containerd that comes while no daemon runs waits for the next
//! one and never fails.
//!
//! Guarantees: a daemon that ends is started again, at once and then with growing pauses while
//! it does not stay up. `SIGTERM` and `SIGINT` end both, `SIGHUP` is handed on, `SIGUSR1` replaces
//! the daemon in an orderly way (its program may be a newer one by then). A daemon ends with its
//! supervisor, whatever ends that; where asked for, it leaves another supervisor behind if its own
//! was killed: on a node nobody else might be able to start one, for the installer's Pod needs the
//! snapshotter itself.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use uimgacc_types::backoff;

use crate::server;

/// Tells the daemon its supervisor's process ID: it is to end with that.
const SUPERVISOR: &str = "UIMGACC_SUPERVISOR";
/// The supervisor's socket, where the daemon is to leave another supervisor behind.
const SUCCEEDED: &str = "UIMGACC_SUCCEEDED";
/// Where systemd's protocol has the first socket.
const FIRST_FD: i32 = 3;
/// A daemon that ran so long did not fail at its start.
const STAYED_UP: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a daemon may take to end before it is killed: longer than it drains.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why supervising ended.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// No socket.
    #[error("cannot listen on {address}")]
    Listen {
        /// The socket's path.
        address: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The daemon's program cannot be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system failed.
    #[error("cannot watch signals and processes")]
    System(#[from] io::Error),
}

/// The pause before the next start, after so many failures in a row: none, then 0.1 s doubled each
/// time up to [`LONGEST_PAUSE`].
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        _ => backoff(Duration::from_millis(100), failures - 1, LONGEST_PAUSE),
    }
}

/// A daemon's ties to the supervisor that started it.
#[derive(Debug)]
pub struct Supervised {
    supervisor: Option<Pid>,
    // The supervisor's socket, where it is to be succeeded.
    succeeded: Option<OsString>,
}

impl Supervised {
    /// None where no supervisor started this process.
    #[must_use]
    pub fn by_environment() -> Option<Self> {
        let supervisor = std::env::var(SUPERVISOR).ok()?;
        Some(Self {
            supervisor: supervisor.parse().ok().and_then(Pid::from_raw),
            succeeded: std::env::var_os(SUCCEEDED),
        })
    }

    /// Ends this process by `SIGTERM` when its supervisor ends, also where that was before: so that
    /// requests under way are answered. It must be able to take that signal by now.
    ///
    /// # Errors
    /// The system's error.
    pub fn end_together(&self) -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        if self.is_orphaned() {
            kill_process(rustix::process::getpid(), Signal::TERM)?;
        }
        Ok(())
    }

    fn is_orphaned(&self) -> bool {
        rustix::process::getppid() != self.supervisor
    }

    /// At the end of the daemon: starts another supervisor where its own was killed and that was
    /// asked for.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn succeed(self) -> io::Result<()> {
        // One that ends the daemon in an orderly way waits for it.
        if !self.is_orphaned() {
            return Ok(());
        }
        let mut words = std::env::args_os();
        let (Some(address), Some(program)) = (self.succeeded, words.next()) else {
            return Ok(());
        };
        let child = std::process::Command::new(program)
            .args(["supervise", "--address"])
            .arg(address)
            .args(["--succeeded", "--"])
            .args(words)
            .env_remove("LISTEN_FDS")
            .env_remove(SUPERVISOR)
            .env_remove(SUCCEEDED)
            .spawn()?;
        tracing::warn!(
            pid = child.id(),
            "the supervisor was killed; another is started"
        );
        Ok(())
    }
}

/// Holds the socket `address` and keeps `program` with `arguments` running on it, until told to
/// stop. If it `is_succeeded`, the daemon starts another supervisor where this one is killed.
///
/// # Errors
/// See [`SuperviseError`]. A daemon that fails is none: it is started again.
pub async fn supervise(
    address: &Path,
    program: &Path,
    arguments: &[OsString],
    is_succeeded: bool,
) -> Result<(), SuperviseError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut replace = signal(SignalKind::user_defined1())?;
    let listener = server::bind(address).map_err(|source| SuperviseError::Listen {
        address: address.to_owned(),
        source,
    })?;
    let mut failures = 0u32;
    'starts: loop {
        let started = Instant::now();
        let succeeded = is_succeeded.then_some(address);
        let mut child = match spawn(program, arguments, &listener, succeeded) {
            Ok(child) => Some(child),
            // A program that was never there is a mistake; one that is being replaced comes back.
            Err(source) if failures == 0 => {
                let program = program.to_owned();
                return Err(SuperviseError::Spawn { program, source });
            }
            Err(error) => {
                tracing::error!(program = %program.display(), %error, "cannot start the daemon");
                None
            }
        };
        while let Some(running) = &mut child {
            tokio::select! {
                status = running.wait() => {
                    let status = status?;
                    failures = if started.elapsed() < STAYED_UP { failures + 1 } else { 1 };
                    tracing::warn!(%status, failures, "the daemon ended; it is started again");
                    child = None;
                }
                _ = hangup.recv() => send(running, Signal::HUP),
                _ = replace.recv() => {
                    let status = end(running).await?;
                    tracing::info!(%status, "the daemon is replaced");
                    failures = 0;
                    continue 'starts;
                }
                _ = terminate.recv() => return stop(running, address).await,
                _ = interrupt.recv() => return stop(running, address).await,
            }
        }
        failures = failures.max(1);
        tokio::select! {
            () = tokio::time::sleep(pause(failures)) => {}
            _ = terminate.recv() => return unlink(address),
            _ = interrupt.recv() => return unlink(address),
        }
    }
}

fn spawn(
    program: &Path,
    arguments: &[OsString],
    listener: &UnixListener,
    succeeded: Option<&Path>,
) -> io::Result<Child> {
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .env("LISTEN_FDS", "1")
        // Whose process ID cannot be known before it runs; without it any process may take them.
        .env_remove("LISTEN_PID")
        .env(SUPERVISOR, std::process::id().to_string())
        .env_remove(SUCCEEDED)
        .envs(succeeded.map(|address| (SUCCEEDED, address)))
        .fd_mappings(vec![FdMapping {
            parent_fd: OwnedFd::from(listener.try_clone()?),
            child_fd: FIRST_FD,
        }])
        .map_err(io::Error::other)?;
    let child = Command::from(command).spawn()?;
    tracing::info!(pid = child.id(), "the daemon is started");
    Ok(child)
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    // None where it has ended: then there is nobody to tell.
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    send(child, Signal::TERM);
    if let Ok(status) = tokio::time::timeout(PATIENCE, child.wait()).await {
        return status;
    }
    tracing::warn!("the daemon does not end; it is killed");
    send(child, Signal::KILL);
    child.wait().await
}

async fn stop(child: &mut Child, address: &Path) -> Result<(), SuperviseError> {
    let status = end(child).await?;
    tracing::info!(%status, "the daemon has stopped, and so does its supervisor");
    unlink(address)
}

fn unlink(address: &Path) -> Result<(), SuperviseError> {
    // Ours: we made it, and nobody takes a socket that is answered.
    let _ = std::fs::remove_file(address);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_growing() {
        let pauses: Vec<u128> = (0..9).map(|n| pause(n).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
