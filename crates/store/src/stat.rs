//! How large the store is, and what for.

use uimgacc_erofs::tree::{Contents, Kind};
use uimgacc_types::with_causes;

use crate::error::SessionError;
use crate::flatten::reachable;
use crate::index_file::{read_dead, scan_tocs};
use crate::layout::{INDEX_COPY_SUFFIX, PROFILE_SUFFIX};
use crate::lease::lease_files;
use crate::marks::{IndexPacks, mark_from};
use crate::path::StorePath;
use crate::reader::{ReadError, scan_fanned, sound};
use crate::space::{ImageSpace, Space};
use crate::{Layout, StoreReader};

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
    /// Length of all files of all images, as if each image were unpacked by itself.
    pub logical_bytes: u64,
    /// Distinct contents that an index names.
    pub contents: u64,
    /// Length of these contents.
    pub content_bytes: u64,
    /// What contents take that no index names any more, and that was not given back yet.
    pub dead_bytes: u64,
    /// What was given back of packs that stay.
    pub freed_bytes: u64,
    /// Length of the packs, what was given back included.
    pub pack_bytes: u64,
    /// What all files of the store take; not known where the file system does not say.
    pub physical_bytes: Option<u64>,
    /// Length of tables, indexes, their second copies, records of dead ranges, filters and profiles.
    pub metadata_bytes: u64,
    /// Length of packs that no image or lease refers to.
    pub unreferenced_pack_bytes: u64,
    /// Who holds what mounted, also where the lease cannot be read.
    pub leases: u64,
    /// What each image has, in the order of the images.
    pub image_space: Vec<ImageSpace>,
    /// What could not be read and is not counted.
    pub unreadable: Vec<String>,
}

/// Counts a store: reads all tables and indexes. What cannot be read is named and not counted.
///
/// # Errors
/// None at present: what fails is in the answer.
pub fn stat(reader: &StoreReader) -> Result<Stat, SessionError> {
    let layout = reader.layout();
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
    let copies = scan_fanned(
        &layout.directory("copies"),
        INDEX_COPY_SUFFIX,
        &mut pass_over,
    )?;
    let filters = scan_fanned(&layout.directory("filters"), "filter", &mut pass_over)?;
    let mut pass_over = |error: SessionError| {
        unreadable.push(with_causes(&error));
        Ok(())
    };
    let mut cache = IndexPacks::default();
    let marks = mark_from(reader, &mut cache, &images, &leases, &mut pass_over)?;
    let mut space = Space::default();
    let mut physical = Physical::of(layout);
    for (id, toc) in tocs {
        stat.packs += 1;
        stat.pack_bytes += toc.pack_bytes;
        if !marks.packs.contains(&id) {
            stat.unreferenced_pack_bytes += toc.pack_bytes;
        }
        physical.add(&layout.pack(id));
        for path in [layout.toc(id), layout.toc_copy(id), layout.dead(id)] {
            stat.metadata_bytes += physical.add(&path);
        }
        // Without its record everything of a pack counts.
        let dead = sound(read_dead(&layout.dead(id)));
        let dead = dead.ok().flatten().flatten().unwrap_or_default();
        stat.freed_bytes += dead.bytes();
        space.add_pack(id, &toc, &dead);
    }
    stat.layers = layers.len() as u64;
    for path in [&layers, &indexes, &copies, &profiles, &filters]
        .into_iter()
        .flatten()
    {
        stat.metadata_bytes += physical.add(path);
    }
    space.count((&layers, &indexes), &images, &mut pass_over)?;
    stat.contents = space.live;
    stat.content_bytes = space.live_bytes;
    stat.dead_bytes = space.dead_bytes;
    stat.image_space = space.images;
    for image in images {
        stat.images += 1;
        stat.logical_bytes += image.size;
    }
    stat.physical_bytes = physical.bytes;
    stat.unreadable = unreadable;
    Ok(stat)
}

/// What files take on the disk.
struct Physical {
    bytes: Option<u64>,
}

impl Physical {
    /// CephFS says nothing but the length.
    fn of(layout: &Layout) -> Self {
        const CEPH_MAGIC: i64 = 0x00c3_6400;
        let known = layout.directory("").file_system();
        Self {
            bytes: known.ok().filter(|magic| *magic != CEPH_MAGIC).map(|_| 0),
        }
    }

    /// Adds a file; gives its length.
    fn add(&mut self, path: &StorePath) -> u64 {
        let Ok(facts) = path.facts() else {
            return 0;
        };
        if let Some(bytes) = &mut self.bytes {
            *bytes += facts.allocated_bytes;
        }
        facts.len_bytes
    }
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
