//! Which contents the store has: filters in memory say which packs may have one, and their tables are
//! asked.
//!
//! Memory: 2.3 bytes for each content of the store, and what [`crate::tables`] keeps.

use std::collections::HashSet;

use uimgacc_types::{ContentHash, Extent, PackId};

use crate::filter::PackFilter;
use crate::filters::read_filters;
use crate::index_file::read_toc;
use crate::layout::Layout;
use crate::reader::{ReadError, id_of, list_fanned, sound};
use crate::tables::Tables;
use crate::toc::key_of;

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

/// The contents of the store.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    filters: Vec<PackFilter>,
    /// Packs that no filter can be made of: they are always asked.
    unfiltered: Vec<PackId>,
}

impl Dedup {
    /// Reads the filters of all packs; gives those as well that were missing and were made from tables.
    pub(crate) fn load(layout: &Layout) -> Result<(Self, Vec<PackFilter>), ReadError> {
        let mut missing: HashSet<PackId> = list_fanned(&layout.directory("packs"), "toc")?
            .iter()
            .map(|path| id_of(path, |id| PackId::from_hex(id).ok()))
            .collect::<Result<_, _>>()?;
        let mut dedup = Self::default();
        for (_, filters) in read_filters(layout)? {
            let fresh = filters
                .into_iter()
                .filter(|filter| missing.remove(&filter.pack));
            dedup.filters.extend(fresh);
        }
        let mut made = Vec::new();
        for id in missing {
            let Some((_, toc)) = sound(read_toc(&layout.toc(id)))?.flatten() else {
                continue;
            };
            match PackFilter::of(id, toc.entries.iter().map(|(hash, _)| hash)) {
                Some(filter) => {
                    dedup.filters.push(filter.clone());
                    made.push(filter);
                }
                None => dedup.unfiltered.push(id),
            }
        }
        Ok((dedup, made))
    }

    /// Where the content lies, if the store has it.
    pub(crate) fn find(
        &self,
        tables: &Tables,
        hash: &ContentHash,
    ) -> Result<Option<Placement>, ReadError> {
        let key = key_of(hash);
        let filtered = self.filters.iter().filter(|one| one.may_have(key));
        let packs = filtered.map(|one| one.pack);
        for id in packs.chain(self.unfiltered.iter().copied()) {
            if let Some(extent) = tables.find(id, hash)? {
                let pack = PackRef::Sealed(id);
                return Ok(Some(Placement { pack, extent }));
            }
        }
        Ok(None)
    }
}
