//! What the writers of a session share.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uimgacc_types::{ContentHash, PackId};

use crate::dedup::{Dedup, Placement};
use crate::workspace::Workspace;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    Open,
    Sealed { id: PackId, blocks: u32 },
    Empty,
}

/// What a session's writers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) workspace: Workspace,
    pub(crate) dedup: Mutex<Dedup>,
    pub(crate) slots: Mutex<Vec<Slot>>,
    /// Length of each pack of the store in blocks: those at the start, others as they are met.
    pub(crate) blocks: Mutex<HashMap<PackId, u32>>,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single step: a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn find(&self, hash: &ContentHash) -> Option<Placement> {
        locked(&self.dedup).get(hash)
    }

    pub(crate) fn remember(&self, hash: ContentHash, placement: Placement) -> Placement {
        locked(&self.dedup).insert(hash, placement)
    }
}
