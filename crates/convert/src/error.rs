//! Why an image could not be created.

use uimgacc_registry::Error as RegistryError;
use uimgacc_store::flatten::FlattenError;
use uimgacc_store::{CommitError, PutError, ReadError, SessionError};
use uimgacc_types::{DiffId, Digest};

use crate::layer::LayerError;

/// Why an image could not be created.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CreateError {
    /// The registry failed or refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer cannot be taken.
    #[error("layer {number} of {count} ({digest})")]
    Layer {
        /// From 1, bottom first.
        number: usize,
        /// How many layers there are.
        count: usize,
        /// Digest of the layer's blob.
        digest: Digest,
        source: Box<LayerFailure>,
    },
    /// The layers are too many or too large together.
    #[error(transparent)]
    Layers(#[from] LayerError),
    /// The layers cannot be stacked.
    #[error("the layers do not fit onto each other")]
    Flatten(#[from] FlattenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SessionError),
    /// The image has no layers.
    #[error("the image has no layers: there is nothing to accelerate")]
    NoLayers,
    /// The target's manifest could not be made of the original's.
    #[error("the original's manifest cannot be rewritten")]
    Manifest(#[source] serde_json::Error),
    /// A thread of ours died.
    #[error("a worker of the conversion failed")]
    Worker(#[from] tokio::task::JoinError),
}

impl From<CommitError> for CreateError {
    fn from(error: CommitError) -> Self {
        Self::Store(error.into())
    }
}

impl From<ReadError> for CreateError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

/// Why a layer could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LayerFailure {
    /// It could not be fetched.
    #[error("it cannot be fetched")]
    Fetch(#[source] RegistryError),
    /// The registry sent other bytes than asked for.
    #[error("the registry sent bytes with the digest {found}, {read_bytes} of them")]
    WrongDigest {
        /// What the bytes hash to.
        found: Digest,
        /// How many came.
        read_bytes: u64,
    },
    /// The uncompressed layer is not the one that the image's config names.
    #[error("its uncompressed content has the diff ID {found}, the image's config says {expected}")]
    WrongDiffId {
        /// What it hashes to.
        found: DiffId,
        /// What the config says.
        expected: DiffId,
    },
    /// Its compression is damaged.
    #[error("it cannot be decompressed")]
    Decompress(#[source] std::io::Error),
    /// It unpacks to suspiciously much.
    #[error(
        "it unpacks to more than {max_bytes} bytes from {compressed_bytes}: a zip bomb? (--max-expansion raises the bound)"
    )]
    TooLarge {
        /// The bound.
        max_bytes: u64,
        /// Length of the blob.
        compressed_bytes: u64,
    },
    /// Its tar cannot be taken.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SessionError),
}

impl LayerFailure {
    /// Whether it is the store's failure and not the layer's: it may be mended, as by more space.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        matches!(
            self,
            Self::Store(_)
                | Self::Layer(LayerError::Content {
                    source: PutError::Store(_),
                    ..
                })
        )
    }
}

impl From<CommitError> for LayerFailure {
    fn from(error: CommitError) -> Self {
        Self::Store(error.into())
    }
}
