//! Files that change as a whole or not at all: written under another name, synced, renamed, and the
//! folder synced.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::NodeError;

/// The content of a file; `None` where it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, NodeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(NodeError::file("read", path)(error)),
    }
}

/// The file that a name stands for in the end, so that a symbolic link stays one.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Under what name a new content waits. No pattern for configuration files matches it.
pub(crate) fn waiting(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.uimgacc-new"))
}

/// Writes and syncs the new content of `path` beside it. A file that is there gives it its owner
/// and mode, else the mode is `mode`.
pub(crate) fn prepare(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, NodeError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(NodeError::file("make", folder))?;
    }
    let new = waiting(path);
    let write = || {
        let mut file = File::create(&new)?;
        match fs::metadata(path) {
            Ok(old) => {
                std::os::unix::fs::chown(&new, Some(old.uid()), Some(old.gid()))?;
                file.set_permissions(old.permissions())?;
            }
            Err(_) => file.set_permissions(Permissions::from_mode(mode))?,
        }
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(NodeError::file("write", &new))?;
    Ok(new)
}

/// Gives a prepared file its name.
pub(crate) fn commit(new: &Path, path: &Path) -> Result<(), NodeError> {
    fs::rename(new, path).map_err(NodeError::file("replace", path))?;
    sync_folder(path)
}

/// Whether a file has another content than that, or is not there.
pub(crate) fn differs(path: &Path, bytes: &[u8]) -> Result<bool, NodeError> {
    Ok(read(path)?.is_none_or(|old| old != bytes))
}

/// Replaces a file where its content differs.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), NodeError> {
    if differs(path, bytes)? {
        commit(&prepare(path, bytes, mode)?, path)?;
    }
    Ok(())
}

/// Removes a file, where it is there.
pub(crate) fn remove(path: &Path) -> Result<(), NodeError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(NodeError::file("remove", path)(error)),
    }
}

fn sync_folder(path: &Path) -> Result<(), NodeError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(NodeError::file("sync", folder))
}
