//! Which contents the store has: all tables of contents in memory.
//!
//! Memory: 48 bytes for each distinct content of the store (1 million files: 48 MB).

use std::collections::HashMap;

use uimgacc_types::{ContentHash, Extent, PackId};

/// Where a content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackRef {
    /// In a pack of the store.
    Sealed(PackId),
    /// In a pack that is still being written, numbered within its session.
    Open(u32),
}

/// A content in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The pack.
    pub pack: PackRef,
    /// The stretch of it.
    pub extent: Extent,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    hash: ContentHash,
    pack: u32,
    start_block: u32,
    len_bytes: u64,
}

/// The contents of the store and of one session.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    packs: Vec<PackId>,
    known: Vec<Known>,
    fresh: HashMap<ContentHash, Placement>,
}

impl Dedup {
    /// Adds a pack of the store; [`Self::finish`] comes after the last one.
    pub(crate) fn add_pack(&mut self, id: PackId, entries: &[(ContentHash, Extent)]) {
        let Ok(pack) = u32::try_from(self.packs.len()) else {
            return;
        };
        self.packs.push(id);
        self.known
            .extend(entries.iter().filter_map(|(hash, extent)| {
                Some(Known {
                    hash: *hash,
                    pack,
                    start_block: u32::try_from(extent.offset_bytes / crate::format::BLOCK_BYTES)
                        .ok()?,
                    len_bytes: extent.len_bytes,
                })
            }));
    }

    /// Sorts what was added.
    pub(crate) fn finish(&mut self) {
        self.known
            .sort_unstable_by_key(|known| (known.hash, known.pack));
        self.known.dedup_by_key(|known| known.hash);
        self.known.shrink_to_fit();
    }

    /// Where the content lies, if the store or the session has it.
    pub(crate) fn get(&self, hash: &ContentHash) -> Option<Placement> {
        if let Some(placement) = self.fresh.get(hash) {
            return Some(*placement);
        }
        let at = self
            .known
            .binary_search_by_key(hash, |known| known.hash)
            .ok()?;
        let known = self.known.get(at)?;
        Some(Placement {
            pack: PackRef::Sealed(*self.packs.get(known.pack as usize)?),
            extent: Extent {
                offset_bytes: u64::from(known.start_block) * crate::format::BLOCK_BYTES,
                len_bytes: known.len_bytes,
            },
        })
    }

    /// Remembers a content that was just written; the first one stays.
    pub(crate) fn insert(&mut self, hash: ContentHash, placement: Placement) -> Placement {
        *self.fresh.entry(hash).or_insert(placement)
    }
}
