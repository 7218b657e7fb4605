//! Which file of the store lies where. The names are fixed; see `docs/en/store-format.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uimgacc_types::{ChainId, ContentHash, DiffId, Digest, PackId};

use crate::path::{Observer, Root, StorePath};

/// The suffix of profiles.
pub(crate) const PROFILE_SUFFIX: &str = "json.zst";
/// The suffix of second copies of tables.
pub(crate) const TOC_COPY_SUFFIX: &str = "toc.zst";
/// The suffix of second copies of indexes.
pub(crate) const INDEX_COPY_SUFFIX: &str = "erofs.zst";

/// The paths of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: Root,
    actor: Option<String>,
}

impl Layout {
    /// The paths of the store in `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: Arc::<Path>::from(root.into()).into(),
            actor: None,
        }
    }

    /// The same for somebody of that name: what works on the store says so there, and
    /// [`crate::clear_gone`] asks about it.
    #[must_use]
    pub fn acting_as(mut self, actor: &str) -> Self {
        self.actor = Some(actor.to_owned());
        self
    }

    /// The same, with somebody who is called before each change to the store.
    #[must_use]
    pub fn observed_by(mut self, observer: Observer) -> Self {
        self.root.observed_by(observer);
        self
    }

    pub(crate) fn actor(&self) -> Option<&str> {
        self.actor.as_deref()
    }

    /// The store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `store.json`: format version, store id, creation time.
    #[must_use]
    pub fn store_json(&self) -> StorePath {
        self.at("store.json")
    }

    fn at(&self, name: &str) -> StorePath {
        StorePath::new(self.root.clone(), name)
    }

    fn fanned(&self, directory: &str, hex: &str, suffix: &str) -> StorePath {
        self.at(directory)
            .join(hex.get(..2).unwrap_or("xx"))
            .join(format!("{hex}.{suffix}"))
    }

    /// One of the store's directories, or (by the empty name) the root.
    pub(crate) fn directory(&self, name: &str) -> StorePath {
        self.at(name)
    }

    /// A pack: contents.
    #[must_use]
    pub fn pack(&self, id: PackId) -> StorePath {
        self.fanned("packs", &id.hex(), "pack")
    }

    /// A pack's table of contents.
    #[must_use]
    pub fn toc(&self, id: PackId) -> StorePath {
        self.fanned("packs", &id.hex(), "toc")
    }

    /// The second copy of a pack's table of contents.
    #[must_use]
    pub fn toc_copy(&self, id: PackId) -> StorePath {
        self.fanned("packs", &id.hex(), TOC_COPY_SUFFIX)
    }

    /// What is given up of a pack.
    #[must_use]
    pub fn dead(&self, id: PackId) -> StorePath {
        self.fanned("packs", &id.hex(), "dead")
    }

    /// Packs of which contents may have died.
    #[must_use]
    pub fn freeing(&self) -> StorePath {
        self.at("freeing.json")
    }

    /// Which packs a content may be in; the name is a hash of the file.
    #[must_use]
    pub fn filters(&self, hash: ContentHash) -> StorePath {
        self.fanned("filters", &hash.hex(), "filter")
    }

    /// One layer's metadata.
    #[must_use]
    pub fn layer(&self, id: DiffId) -> StorePath {
        self.fanned("layers", &id.hex(), "erofs")
    }

    /// Which layer a registry's blob was verified to hold.
    #[must_use]
    pub fn blob(&self, digest: Digest) -> StorePath {
        self.fanned("blobs", &digest.hex(), "json")
    }

    /// The layers of a chain.
    #[must_use]
    pub fn chain(&self, id: ChainId) -> StorePath {
        self.fanned("chains", &id.hex(), "json")
    }

    /// The layers of a chain that no image needs any more, as long as a lease may name it.
    #[must_use]
    pub fn retired_chain(&self, id: ChainId) -> StorePath {
        self.fanned("chains", &id.hex(), "retired")
    }

    /// That the chain had other indexes before, which somebody may still read.
    #[must_use]
    pub fn former_chain(&self, id: ChainId) -> StorePath {
        self.fanned("chains", &id.hex(), "former")
    }

    /// The flattened index of a chain.
    #[must_use]
    pub fn index(&self, id: ChainId) -> StorePath {
        self.fanned("indexes", &id.hex(), "erofs")
    }

    /// The second copy of the index with this digest, of a layer or flattened.
    #[must_use]
    pub fn index_copy(&self, digest: Digest) -> StorePath {
        self.fanned("copies", &digest.hex(), INDEX_COPY_SUFFIX)
    }

    /// The record of the image with this target reference.
    #[must_use]
    pub fn image(&self, target: &str) -> StorePath {
        self.fanned("images", &Digest::of(target.as_bytes()).hex(), "json")
    }

    /// What starts of an image with this chain read.
    #[must_use]
    pub fn profile(&self, id: ChainId) -> StorePath {
        self.fanned("profiles", &id.hex(), PROFILE_SUFFIX)
    }

    /// Unfinished work.
    #[must_use]
    pub fn tmp(&self) -> StorePath {
        self.at("tmp")
    }

    /// Who has what mounted.
    #[must_use]
    pub fn leases(&self) -> StorePath {
        self.at("leases")
    }
}
