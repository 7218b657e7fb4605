//! Which contents packs lack, which indexes name them, and which layers have them: no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uimgacc_erofs::tree::{Contents, Kind, Tree};
use uimgacc_types::{ContentHash, DiffId, Extent, PackId};

use crate::device::pack_of;
use crate::format::BLOCK_BYTES;
use crate::repack::pieces;
use crate::toc::Entries;

/// Of so many indexes is kept that they name a content, those of layers first.
const MAX_NAMED_BY: usize = 16;

/// A place in a pack that lacks its content.
#[derive(Debug)]
struct Place {
    pack: PackId,
    hash: ContentHash,
    extent: Extent,
    /// Numbers of the indexes that name it.
    named_by: Vec<usize>,
    is_filled: bool,
}

impl Place {
    fn is_missing(&self) -> bool {
        !self.is_filled && !self.named_by.is_empty()
    }
}

/// Which layers have what an index names.
#[derive(Debug)]
struct Index {
    layers: Vec<DiffId>,
    /// It is that of one layer: all that it names is in that layer.
    is_of_layer: bool,
}

/// What packs lack.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Of one pack after the other, in the order of the file.
    places: Vec<Place>,
    /// Where the places of a pack begin and end.
    packs: HashMap<PackId, (usize, usize)>,
    indexes: Vec<Index>,
    /// Packs that an index names, be it only for what they have.
    needed: HashSet<PackId>,
    by_hash: HashMap<ContentHash, Vec<usize>>,
    lengths: HashSet<u64>,
    tried: HashSet<DiffId>,
}

impl Wanted {
    /// What a pack lacks. Each pack once, and all of them before [`Self::named`].
    pub(super) fn add(&mut self, pack: PackId, mut bad: Entries) {
        bad.sort_unstable_by_key(|(_, extent)| extent.offset_bytes);
        let start = self.places.len();
        self.places
            .extend(bad.into_iter().map(|(hash, extent)| Place {
                pack,
                hash,
                extent,
                named_by: Vec::new(),
                is_filled: false,
            }));
        self.packs.insert(pack, (start, self.places.len()));
    }

    pub(super) fn is_of(&self, pack: PackId) -> bool {
        self.packs.contains_key(&pack)
    }

    /// An index names what its tree says; `layers` have that.
    pub(super) fn named(&mut self, tree: &Tree, layers: Vec<DiffId>, is_of_layer: bool) {
        let number = self.indexes.len();
        self.indexes.push(Index {
            layers,
            is_of_layer,
        });
        let packs: Vec<Option<PackId>> = tree.devices.iter().map(pack_of).collect();
        self.needed.extend(packs.iter().flatten());
        for (_, inode) in tree.iter() {
            let Kind::Regular(Contents::Chunks(contents)) = &inode.kind else {
                continue;
            };
            for (chunk, _) in pieces(contents) {
                let pack = packs.get(usize::from(chunk.device)).copied().flatten();
                let at = u64::from(chunk.start_block) * BLOCK_BYTES;
                if let Some(place) = pack.and_then(|pack| self.place_at(pack, at))
                    && place.named_by.last() != Some(&number)
                    && place.named_by.len() < MAX_NAMED_BY
                {
                    place.named_by.push(number);
                }
            }
        }
    }

    fn place_at(&mut self, pack: PackId, at: u64) -> Option<&mut Place> {
        let (start, end) = *self.packs.get(&pack)?;
        let places = self.places.get_mut(start..end)?;
        let after = places.partition_point(|place| place.extent.offset_bytes <= at);
        let place = places.get_mut(after.checked_sub(1)?)?;
        let ends = place
            .extent
            .offset_bytes
            .saturating_add(place.extent.len_bytes);
        (at < ends).then_some(place)
    }

    /// All indexes were given.
    pub(super) fn ready(&mut self) {
        for (number, place) in self.places.iter().enumerate() {
            if place.is_missing() {
                self.by_hash.entry(place.hash).or_default().push(number);
                self.lengths.insert(place.extent.len_bytes);
            }
        }
    }

    /// Whether a content of that length may be wanted.
    pub(super) fn may_want(&self, len_bytes: u64) -> bool {
        self.lengths.contains(&len_bytes)
    }

    /// Where a content is wanted still.
    pub(super) fn places_of(&self, hash: &ContentHash) -> Vec<(PackId, Extent)> {
        let numbers = self.by_hash.get(hash).into_iter().flatten();
        let places = numbers.filter_map(|number| self.places.get(*number));
        let missing = places.filter(|place| place.is_missing());
        missing.map(|place| (place.pack, place.extent)).collect()
    }

    /// The content stands where it was wanted.
    pub(super) fn filled(&mut self, hash: &ContentHash) {
        for number in self.by_hash.get(hash).into_iter().flatten() {
            if let Some(place) = self.places.get_mut(*number) {
                place.is_filled = true;
            }
        }
    }

    /// The layer to read next: the one with the most bytes of what is missing; each is given once.
    pub(super) fn next_layer(&mut self) -> Option<DiffId> {
        let mut bytes: BTreeMap<DiffId, u64> = BTreeMap::new();
        for place in self.places.iter().filter(|place| place.is_missing()) {
            let indexes = || place.named_by.iter().filter_map(|at| self.indexes.get(*at));
            // Contents that were copied into another pack are named by flattened indexes alone.
            let is_of_layer = indexes().any(|index| index.is_of_layer);
            let layers: BTreeSet<DiffId> = indexes()
                .filter(|index| index.is_of_layer || !is_of_layer)
                .flat_map(|index| index.layers.iter().copied())
                .collect();
            for layer in layers {
                if !self.tried.contains(&layer) {
                    *bytes.entry(layer).or_default() += place.extent.len_bytes;
                }
            }
        }
        let (layer, _) = bytes.into_iter().max_by_key(|(_, bytes)| *bytes)?;
        self.tried.insert(layer);
        Some(layer)
    }

    /// Contents of a pack that no index names.
    pub(super) fn unnamed(&self, pack: PackId) -> Vec<Extent> {
        let places = self.of(pack).iter();
        places
            .filter(|place| place.named_by.is_empty())
            .map(|place| place.extent)
            .collect()
    }

    /// Whether an index names the pack.
    pub(super) fn is_needed(&self, pack: PackId) -> bool {
        self.needed.contains(&pack)
    }

    /// Whether an index names any of what the pack lacks.
    pub(super) fn is_named(&self, pack: PackId) -> bool {
        self.of(pack).iter().any(|place| !place.named_by.is_empty())
    }

    /// How many contents of a pack are missing still, and the layers of the indexes that name them.
    pub(super) fn missing(&self, pack: PackId) -> (usize, Vec<&[DiffId]>) {
        let missing: Vec<&Place> = self
            .of(pack)
            .iter()
            .filter(|place| place.is_missing())
            .collect();
        let indexes: BTreeSet<usize> = missing
            .iter()
            .flat_map(|place| &place.named_by)
            .copied()
            .collect();
        let layers = indexes.iter().filter_map(|at| self.indexes.get(*at));
        (missing.len(), layers.map(|index| &*index.layers).collect())
    }

    /// Contents of a pack that were found, and their bytes.
    pub(super) fn found(&self, pack: PackId) -> (u64, u64) {
        let filled = self.of(pack).iter().filter(|place| place.is_filled);
        filled.fold((0, 0), |(count, bytes), place| {
            (count + 1, bytes + place.extent.len_bytes)
        })
    }

    fn of(&self, pack: PackId) -> &[Place] {
        let range = self.packs.get(&pack);
        range
            .and_then(|(start, end)| self.places.get(*start..*end))
            .unwrap_or_default()
    }
}
