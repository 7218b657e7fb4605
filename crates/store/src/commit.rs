//! Writing files so that they last, and why that failed.
//!
//! What changes the store goes through [`crate::workspace`]. Here are its parts, and what is written
//! without an intent: a lease and `store.json` are staged in `tmp/` itself and renamed.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use rustix::io::Errno;
use serde::Serialize;

use crate::path::StorePath;
use crate::{Layout, machine};

/// Why something could not be written to the store.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CommitError {
    /// The file system failed.
    #[error("cannot {action} {path}{}", hint(source))]
    Io {
        /// What was tried.
        action: &'static str,
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record could not be turned into JSON.
    #[error("cannot encode {path}")]
    Encode {
        /// The file it was for.
        path: PathBuf,
        source: serde_json::Error,
    },
    /// Another process took this one for dead and cleared its folder away.
    #[error(
        "{dir} was cleared away by another process, as happens after a standstill of ten minutes: run the command again"
    )]
    TakenForDead {
        /// The folder.
        dir: PathBuf,
    },
    /// What a dead process left could not be cleared away, so that process may still change things.
    #[error(
        "cannot clear away {dir}, which a process left that gave no sign of life ({who}): make sure that it has ended and remove the directory"
    )]
    NotCleared {
        /// The directory.
        dir: PathBuf,
        /// Who left it.
        who: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something stands there that the store never has.
    #[error("{path} is {what}, not a file of the store: move it away and run the command again")]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
}

/// What to do about the errors that people meet.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (the store is full: free space, or delete images and run `uimgacc store gc`)"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            " (the store must be writable here: check the mount options and the export)"
        }
        _ => "",
    }
}

/// Turns the system's error into ours.
pub(crate) fn failed(
    action: &'static str,
    path: &StorePath,
) -> impl FnOnce(io::Error) -> CommitError {
    let path = path.on_host();
    move |source| CommitError::Io {
        action,
        path,
        source,
    }
}

/// Makes the directory of `path` and syncs the directories above that changed.
pub(crate) fn make_parent(path: &StorePath) -> Result<(), CommitError> {
    path.parent()
        .map_or(Ok(()), |parent| make_directory(&parent))
}

/// Makes a directory and those above it; each new one is synced into its parent.
pub(crate) fn make_directory(folder: &StorePath) -> Result<(), CommitError> {
    // The root is there, or `create_root` makes it.
    let Some(parent) = folder.parent() else {
        return Ok(());
    };
    match folder.create_directory() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(&parent)?;
            match folder.create_directory() {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(failed("make the directory", folder))?,
            }
        }
        other => other.map_err(failed("make the directory", folder))?,
    }
    sync_directory(&parent)
}

/// Makes the names in a directory last.
pub(crate) fn sync_directory(folder: &StorePath) -> Result<(), CommitError> {
    folder
        .sync_directory()
        .map_err(failed("sync the directory", folder))
}

pub(crate) fn sync_parent(path: &StorePath) -> Result<(), CommitError> {
    path.parent()
        .map_or(Ok(()), |parent| sync_directory(&parent))
}

/// Gives the synced file `from` the name `to`, in place of what had it.
pub(crate) fn replace(from: &StorePath, to: &StorePath) -> Result<(), CommitError> {
    make_parent(to)?;
    let file = file_id(from);
    renamed(from.rename(to), file, to).map_err(failed("rename a file to", to))?;
    sync_parent(to)
}

/// Device and number of an inode.
pub(crate) type FileId = (u32, u32, u64);

pub(crate) fn file_id(path: &StorePath) -> Option<FileId> {
    Some(path.facts().ok()?.id)
}

pub(crate) fn is_already(file: Option<FileId>, to: &StorePath) -> bool {
    file.is_some() && file_id(to) == file
}

/// What a rename came to. An NFS client that gets no answer asks again, and a server that did it
/// the first time then says that there is no such file.
pub(crate) fn renamed(
    outcome: io::Result<()>,
    file: Option<FileId>,
    to: &StorePath,
) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_already(file, to) => Ok(()),
        other => other,
    }
}

/// A record as it stands in `path`.
pub(crate) fn encode<T: Serialize>(path: &StorePath, record: &T) -> Result<Vec<u8>, CommitError> {
    let mut text = serde_json::to_vec_pretty(record).map_err(|source| CommitError::Encode {
        path: path.on_host(),
        source,
    })?;
    text.push(b'\n');
    Ok(text)
}

/// Writes a record in place of the one before, by who has no intent: `store.json` and leases.
pub(crate) fn replace_json<T: Serialize>(
    layout: &Layout,
    path: &StorePath,
    record: &T,
) -> Result<(), CommitError> {
    let text = encode(path, record)?;
    let id = machine::random_id().map_err(failed("name a temporary file for", path))?;
    let temporary = layout.tmp().join(format!("record-{id}"));
    make_parent(&temporary)?;
    let written = write_synced(&temporary, &text).and_then(|_| replace(&temporary, path));
    if written.is_err() {
        // What is left in tmp/ is swept by gc; the first error is the one to report.
        let _ = temporary.remove_file();
    }
    written
}

/// Writes a new file and syncs it; gives it, open.
pub(crate) fn write_synced(path: &StorePath, bytes: &[u8]) -> Result<File, CommitError> {
    let mut file = path.create_new().map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))?;
    Ok(file)
}

/// Whether a file or a directory on the way to it is gone: on NFS the latter may be `ESTALE`.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::STALE.raw_os_error())
}

/// Removes a file; says whether it was there.
pub(crate) fn remove_file(path: &StorePath) -> Result<bool, CommitError> {
    match path.remove_file() {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        (folder, layout)
    }

    fn file(layout: &Layout, name: &str, text: &str) -> StorePath {
        let path = layout.directory(name);
        std::fs::write(path.on_host(), text).unwrap();
        path
    }

    #[test]
    fn a_rename_that_was_done_at_the_first_asking_is_done() {
        let (_folder, layout) = store();
        let from = file(&layout, "from", "x");
        let other = file(&layout, "other", "y");
        let to = layout.directory("to");
        let id = file_id(&from);
        from.rename(&to).unwrap();
        let again = || from.rename(&to);
        assert!(again().is_err());
        renamed(again(), id, &to).unwrap();
        renamed(again(), file_id(&other), &to).unwrap_err();
        renamed(again(), None, &to).unwrap_err();
    }
}
