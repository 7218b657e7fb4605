//! The record of what was installed: `node.json`, with backups in the folder `backup` beside it.
//!
//! It is written before each step that it speaks of, so that after a crash at any point the next
//! install or uninstall knows what may have happened.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uimgacc_types::Digest;

use crate::config::Changes;
use crate::error::NodeError;
use crate::files;
use crate::service::Manager;
use crate::settings::Settings;

/// The newest form that this program writes and reads.
pub const STATE_FORMAT: u32 = 1;

/// How long to wait for a command that is about to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Begun, not finished.
    Installing,
    /// Finished.
    Installed,
    /// Being taken away.
    Uninstalling,
}

/// The file `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// [`STATE_FORMAT`].
    pub format: u32,
    /// How far it is.
    pub phase: Phase,
    /// What keeps the daemon running; `None` before it was started.
    pub manager: Option<Manager>,
    /// Folders of the daemon: its data and its socket. They never move while it is installed.
    pub folders: Option<[PathBuf; 2]>,
    /// Files that were made, other than containerd's configuration.
    pub files: Vec<PathBuf>,
    /// The daemon's files are not those that it was started with; older programs did not write it.
    #[serde(default)]
    pub restart_due: bool,
    /// The edit of containerd's configuration.
    pub config: Option<ConfigRecord>,
    /// What the install was told, for an uninstall that is not; older programs did not write it.
    #[serde(default)]
    pub means: Option<InstallRecord>,
}

/// What an install was told of containerd and the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallRecord {
    /// The program that the daemon's service runs.
    pub program: PathBuf,
    /// containerd's binary.
    pub containerd: PathBuf,
    /// containerd's socket.
    pub containerd_socket: PathBuf,
    /// What restarts containerd, word by word.
    pub restart: Vec<String>,
    /// What prints the end of containerd's log.
    pub log: Vec<String>,
    /// Folder of the daemon's log where no systemd is.
    pub log_dir: PathBuf,
}

impl InstallRecord {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            program: settings.installed_binary(),
            containerd: settings.containerd.clone(),
            containerd_socket: settings.containerd_socket.clone(),
            restart: settings.restart.clone(),
            log: settings.log.clone(),
            log_dir: settings.log_dir.clone(),
        }
    }
}

/// The edit of containerd's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// The file.
    pub path: PathBuf,
    /// What it was before, its digest being its name below `backup`; `None` where it was not there.
    pub original: Option<Digest>,
    /// What was, or was about to be, written since then; the last one last.
    pub edited: Vec<Digest>,
    /// What was changed.
    pub changes: Changes,
    /// Whether containerd may not have read it yet.
    pub restart_pending: bool,
}

/// The folder of the record, locked: one command at a time works on a node.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    _lock: File,
}

impl StateFolder {
    /// Takes the lock, which is free again when the process ends in whatever way.
    pub(crate) fn lock(path: &Path) -> Result<Self, NodeError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(NodeError::file("make", folder))?;
        let lock = path.with_extension("lock");
        let file = File::create(&lock).map_err(NodeError::file("open", &lock))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() > deadline {
                return Err(NodeError::Locked(path.to_owned()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: file,
        })
    }

    pub(crate) fn load(&self) -> Result<Option<NodeState>, NodeError> {
        load(&self.path)
    }

    pub(crate) fn save(&self, state: &NodeState) -> Result<(), NodeError> {
        let mut text = serde_json::to_vec_pretty(state).map_err(|error| NodeError::State {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        text.push(b'\n');
        files::replace(&self.path, &text, 0o600)
    }

    /// Removes record and backups. The lock file stays: whoever waits for it holds it open.
    pub(crate) fn clear(&self) -> Result<(), NodeError> {
        files::remove(&self.path)?;
        let backups = self.backups();
        match std::fs::remove_dir_all(&backups) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(NodeError::file("remove", &backups)(error))
            }
            _ => Ok(()),
        }
    }

    fn backups(&self) -> PathBuf {
        self.path.with_file_name("backup")
    }

    /// Keeps a copy and returns its digest.
    pub(crate) fn keep(&self, bytes: &[u8]) -> Result<Digest, NodeError> {
        let digest = Digest::of(bytes);
        files::replace(&self.backups().join(digest.hex()), bytes, 0o600)?;
        Ok(digest)
    }

    /// A copy that was kept; `None` where it is missing or damaged.
    pub(crate) fn kept(&self, digest: Digest) -> Option<Vec<u8>> {
        let bytes = files::read(&self.backups().join(digest.hex())).ok()??;
        (Digest::of(&bytes) == digest).then_some(bytes)
    }
}

/// Reads a record; `None` where there is none.
pub(crate) fn load(path: &Path) -> Result<Option<NodeState>, NodeError> {
    let Some(bytes) = files::read(path)? else {
        return Ok(None);
    };
    let damaged = |reason: String| NodeError::State {
        path: path.to_owned(),
        reason,
    };
    let state: NodeState =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if state.format > STATE_FORMAT {
        return Err(damaged(format!(
            "format {}, this program understands up to {STATE_FORMAT}",
            state.format
        )));
    }
    Ok(Some(state))
}
