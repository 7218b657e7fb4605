//! Why a node could not be changed.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::version::VersionError;

/// Why a node could not be changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum NodeError {
    /// The file system failed.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another install or uninstall runs.
    #[error("another `uimgacc node` command works on {0}: wait for it")]
    Locked(PathBuf),
    /// The record of what was installed cannot be used.
    #[error(
        "{path} is damaged ({reason}): move it away, and compare containerd's configuration with the backup beside it"
    )]
    State {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else is installed than what is asked for.
    #[error(
        "{state} says that {installed} was edited: run `uimgacc node uninstall` with that file first"
    )]
    OtherConfig {
        /// The record.
        state: PathBuf,
        /// The file that was edited.
        installed: PathBuf,
    },
    /// The daemon's folders cannot move while it is installed.
    #[error(
        "the snapshotter works in {root} and {run_dir}: run `uimgacc node uninstall` before it can move"
    )]
    Moved {
        /// Its data.
        root: PathBuf,
        /// Its socket's folder.
        run_dir: PathBuf,
    },
    /// A program could not be started.
    #[error("cannot run {command}")]
    Run {
        /// Its words.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("{command} failed: {message}")]
    Failed {
        /// Its words.
        command: String,
        /// What it said.
        message: String,
    },
    /// containerd's version is not known or not supported.
    #[error("containerd cannot be used")]
    Version(#[from] VersionError),
    /// The configuration cannot be edited.
    #[error("cannot edit {path}")]
    Config { path: PathBuf, source: ConfigError },
    /// The configuration is made anew at each start.
    #[error(
        "{path} is made by {distribution} at each start: copy it to {template}, run this again with --config {template} \
         and --restart for {distribution}'s own unit"
    )]
    Generated {
        path: PathBuf,
        /// By what.
        distribution: &'static str,
        /// What to write instead.
        template: PathBuf,
    },
    /// containerd does not accept the edited configuration. Nothing was changed.
    #[error("containerd refuses the edited configuration, so {path} stays as it is: {message}")]
    Refused {
        path: PathBuf,
        /// containerd's words.
        message: String,
    },
    /// The edit has no effect. Nothing was changed.
    #[error("{path} stays as it is, because containerd would not follow it in {}{}", keys.join(", "), by(drop_ins))]
    Overridden {
        path: PathBuf,
        /// Keys that have another value in the end.
        keys: Vec<String>,
        /// Drop-ins that set them.
        drop_ins: Vec<PathBuf>,
    },
    /// The daemon does not answer. containerd was not touched.
    #[error(
        "the snapshotter does not answer at {address} ({reason}); containerd was not touched{}",
        log_text(log)
    )]
    Silent {
        /// Its socket.
        address: PathBuf,
        /// What came instead of an answer.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// containerd did not come back, and has its former configuration again.
    #[error(
        "{reason}; the former configuration is back and containerd answers{}",
        log_text(log)
    )]
    RolledBack {
        /// What was wrong.
        reason: String,
        /// The end of containerd's log at that time.
        log: String,
    },
    /// containerd did not come back, not with its former configuration either.
    #[error(
        "{reason}; the former configuration is back, but: {then}{}",
        log_text(log)
    )]
    Down {
        /// What was wrong at first.
        reason: String,
        /// What is wrong now.
        then: String,
        /// The end of containerd's log.
        log: String,
    },
    /// The daemon's process could not be ended.
    #[error("process {pid} of the supervisor does not end")]
    Stuck {
        /// Which.
        pid: i32,
    },
    /// Mounts below the daemon's folder are in use.
    #[error("{path} is in use: end the containers that use it first")]
    Busy {
        /// The mount.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn by(drop_ins: &[PathBuf]) -> String {
    if drop_ins.is_empty() {
        return String::new();
    }
    let names: Vec<String> = drop_ins
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!(" (set in {}: take them out there)", names.join(", "))
}

fn log_text(log: &str) -> String {
    if log.trim().is_empty() {
        String::new()
    } else {
        format!("; log:\n{}", log.trim_end())
    }
}

impl NodeError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
