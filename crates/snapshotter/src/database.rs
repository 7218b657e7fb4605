//! Where the snapshots are kept: one redb file on the node's own disk.
//!
//! Guarantees: [`Database::save`] returns when the change is on the disk, all of it or none, with
//! one sync. After a kill or a power cut the file opens again in its last saved state.
//!
//! redb refuses every change after the first failed write, so a full disk would be for ever:
//! [`Database::reopen`] goes on from what the disk has. A small file of real blocks beside the
//! database ([`Database::spend_reserve`]) is what a removal on a full disk is written to.
//!
//! Format: table `snapshots`, name to JSON of [`Snapshot`]; table `meta`, `format` and `next_id`.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::error::{Error, is_disk_full};
use crate::state::{Change, Snapshot, State};

const SNAPSHOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshots");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;
/// The rows are held in memory anyway.
const CACHE_BYTES: usize = 4 << 20;

/// Between looks at a file that another process has open.
const PAUSE: Duration = Duration::from_millis(20);

/// What a removal may take: a commit writes some pages, and opening may write them again.
const RESERVE_BYTES: u64 = 1 << 20;

fn is_open_elsewhere(error: &Error) -> bool {
    let Error::Database { source, .. } = error else {
        return false;
    };
    matches!(**source, redb::Error::DatabaseAlreadyOpen)
}

/// An open database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// `None` where it could not be opened again.
    file: Option<redb::Database>,
}

impl Database {
    /// Opens the file, or makes it, and reads all of it.
    ///
    /// # Errors
    /// The file is damaged, of a newer format, or open elsewhere.
    pub(crate) fn open(path: &Path) -> Result<(Self, State), Error> {
        let mut database = Self {
            path: path.to_owned(),
            file: None,
        };
        let state = database.reopen()?;
        database.refill_reserve();
        Ok((database, state))
    }

    /// As [`Self::open`], but waits for a process that has it open and is about to end.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_after(path: &Path, patience: Duration) -> Result<(Self, State), Error> {
        let begun = Instant::now();
        loop {
            match Self::open(path) {
                Err(error) if is_open_elsewhere(&error) && begun.elapsed() < patience => {
                    std::thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }

    /// Closes the file, opens it again and reads all of it. For after a failed [`Self::save`],
    /// which may have reached the disk all the same.
    ///
    /// # Errors
    /// As [`Self::open`]; then nothing can be saved until this succeeds.
    pub(crate) fn reopen(&mut self) -> Result<State, Error> {
        match self.try_reopen() {
            // A repair writes.
            Err(error) if is_disk_full(&error) && self.spend_reserve() => self.try_reopen(),
            other => other,
        }
    }

    fn try_reopen(&mut self) -> Result<State, Error> {
        // Closed first: the file is locked.
        self.file = None;
        let file = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(&self.path)
            .map_err(Error::database("open"))?;
        self.file = Some(file);
        if let Some(state) = self.read()? {
            return Ok(state);
        }
        self.save(&Change {
            put: Vec::new(),
            delete: Vec::new(),
            next_id: 1,
        })?;
        Ok(State::new([], 1))
    }

    fn reserve(&self) -> PathBuf {
        self.path.with_extension("reserve")
    }

    /// Gives the disk back what was kept for a removal. Says whether there was anything.
    pub(crate) fn spend_reserve(&self) -> bool {
        let path = self.reserve();
        fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES)
            && fs::remove_file(&path).is_ok()
    }

    /// Keeps room for a removal, where the disk has it.
    pub(crate) fn refill_reserve(&self) {
        let path = self.reserve();
        if fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES) {
            return;
        }
        let fill = || -> io::Result<()> {
            let file = File::create(&path)?;
            let flags = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&file, flags, 0, RESERVE_BYTES)?;
            Ok(())
        };
        if fill().is_err() {
            // Half of it is of no use. The next change tries again.
            let _ = fs::remove_file(&path);
        }
    }

    /// Whether changes can be saved.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    fn file(&self) -> Result<&redb::Database, Error> {
        self.file.as_ref().ok_or(Error::DatabaseClosed)
    }

    fn read(&self) -> Result<Option<State>, Error> {
        let fail = || Error::database("read");
        let transaction = self.file()?.begin_read().map_err(Error::database("read"))?;
        let meta = match transaction.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(Error::database("read"))?,
        };
        let number = |key| -> Result<u64, Error> {
            let found = meta.get(key).map_err(Error::database("read"))?;
            Ok(found.map_or(0, |value| value.value()))
        };
        let format = number("format")?;
        if format > FORMAT {
            return Err(Error::Invalid(format!(
                "the database of snapshots has format {format}; this program understands up to {FORMAT}: upgrade it"
            )));
        }
        let table = transaction
            .open_table(SNAPSHOTS)
            .map_err(Error::database("read"))?;
        let mut rows = Vec::new();
        for row in table.iter().map_err(Error::database("read"))? {
            let (name, value) = row.map_err(fail())?;
            let snapshot: Snapshot = serde_json::from_slice(value.value()).map_err(|error| {
                Error::Invalid(format!(
                    "the database of snapshots is damaged at {:?}: {error}",
                    name.value()
                ))
            })?;
            rows.push((name.value().to_owned(), snapshot));
        }
        Ok(Some(State::new(rows, number("next_id")?)))
    }

    /// Makes a change durable.
    ///
    /// # Errors
    /// The disk failed. The change may be there or not: [`Self::reopen`] tells, and nothing more is
    /// saved before it.
    pub(crate) fn save(&self, change: &Change) -> Result<(), Error> {
        let transaction = self
            .file()?
            .begin_write()
            .map_err(Error::database("write"))?;
        {
            let mut table = transaction
                .open_table(SNAPSHOTS)
                .map_err(Error::database("write"))?;
            for name in &change.delete {
                table
                    .remove(name.as_str())
                    .map_err(Error::database("write"))?;
            }
            for (name, snapshot) in &change.put {
                let text = serde_json::to_vec(snapshot.as_ref())
                    .map_err(|error| Error::Invalid(error.to_string()))?;
                table
                    .insert(name.as_str(), text.as_slice())
                    .map_err(Error::database("write"))?;
            }
            let mut meta = transaction
                .open_table(META)
                .map_err(Error::database("write"))?;
            for (key, value) in [("format", FORMAT), ("next_id", change.next_id)] {
                let same = meta
                    .get(key)
                    .map_err(Error::database("write"))?
                    .is_some_and(|old| old.value() == value);
                if !same {
                    meta.insert(key, value).map_err(Error::database("write"))?;
                }
            }
        }
        transaction.commit().map_err(Error::database("write"))
    }
}
