//! What the layers of an image may cost: memory for their metadata, space for their contents.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uimgacc_erofs::Tree;
use uimgacc_erofs::tree::{ChunkAddress, Contents, Inode, Kind};

use crate::memory::{Allowance, Bound};
use crate::tar::{Entry, EntryKind};

/// An inode with its place in a folder, besides all that has a length of its own.
const INODE_BYTES: u64 = 200;
/// What a directory takes beyond that, for the map of its entries and the block that is written of it.
const FOLDER_BYTES: u64 = 1000;
/// What xattrs take beyond their own for the map that has them.
const XATTRS_BYTES: u64 = 700;
/// An xattr, besides name and value.
const XATTR_BYTES: u64 = 64;
/// A chunk of a file.
pub(super) const CHUNK_BYTES: u64 = size_of::<Option<ChunkAddress>>() as u64;

/// What all layers of one image may need together for names, xattrs, small contents and chunk
/// tables; clones share it.
#[derive(Debug, Clone)]
pub struct MetadataBudget {
    left: Arc<AtomicU64>,
    limit: Arc<OverBudget>,
}

/// There is no more memory for metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverBudget {
    /// The budget.
    pub max_bytes: u64,
    /// The memory that it was made of; `None` where an image may never have more.
    pub bound: Option<Bound>,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.max_bytes)?;
        if let Some(bound) = &self.bound {
            write!(
                f,
                ", all that the {} MiB of memory of this process allow by {} (raise that limit, or create the image where there is more memory)",
                bound.bytes >> 20,
                bound.source.display()
            )?;
        }
        Ok(())
    }
}

impl MetadataBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self {
            left: Arc::new(AtomicU64::new(max_bytes)),
            limit: Arc::new(OverBudget {
                max_bytes,
                bound: None,
            }),
        }
    }

    /// What the memory of this process allows for.
    pub(crate) fn of(allowance: Allowance) -> Self {
        let max_bytes = allowance.metadata_bytes;
        Self {
            left: Arc::new(AtomicU64::new(max_bytes)),
            limit: Arc::new(OverBudget {
                max_bytes,
                bound: allowance.bound,
            }),
        }
    }

    /// Takes from it.
    ///
    /// # Errors
    /// The bound, where it does not have so much.
    pub fn take(&self, bytes: u64) -> Result<(), Arc<OverBudget>> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .map(|_| ())
            .map_err(|_| Arc::clone(&self.limit))
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
    let maps = match entry.kind {
        EntryKind::Directory => FOLDER_BYTES,
        _ => 0,
    };
    let maps = maps + map_bytes(entry.xattrs.is_empty());
    INODE_BYTES + maps + (entry.name.len() + entry.link.len()) as u64 + xattrs.sum::<u64>()
}

/// What a folder costs.
pub(super) fn folder_bytes(inode: &Inode, name: &[u8]) -> u64 {
    INODE_BYTES + FOLDER_BYTES + name.len() as u64 + xattr_bytes(inode)
}

fn xattr_bytes(inode: &Inode) -> u64 {
    let xattrs = inode.xattrs.iter();
    let own = xattrs.map(|(name, value)| XATTR_BYTES + (name.len() + value.len()) as u64);
    map_bytes(inode.xattrs.is_empty()) + own.sum::<u64>()
}

const fn map_bytes(is_empty: bool) -> u64 {
    if is_empty { 0 } else { XATTRS_BYTES }
}

/// What a whole tree costs.
pub(crate) fn tree_bytes(tree: &Tree) -> u64 {
    tree.iter()
        .map(|(_, inode)| {
            let own = match &inode.kind {
                Kind::Directory(entries) => {
                    FOLDER_BYTES + entries.keys().map(|name| name.len() as u64).sum::<u64>()
                }
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
