//! What images have for themselves, and what nobody has: every index is read once.
//!
//! Memory: 24 bytes for each content of the store.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;
use uimgacc_erofs::tree::{Contents, Kind, Tree};
use uimgacc_types::{ChainId, DiffId, PackId, chain_ids};

use crate::dead::Dead;
use crate::device::pack_of;
use crate::error::SessionError;
use crate::format::BLOCK_BYTES;
use crate::free::{Scope, free};
use crate::index_file::{packs_of, read_index};
use crate::path::StorePath;
use crate::reader::list_fanned;
use crate::repack::pieces;
use crate::toc::Toc;
use crate::{ImageRecord, StoreReader};

/// What an image takes in the packs. Bytes of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSpace {
    /// The image.
    pub target: String,
    /// What no other image has.
    pub own_bytes: u64,
    /// What others have as well.
    pub shared_bytes: u64,
}

/// Whose a content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// No index names it.
    Nobody,
    /// Only indexes of this image name it.
    Image(u32),
    /// Several images, or an index that is of no image.
    Several,
}

impl Owner {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, owner) | (owner, Self::Nobody) => owner,
            (one, other) if one == other => one,
            _ => Self::Several,
        }
    }
}

/// A content of a pack.
#[derive(Debug, Clone, Copy)]
struct Content {
    start_block: u32,
    owner: Owner,
    len_bytes: u64,
}

impl Content {
    /// What it takes in the pack.
    fn block_bytes(&self) -> u64 {
        self.len_bytes.next_multiple_of(BLOCK_BYTES)
    }
}

/// The contents of all packs, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// By where they start. What is given up is not among them.
    packs: HashMap<PackId, Vec<Content>>,
    /// What contents take that no index names.
    pub(crate) dead_bytes: u64,
    /// Length of the contents that an index names.
    pub(crate) live_bytes: u64,
    /// How many these are.
    pub(crate) live: u64,
    pub(crate) images: Vec<ImageSpace>,
}

impl Space {
    pub(crate) fn add_pack(&mut self, id: PackId, toc: &Toc, dead: &Dead) {
        let live = toc
            .entries
            .iter()
            .filter(|(_, extent)| !dead.touches(*extent));
        let content = |offset: u64, len_bytes: u64| {
            Some(Content {
                start_block: u32::try_from(offset / BLOCK_BYTES).ok()?,
                owner: Owner::Nobody,
                len_bytes,
            })
        };
        let mut contents: Vec<Content> = live
            .filter_map(|(_, extent)| content(extent.offset_bytes, extent.len_bytes))
            .collect();
        contents.sort_unstable_by_key(|content| content.start_block);
        self.packs.insert(id, contents);
    }

    /// Notes whose the contents of an index are; gives how many bytes these are.
    fn add_index(&mut self, tree: &Tree, owner: Owner) -> u64 {
        let packs: Vec<Option<PackId>> = tree.devices.iter().map(pack_of).collect();
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for (_, inode) in tree.iter() {
            let Kind::Regular(Contents::Chunks(contents)) = &inode.kind else {
                continue;
            };
            for (chunk, _) in pieces(contents) {
                let id = packs.get(usize::from(chunk.device)).copied().flatten();
                let Some(contents) = id.and_then(|id| self.packs.get_mut(&id)) else {
                    continue;
                };
                let after = contents.partition_point(|one| one.start_block <= chunk.start_block);
                let Some(content) = after.checked_sub(1).and_then(|at| contents.get_mut(at)) else {
                    continue;
                };
                content.owner = content.owner.and(owner);
                if seen.insert((chunk.device, content.start_block)) {
                    bytes += content.len_bytes;
                }
            }
        }
        bytes
    }

    /// Reads every index, of layers and flattened ones; `on_error` decides whether one that is damaged is passed
    /// over.
    pub(crate) fn count(
        &mut self,
        (layer_files, index_files): (&[StorePath], &[StorePath]),
        images: &[ImageRecord],
        on_error: &mut dyn FnMut(SessionError) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let (mut layers, mut chains) = (HashMap::new(), HashMap::new());
        for (number, image) in (0u32..).zip(images) {
            let owner = Owner::Image(number);
            for diff_id in &image.diff_ids {
                let known = layers.entry(*diff_id).or_insert(owner);
                *known = known.and(owner);
            }
            for chain in chain_ids(&image.diff_ids) {
                let known = chains.entry(chain).or_insert(owner);
                *known = known.and(owner);
            }
        }
        let mut totals: HashMap<ChainId, u64> = HashMap::new();
        let mut read = |space: &mut Self, path: &StorePath, owner: Owner| match read_index(path) {
            Ok(Some((tree, _, _))) => Ok(space.add_index(&tree, owner)),
            Ok(None) => Ok(0),
            Err(error) => on_error(error).map(|()| 0),
        };
        for (diff_id, path) in named(layer_files, DiffId::from_hex) {
            let owner = layers.get(&diff_id).copied().unwrap_or(Owner::Several);
            read(self, path, owner)?;
        }
        for (chain, path) in named(index_files, ChainId::from_hex) {
            let owner = chains.get(&chain).copied().unwrap_or(Owner::Several);
            totals.insert(chain, read(self, path, owner)?);
        }
        self.sum(images, &totals);
        Ok(())
    }

    fn sum(&mut self, images: &[ImageRecord], totals: &HashMap<ChainId, u64>) {
        let mut own = vec![0; images.len()];
        for content in self.packs.values().flatten() {
            if content.owner == Owner::Nobody {
                self.dead_bytes += content.block_bytes();
                continue;
            }
            self.live_bytes += content.len_bytes;
            self.live += 1;
            if let Owner::Image(number) = content.owner
                && let Some(own) = usize::try_from(number).ok().and_then(|at| own.get_mut(at))
            {
                *own += content.len_bytes;
            }
        }
        self.images = images
            .iter()
            .zip(own)
            .map(|(image, own_bytes)| ImageSpace {
                target: image.target.clone(),
                own_bytes,
                // Contents that only a layer has, hidden in the image, are its own as well.
                shared_bytes: totals
                    .get(&image.chain_id)
                    .map_or(0, |total| total.saturating_sub(own_bytes)),
            })
            .collect();
    }
}

/// Files by the ids that are their names.
fn named<T, E>(
    files: &[StorePath],
    parse: impl Fn(&str) -> Result<T, E>,
) -> impl Iterator<Item = (T, &StorePath)> {
    files
        .iter()
        .filter_map(move |path| Some((parse(path.stem()?).ok()?, path)))
}

/// How much the packs give back when the image is deleted and `gc --all` has run: what no index names that stays.
/// In bytes of blocks.
///
/// # Errors
/// The file system's error, or an index that is damaged.
pub fn freed_by_deleting(reader: &StoreReader, image: &ImageRecord) -> Result<u64, SessionError> {
    let layout = reader.layout();
    let others = reader.images()?;
    let others = || others.iter().filter(|other| other.target != image.target);
    let layers: HashSet<DiffId> = others().flat_map(|other| other.diff_ids.clone()).collect();
    let chains: HashSet<ChainId> = others()
        .flat_map(|other| chain_ids(&other.diff_ids))
        .collect();
    let going_layers: HashSet<&DiffId> = image
        .diff_ids
        .iter()
        .filter(|id| !layers.contains(id))
        .collect();
    let going_chains: HashSet<ChainId> = chain_ids(&image.diff_ids)
        .into_iter()
        .filter(|chain| !chains.contains(chain))
        .collect();
    let (mut staying, mut packs) = (Vec::new(), BTreeSet::new());
    let mut sort = |path: &StorePath, goes: bool| -> Result<(), SessionError> {
        if goes {
            packs.extend(packs_of(path)?);
        } else {
            staying.push(path.clone());
        }
        Ok(())
    };
    let files = |directory| list_fanned(&layout.directory(directory), "erofs");
    for (id, path) in named(&files("layers")?, DiffId::from_hex) {
        sort(path, going_layers.contains(&id))?;
    }
    for (id, path) in named(&files("indexes")?, ChainId::from_hex) {
        sort(path, going_chains.contains(&id))?;
    }
    let scope = Scope {
        indexes: &staying,
        all: true,
        deadline: None,
    };
    let dead = free(layout, None, &mut packs, &scope)?;
    Ok(dead.iter().map(|space| space.bytes).sum())
}
