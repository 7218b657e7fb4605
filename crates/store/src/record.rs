//! The JSON files of the store: plain data, no I/O.

use serde::{Deserialize, Serialize};
use uimgacc_types::{ChainId, DiffId, Digest, PackId};

/// The format that this code reads and writes.
pub const FORMAT_VERSION: u32 = 2;

/// A compatible feature: nodes may read the store without a lease, so no space of single contents is given back.
pub(crate) const UNLEASED_READERS: &str = "unleased-readers";

/// What a store may have beyond its format version, by name. Reserved is `hot-packs` (incompatible).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// A program that does not know them may read and write the store.
    #[serde(default)]
    pub compatible: Vec<String>,
    /// A program that does not know them may read the store.
    #[serde(default)]
    pub read_only_compatible: Vec<String>,
    /// A program that does not know them may do nothing with the store.
    #[serde(default)]
    pub incompatible: Vec<String>,
}

/// `store.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRecord {
    /// [`FORMAT_VERSION`] at the time of `store init`.
    pub format_version: u32,
    /// What it has beyond that.
    #[serde(default)]
    pub features: Features,
    /// 32 hex digits, random.
    pub store_id: String,
    /// RFC 3339.
    pub created: String,
}

/// A layer of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLayer {
    /// The layer.
    pub diff_id: DiffId,
    /// SHA-256 of its index in `layers/`.
    pub index_digest: Digest,
}

/// `chains/<aa>/<chain-id>.json`: says that every layer of the chain is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainRecord {
    /// The chain.
    pub chain_id: ChainId,
    /// Its layers, bottom first; `chain_id` follows from their diff IDs.
    pub layers: Vec<ChainLayer>,
    /// The flattened index, where the whole image was flattened (`None` for a mere prefix).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexRecord>,
}

impl ChainRecord {
    /// The digests of all indexes that it names.
    pub(crate) fn index_digests(&self) -> impl Iterator<Item = Digest> + '_ {
        let layers = self.layers.iter().map(|layer| layer.index_digest);
        layers.chain(self.index.iter().map(|index| index.digest))
    }
}

/// `chains/<aa>/<chain-id>.former`: the chain had other indexes before, and who holds it may have mounted those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormerRecord {
    /// Seconds since 1970, by the file server's clock.
    pub(crate) since_unix: u64,
}

/// What is known of a flattened index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// SHA-256 of the file in `indexes/`.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The packs that it refers to, in the order of its device table.
    pub packs: Vec<PackId>,
}

/// `images/<aa>/<id>.json`: the commit point of `create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Normalised reference of the image that was converted.
    pub original: String,
    /// Normalised reference of the accelerated image; its SHA-256 names this record.
    pub target: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Digest of the original's manifest (of the platform, not of the list).
    pub original_digest: Digest,
    /// Digest of the target's manifest; `None` when it was made with `--no-push`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_digest: Option<Digest>,
    /// Digest of the image's config: the image ID.
    pub config_digest: Digest,
    /// The top chain.
    pub chain_id: ChainId,
    /// Its flattened index.
    pub index: IndexRecord,
    /// Its layers, bottom first.
    pub diff_ids: Vec<DiffId>,
    /// Compressed length of all layers in bytes.
    pub compressed_size: u64,
    /// Length of all contents of the flattened image in bytes.
    pub size: u64,
    /// Inodes of the flattened image.
    pub inodes: u64,
    /// RFC 3339.
    pub created: String,
}
