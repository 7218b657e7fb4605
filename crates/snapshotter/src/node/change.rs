//! Changes of the snapshots of a node, and what comes after one that could not be saved.
//!
//! Guarantees: the state in memory is what the disk has, also after a failed save, of which it
//! is not known whether it landed: the database is opened again and read. Where that fails, this
//! process must end ([`Node::broken`]).

use uimgacc_types::with_causes;

use super::Node;
use crate::database::Database;
use crate::error::{Error, is_disk_full};
use crate::state::{Change, State, StateError};

impl Node {
    /// Plans a change on the newest state, prepares the disk for it, saves it and takes it over.
    pub(super) fn change<T>(
        &self,
        plan: impl FnOnce(&State) -> Result<(Change, T), Error>,
        before: impl FnOnce(&T) -> Result<(), Error>,
        undo: impl FnOnce(&T),
    ) -> Result<T, Error> {
        let mut database = self.database.lock();
        let (change, result) = self.read(plan)?;
        before(&result)?;
        match database.save(&change) {
            Ok(()) => {
                let mut state = self.state.write();
                state.apply(&change);
                drop(state);
                database.refill_reserve();
            }
            Err(error) => {
                if let Err(error) = self.after_failed_save(&mut database, &change, error) {
                    // Only where the change is known not to be there: else its folder is in use.
                    if database.is_open() {
                        undo(&result);
                    }
                    return Err(error);
                }
            }
        }
        Ok(result)
    }

    /// Goes on after a failed save: the state becomes what the disk has, and a removal is tried
    /// once more with the room that is kept for it. Fails where the change is not there.
    fn after_failed_save(
        &self,
        database: &mut Database,
        change: &Change,
        error: Error,
    ) -> Result<(), Error> {
        let is_removal = change.put.is_empty();
        let more_room = is_removal && is_disk_full(&error) && database.spend_reserve();
        self.reread(database)?;
        if self.read(|state| state.has(change)) {
            return Ok(());
        }
        if !more_room {
            return Err(error);
        }
        tracing::warn!(
            error = with_causes(&error),
            "a removal takes the room that was kept for it"
        );
        match database.save(change) {
            Ok(()) => {
                let mut state = self.state.write();
                state.apply(change);
                Ok(())
            }
            Err(error) => {
                self.reread(database)?;
                let landed = self.read(|state| state.has(change));
                if landed { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Takes over what the database has; where it cannot be opened again the process must end.
    fn reread(&self, database: &mut Database) -> Result<(), Error> {
        match database.reopen() {
            Ok(found) => {
                *self.state.write() = found;
                Ok(())
            }
            Err(error) => {
                tracing::error!(
                    error = with_causes(&error),
                    "cannot open the database again"
                );
                self.broken.notify_one();
                Err(error)
            }
        }
    }

    /// Waits until the database is lost for this process.
    pub(crate) async fn broken(&self) {
        self.broken.notified().await;
    }

    pub(super) fn simple_change<T>(
        &self,
        plan: impl FnOnce(&State) -> Result<(Change, T), StateError>,
    ) -> Result<T, Error> {
        self.change(|state| Ok(plan(state)?), |_| Ok(()), |_| ())
    }
}
