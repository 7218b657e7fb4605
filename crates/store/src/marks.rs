//! What image records lead to: the mark phase of gc, and what `stat` and `verify` count from.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use uimgacc_types::{ChainId, DiffId, Digest, PackId, chain_ids};

use crate::error::SessionError;
use crate::index_file::{digest_of, packs_of};
use crate::path::StorePath;
use crate::{ChainRecord, ImageRecord, Lease, StoreReader};

/// Everything that images (and leases) keep alive.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) chains: HashSet<ChainId>,
    /// Chains that leases name: their retired records stay.
    pub(crate) leased: HashSet<ChainId>,
    pub(crate) layers: HashSet<DiffId>,
    pub(crate) indexes: HashSet<ChainId>,
    pub(crate) packs: HashSet<PackId>,
    /// Indexes, of layers too, of which the second copies stay.
    pub(crate) copies: HashSet<Digest>,
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
            Entry::Vacant(slot) => slot.insert(packs_of(&reader.layout().layer(id))?),
        })
    }
}

impl Marks {
    /// Marks what an image needs, and the flattened indexes of its chain's prefixes: their
    /// records stay and name them.
    pub(crate) fn add_image(
        &mut self,
        reader: &StoreReader,
        cache: &mut IndexPacks,
        image: &ImageRecord,
    ) -> Result<(), SessionError> {
        for chain_id in chain_ids(&image.diff_ids) {
            if self.chains.insert(chain_id)
                && let Some(record) = reader.chain(chain_id)?
            {
                self.copies.extend(record.index_digests());
                if let Some(index) = record.index {
                    self.indexes.insert(chain_id);
                    self.packs.extend(&index.packs);
                }
            }
        }
        self.copies.insert(image.index.digest);
        self.indexes.insert(image.chain_id);
        self.packs.extend(&image.index.packs);
        self.add_layers(reader, cache, &image.diff_ids)
    }

    /// Marks what a chain's record names. The record itself counts only with `keep_record`.
    pub(crate) fn add_record(
        &mut self,
        reader: &StoreReader,
        cache: &mut IndexPacks,
        record: &ChainRecord,
        keep_record: bool,
    ) -> Result<(), SessionError> {
        let diff_ids: Vec<DiffId> = record.layers.iter().map(|layer| layer.diff_id).collect();
        if keep_record {
            self.chains.extend(chain_ids(&diff_ids));
        }
        self.copies.extend(record.index_digests());
        if let Some(index) = &record.index {
            self.indexes.insert(record.chain_id);
            self.packs.extend(&index.packs);
        }
        self.add_layers(reader, cache, &diff_ids)
    }

    /// Marks what a leased chain needs: what its record names, and what the record named that it
    /// had when it was retired.
    fn add_leased(
        &mut self,
        reader: &StoreReader,
        cache: &mut IndexPacks,
        chain_id: ChainId,
    ) -> Result<(), SessionError> {
        self.leased.insert(chain_id);
        if let Some(record) = reader.chain(chain_id)? {
            self.add_record(reader, cache, &record, true)?;
        }
        if let Some(record) = reader.retired_chain(chain_id)? {
            self.add_record(reader, cache, &record, false)?;
        }
        Ok(())
    }

    /// Marks the packs of an index file that stays though nothing names it. A damaged one names
    /// none.
    pub(crate) fn add_index_file(&mut self, path: &StorePath) {
        match digest_of(path) {
            Ok(digest) => self.copies.extend(digest.map(|(digest, _)| digest)),
            Err(error) => tracing::warn!("{error}"),
        }
        match packs_of(path) {
            Ok(packs) => self.packs.extend(packs),
            Err(error) => tracing::warn!("{error}"),
        }
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
pub(crate) fn mark(reader: &StoreReader, cache: &mut IndexPacks) -> Result<Marks, SessionError> {
    let (images, leases) = (reader.images()?, crate::leases(reader.layout())?);
    mark_from(reader, cache, &images, &leases, &mut Err)
}

/// Marks from these; `on_error` decides whether one is passed over.
pub(crate) fn mark_from(
    reader: &StoreReader,
    cache: &mut IndexPacks,
    images: &[ImageRecord],
    leases: &[Lease],
    on_error: &mut dyn FnMut(SessionError) -> Result<(), SessionError>,
) -> Result<Marks, SessionError> {
    let mut marks = Marks::default();
    for image in images {
        marks
            .add_image(reader, cache, image)
            .or_else(&mut *on_error)?;
    }
    let held = leases.iter().filter(|lease| lease.holds());
    for chain_id in held.flat_map(|lease| &lease.chains) {
        marks
            .add_leased(reader, cache, *chain_id)
            .or_else(&mut *on_error)?;
    }
    Ok(marks)
}
