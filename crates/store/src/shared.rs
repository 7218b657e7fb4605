//! What the writers of a session share.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use uimgacc_types::{ContentHash, PackId};

use crate::dedup::{Dedup, PackRef, Placement};
use crate::filter::PackFilter;
use crate::layout::Layout;
use crate::reader::ReadError;
use crate::tables::Tables;
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
    pub(crate) slots: Mutex<Vec<Slot>>,
    pub(crate) tables: Tables,
    /// The contents of the store, from the first writer on.
    known: Mutex<Option<Arc<Dedup>>>,
    /// Those of the session.
    fresh: Mutex<HashMap<ContentHash, Placement>>,
    /// Filters of packs of which the store has none yet.
    pub(crate) filters: Mutex<Vec<PackFilter>>,
}

impl Shared {
    pub(crate) fn new(layout: &Layout, workspace: Workspace) -> Self {
        Self {
            workspace,
            slots: Mutex::default(),
            tables: Tables::new(layout.clone()),
            known: Mutex::default(),
            fresh: Mutex::default(),
            filters: Mutex::default(),
        }
    }

    /// The contents of the store; the first call reads which there are.
    pub(crate) fn known(&self, layout: &Layout) -> Result<Arc<Dedup>, ReadError> {
        let mut known = self.known.lock();
        if let Some(dedup) = &*known {
            return Ok(Arc::clone(dedup));
        }
        let (dedup, made) = Dedup::load(layout)?;
        self.filters.lock().extend(made);
        let dedup = Arc::new(dedup);
        *known = Some(Arc::clone(&dedup));
        Ok(dedup)
    }

    /// Where the content lies, if the session or the store has it.
    pub(crate) fn find(
        &self,
        known: &Dedup,
        hash: &ContentHash,
    ) -> Result<Option<Placement>, ReadError> {
        if let Some(placement) = self.fresh.lock().get(hash) {
            return Ok(Some(*placement));
        }
        known.find(&self.tables, hash)
    }

    /// Remembers a content that was just written; the first one stays.
    pub(crate) fn remember(&self, hash: ContentHash, placement: Placement) -> Placement {
        *self.fresh.lock().entry(hash).or_insert(placement)
    }

    /// Length of a pack in blocks; 0 where it is not known yet.
    pub(crate) fn blocks(&self, pack: PackRef) -> u32 {
        match pack {
            PackRef::Sealed(id) => {
                let slots = self.slots.lock();
                let own = slots.iter().find_map(|slot| match slot {
                    Slot::Sealed { id: own, blocks } if *own == id => Some(*blocks),
                    _ => None,
                });
                own.or_else(|| self.tables.blocks(id)).unwrap_or_default()
            }
            PackRef::Open(_) => 0,
        }
    }
}
