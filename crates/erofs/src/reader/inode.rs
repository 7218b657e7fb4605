//! One inode: its head, its contents, and where a folder's blocks lie.

use std::collections::BTreeMap;

use zerocopy::FromBytes;

use super::Budget;
use super::image::Image;
use super::xattrs;
use crate::error::ReadError;
use crate::format::{
    BLOCK_BYTES_U64, BLOCK_LOG2, CHUNK_BLOCKS_LOG2_MASK, CHUNK_INDEXES, ChunkIndex, CompactInode,
    ExtendedInode, FORMAT_ALL, FORMAT_EXTENDED, FORMAT_LAYOUT_SHIFT, LAYOUT_CHUNK_BASED,
    LAYOUT_FLAT_INLINE, LAYOUT_FLAT_PLAIN, MODE_BLOCK, MODE_CHARACTER, MODE_DIRECTORY, MODE_FIFO,
    MODE_PERMISSIONS_MASK, MODE_REGULAR, MODE_SOCKET, MODE_SYMLINK, MODE_TYPE_MASK, NULL_BLOCK,
    XATTR_ALIGN, XattrHeader,
};
use crate::limits::MAX_SYMLINK_BYTES;
use crate::tree::{
    Bytes, ChunkAddress, ChunkedContents, Contents, DeviceNumber, Inode, Kind, Timestamp,
};
use crate::{error::Wrong, validate};

/// An inode, as far as it can be read by itself.
pub(super) struct Parsed {
    pub(super) inode: Inode,
    pub(super) links: u32,
    /// Where the entries are, for a folder.
    pub(super) folder: Option<FlatData>,
}

/// Where uncompressed contents lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlatData {
    pub(super) size_bytes: u64,
    first_block_offset: u64,
    /// Of the last block, where that lies beside the inode.
    inline_offset: Option<u64>,
}

impl FlatData {
    pub(super) fn blocks(&self) -> u64 {
        self.size_bytes.div_ceil(BLOCK_BYTES_U64)
    }

    /// One block; the last one may be short.
    pub(super) fn block<'bytes>(
        &self,
        image: &Image<'bytes>,
        index: u64,
    ) -> Result<&'bytes [u8], ReadError> {
        let begin = index.saturating_mul(BLOCK_BYTES_U64);
        let length = self.size_bytes.saturating_sub(begin).min(BLOCK_BYTES_U64);
        let offset = match self.inline_offset {
            Some(offset) if index + 1 == self.blocks() => offset,
            _ => self.first_block_offset.saturating_add(begin),
        };
        image.slice("contents", offset, length)
    }
}

/// The fields that both forms of an inode have.
struct Head {
    nid: u64,
    layout: u16,
    xattr_count: u16,
    mode: u16,
    links: u32,
    size_bytes: u64,
    detail: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    /// Where its xattrs begin.
    end_offset: u64,
}

impl Head {
    fn malformed(&self, what: &'static str, found: impl Into<u64>) -> ReadError {
        ReadError::Malformed {
            nid: self.nid,
            what,
            found: found.into(),
        }
    }
}

pub(super) fn parse(image: &Image<'_>, nid: u64, budget: &mut Budget) -> Result<Parsed, ReadError> {
    let head = head(image, nid)?;
    let xattr_bytes = match head.xattr_count {
        0 => 0,
        1 => return Err(head.malformed("its count of xattr bytes", 1_u64)),
        count => size_of::<XattrHeader>() as u64 + (u64::from(count) - 1) * XATTR_ALIGN as u64,
    };
    let xattrs = if xattr_bytes > 0 {
        let body = image.slice("xattrs", head.end_offset, xattr_bytes)?;
        xattrs::parse(image, nid, body, budget)?
    } else {
        BTreeMap::new()
    };
    let beside_offset = head.end_offset.saturating_add(xattr_bytes);
    let (kind, folder) = kind(image, &head, beside_offset, budget)?;
    let inode = Inode {
        permissions: head.mode & MODE_PERMISSIONS_MASK,
        uid: head.uid,
        gid: head.gid,
        mtime: head.mtime,
        xattrs,
        kind,
    };
    validate::inode(&inode, &image.devices).map_err(|wrong| ReadError::Inode { nid, wrong })?;
    Ok(Parsed {
        inode,
        links: head.links,
        folder,
    })
}

fn head(image: &Image<'_>, nid: u64) -> Result<Head, ReadError> {
    let offset = image.inode_offset(nid)?;
    let length = size_of::<CompactInode>() as u64;
    let out_of_bounds = ReadError::OutOfBounds {
        what: "an inode",
        offset,
        length,
    };
    let rest = image.rest(offset);
    let (compact, _) = CompactInode::read_from_prefix(rest).map_err(|_| out_of_bounds.clone())?;
    let format = compact.format.get();
    if format & !FORMAT_ALL != 0 {
        return Err(ReadError::Malformed {
            nid,
            what: "its format",
            found: format.into(),
        });
    }
    let layout = format >> FORMAT_LAYOUT_SHIFT;
    if format & FORMAT_EXTENDED == 0 {
        return Ok(Head {
            nid,
            layout,
            xattr_count: compact.xattr_count.get(),
            mode: compact.mode.get(),
            links: compact.links.get().into(),
            size_bytes: compact.size.get().into(),
            detail: compact.detail.get(),
            uid: compact.uid.get().into(),
            gid: compact.gid.get().into(),
            mtime: image.build_time,
            end_offset: offset.saturating_add(length),
        });
    }
    let (extended, _) = ExtendedInode::read_from_prefix(rest).map_err(|_| out_of_bounds)?;
    Ok(Head {
        nid,
        layout,
        xattr_count: extended.xattr_count.get(),
        mode: extended.mode.get(),
        links: extended.links.get(),
        size_bytes: extended.size.get(),
        detail: extended.detail.get(),
        uid: extended.uid.get(),
        gid: extended.gid.get(),
        mtime: Timestamp {
            seconds: extended.mtime_seconds.get(),
            nanoseconds: extended.mtime_nanoseconds.get(),
        },
        end_offset: offset.saturating_add(size_of::<ExtendedInode>() as u64),
    })
}

fn kind(
    image: &Image<'_>,
    head: &Head,
    beside_offset: u64,
    budget: &mut Budget,
) -> Result<(Kind, Option<FlatData>), ReadError> {
    let wrong = |wrong: Wrong| ReadError::Inode {
        nid: head.nid,
        wrong,
    };
    let kind = match head.mode & MODE_TYPE_MASK {
        MODE_DIRECTORY => {
            let data = flat(head, beside_offset)?;
            return Ok((Kind::Directory(BTreeMap::new()), Some(data)));
        }
        MODE_REGULAR if head.layout == LAYOUT_CHUNK_BASED => {
            let chunks = chunks(image, head, beside_offset, budget)?;
            Kind::Regular(Contents::Chunks(chunks))
        }
        MODE_REGULAR => {
            validate::inline_size(head.size_bytes).map_err(wrong)?;
            let bytes = bytes(image, head, beside_offset, budget)?;
            Kind::Regular(Contents::Inline(bytes))
        }
        MODE_SYMLINK => {
            if head.size_bytes > MAX_SYMLINK_BYTES as u64 {
                return Err(head.malformed("its target's length", head.size_bytes));
            }
            Kind::Symlink(bytes(image, head, beside_offset, budget)?)
        }
        MODE_CHARACTER => Kind::CharacterDevice(decode_device(head.detail)),
        MODE_BLOCK => Kind::BlockDevice(decode_device(head.detail)),
        MODE_FIFO => Kind::Fifo,
        MODE_SOCKET => Kind::Socket,
        _ => return Err(head.malformed("its mode", head.mode)),
    };
    Ok((kind, None))
}

fn flat(head: &Head, beside_offset: u64) -> Result<FlatData, ReadError> {
    let mut data = FlatData {
        size_bytes: head.size_bytes,
        first_block_offset: u64::from(head.detail) * BLOCK_BYTES_U64,
        inline_offset: None,
    };
    match head.layout {
        LAYOUT_FLAT_PLAIN => {}
        LAYOUT_FLAT_INLINE => {
            let whole_bytes = data.blocks().saturating_sub(1) * BLOCK_BYTES_U64;
            let inline_bytes = head.size_bytes - whole_bytes;
            if beside_offset % BLOCK_BYTES_U64 + inline_bytes > BLOCK_BYTES_U64 {
                return Err(head.malformed("its inline length past a block", inline_bytes));
            }
            data.inline_offset = Some(beside_offset);
        }
        layout => return Err(head.malformed("its layout", layout)),
    }
    Ok(data)
}

/// Contents of at most one block.
fn bytes(
    image: &Image<'_>,
    head: &Head,
    beside_offset: u64,
    budget: &mut Budget,
) -> Result<Bytes, ReadError> {
    let data = flat(head, beside_offset)?;
    if data.size_bytes == 0 {
        return Ok(Bytes::default());
    }
    budget.take_bytes(data.size_bytes)?;
    Ok(data.block(image, 0)?.into())
}

fn chunks(
    image: &Image<'_>,
    head: &Head,
    beside_offset: u64,
    budget: &mut Budget,
) -> Result<ChunkedContents, ReadError> {
    if !image.may_chunk || head.detail & !(CHUNK_BLOCKS_LOG2_MASK | CHUNK_INDEXES) != 0 {
        return Err(head.malformed("its chunk format", head.detail));
    }
    if head.detail & CHUNK_INDEXES == 0 {
        return Err(ReadError::Unsupported {
            what: "chunks without devices",
            found: head.detail.into(),
        });
    }
    let blocks_log2 = u8::try_from(head.detail & CHUNK_BLOCKS_LOG2_MASK).unwrap_or(u8::MAX);
    let chunk_log2 = BLOCK_LOG2.saturating_add(blocks_log2);
    let count =
        validate::chunk_count(head.size_bytes, chunk_log2).map_err(|wrong| ReadError::Inode {
            nid: head.nid,
            wrong,
        })?;
    let index_bytes = size_of::<ChunkIndex>() as u64;
    let offset = beside_offset.next_multiple_of(index_bytes);
    let table = image.slice("chunk addresses", offset, count.saturating_mul(index_bytes))?;
    budget.take_bytes(table.len() as u64)?;
    let indexes = table.chunks_exact(size_of::<ChunkIndex>());
    let indexes = indexes.filter_map(|bytes| ChunkIndex::read_from_bytes(bytes).ok());
    let addresses = indexes.map(|index| {
        let start_block = index.start_block.get();
        if start_block == NULL_BLOCK {
            return Ok(None);
        }
        let device = index
            .device_id
            .get()
            .checked_sub(1)
            .ok_or(ReadError::Unsupported {
                what: "a chunk in the image itself",
                found: start_block.into(),
            })?;
        Ok(Some(ChunkAddress {
            device,
            start_block,
        }))
    });
    Ok(ChunkedContents {
        size_bytes: head.size_bytes,
        chunk_log2,
        chunks: addresses.collect::<Result<_, ReadError>>()?,
    })
}

/// The kernel's wide form of a device number (`kdev_t.h`, `new_decode_dev`).
fn decode_device(number: u32) -> DeviceNumber {
    DeviceNumber {
        major: (number >> 8) & 0xFFF,
        minor: (number & 0xFF) | ((number >> 12) & 0x000F_FF00),
    }
}
