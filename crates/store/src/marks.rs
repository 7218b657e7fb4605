//! What image records lead to: the mark phase of gc, and what `stat` and `verify` count from.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use uimgacc_types::{ChainId, DiffId, PackId, chain_ids};

use crate::reader::ReadError;
use crate::session::{SessionError, pack_of, read_index};
use crate::{ImageRecord, StoreReader};

/// Everything that images (and leases) keep alive.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) chains: HashSet<ChainId>,
    pub(crate) layers: HashSet<DiffId>,
    pub(crate) indexes: HashSet<ChainId>,
    pub(crate) packs: HashSet<PackId>,
}

/// The packs that an index file refers to, each file read once.
#[derive(Debug, Default)]
pub(crate) struct IndexPacks {
    layers: HashMap<DiffId, Vec<PackId>>,
}

impl IndexPacks {
    fn of_layer(&mut self, reader: &StoreReader, id: DiffId) -> Result<&[PackId], SessionError> {
        Ok(match self.layers.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(slot) => {
                let packs = read_index(&reader.layout().layer(id))?
                    .map(|(tree, _, _)| tree.devices.iter().filter_map(pack_of).collect());
                slot.insert(packs.unwrap_or_default())
            }
        })
    }
}

impl Marks {
    /// Marks what an image needs.
    pub(crate) fn add_image(
        &mut self,
        reader: &StoreReader,
        cache: &mut IndexPacks,
        image: &ImageRecord,
    ) -> Result<(), SessionError> {
        self.chains.extend(chain_ids(&image.diff_ids));
        self.indexes.insert(image.chain_id);
        self.packs.extend(&image.index.packs);
        self.add_layers(reader, cache, &image.diff_ids)
    }

    /// Marks what a leased chain needs, as far as it is still known.
    pub(crate) fn add_chain(
        &mut self,
        reader: &StoreReader,
        cache: &mut IndexPacks,
        chain_id: ChainId,
    ) -> Result<(), SessionError> {
        let Some(record) = reader.chain(chain_id)? else {
            return Ok(());
        };
        let diff_ids: Vec<DiffId> = record.layers.iter().map(|layer| layer.diff_id).collect();
        self.chains.extend(chain_ids(&diff_ids));
        if let Some(index) = &record.index {
            self.indexes.insert(chain_id);
            self.packs.extend(&index.packs);
        }
        self.add_layers(reader, cache, &diff_ids)
    }

    fn add_layers(
        &mut self,
        reader: &StoreReader,
        cache: &mut IndexPacks,
        diff_ids: &[DiffId],
    ) -> Result<(), SessionError> {
        for id in diff_ids {
            if self.layers.insert(*id) {
                self.packs.extend(cache.of_layer(reader, *id)?);
            }
        }
        Ok(())
    }
}

/// Marks from every image record and every lease that holds.
pub(crate) fn mark(reader: &StoreReader) -> Result<Marks, SessionError> {
    let mut marks = Marks::default();
    let mut cache = IndexPacks::default();
    for image in reader.images()? {
        marks.add_image(reader, &mut cache, &image)?;
    }
    for lease in crate::leases(reader.layout())?
        .iter()
        .filter(|lease| lease.holds())
    {
        for chain_id in &lease.chains {
            marks.add_chain(reader, &mut cache, *chain_id)?;
        }
    }
    Ok(marks)
}

/// Parses the id that a file of the store has as its name.
pub(crate) fn id_of<T>(
    path: &std::path::Path,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, ReadError> {
    path.file_stem()
        .and_then(|stem| stem.to_str())
        .and_then(parse)
        .ok_or_else(|| ReadError::Damaged {
            path: path.to_owned(),
            reason: "its name is no id".to_owned(),
        })
}
