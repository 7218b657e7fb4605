//! What was found in the store a moment ago.
//!
//! A pull asks for each prefix of its image, one after the other, and each has all layers of those
//! before: without this an image of n layers costs n² looks, and a slow store takes milliseconds for
//! one. What was seen is believed for [`MOMENT`], as long as a pull may go by what it was told.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uimgacc_store::{ChainLayer, StoreReader};
use uimgacc_types::{ChainId, DiffId, Digest, PackId, chain_ids};

use super::{IndexError, device_table, failed};

const MOMENT: Duration = Duration::from_secs(10);
/// How many layers are checked at the same time.
const LOOKERS: usize = 16;

/// Layers and packs that are in the store.
#[derive(Debug, Default)]
pub struct Checked(Mutex<Option<Recent>>);

#[derive(Debug)]
struct Recent {
    store_id: String,
    until: Instant,
    /// By the digest of the layer's index: the packs that it names.
    layers: HashMap<Digest, Vec<PackId>>,
    packs: HashSet<PackId>,
    /// Images whose layers are all being checked.
    images: HashSet<ChainId>,
}

impl Checked {
    /// Checks all layers of an image at the same time: a pull asks for one after the other, and each
    /// takes a dozen round trips to the store. Once an image; what fails is checked again when it is
    /// asked for.
    pub fn look_ahead(&self, store: &StoreReader, image: ChainId) {
        if !self.recent(store, |recent| recent.images.insert(image)) {
            return;
        }
        let Ok(Some(record)) = store.chain(image) else {
            return;
        };
        let diff_ids: Vec<DiffId> = record.layers.iter().map(|layer| layer.diff_id).collect();
        let chains = chain_ids(&diff_ids);
        let next = AtomicUsize::new(0);
        let look = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let (Some(layer), Some(chain)) = (record.layers.get(number), chains.get(number))
                else {
                    return;
                };
                // For its names alone, which the kernel keeps for a while: the record is read again.
                let _ = store.layout().chain(*chain).exists();
                let packs = self.layer(store, layer).unwrap_or_default();
                for pack in packs {
                    let _ = self.pack(store, pack);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..LOOKERS.min(record.layers.len()) {
                if std::thread::Builder::new()
                    .spawn_scoped(scope, look)
                    .is_err()
                {
                    break;
                }
            }
        });
    }

    /// Calls `with` with what is still to be believed of that store.
    fn recent<T>(&self, store: &StoreReader, with: impl FnOnce(&mut Recent) -> T) -> T {
        let mut recent = self.0.lock();
        let now = Instant::now();
        let known = recent
            .take()
            .filter(|recent| now < recent.until && recent.store_id == store.store_id());
        with(recent.insert(known.unwrap_or_else(|| Recent {
            store_id: store.store_id().to_owned(),
            until: now + MOMENT,
            layers: HashMap::new(),
            packs: HashSet::new(),
            images: HashSet::new(),
        })))
    }

    /// Believes nothing any more: something was not as it had been seen.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }

    /// The packs that a layer names.
    pub(super) fn layer(
        &self,
        store: &StoreReader,
        layer: &ChainLayer,
    ) -> Result<Vec<PackId>, IndexError> {
        let digest = layer.index_digest;
        if let Some(packs) = self.recent(store, |recent| recent.layers.get(&digest).cloned()) {
            return Ok(packs);
        }
        let path = store.layout().layer(layer.diff_id);
        let on_host = path.on_host();
        let file = path.open().map_err(failed("open", &on_host))?;
        let named = device_table::read(&file, &on_host)?;
        let packs: Vec<PackId> = named.into_iter().map(|pack| pack.id).collect();
        self.recent(store, |recent| recent.layers.insert(digest, packs.clone()));
        Ok(packs)
    }

    /// Makes sure that a pack is there.
    pub(super) fn pack(&self, store: &StoreReader, pack: PackId) -> Result<(), IndexError> {
        if self.recent(store, |recent| recent.packs.contains(&pack)) {
            return Ok(());
        }
        let path = store.layout().pack(pack);
        path.handle().map_err(failed("find", &path.on_host()))?;
        self.recent(store, |recent| recent.packs.insert(pack));
        Ok(())
    }
}
