//! What `mount` leaves behind for `umount`: a folder for each mount on the machine's own disk.
//!
//! It holds the copy of the index, the lower mount and, for a writable mount, the changes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use uimgacc_types::Digest;

/// Where the state of mounts is.
#[derive(Debug, Args)]
pub(crate) struct StateArgument {
    /// Folder on a local disk for indexes and changes of mounts.
    #[arg(
        long = "state",
        value_name = "DIR",
        env = "UIMGACC_STATE",
        default_value = "/var/lib/uimgacc/mounts"
    )]
    state_root: PathBuf,
}

/// One mount.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    /// Where the image is visible.
    pub(crate) target: PathBuf,
    /// The image.
    pub(crate) image: String,
    /// The store, to give the lease back.
    pub(crate) store: PathBuf,
    /// Name of the lease.
    pub(crate) lease: String,
    /// Whether changes are allowed.
    pub(crate) is_writable: bool,
}

/// The folder of one mount.
#[derive(Debug)]
pub(crate) struct MountFolder {
    root: PathBuf,
    pub(crate) name: String,
}

impl StateArgument {
    /// The folder for a mount at `target`, an absolute path.
    pub(crate) fn folder(&self, target: &Path) -> MountFolder {
        let hash = Digest::of(target.as_os_str().as_encoded_bytes()).hex();
        let name: String = hash.chars().take(16).collect();
        MountFolder {
            root: self.state_root.join(&name),
            name,
        }
    }
}

impl MountFolder {
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn lower(&self) -> PathBuf {
        self.root.join("lower")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.root.join("changes")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    fn record(&self) -> PathBuf {
        self.root.join("mount.json")
    }

    pub(crate) fn make(&self) -> anyhow::Result<()> {
        for folder in [self.lower(), self.upper(), self.work()] {
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }

    pub(crate) fn save(&self, record: &MountRecord) -> anyhow::Result<()> {
        let path = self.record();
        std::fs::write(&path, serde_json::to_vec_pretty(record)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn load(&self) -> anyhow::Result<Option<MountRecord>> {
        let path = self.record();
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => {
                let text = other.with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_slice(&text)
                    .map(Some)
                    .with_context(|| format!("{} is damaged", path.display()))
            }
        }
    }

    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        match std::fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.root.display()))
            }
            _ => Ok(()),
        }
    }
}
