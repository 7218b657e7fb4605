//! The folders of snapshots on the node's disk: `snapshots/<id>/{fs,work}`.
//!
//! Guarantees: a folder without a row in the database is garbage; it is renamed to `gone-<n>`
//! while nobody can be using its id, and only then deleted. So a slow deletion can never hit a
//! folder that took the same id again.
//!
//! Assumptions: the caller holds its write lock over [`Disk::create`], [`Disk::set_aside`] and
//! [`Disk::set_aside_unknown`].

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// Names what is to be deleted.
const GONE: &str = "gone-";

/// Owner and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The folders below `root`.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    snapshots: PathBuf,
    gone: AtomicU64,
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

impl Disk {
    /// Makes the folders that are missing.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let snapshots = root.join("snapshots");
        builder
            .create(&snapshots)
            .map_err(Error::io("make", &snapshots))?;
        Ok(Self {
            root: root.to_owned(),
            snapshots,
            gone: AtomicU64::new(0),
        })
    }

    /// The snapshotter's own folder.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, id: u64) -> PathBuf {
        self.snapshots.join(id.to_string())
    }

    /// What the snapshot changes: overlayfs' upper folder.
    #[must_use]
    pub(crate) fn upper(&self, id: u64) -> PathBuf {
        self.folder(id).join("fs")
    }

    /// overlayfs' work folder.
    #[must_use]
    pub(crate) fn work(&self, id: u64) -> PathBuf {
        self.folder(id).join("work")
    }

    /// Makes the folder of a snapshot; `owner` becomes the owner of its root.
    ///
    /// # Errors
    /// The file system's error; then nothing of it is there.
    pub(crate) fn create(
        &self,
        id: u64,
        with_work: bool,
        owner: Option<Owner>,
    ) -> Result<(), Error> {
        let folder = self.folder(id);
        match make(&folder, 0o700) {
            // Left by a crash between this and the database.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.set_aside(id)?;
                make(&folder, 0o700)
            }
            other => other,
        }
        .map_err(Error::io("make", &folder))?;
        let fill = || {
            make(&folder.join("fs"), 0o755)?;
            if with_work {
                make(&folder.join("work"), 0o711)?;
            }
            match owner {
                Some(Owner { uid: 0, gid: 0 }) | None => Ok(()),
                Some(Owner { uid, gid }) => {
                    std::os::unix::fs::lchown(folder.join("fs"), Some(uid), Some(gid))
                }
            }
        };
        fill().map_err(|source| {
            // The first error is the one to tell.
            let _ = fs::remove_dir_all(&folder);
            Error::Io {
                action: "make",
                path: folder.clone(),
                source,
            }
        })
    }

    /// Renames the folder of a snapshot so that it can be deleted later; `None` if there is none.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) fn set_aside(&self, id: u64) -> Result<Option<PathBuf>, Error> {
        self.set_aside_path(&self.folder(id))
    }

    fn set_aside_path(&self, path: &Path) -> Result<Option<PathBuf>, Error> {
        loop {
            let number = self.gone.fetch_add(1, Ordering::Relaxed);
            let aside = self.snapshots.join(format!("{GONE}{number}"));
            // Only an empty folder would be replaced by a rename, and then nothing is lost.
            match fs::rename(path, &aside) {
                Ok(()) => return Ok(Some(aside)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) => {}
                Err(error) => return Err(Error::io("rename", path)(error)),
            }
        }
    }

    /// Sets aside every folder whose id `known` does not know; gives all that is to be deleted.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) fn set_aside_unknown(
        &self,
        known: impl Fn(u64) -> bool,
    ) -> Result<Vec<PathBuf>, Error> {
        let failed = || Error::io("list", &self.snapshots);
        let mut aside = Vec::new();
        for entry in fs::read_dir(&self.snapshots).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(GONE)) {
                aside.push(path);
            } else if !name.and_then(|name| name.parse().ok()).is_some_and(&known) {
                aside.extend(self.set_aside_path(&path)?);
            }
        }
        Ok(aside)
    }
}

/// Who owns a folder.
///
/// # Errors
/// The file system's error.
pub(crate) fn owner_of(path: &Path) -> Result<Owner, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("look at", path))?;
    Ok(Owner {
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Deletes what was set aside. What is gone already is fine, what fails is logged: the next
/// sweep finds it again.
pub(crate) fn delete(aside: &Path) {
    match fs::remove_dir_all(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %aside.display(), %error, "cannot delete a removed snapshot");
        }
        _ => {}
    }
}
