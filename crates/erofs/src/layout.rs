//! The first pass of the writer: where everything lies, before a byte is written.
//!
//! An image is, in whole blocks each: the superblock with the device table; the shared xattrs; the
//! inodes, each with its xattrs and what is inline; the blocks of folders and contents that do
//! not fit beside their inode.
//!
//! Guarantees: an inode with all that is beside it lies in one block where it can; gaps that this
//! leaves are filled with smaller inodes.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::directory;
use crate::error::WriteError;
use crate::format::{
    BLOCK_BYTES, BLOCK_BYTES_U64, ChunkIndex, CompactInode, DeviceSlot, ExtendedInode,
    LAYOUT_CHUNK_BASED, LAYOUT_FLAT_INLINE, LAYOUT_FLAT_PLAIN, NID_BYTES, SUPERBLOCK_OFFSET,
    Superblock,
};
use crate::limits::MAX_DEVICES;
use crate::tree::{Contents, Kind, Timestamp, Tree};
use crate::walk::{Visited, Walk};
use crate::xattr::Shared;

/// Chunk addresses are aligned to their own length.
pub(crate) const CHUNK_ALIGN: usize = size_of::<ChunkIndex>();

/// Where an image's parts lie, in blocks.
#[derive(Debug)]
pub(crate) struct Layout<'tree> {
    pub(crate) tree: &'tree Tree,
    pub(crate) walk: Walk<'tree>,
    pub(crate) shared: Shared<'tree>,
    /// As long as the walk.
    pub(crate) placed: Vec<Placed>,
    /// Places of the walk, ordered by where their inodes lie.
    pub(crate) by_offset: Vec<u32>,
    /// The time of compact inodes.
    pub(crate) build_time: Timestamp,
    pub(crate) xattr_block: u32,
    pub(crate) meta_block: u32,
    /// The length of the image.
    pub(crate) blocks: u32,
}

/// Where one inode lies and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    /// In bytes from the first block of the inodes.
    pub(crate) offset: u64,
    /// Length of its contents, 0 where it has none.
    pub(crate) size_bytes: u64,
    /// Length of its xattrs.
    pub(crate) xattr_bytes: u32,
    /// First of its own blocks; 0 where it has none.
    pub(crate) data_block: u32,
    /// `LAYOUT_` of the format.
    pub(crate) layout: u16,
    /// In 64 bytes, not 32.
    pub(crate) extended: bool,
}

impl Placed {
    pub(crate) fn nid(&self) -> u64 {
        self.offset / NID_BYTES
    }

    fn inode_bytes(&self) -> u64 {
        (if self.extended {
            size_of::<ExtendedInode>()
        } else {
            size_of::<CompactInode>()
        }) as u64
    }

    /// Length of the contents that lie beside the inode.
    pub(crate) fn inline_bytes(&self) -> u64 {
        if self.layout == LAYOUT_FLAT_INLINE {
            self.size_bytes % BLOCK_BYTES_U64
        } else {
            0
        }
    }

    /// How many blocks of its own the inode has.
    pub(crate) fn data_blocks(&self) -> u64 {
        match self.layout {
            LAYOUT_FLAT_PLAIN => self.size_bytes.div_ceil(BLOCK_BYTES_U64),
            LAYOUT_FLAT_INLINE => self.size_bytes / BLOCK_BYTES_U64,
            _ => 0,
        }
    }
}

impl<'tree> Layout<'tree> {
    pub(crate) fn new(tree: &'tree Tree) -> Result<Self, WriteError> {
        if tree.devices.len() > MAX_DEVICES {
            return Err(WriteError::TooManyDevices {
                found: tree.devices.len(),
            });
        }
        let walk = Walk::new(tree)?;
        let shared = Shared::new(walk.inodes.iter().map(|visited| visited.inode))?;
        let build_time = most_frequent_time(&walk.inodes);

        let mut room = InodeArea::new();
        let mut placed = Vec::with_capacity(walk.inodes.len());
        for (place, visited) in walk.inodes.iter().enumerate() {
            let xattr_bytes = shared
                .body_bytes(visited.inode)
                .map_err(|wrong| walk.error_at(place, wrong))?;
            let mut inode = form(visited, build_time, xattr_bytes);
            let beside_bytes = inode.inode_bytes() + u64::from(xattr_bytes);
            let total_bytes = match &visited.inode.kind {
                Kind::Regular(Contents::Chunks(contents)) => {
                    beside_bytes.next_multiple_of(CHUNK_ALIGN as u64)
                        + (contents.chunks.len() * CHUNK_ALIGN) as u64
                }
                _ => beside_bytes + inode.inline_bytes(),
            };
            inode.offset = room.take(total_bytes);
            placed.push(inode);
        }

        let device_bytes = size_of::<DeviceSlot>() * tree.devices.len();
        let header_bytes = SUPERBLOCK_OFFSET + size_of::<Superblock>() + device_bytes;
        let mut next_block = header_bytes.div_ceil(BLOCK_BYTES) as u64;
        let xattr_block = next_block;
        next_block += shared.size_bytes.div_ceil(BLOCK_BYTES_U64);
        let meta_block = next_block;
        next_block += room.end().div_ceil(BLOCK_BYTES_U64);
        for inode in &mut placed {
            let blocks = inode.data_blocks();
            if blocks > 0 {
                inode.data_block = block_number(next_block)?;
                next_block += blocks;
            }
        }

        let mut by_offset: Vec<u32> = (0..).take(placed.len()).collect();
        by_offset.sort_unstable_by_key(|&place| placed[place as usize].offset);
        Ok(Self {
            tree,
            walk,
            shared,
            placed,
            by_offset,
            build_time,
            xattr_block: block_number(xattr_block)?,
            meta_block: block_number(meta_block)?,
            blocks: block_number(next_block)?,
        })
    }
}

fn block_number(block: u64) -> Result<u32, WriteError> {
    u32::try_from(block).map_err(|_| WriteError::ImageTooLarge)
}

/// The time that makes the most inodes compact; of several the earliest.
fn most_frequent_time(inodes: &[Visited<'_>]) -> Timestamp {
    let mut counts: HashMap<Timestamp, u64> = HashMap::new();
    for visited in inodes {
        *counts.entry(visited.inode.mtime).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|&(time, count)| (count, Reverse(time)));
    most.map_or(Timestamp::default(), |(time, _)| time)
}

/// An inode's form, without a place yet.
fn form(visited: &Visited<'_>, build_time: Timestamp, xattr_bytes: u32) -> Placed {
    let inode = visited.inode;
    let (size_bytes, chunked) = match &inode.kind {
        Kind::Directory(entries) => {
            let names = entries.keys().map(|name| (&**name, ()));
            let names = directory::with_dots(names, (), ()).map(|(name, ())| name);
            (directory::size_bytes(names), false)
        }
        Kind::Regular(Contents::Inline(bytes)) | Kind::Symlink(bytes) => {
            (bytes.len() as u64, false)
        }
        Kind::Regular(Contents::Chunks(contents)) => (contents.size_bytes, true),
        _ => (0, false),
    };
    let compact = inode.mtime == build_time
        && u16::try_from(inode.uid).is_ok()
        && u16::try_from(inode.gid).is_ok()
        && u16::try_from(visited.links).is_ok()
        && u32::try_from(size_bytes).is_ok();
    let mut placed = Placed {
        offset: 0,
        size_bytes,
        xattr_bytes,
        data_block: 0,
        layout: LAYOUT_FLAT_INLINE,
        extended: !compact,
    };
    let whole_bytes = placed.inode_bytes() + u64::from(xattr_bytes) + placed.inline_bytes();
    if chunked {
        placed.layout = LAYOUT_CHUNK_BASED;
    } else if placed.inline_bytes() == 0 || whole_bytes > BLOCK_BYTES_U64 {
        // The kernel takes the last block of an inline layout as inline even where it is whole.
        placed.layout = LAYOUT_FLAT_PLAIN;
    }
    placed
}

/// The area of the inodes as it fills.
struct InodeArea {
    /// Where the next inode goes that fits no gap.
    next: u64,
    /// Gaps by their length in units of [`NID_BYTES`]; the youngest last.
    gaps: Vec<Vec<u64>>,
}

/// A gap is always shorter than a block.
const UNITS_A_BLOCK: usize = BLOCK_BYTES / size_of::<CompactInode>();

const _: () = assert!(size_of::<CompactInode>() as u64 == NID_BYTES);

impl InodeArea {
    /// The first unit stays free: some programs take inode number 0 for a deleted file.
    fn new() -> Self {
        Self {
            next: NID_BYTES,
            gaps: vec![Vec::new(); UNITS_A_BLOCK],
        }
    }

    /// Takes room and says where it begins.
    fn take(&mut self, size_bytes: u64) -> u64 {
        let size_bytes = size_bytes.next_multiple_of(NID_BYTES);
        if size_bytes <= BLOCK_BYTES_U64 {
            if let Some(offset) = self.take_gap(size_bytes) {
                return offset;
            }
            let left_bytes = self.next.next_multiple_of(BLOCK_BYTES_U64) - self.next;
            if left_bytes < size_bytes {
                self.give(self.next, left_bytes);
                self.next += left_bytes;
            }
        } else {
            // Longer than a block: begins one, so that at least its inode lies in one.
            let left_bytes = self.next.next_multiple_of(BLOCK_BYTES_U64) - self.next;
            self.give(self.next, left_bytes);
            self.next += left_bytes;
        }
        let offset = self.next;
        self.next += size_bytes;
        offset
    }

    /// The smallest gap that is large enough; what is left of it stays a gap.
    fn take_gap(&mut self, size_bytes: u64) -> Option<u64> {
        let first = usize::try_from(size_bytes / NID_BYTES).ok()?;
        let units = (first..self.gaps.len()).find(|&units| !self.gaps[units].is_empty())?;
        let offset = self.gaps[units].pop()?;
        self.give(offset + size_bytes, units as u64 * NID_BYTES - size_bytes);
        Some(offset)
    }

    fn give(&mut self, offset: u64, size_bytes: u64) {
        if let Some(gaps) = usize::try_from(size_bytes / NID_BYTES)
            .ok()
            .filter(|&units| units > 0)
            .and_then(|units| self.gaps.get_mut(units))
        {
            gaps.push(offset);
        }
    }

    fn end(&self) -> u64 {
        self.next
    }
}
