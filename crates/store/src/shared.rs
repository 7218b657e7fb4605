//! What the writers of a session share.

use std::collections::HashMap;

use parking_lot::Mutex;
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

impl Shared {
    pub(crate) fn find(&self, hash: &ContentHash) -> Option<Placement> {
        self.dedup.lock().get(hash)
    }

    pub(crate) fn remember(&self, hash: ContentHash, placement: Placement) -> Placement {
        self.dedup.lock().insert(hash, placement)
    }
}
