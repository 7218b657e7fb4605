//! The table of contents of a pack on disk: data only, all numbers little-endian. And how long an index may be.
//!
//! ```text
//! TocHeader | TocEntry * entries, sorted by hash | BLAKE3-256 of all before it
//! ```
//! The trailing hash is the pack's id.

use std::mem::size_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every table.
pub(crate) const TOC_MAGIC: [u8; 8] = *b"uimgtoc\n";
/// The only version so far.
pub(crate) const TOC_VERSION: u32 = 1;
/// Contents start at multiples of this in a pack; also the block size of the indexes.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// The content stands in the pack as it is.
pub(crate) const ENCODING_RAW: u32 = 0;
/// No index of a sane image is longer; read whole, it must fit in memory.
pub(crate) const MAX_INDEX_BYTES: u64 = 4 << 30;
/// Length of the hash at the end.
pub(crate) const TRAILER_BYTES: usize = 32;

/// Starts a table.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TocHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) reserved: U32,

    pub(crate) entries: U64,
    pub(crate) pack_bytes: U64,

    pub(crate) reserved_2: [u8; 32],
}

/// One content of a pack.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TocEntry {
    pub(crate) hash: [u8; 32],

    pub(crate) offset: U64,
    pub(crate) length: U64,

    pub(crate) stored_length: U64,
    pub(crate) encoding: U32,
    pub(crate) reserved: U32,
}

const _: () = assert!(size_of::<TocHeader>() == 64);
const _: () = assert!(size_of::<TocEntry>() == 64);
