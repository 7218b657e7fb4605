//! Where the snapshots are kept: one redb file on the node's own disk.
//!
//! Guarantees: [`Database::save`] returns when the change is on the disk, all of it or none, with
//! one sync. After a kill or a power cut the file opens again in its last saved state.
//!
//! Format: table `snapshots`, name to JSON of [`Snapshot`]; table `meta`, `format` and `next_id`.

#[cfg(test)]
mod tests;

use std::path::Path;

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::error::Error;
use crate::state::{Change, Snapshot, State};

const SNAPSHOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshots");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;
/// The rows are held in memory anyway.
const CACHE_BYTES: usize = 4 << 20;

/// An open database.
#[derive(Debug)]
pub struct Database {
    file: redb::Database,
}

impl Database {
    /// Opens the file, or makes it, and reads all of it.
    ///
    /// # Errors
    /// The file is damaged, of a newer format, or open elsewhere.
    pub fn open(path: &Path) -> Result<(Self, State), Error> {
        let file = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(Error::database("open"))?;
        let database = Self { file };
        let state = match database.read()? {
            Some(state) => state,
            None => {
                database.save(&Change {
                    put: Vec::new(),
                    delete: Vec::new(),
                    next_id: 1,
                })?;
                State::new([], 1)
            }
        };
        Ok((database, state))
    }

    fn read(&self) -> Result<Option<State>, Error> {
        let fail = || Error::database("read");
        let transaction = self.file.begin_read().map_err(Error::database("read"))?;
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
    /// The disk failed; then nothing of the change is there.
    pub fn save(&self, change: &Change) -> Result<(), Error> {
        let transaction = self.file.begin_write().map_err(Error::database("write"))?;
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
