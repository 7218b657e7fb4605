//! The one way in which files come into the store, and go.
//!
//! A file is written in `tmp/`, synced, renamed to its name, and its folder is synced. Whoever
//! looks sees the whole file or none. Names of content (layers, indexes, packs) never change
//! hands: the first to come stays, see [`publish`].

use std::io::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;

use crate::path::StorePath;
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

/// Whether a name was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The file has the name now.
    New,
    /// The name was taken; the file that was there stays, the new one is gone.
    AlreadyThere,
}

/// Makes the directory of `path` and syncs the directories above that changed.
pub(crate) fn make_parent(path: &StorePath) -> Result<(), CommitError> {
    path.parent().map_or(Ok(()), |parent| make_folder(&parent))
}

/// Makes a directory and those above it; each new one is synced into its parent.
pub(crate) fn make_folder(folder: &StorePath) -> Result<(), CommitError> {
    // The root is there, or `create_root` makes it.
    let Some(parent) = folder.parent() else {
        return Ok(());
    };
    match folder.create_directory() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(&parent)?;
            match folder.create_directory() {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(failed("make the directory", folder))?,
            }
        }
        other => other.map_err(failed("make the directory", folder))?,
    }
    sync_folder(&parent)
}

/// Makes the names in a directory last.
pub(crate) fn sync_folder(folder: &StorePath) -> Result<(), CommitError> {
    folder
        .sync_directory()
        .map_err(failed("sync the directory", folder))
}

fn sync_parent(path: &StorePath) -> Result<(), CommitError> {
    path.parent().map_or(Ok(()), |parent| sync_folder(&parent))
}

/// Gives the synced file `from` the name `to`, unless that is taken.
///
/// Uses a hard link, which fails where the name is taken, on NFS too; file systems without hard
/// links get a check and a rename.
pub(crate) fn publish(from: &StorePath, to: &StorePath) -> Result<Published, CommitError> {
    make_parent(to)?;
    let file = file_id(from);
    let outcome = match from.hard_link(to) {
        Ok(()) => Published::New,
        Err(_) if is_already(file, to) => Published::New,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Published::AlreadyThere,
        Err(_) if to.exists().unwrap_or(false) => Published::AlreadyThere,
        Err(_) => {
            replace(from, to)?;
            return Ok(Published::New);
        }
    };
    // Of the other's name it is not known either whether it lasts.
    sync_parent(to)?;
    remove_file(from)?;
    Ok(outcome)
}

/// Gives the synced file `from` the name `to`, in place of what had it.
pub(crate) fn replace(from: &StorePath, to: &StorePath) -> Result<(), CommitError> {
    make_parent(to)?;
    let file = file_id(from);
    renamed(from.rename(to), file, to).map_err(failed("rename a file to", to))?;
    sync_parent(to)
}

/// Device and number of an inode.
type FileId = (u32, u32, u64);

fn file_id(path: &StorePath) -> Option<FileId> {
    Some(path.facts().ok()?.id)
}

fn is_already(file: Option<FileId>, to: &StorePath) -> bool {
    file.is_some() && file_id(to) == file
}

/// What a rename came to. An NFS client that gets no answer asks again, and a server that did it
/// the first time then says that there is no such file.
fn renamed(outcome: io::Result<()>, file: Option<FileId>, to: &StorePath) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_already(file, to) => Ok(()),
        other => other,
    }
}

/// Writes a record in place of the one before.
pub(crate) fn replace_json<T: Serialize>(
    layout: &Layout,
    path: &StorePath,
    record: &T,
) -> Result<(), CommitError> {
    write_json(layout, path, record, replace)
}

/// Writes a record unless there is one.
pub(crate) fn publish_json<T: Serialize>(
    layout: &Layout,
    path: &StorePath,
    record: &T,
) -> Result<Published, CommitError> {
    write_json(layout, path, record, publish)
}

fn write_json<T: Serialize, R>(
    layout: &Layout,
    path: &StorePath,
    record: &T,
    name: impl FnOnce(&StorePath, &StorePath) -> Result<R, CommitError>,
) -> Result<R, CommitError> {
    let mut text = serde_json::to_vec_pretty(record).map_err(|source| CommitError::Encode {
        path: path.on_host(),
        source,
    })?;
    text.push(b'\n');
    let id = machine::random_id().map_err(failed("name a temporary file for", path))?;
    let temporary = layout.tmp().join(format!("record-{id}"));
    make_parent(&temporary)?;
    let written = write_synced(&temporary, &text).and_then(|()| name(&temporary, path));
    if written.is_err() {
        // What is left in tmp/ is swept by gc; the first error is the one to tell.
        let _ = temporary.remove_file();
    }
    written
}

pub(crate) fn write_synced(path: &StorePath, bytes: &[u8]) -> Result<(), CommitError> {
    let mut file = path.create_new().map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// Removes a file; says whether it was there.
pub(crate) fn remove_file(path: &StorePath) -> Result<bool, CommitError> {
    match path.remove_file() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
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
    fn a_taken_name_stays() {
        let (_folder, layout) = store();
        let first = file(&layout, "first", "first");
        let second = file(&layout, "second", "second");
        let to = layout.directory("a/b/name");
        assert_eq!(publish(&first, &to).unwrap(), Published::New);
        assert_eq!(publish(&second, &to).unwrap(), Published::AlreadyThere);
        assert!(!first.exists().unwrap() && !second.exists().unwrap());
        assert_eq!(to.read(9).unwrap(), b"first");
    }

    #[test]
    fn a_link_that_was_made_at_the_first_asking_is_ours() {
        let (_folder, layout) = store();
        let from = file(&layout, "from", "x");
        let to = layout.directory("to");
        from.hard_link(&to).unwrap();
        assert_eq!(publish(&from, &to).unwrap(), Published::New);
        assert!(!from.exists().unwrap() && to.exists().unwrap());
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
