//! What was found in the store a moment ago.
//!
//! A pull asks for each prefix of its image, one after the other, and each has all layers of those
//! before: without this an image of n layers costs n² looks, and a slow store takes milliseconds for
//! one. What was seen is believed for [`MOMENT`], as long as a pull may go by what it was told.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uimgacc_store::{ChainLayer, StoreReader};
use uimgacc_types::{Digest, PackId};

use super::{IndexError, device_table, failed};

const MOMENT: Duration = Duration::from_secs(10);

/// Layers and packs that are in the store.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Option<Recent>>);

#[derive(Debug)]
struct Recent {
    store_id: String,
    until: Instant,
    /// By the digest of the layer's index: the packs that it names.
    layers: HashMap<Digest, Vec<PackId>>,
    packs: HashSet<PackId>,
}

impl Seen {
    /// Calls `with` with what is still to be believed of that store.
    fn recent<T>(&self, store: &StoreReader, with: impl FnOnce(&mut Recent) -> T) -> T {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let known = recent
            .take()
            .filter(|recent| now < recent.until && recent.store_id == store.store_id());
        with(recent.insert(known.unwrap_or_else(|| Recent {
            store_id: store.store_id().to_owned(),
            until: now + MOMENT,
            layers: HashMap::new(),
            packs: HashSet::new(),
        })))
    }

    /// Believes nothing any more: something was not as it had been seen.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
