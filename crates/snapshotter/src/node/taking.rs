//! Whether a layer is taken from the store: what containerd asks before it downloads one.
//!
//! The order makes sure that what is promised stays: first the lease, then the look that counts,
//! then the row, then the answer. Who deletes an image in between either sees the lease or is seen.

use std::sync::Arc;

use uimgacc_mount::index_cache;
use uimgacc_store::{ChainRecord, ReadError, StoreReader};
use uimgacc_types::{ChainId, Digest, chain_ids, with_causes};

use super::{LeaseKeeper, Node, OriginalImages, blocking, now};
use crate::chains::Busy;
use crate::error::Error;
use crate::lease::Pledge;
use crate::promise::Labels;
use crate::promise::{Broken, Claim, check_blob};
use crate::state::State;

/// What the store has of an image.
struct Found {
    record: ChainRecord,
    /// Every chain of the image, as far as known: containerd asks for the others next.
    image: Vec<ChainId>,
}

impl Node {
    /// Records a chain as a committed snapshot if the store has it and `parent` is what the chain
    /// lies on. Says whether it is there now.
    pub(super) async fn take_from_store(
        self: &Arc<Self>,
        chain: ChainId,
        parent: Option<&str>,
        claim: &Claim,
        labels: &Labels,
    ) -> Result<bool, Error> {
        // Whatever is wrong with the parent, the usual path says it.
        if self.read(|state| state.lower(parent).is_err()) {
            return Ok(false);
        }
        if !self.trial.works(self.store.deadline()).await {
            tracing::debug!(%chain, "not taken from the store: no image can be mounted here");
            return Ok(false);
        }
        let expected = claim.index_of(chain);
        let row = self.read(|state| state.remote(chain, parent).cloned());
        if let Some(row) = &row {
            if expected.is_some() && row.index.is_some() && row.index != expected {
                tracing::warn!(%chain, "here with another index than the image promises; it is pulled");
                return Ok(false);
            }
            // The store may be away: what was shown when the row was made holds for the same claim.
            let is_shown = Claim::of(&row.labels) == *claim
                || self.original_images == OriginalImages::AccelerateWithoutProof;
            // Without a copy of the index it may be gone from the store by now.
            let local = self.chains.local_index(chain);
            if is_shown && local.is_some() && (expected.is_none() || local == expected) {
                return Ok(true);
            }
        }
        if let Claim::Target(promise) = claim {
            self.look_ahead(promise.chain);
        }
        let was_leased = self.leases.covers(chain);
        let Some(found) = self.look(chain, claim).await else {
            return Ok(false);
        };
        if !self.read(|state| lies_on(state, &found.record, parent)) {
            tracing::warn!(%chain, parent, "in the store, but not on this parent; it is pulled");
            return Ok(false);
        }
        if !was_leased {
            let is_late = match self.pledge(&found.image).await {
                Pledge::Written => self.look(chain, claim).await.is_none(),
                // Deleted images give their space back, and nobody would know that this one is in use.
                Pledge::Refused => !self.allows_unleased_readers().await,
            };
            if is_late {
                tracing::info!(%chain, "it may be deleted from the store just now; it is pulled");
                self.leases.release(&found.image);
                self.chains_changed.notify_one();
                return Ok(false);
            }
        }
        if row.is_some() {
            self.leases.release(&[chain]);
            return Ok(true);
        }
        let this = self.clone();
        let (parent, labels) = (parent.map(str::to_owned), labels.clone());
        blocking(move || {
            let target = chain.to_string();
            let plan = |state: &State| {
                let change =
                    state.create_remote(chain, &target, parent.as_deref(), labels, now())?;
                // Another namespace was faster: an empty change.
                let change = change.unwrap_or_else(|| state.no_change());
                Ok((change, ()))
            };
            this.simple_change(plan)
        })
        .await?;
        // The row holds it from here on.
        self.leases.release(&[chain]);
        tracing::info!(%chain, "taken from the store");
        self.chains_changed.notify_one();
        if matches!(claim, Claim::Target(promise) if promise.chain == chain) {
            self.mount_ahead(chain, expected);
        }
        Ok(true)
    }

    /// Whether the store may be used without a lease of this node; not where it gives no answer.
    async fn allows_unleased_readers(&self) -> bool {
        if self.lease_keeper == LeaseKeeper::Cluster {
            return true;
        }
        // As it is now: an operator may have allowed it since this node began.
        let look = |store: &StoreReader| {
            let store = StoreReader::open(store.layout().root())?;
            Ok(store.allows_unleased_readers())
        };
        let found = self.store.run(self.store.deadline(), look).await;
        found.unwrap_or_default()
    }

    /// Mounts an image that was just pulled and whose starts are known: what they read is fetched while
    /// containerd prepares its container.
    fn mount_ahead(self: &Arc<Self>, chain: ChainId, expected: Option<Digest>) {
        let this = self.clone();
        tokio::spawn(async move {
            if !this.chains.has_profile(chain).await {
                return;
            }
            if let Err(error) = this.chains.ensure(chain, expected).await {
                tracing::debug!(%chain, error = with_causes(&error), "not mounted ahead");
            }
            // It may have been removed meanwhile.
            this.release(chain, Busy::Skip).await;
        });
    }

    /// Looks at the other layers of the image meanwhile: containerd asks for one after the other.
    fn look_ahead(&self, image: ChainId) {
        let (seen, store) = (self.chains.seen().clone(), self.store.clone());
        tokio::spawn(async move {
            let look = move |store: &StoreReader| {
                seen.look_ahead(store, image);
                Ok(())
            };
            // Whoever needs the layers reports a store that hangs.
            drop(store.run(store.deadline(), look).await);
        });
    }

    /// The chain in the store, where all of it can be mounted and the claim opens it; `None` where
    /// not, or where the store cannot say so in time (which is logged).
    async fn look(&self, chain: ChainId, claim: &Claim) -> Option<Found> {
        let (claim, policy) = (claim.clone(), self.original_images);
        let seen = self.chains.seen().clone();
        let looked = self.store.run(self.store.deadline(), move |store| {
            let Some(record) = store.chain(chain)? else {
                return Ok(Ok(None));
            };
            let image = match opened_by(store, &record, &claim, policy)? {
                Ok(image) => image,
                Err(broken) => return Ok(Err(broken)),
            };
            index_cache::probe(store, &record, &seen)?;
            Ok(Ok(Some(Found { record, image })))
        });
        match looked.await {
            Ok(Ok(found)) => found,
            Ok(Err(broken)) => {
                tracing::warn!(%chain, error = with_causes(&broken), "not taken from the store");
                None
            }
            Err(error) => {
                tracing::warn!(%chain, error = with_causes(&error), "not taken from the store");
                None
            }
        }
    }
}

/// Whether the claim opens the chain of `record`; gives the chains that are asked for next, as far
/// as known, to write the lease once an image.
fn opened_by(
    store: &StoreReader,
    record: &ChainRecord,
    claim: &Claim,
    policy: OriginalImages,
) -> Result<Result<Vec<ChainId>, Broken>, ReadError> {
    let chain = record.chain_id;
    match claim {
        Claim::Target(promise) if promise.chain == chain => {
            Ok(promise.check(Some(record), chain, store.store_id()))
        }
        Claim::Target(promise) => {
            let whole = store.chain(promise.chain)?;
            Ok(promise.check(whole.as_ref(), chain, store.store_id()))
        }
        Claim::Original(_) if policy == OriginalImages::AccelerateWithoutProof => {
            Ok(Ok(vec![chain]))
        }
        Claim::Original(Some(blob)) => {
            let verified = store.verified_diff_id(*blob)?;
            Ok(check_blob(record, *blob, verified).map(|()| vec![chain]))
        }
        Claim::Original(None) => Ok(Err(Broken::NoBlob)),
    }
}

/// Whether `parent` is the chain that the record's chain lies on: by the store, or by the name
/// that containerd gave it (`<namespace>/<number>/<chain ID>`, its `core/metadata`).
pub(super) fn lies_on(state: &State, record: &ChainRecord, parent: Option<&str>) -> bool {
    let diff_ids: Vec<_> = record.layers.iter().map(|layer| layer.diff_id).collect();
    let below = diff_ids.split_last().map_or(&[][..], |(_, below)| below);
    let wanted = chain_ids(below).last().copied();
    match (wanted, parent) {
        (None, None) => true,
        (Some(wanted), Some(parent)) => {
            let Ok(snapshot) = state.get(parent) else {
                return false;
            };
            let named = || parent.rsplit('/').next()?.parse::<ChainId>().ok();
            snapshot.chain.or_else(named) == Some(wanted)
        }
        _ => false,
    }
}
