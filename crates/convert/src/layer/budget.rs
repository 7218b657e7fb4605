//! What the layers of an image may cost: memory for their metadata, space for their contents.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uimgacc_erofs::Tree;
use uimgacc_erofs::tree::{ChunkAddress, Contents, Inode, Kind};

use crate::tar::Entry;

/// An inode with its place in a folder, besides all that has a length of its own.
const INODE_BYTES: u64 = 200;
/// An xattr, besides name and value.
const XATTR_BYTES: u64 = 64;
/// A chunk of a file.
pub(super) const CHUNK_BYTES: u64 = size_of::<Option<ChunkAddress>>() as u64;

/// What all layers of one image may need together for names, xattrs, small contents and chunk
/// tables; clones share it.
#[derive(Debug, Clone)]
pub struct MetadataBudget {
    left: Arc<AtomicU64>,
    max_bytes: u64,
}

impl MetadataBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self {
            left: Arc::new(AtomicU64::new(max_bytes)),
            max_bytes,
        }
    }

    /// Takes from it.
    ///
    /// # Errors
    /// The bound, where it does not have so much.
    pub fn take(&self, bytes: u64) -> Result<(), u64> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .map(|_| ())
            .map_err(|_| self.max_bytes)
    }
}

/// What one layer may cost.
#[derive(Debug, Clone)]
pub struct LayerLimits {
    /// The image's budget.
    pub metadata: MetadataBudget,
    /// Length of all contents that go to the sink, with zeros that fill holes.
    pub stored_bytes: u64,
}

/// What an entry costs besides its content and the folders above it.
pub(super) fn entry_bytes(entry: &Entry) -> u64 {
    let xattrs = entry
        .xattrs
        .iter()
        .map(|(name, value)| XATTR_BYTES + (name.len() + value.len()) as u64);
    INODE_BYTES + (entry.name.len() + entry.link.len()) as u64 + xattrs.sum::<u64>()
}

/// What a folder costs.
pub(super) fn folder_bytes(inode: &Inode, name: &[u8]) -> u64 {
    INODE_BYTES + name.len() as u64 + xattr_bytes(inode)
}

fn xattr_bytes(inode: &Inode) -> u64 {
    let xattrs = inode.xattrs.iter();
    xattrs
        .map(|(name, value)| XATTR_BYTES + (name.len() + value.len()) as u64)
        .sum()
}

/// What a whole tree costs.
pub(crate) fn tree_bytes(tree: &Tree) -> u64 {
    tree.iter()
        .map(|(_, inode)| {
            let own = match &inode.kind {
                Kind::Directory(entries) => entries.keys().map(|name| name.len() as u64).sum(),
                Kind::Regular(Contents::Inline(bytes)) => bytes.len() as u64,
                Kind::Regular(Contents::Chunks(contents)) => {
                    CHUNK_BYTES * contents.chunks.len() as u64
                }
                Kind::Symlink(target) => target.len() as u64,
                _ => 0,
            };
            INODE_BYTES + xattr_bytes(inode) + own
        })
        .sum()
}
