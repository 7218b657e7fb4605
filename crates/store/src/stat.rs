//! How large the store is, and what for.

use uimgacc_erofs::tree::{Contents, Kind};
use uimgacc_types::with_causes;

use crate::StoreReader;
use crate::error::SessionError;
use crate::flatten::reachable;
use crate::index_file::scan_tocs;
use crate::layout::PROFILE_SUFFIX;
use crate::lease::lease_files;
use crate::marks::{IndexPacks, mark_from};
use crate::path::StorePath;
use crate::reader::{ReadError, scan_fanned};

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
    /// Length of tables, records of dead ranges, filters, indexes and profiles.
    pub metadata_bytes: u64,
    /// Length of all files of all images, as if each image were unpacked by itself.
    pub logical_bytes: u64,
    /// Length of packs that no image or lease refers to.
    pub unreferenced_pack_bytes: u64,
    /// Who holds what mounted, also where the lease cannot be read.
    pub leases: u64,
    /// What could not be read and is not counted.
    pub unreadable: Vec<String>,
}

/// Counts a store. What cannot be read is named and not counted.
///
/// # Errors
/// None at present: what fails is in the answer.
pub fn stat(reader: &StoreReader) -> Result<Stat, SessionError> {
    let layout = reader.layout();
    let length = |path: &StorePath| path.facts().map_or(0, |file| file.len_bytes);
    let mut stat = Stat {
        store_id: reader.store_id().to_owned(),
        ..Stat::default()
    };
    let mut unreadable: Vec<String> = Vec::new();
    let mut pass_over = |error: ReadError| {
        unreadable.push(with_causes(&error));
        Ok(())
    };
    let images = reader.scan_images(&mut pass_over)?;
    let files = lease_files(layout).or_else(|error| pass_over(error).map(|()| Vec::new()))?;
    stat.leases = files.len() as u64;
    let mut leases = Vec::new();
    for file in files {
        match file.lease {
            Ok(lease) => leases.push(lease),
            Err(error) => pass_over(error)?,
        }
    }
    let tocs = scan_tocs(reader, &mut pass_over)?;
    let layers = scan_fanned(&layout.directory("layers"), "erofs", &mut pass_over)?;
    let indexes = scan_fanned(&layout.directory("indexes"), "erofs", &mut pass_over)?;
    let profiles = scan_fanned(
        &layout.directory("profiles"),
        PROFILE_SUFFIX,
        &mut pass_over,
    )?;
    let filters = scan_fanned(&layout.directory("filters"), "filter", &mut pass_over)?;
    let mut cache = IndexPacks::default();
    let marks = mark_from(reader, &mut cache, &images, &leases, &mut |error| {
        unreadable.push(with_causes(&error));
        Ok(())
    })?;
    let mut distinct = std::collections::HashSet::new();
    for (id, toc) in tocs {
        stat.packs += 1;
        stat.pack_bytes += toc.pack_bytes;
        stat.metadata_bytes += length(&layout.toc(id)) + length(&layout.dead(id));
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
    stat.layers = layers.len() as u64;
    for path in [layers, indexes, profiles, filters].iter().flatten() {
        stat.metadata_bytes += length(path);
    }
    for image in images {
        stat.images += 1;
        stat.logical_bytes += image.size;
    }
    stat.unreadable = unreadable;
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
