//! How far the kernel reads ahead on a mount.
//!
//! The setting lives in the backing device info (`/sys/class/bdi`) and acts on files that are opened
//! afterwards. That of a mount on a block device has the device's number for a name. That of a mount
//! on files is called `erofs-N`, N counting such mounts since boot and never used again, and nothing
//! tells which mount it belongs to: so mounts of this process are made one at a time, the one that
//! appeared meanwhile is ours, and where two appeared (another process mounted too) it is not known.
//!
//! Best effort: reading works without.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

const FOLDER: &str = "/sys/class/bdi";

/// How long another mount is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Held while a mount is made.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where the read-ahead of a mount is set: a name in `/sys/class/bdi`. Good until the next boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReadAhead(String);

impl ReadAhead {
    /// Sets it, in KiB, for files that are opened from now on.
    ///
    /// # Errors
    /// The system's error; not found where the mount is gone.
    pub fn set(&self, kb: u32) -> io::Result<()> {
        if !self.is_sound() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fs::write(self.path(), kb.to_string())
    }

    /// The setting in KiB.
    ///
    /// # Errors
    /// The system's error; not found where the mount is gone.
    pub fn get(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.path())?;
        text.trim().parse().map_err(io::Error::other)
    }

    fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.0).join("read_ahead_kb")
    }

    /// Whether it can only be one entry of the folder: names are kept in files.
    fn is_sound(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b':');
        !self.0.is_empty() && self.0.bytes().all(is_plain)
    }
}

/// A mount about to be made.
pub(crate) struct Mounting {
    before: BTreeSet<String>,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Remembers what is there before a mount. Another one that is under way is waited for, but not for
/// one that hangs in a dead store.
pub(crate) fn before_mount() -> Mounting {
    let turn = ONE_AT_A_TIME.try_lock_for(PATIENCE);
    Mounting {
        before: of_files(),
        _turn: turn,
    }
}

impl Mounting {
    /// Finds that of what is now mounted at `target`.
    pub(crate) fn found(self, target: &Path) -> Option<ReadAhead> {
        of_device(target)
            .or_else(|| only_new(&self.before))
            .map(ReadAhead)
    }
}

fn of_device(target: &Path) -> Option<String> {
    let device = fs::metadata(target).ok()?.dev();
    let name = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    Path::new(FOLDER).join(&name).exists().then_some(name)
}

fn only_new(before: &BTreeSet<String>) -> Option<String> {
    let after = of_files();
    let mut new = after.difference(before);
    let first = new.next()?;
    new.next().is_none().then(|| first.clone())
}

fn of_files() -> BTreeSet<String> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("erofs-"))
        .collect()
}
