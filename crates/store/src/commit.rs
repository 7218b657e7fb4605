//! The one way in which files come into the store, and go.
//!
//! A file is written in `tmp/`, synced, renamed to its name, and its folder is synced. Whoever
//! looks sees the whole file or none. Names of content (layers, indexes, packs) never change
//! hands: the first to come stays, see [`publish`].

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Layout, machine};

/// Why something could not be written to the store.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The file system failed.
    #[error("cannot {action} {path}{}", hint(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record could not be turned into JSON.
    #[error("cannot encode {path}")]
    Encode {
        /// The file it was for.
        path: PathBuf,
        /// Why.
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
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CommitError {
    let path = path.to_owned();
    move |source| CommitError::Io {
        action,
        path,
        source,
    }
}

/// Whether a name was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The file has the name now.
    New,
    /// The name was taken; the file that was there stays, the new one is gone.
    AlreadyThere,
}

/// Makes the folder of `path` and syncs the folders above that changed.
pub(crate) fn make_parent(path: &Path) -> Result<(), CommitError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    make_folder(parent)
}

/// Makes a folder and those above it; each new one is synced into its parent.
pub(crate) fn make_folder(folder: &Path) -> Result<(), CommitError> {
    match std::fs::create_dir(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = folder.parent().filter(|parent| *parent != folder) else {
                return Err(failed("make the folder", folder)(error));
            };
            make_folder(parent)?;
            match std::fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(failed("make the folder", folder)(error))
                }
                _ => sync_folder(parent),
            }
        }
        Err(error) => Err(failed("make the folder", folder)(error)),
    }
}

/// Makes the names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), CommitError> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(failed("sync the folder", folder))
}

/// Gives the synced file `from` the name `to`, unless that is taken.
///
/// Uses a hard link, which fails where the name is taken, on NFS too; file systems without hard
/// links get a check and a rename.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<Published, CommitError> {
    make_parent(to)?;
    let file = file_id(from);
    let outcome = match std::fs::hard_link(from, to) {
        Ok(()) => Published::New,
        Err(_) if is_already(file, to) => Published::New,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Published::AlreadyThere,
        Err(_) if to.exists() => Published::AlreadyThere,
        Err(_) => {
            replace(from, to)?;
            return Ok(Published::New);
        }
    };
    // Of the other's name it is not known either whether it lasts.
    to.parent().map_or(Ok(()), sync_folder)?;
    remove_file(from)?;
    Ok(outcome)
}

/// Gives the synced file `from` the name `to`, in place of what had it.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<(), CommitError> {
    make_parent(to)?;
    let file = file_id(from);
    renamed(std::fs::rename(from, to), file, to).map_err(failed("rename a file to", to))?;
    to.parent().map_or(Ok(()), sync_folder)
}

/// Device and number of an inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn is_already(file: Option<FileId>, to: &Path) -> bool {
    file.is_some() && file_id(to) == file
}

/// What a rename came to. An NFS client that gets no answer asks again, and a server that did it
/// the first time then says that there is no such file.
fn renamed(outcome: io::Result<()>, file: Option<FileId>, to: &Path) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_already(file, to) => Ok(()),
        other => other,
    }
}

/// Writes a record in place of the one before.
pub(crate) fn replace_json<T: Serialize>(
    layout: &Layout,
    path: &Path,
    record: &T,
) -> Result<(), CommitError> {
    write_json(layout, path, record, replace)
}

/// Writes a record unless there is one.
pub(crate) fn publish_json<T: Serialize>(
    layout: &Layout,
    path: &Path,
    record: &T,
) -> Result<Published, CommitError> {
    write_json(layout, path, record, publish)
}

fn write_json<T: Serialize, R>(
    layout: &Layout,
    path: &Path,
    record: &T,
    name: impl FnOnce(&Path, &Path) -> Result<R, CommitError>,
) -> Result<R, CommitError> {
    let mut text = serde_json::to_vec_pretty(record).map_err(|source| CommitError::Encode {
        path: path.to_owned(),
        source,
    })?;
    text.push(b'\n');
    let id = machine::random_id().map_err(failed("name a temporary file for", path))?;
    let temporary = layout.tmp().join(format!("record-{id}"));
    make_parent(&temporary)?;
    let written = write_synced(&temporary, &text).and_then(|()| name(&temporary, path));
    if written.is_err() {
        // What is left in tmp/ is swept by gc; the first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CommitError> {
    let mut file = File::create_new(path).map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// Removes a file; says whether it was there.
pub(crate) fn remove_file(path: &Path) -> Result<bool, CommitError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_taken_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let first = file(folder.path(), "first", "first");
        let second = file(folder.path(), "second", "second");
        let to = folder.path().join("a/b/name");
        assert_eq!(publish(&first, &to).unwrap(), Published::New);
        assert_eq!(publish(&second, &to).unwrap(), Published::AlreadyThere);
        assert!(!first.exists() && !second.exists());
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "first");
    }

    #[test]
    fn a_link_that_was_made_at_the_first_asking_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let from = file(folder.path(), "from", "x");
        let to = folder.path().join("to");
        std::fs::hard_link(&from, &to).unwrap();
        assert_eq!(publish(&from, &to).unwrap(), Published::New);
        assert!(!from.exists() && to.exists());
    }

    #[test]
    fn a_rename_that_was_done_at_the_first_asking_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let from = file(folder.path(), "from", "x");
        let other = file(folder.path(), "other", "y");
        let to = folder.path().join("to");
        let id = file_id(&from);
        std::fs::rename(&from, &to).unwrap();
        let again = || std::fs::rename(&from, &to);
        assert!(again().is_err());
        renamed(again(), id, &to).unwrap();
        renamed(again(), file_id(&other), &to).unwrap_err();
        renamed(again(), None, &to).unwrap_err();
    }
}
