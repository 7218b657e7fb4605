//! Why a layer may be taken from the store: pure.
//!
//! containerd asks by chain ID, and that follows from the diff IDs which an image's configuration
//! claims. Nobody has to have the layers for that, so a chain ID alone opens nothing. What does:
//!
//! - A target image's *promise*. Its layers carry annotations (`docs/en/store-format.md`), which
//!   containerd hands on as labels: the chain of the whole image, the digest of that chain's index, and
//!   the store that has it. They come from the registry with the manifest, so they also tie what a
//!   node mounts to what was pulled, whoever can write to the store. A promise covers the prefixes
//!   of its chain and nothing else.
//! - An original's *blob*: the digest of the layer in the manifest, which containerd's CRI plugin and
//!   transfer service hand on, where the store knows that just this blob was verified to hold just
//!   this layer. Who names the digest has read the manifest. The layers below were shown in the
//!   same way when their snapshots were made, or were unpacked here.

use std::collections::BTreeMap;

use uimgacc_store::ChainRecord;
use uimgacc_types::{ChainId, DiffId, Digest, chain_ids};

/// Labels of a snapshot.
pub(crate) type Labels = BTreeMap<String, String>;

/// The digest of the layer's blob in its manifest (containerd's `pkg/snapshotters`).
const BLOB_LABEL: &str = "containerd.io/snapshot/cri.layer-digest";
/// How these labels begin.
const PREFIX: &str = "containerd.io/snapshot/uimgacc.";

/// The promise of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promise {
    /// The chain of the whole image.
    pub chain: ChainId,
    /// Digest of its flattened index; `None` where the label is missing or no digest.
    pub index: Option<Digest>,
    /// The store that has it.
    pub store_id: Option<String>,
}

/// What an image brings forward to have a layer taken from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is a target image.
    Target(Promise),
    /// It is an original; with the digest of the layer's blob, where containerd says it.
    Original(Option<Digest>),
}

impl Claim {
    /// The claim that labels make.
    #[must_use]
    pub(crate) fn of(labels: &Labels) -> Self {
        Promise::of(labels).map_or_else(
            || Self::Original(labels.get(BLOB_LABEL).and_then(|text| text.parse().ok())),
            Self::Target,
        )
    }

    /// The digest that the index of `chain` must have, where one was promised.
    #[must_use]
    pub(crate) fn index_of(&self, chain: ChainId) -> Option<Digest> {
        match self {
            Self::Target(promise) if promise.chain == chain => promise.index,
            _ => None,
        }
    }
}

/// Whether an original's layer is the one that its blob was verified to hold.
///
/// # Errors
/// Why it is not.
pub(crate) fn check_blob(
    record: &ChainRecord,
    blob: Digest,
    verified: Option<DiffId>,
) -> Result<(), Broken> {
    let layer = record.layers.last().map(|layer| layer.diff_id);
    if verified.is_some() && verified == layer {
        return Ok(());
    }
    Err(Broken::OtherBlob { blob })
}

/// Why a layer is not taken from the store though the store has its chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The labels are not whole.
    #[error("the image names its chain but no digest of an index, or no store")]
    Incomplete,
    /// The whole image is not in the store.
    #[error("the image promises the chain {0}, which is not in the store")]
    NoChain(ChainId),
    /// The layer is none of the promised image.
    #[error("the image promises the chain {promised}, which does not begin with this one")]
    NotCovered {
        /// What it promises.
        promised: ChainId,
    },
    /// containerd does not say which blob the layer is.
    #[error(
        "containerd does not say which blob the layer is, so originals that it pulls in this way are not accelerated"
    )]
    NoBlob,
    /// The blob was never seen to hold this layer.
    #[error("no `create` has verified that the blob {blob} holds this layer")]
    OtherBlob {
        /// What the image's manifest names.
        blob: Digest,
    },
    /// It is of another store.
    #[error("the image was made for store {expected}, this is {found}; create it for this store")]
    OtherStore {
        /// This one.
        found: String,
        /// The image's.
        expected: String,
    },
    /// The store's index is another one.
    #[error("the store's index is {}, the image promises {expected}; create the image anew, and run `uimgacc store verify` if nobody did",
        .found.map_or_else(|| "not there".to_owned(), |digest| digest.to_string()))]
    OtherIndex {
        /// What the store has.
        found: Option<Digest>,
        /// What the image says.
        expected: Digest,
    },
}

impl Promise {
    /// The promise that labels make.
    #[must_use]
    pub(crate) fn of(labels: &Labels) -> Option<Self> {
        let label = |name: &str| labels.get(&format!("{PREFIX}{name}"));
        Some(Self {
            chain: label("chain-id")?.parse().ok()?,
            index: label("index-digest").and_then(|text| text.parse().ok()),
            store_id: label("store-id").cloned(),
        })
    }

    /// Whether `whole`, the promised chain's record in the store `store_id`, is what the image
    /// promises, and `chain` is one of its prefixes. Gives all of its prefixes, shortest first.
    ///
    /// Only the whole chain's index has a promised digest; those of its prefixes trust the store.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(
        &self,
        whole: Option<&ChainRecord>,
        chain: ChainId,
        store_id: &str,
    ) -> Result<Vec<ChainId>, Broken> {
        let (Some(expected), Some(store)) = (self.index, &self.store_id) else {
            return Err(Broken::Incomplete);
        };
        if store != store_id {
            return Err(Broken::OtherStore {
                found: store_id.to_owned(),
                expected: store.clone(),
            });
        }
        let whole = whole.ok_or(Broken::NoChain(self.chain))?;
        let found = whole.index.as_ref().map(|index| index.digest);
        if found != Some(expected) {
            return Err(Broken::OtherIndex { found, expected });
        }
        let diff_ids: Vec<DiffId> = whole.layers.iter().map(|layer| layer.diff_id).collect();
        let prefixes = chain_ids(&diff_ids);
        if whole.chain_id == self.chain && prefixes.contains(&chain) {
            return Ok(prefixes);
        }
        Err(Broken::NotCovered {
            promised: self.chain,
        })
    }
}

#[cfg(test)]
mod tests {
    use uimgacc_store::{ChainLayer, IndexRecord};

    use super::*;

    fn labels(pairs: &[(&str, String)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (format!("{PREFIX}{name}"), value.clone()))
            .collect()
    }

    fn diff_id(byte: u8) -> DiffId {
        DiffId::from_bytes([byte; 32])
    }

    fn record(diff_ids: &[DiffId], index: Option<Digest>) -> ChainRecord {
        let layer = |diff_id: &DiffId| ChainLayer {
            diff_id: *diff_id,
            index_digest: Digest::from_bytes([8; 32]),
        };
        ChainRecord {
            chain_id: *chain_ids(diff_ids).last().unwrap(),
            layers: diff_ids.iter().map(layer).collect(),
            index: index.map(|digest| IndexRecord {
                digest,
                size: 1,
                packs: Vec::new(),
            }),
        }
    }

    #[test]
    fn a_promise_covers_the_prefixes_of_its_own_chain_in_its_own_store() {
        let diff_ids = [diff_id(1), diff_id(2)];
        let prefixes = chain_ids(&diff_ids);
        let (below, chain) = (prefixes[0], prefixes[1]);
        let digest = Digest::from_bytes([2; 32]);
        let whole = record(&diff_ids, Some(digest));
        let all = labels(&[
            ("chain-id", chain.to_string()),
            ("index-digest", digest.to_string()),
            ("store-id", "s".to_owned()),
        ]);
        let promise = Promise::of(&all).unwrap();
        for asked in [below, chain] {
            assert_eq!(promise.check(Some(&whole), asked, "s").unwrap(), prefixes);
        }
        // Another image of the store, one on top of this one, and one that there is not.
        let foreign = record(&[diff_id(3)], Some(digest));
        let above = record(&[diff_id(1), diff_id(2), diff_id(3)], Some(digest));
        for asked in [
            foreign.chain_id,
            above.chain_id,
            ChainId::from_bytes([0; 32]),
        ] {
            let refused = promise.check(Some(&whole), asked, "s").unwrap_err();
            assert_eq!(refused, Broken::NotCovered { promised: chain });
            // Nor where the store gives that one's record for the promised chain.
            promise.check(Some(&foreign), asked, "s").unwrap_err();
        }
        let other = Digest::from_bytes([3; 32]);
        for asked in [below, chain] {
            let check = |whole: Option<&ChainRecord>, store| promise.check(whole, asked, store);
            check(Some(&record(&diff_ids, Some(other))), "s").unwrap_err();
            check(Some(&record(&diff_ids, None)), "s").unwrap_err();
            check(Some(&whole), "t").unwrap_err();
            assert_eq!(check(None, "s"), Err(Broken::NoChain(chain)));
            for missing in ["index-digest", "store-id"] {
                let mut part = all.clone();
                part.remove(&format!("{PREFIX}{missing}"));
                let promise = Promise::of(&part).unwrap();
                let result = promise.check(Some(&whole), asked, "s");
                assert_eq!(result, Err(Broken::Incomplete), "{missing}");
            }
        }
    }

    #[test]
    fn an_original_is_known_by_the_blob_of_its_top_layer() {
        let record = record(&[diff_id(1), diff_id(2)], None);
        let blob = Digest::from_bytes([7; 32]);
        assert_eq!(check_blob(&record, blob, Some(diff_id(2))), Ok(()));
        for verified in [None, Some(diff_id(1)), Some(diff_id(3))] {
            let refused = check_blob(&record, blob, verified);
            assert_eq!(refused, Err(Broken::OtherBlob { blob }));
        }
    }

    #[test]
    fn what_labels_claim() {
        let blob = Digest::from_bytes([7; 32]);
        assert_eq!(Claim::of(&Labels::new()), Claim::Original(None));
        let mut found = Labels::from([(BLOB_LABEL.to_owned(), blob.to_string())]);
        // Only our own labels make an image one of ours.
        let cri = "containerd.io/snapshot/cri.chain-id".to_owned();
        found.insert(cri, ChainId::from_bytes([1; 32]).to_string());
        assert_eq!(Claim::of(&found), Claim::Original(Some(blob)));
        found.insert(BLOB_LABEL.to_owned(), "nonsense".to_owned());
        assert_eq!(Claim::of(&found), Claim::Original(None));
        let chain = ChainId::from_bytes([1; 32]);
        found.extend(labels(&[
            ("chain-id", chain.to_string()),
            ("index-digest", blob.to_string()),
        ]));
        let claim = Claim::of(&found);
        assert!(matches!(claim, Claim::Target(_)));
        assert_eq!(claim.index_of(chain), Some(blob));
        assert_eq!(claim.index_of(ChainId::from_bytes([2; 32])), None);
    }
}
