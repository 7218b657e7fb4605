//! How far the kernel reads ahead on a mount.
//!
//! The setting lives in the backing device info (`/sys/class/bdi`). That of a mount on a block
//! device has the device's number for a name. That of a mount on files is called `erofs-N`, N
//! counting the mounts since boot, and nothing tells which mount it belongs to: so the one that
//! appeared while we mounted is ours, and where two appeared neither is touched.
//!
//! Best effort: reading works without.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const FOLDER: &str = "/sys/class/bdi";

/// A mount about to be made.
pub(crate) struct Mounting {
    wanted: Option<Wanted>,
}

struct Wanted {
    kb: u32,
    before: BTreeSet<String>,
}

/// Remembers what is there before a mount.
pub(crate) fn before_mount(kb: Option<u32>) -> Mounting {
    let wanted = kb.map(|kb| Wanted {
        kb,
        before: of_files(),
    });
    Mounting { wanted }
}

impl Mounting {
    /// Sets the read-ahead of what is now mounted at `target`.
    pub(crate) fn set(self, target: &Path) {
        let Some(Wanted { kb, before }) = self.wanted else {
            return;
        };
        let Some(name) = of_device(target).or_else(|| only_new(&before)) else {
            tracing::debug!(target = %target.display(), "read-ahead not set: device not found");
            return;
        };
        let path = Path::new(FOLDER).join(name).join("read_ahead_kb");
        if let Err(error) = fs::write(&path, kb.to_string()) {
            tracing::debug!(path = %path.display(), %error, "read-ahead not set");
        }
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
