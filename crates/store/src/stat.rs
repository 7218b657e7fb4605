//! How large the store is, and what for.

use uimgacc_erofs::tree::{Contents, Kind};

use crate::flatten::reachable;
use crate::index_file::read_tocs;
use crate::marks::{IndexPacks, mark};
use crate::path::StorePath;
use crate::reader::list_fanned;
use crate::session::SessionError;
use crate::{StoreReader, leases};

/// Counts of a store. All lengths in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stat {
    /// The store's id.
    pub store_id: String,
    /// Image records.
    pub images: u64,
    /// Layer indexes.
    pub layers: u64,
    /// Packs.
    pub packs: u64,
    /// Distinct contents in all packs.
    pub contents: u64,
    /// Length of these contents.
    pub content_bytes: u64,
    /// Length of the packs.
    pub pack_bytes: u64,
    /// Length of tables, layer indexes and flattened indexes.
    pub metadata_bytes: u64,
    /// Length of all files of all images, as if each image were unpacked by itself.
    pub logical_bytes: u64,
    /// Length of packs that no image or lease refers to.
    pub unreferenced_pack_bytes: u64,
    /// Who holds what mounted.
    pub leases: u64,
}

/// Counts a store.
///
/// # Errors
/// The file system's error, or a damaged file.
pub fn stat(reader: &StoreReader) -> Result<Stat, SessionError> {
    let layout = reader.layout();
    let length = |path: &StorePath| path.facts().map_or(0, |file| file.len_bytes);
    let marks = mark(reader, &mut IndexPacks::default())?;
    let mut stat = Stat {
        store_id: reader.store_id().to_owned(),
        leases: leases(layout)?.len() as u64,
        ..Stat::default()
    };
    let mut distinct = std::collections::HashSet::new();
    for (id, toc) in read_tocs(reader)? {
        stat.packs += 1;
        stat.pack_bytes += toc.pack_bytes;
        stat.metadata_bytes += length(&layout.toc(id));
        if !marks.packs.contains(&id) {
            stat.unreferenced_pack_bytes += toc.pack_bytes;
        }
        for (hash, extent) in &toc.entries {
            if distinct.insert(*hash) {
                stat.contents += 1;
                stat.content_bytes += extent.len_bytes;
            }
        }
    }
    for path in list_fanned(&layout.directory("layers"), "erofs")? {
        stat.layers += 1;
        stat.metadata_bytes += length(&path);
    }
    for path in list_fanned(&layout.directory("indexes"), "erofs")? {
        stat.metadata_bytes += length(&path);
    }
    for image in reader.images()? {
        stat.images += 1;
        stat.logical_bytes += image.size;
    }
    Ok(stat)
}

/// Length of all regular files of an index, each inode once.
pub fn logical_bytes(tree: &uimgacc_erofs::Tree) -> u64 {
    reachable(tree)
        .into_iter()
        .map(|id| match &tree.inode(id).kind {
            Kind::Regular(Contents::Inline(bytes)) => bytes.len() as u64,
            Kind::Regular(Contents::Chunks(contents)) => contents.size_bytes,
            _ => 0,
        })
        .fold(0, u64::saturating_add)
}
