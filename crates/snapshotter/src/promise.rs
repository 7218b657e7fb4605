//! What a target image promises about its index: pure.
//!
//! The layers of a target image carry annotations (`docs/en/store-format.md`), which containerd hands
//! on as labels: the chain of the whole image, the digest of that chain's index, and the store that
//! has it. They come from the registry with the manifest, so they tie what a node mounts to what
//! was pulled, whoever can write to the store. Images without them trust the store.

use uimgacc_store::ChainRecord;
use uimgacc_types::{ChainId, Digest};

use crate::state::Labels;

/// How these labels begin.
const PREFIX: &str = "containerd.io/snapshot/uimgacc.";

/// The promise of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The chain of the whole image.
    pub chain: ChainId,
    /// Digest of its flattened index; `None` where the label is missing or no digest.
    pub index: Option<Digest>,
    /// The store that has it.
    pub store_id: Option<String>,
}

/// Why the store's chain is not the promised one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The labels are not whole.
    #[error("the image names its chain but no digest of an index, or no store")]
    Incomplete,
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
    pub fn of(labels: &Labels) -> Option<Self> {
        let label = |name: &str| labels.get(&format!("{PREFIX}{name}"));
        Some(Self {
            chain: label("chain-id")?.parse().ok()?,
            index: label("index-digest").and_then(|text| text.parse().ok()),
            store_id: label("store-id").cloned(),
        })
    }

    /// Whether the chain of `record` in the store `store_id` is what the image promises. It says
    /// something about its own chain only; the chains below it have no digest.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, record: &ChainRecord, store_id: &str) -> Result<(), Broken> {
        if record.chain_id != self.chain {
            return Ok(());
        }
        let (Some(expected), Some(store)) = (self.index, &self.store_id) else {
            return Err(Broken::Incomplete);
        };
        if store != store_id {
            return Err(Broken::OtherStore {
                found: store_id.to_owned(),
                expected: store.clone(),
            });
        }
        let found = record.index.as_ref().map(|index| index.digest);
        if found != Some(expected) {
            return Err(Broken::OtherIndex { found, expected });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uimgacc_store::IndexRecord;

    use super::*;

    fn labels(pairs: &[(&str, String)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (format!("{PREFIX}{name}"), value.clone()))
            .collect()
    }

    #[test]
    fn only_the_promised_index_of_the_promised_store() {
        let chain = ChainId::from_bytes([1; 32]);
        let digest = Digest::from_bytes([2; 32]);
        let record = |digest: Option<Digest>| ChainRecord {
            chain_id: chain,
            layers: Vec::new(),
            index: digest.map(|digest| IndexRecord {
                digest,
                size: 1,
                packs: Vec::new(),
            }),
        };
        let whole = labels(&[
            ("chain-id", chain.to_string()),
            ("index-digest", digest.to_string()),
            ("store-id", "s".to_owned()),
        ]);
        let promise = Promise::of(&whole).unwrap();
        assert_eq!(promise.check(&record(Some(digest)), "s"), Ok(()));
        let other = Digest::from_bytes([3; 32]);
        assert!(promise.check(&record(Some(other)), "s").is_err());
        assert!(promise.check(&record(None), "s").is_err());
        assert!(promise.check(&record(Some(digest)), "t").is_err());
        // A chain below the image's.
        let mut below = record(Some(other));
        below.chain_id = ChainId::from_bytes([9; 32]);
        assert_eq!(promise.check(&below, "s"), Ok(()));

        for missing in ["index-digest", "store-id"] {
            let mut part = whole.clone();
            part.remove(&format!("{PREFIX}{missing}"));
            let promise = Promise::of(&part).unwrap();
            let result = promise.check(&record(Some(digest)), "s");
            assert_eq!(result, Err(Broken::Incomplete), "{missing}");
        }
        assert_eq!(Promise::of(&Labels::new()), None);
        // Only our own labels make an image one of ours.
        let cri = (
            "containerd.io/snapshot/cri.chain-id".to_owned(),
            chain.to_string(),
        );
        assert_eq!(Promise::of(&Labels::from([cri])), None);
    }
}
