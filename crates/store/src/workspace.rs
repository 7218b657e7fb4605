//! One's own directory in `tmp/`, and the only way in which a session, gc or delete changes the
//! store.
//!
//! A file comes into the store by a link or a rename *out of* the directory, and leaves it by a
//! rename *into* the directory, where it is unlinked. So whoever clears the directory away takes
//! from its owner the power to change anything: after a standstill the next link or rename fails by
//! itself, however long ago the owner last looked. Nothing else needs to be checked.
//!
//! Guarantees:
//! - Whoever looks sees a whole file or none. Names of content (layers, indexes, packs) never change
//!   hands: the first to come stays, see [`Workspace::publish`].
//! - What the owner does while its directory is being cleared takes effect before the clearing ends
//!   ([`crate::intent`]), so before whoever clears decides anything.
//! - A file that was moved in may be unlinked by anyone who clears the directory. gc and delete move
//!   in only what they decided on while no session lived; a session that begins later first
//!   waits until the directory is gone and looks at the store then, so it never counted on the file.

use std::fs::File;
use std::io;

use serde::Serialize;

use crate::commit::{
    CommitError, FileId, encode, failed, file_id, is_already, is_gone, make_parent, remove_file,
    renamed, sync_parent, write_synced,
};
use crate::error::SessionError;
use crate::machine;
use crate::path::StorePath;

/// Whether a name was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The file has the name now.
    New,
    /// The name was taken; the file that was there stays, the new one is gone.
    AlreadyThere,
}

/// The directory of a living session or gc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workspace {
    dir: StorePath,
}

impl Workspace {
    pub(crate) fn new(dir: StorePath) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &StorePath {
        &self.dir
    }

    /// A file of that name in the directory.
    pub(crate) fn path(&self, name: &str) -> StorePath {
        self.dir.join(name)
    }

    /// Whether nobody has begun to clear it away. An answer for messages: what must not be done
    /// afterwards fails by itself. Opened, because an NFS client asks the server then.
    pub(crate) fn stands(&self) -> bool {
        self.dir.join("intent.json").open().is_ok()
    }

    /// Fails where somebody cleared it away: to report that, not to rely on.
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        if self.stands() {
            return Ok(());
        }
        Err(self.taken_for_dead())
    }

    fn taken_for_dead(&self) -> CommitError {
        CommitError::TakenForDead {
            dir: self.dir.on_host(),
        }
    }

    /// What a failure of the owner means: once the directory is gone, all else follows from that.
    pub(crate) fn explain(&self, error: SessionError) -> SessionError {
        if self.stands() {
            return error;
        }
        self.taken_for_dead().into()
    }

    /// The same of an operation on files in the directory.
    pub(crate) fn failed(
        &self,
        action: &'static str,
        path: &StorePath,
    ) -> impl FnOnce(io::Error) -> CommitError {
        move |error| {
            if is_gone(&error) && !self.stands() {
                return self.taken_for_dead();
            }
            failed(action, path)(error)
        }
    }

    /// Makes a file in the directory.
    pub(crate) fn create(&self, name: &str) -> Result<(StorePath, File), CommitError> {
        let path = self.path(name);
        let file = path.create_new().map_err(self.failed("create", &path))?;
        Ok((path, file))
    }

    /// Makes a file in the directory whose name begins like that.
    pub(crate) fn create_unnamed(&self, prefix: &str) -> Result<(StorePath, File), CommitError> {
        let id = machine::random_id().map_err(failed("name a file in", &self.dir))?;
        self.create(&format!("{prefix}-{id}"))
    }

    /// Writes a whole file in the directory.
    pub(crate) fn stage(&self, bytes: &[u8], of: &StorePath) -> Result<StorePath, CommitError> {
        let id = machine::random_id().map_err(failed("name a temporary file for", of))?;
        let path = self.path(&format!("file-{id}"));
        match write_synced(&path, bytes) {
            Err(CommitError::Io { source, .. }) if is_gone(&source) => Err(self.taken_for_dead()),
            written => written.map(|_| path),
        }
    }

    /// Writes a record in the directory, for the file `of`.
    pub(crate) fn stage_json<T: Serialize>(
        &self,
        of: &StorePath,
        record: &T,
    ) -> Result<StorePath, CommitError> {
        self.stage(&encode(of, record)?, of)
    }

    /// Removes a file in the directory. An NFS client that has it open must rename it first, and says
    /// `EBUSY` where the directory is gone.
    pub(crate) fn remove_own(&self, path: &StorePath) -> Result<(), CommitError> {
        match remove_file(path) {
            Err(_) if !self.stands() => Err(self.taken_for_dead()),
            removed => removed.map(|_| ()),
        }
    }

    /// Takes `from`, a file in the directory, out of it. The error says that a file is gone only
    /// where that is `from`.
    fn take_out(
        &self,
        from: &StorePath,
        to: &StorePath,
        change: impl Fn() -> io::Result<()>,
    ) -> Result<io::Result<()>, CommitError> {
        match change() {
            // The directory that it goes to may be missing.
            Err(error) if is_gone(&error) && from.exists().unwrap_or(false) => {
                make_parent(to)?;
                Ok(change())
            }
            other => Ok(other),
        }
    }

    /// Gives the synced file `from` of the directory the name `to`, unless that is taken.
    ///
    /// Uses a hard link, which fails where the name is taken, on NFS too; file systems without hard
    /// links get a check and a rename.
    pub(crate) fn publish(
        &self,
        from: &StorePath,
        to: &StorePath,
    ) -> Result<Published, CommitError> {
        let file = file_id(from);
        let outcome = match self.take_out(from, to, || from.hard_link(to))? {
            Ok(()) => Published::New,
            Err(_) if is_already(file, to) => Published::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Published::AlreadyThere,
            Err(error) if is_gone(&error) => return Err(self.taken_for_dead()),
            Err(_) if to.exists().unwrap_or(false) => Published::AlreadyThere,
            Err(_) => {
                self.replace(from, to)?;
                return Ok(Published::New);
            }
        };
        // Of the other's name it is not known either whether it lasts.
        sync_parent(to)?;
        self.remove_own(from)?;
        Ok(outcome)
    }

    /// Gives the synced file `from` of the directory the name `to`, in place of what had it.
    pub(crate) fn replace(&self, from: &StorePath, to: &StorePath) -> Result<(), CommitError> {
        let file = file_id(from);
        match self.take_out(from, to, || renamed(from.rename(to), file, to))? {
            Err(error) if is_gone(&error) => Err(self.taken_for_dead()),
            outcome => {
                outcome.map_err(failed("rename a file to", to))?;
                sync_parent(to)
            }
        }
    }

    /// Writes a record unless there is one.
    pub(crate) fn publish_json<T: Serialize>(
        &self,
        path: &StorePath,
        record: &T,
    ) -> Result<Published, CommitError> {
        self.publish(&self.stage_json(path, record)?, path)
    }

    /// Writes a record in place of the one before.
    pub(crate) fn replace_json<T: Serialize>(
        &self,
        path: &StorePath,
        record: &T,
    ) -> Result<(), CommitError> {
        self.replace(&self.stage_json(path, record)?, path)
    }

    /// Removes a file of the store; says whether it was there. What is not a regular file is not
    /// the store's and stays.
    pub(crate) fn remove(&self, path: &StorePath) -> Result<bool, CommitError> {
        let file: Option<FileId> = match path.facts() {
            Ok(facts) if !facts.is_file => {
                return Err(CommitError::Foreign {
                    path: path.on_host(),
                    what: facts.what,
                });
            }
            facts => facts.ok().map(|facts| facts.id),
        };
        let id = machine::random_id().map_err(failed("name a temporary file for", path))?;
        let victim = self.path(&format!("gone-{id}"));
        match renamed(path.rename(&victim), file, &victim) {
            Err(error) if is_gone(&error) => {
                let is_there = path.exists().unwrap_or(true);
                if is_there || !self.stands() {
                    return Err(self.taken_for_dead());
                }
                Ok(false)
            }
            outcome => {
                outcome.map_err(failed("remove", path))?;
                // Whoever clears the directory away may have been faster.
                self.remove_own(&victim)?;
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests;
