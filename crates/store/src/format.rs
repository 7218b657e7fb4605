//! The binary files of the store: data only, all numbers little-endian. And how long an index may be.
//!
//! ```text
//! table    TocHead, zeros up to PAGE_BYTES | TocPage * ceil(entries / ENTRIES_PER_PAGE)
//! dead     DeadHead | DeadRange * ranges, ascending and apart | BLAKE3-256 of all before it
//! filters  FilterHead | FilterEntry * filters | fingerprints, U16 each, of one filter after the other
//!          | BLAKE3-256 of all before it
//! ```

use std::mem::size_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every table.
pub(crate) const TOC_MAGIC: [u8; 8] = *b"uimgtoc\n";
/// First bytes of every record of dead ranges.
pub(crate) const DEAD_MAGIC: [u8; 8] = *b"uimgdea\n";
/// First bytes of every file of filters.
pub(crate) const FILTER_MAGIC: [u8; 8] = *b"uimgfil\n";
/// The version of all three.
pub(crate) const BINARY_VERSION: u32 = 2;
/// Contents start at multiples of this in a pack; also the block size of the indexes.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// The pack is contents as they are. Other kinds are reserved: 1 is for packs of compressed frames.
pub(crate) const KIND_CONTENTS: u32 = 0;
/// The content stands in the pack as it is.
pub(crate) const ENCODING_RAW: u32 = 0;
/// No index of a sane image is longer; read whole, it must fit in memory.
pub(crate) const MAX_INDEX_BYTES: u64 = 4 << 30;
/// Length of a page of a table, and of its head.
pub(crate) const PAGE_BYTES: usize = 4096;
/// A whole page has so many entries.
pub(crate) const ENTRIES_PER_PAGE: usize = 63;
/// Length of a BLAKE3-256 hash.
pub(crate) const HASH_BYTES: usize = 32;

/// Starts a table. The pack's id is the BLAKE3-256 of the whole page that it stands in.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TocHead {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    /// [`KIND_CONTENTS`].
    pub(crate) kind: U32,

    /// 0, or a number that makes the id differ from that of an equal pack with dead ranges.
    pub(crate) salt: U64,
    pub(crate) entries: U64,

    pub(crate) pack_bytes: U64,
    pub(crate) reserved: [u8; 24],

    /// BLAKE3-256 of all entries, one after the other.
    pub(crate) root: [u8; HASH_BYTES],
    pub(crate) reserved_2: [u8; 32],
}

/// A page of a table: entries sorted by hash; the last page has fewer, and zeros for the rest.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TocPage {
    pub(crate) entries: [TocEntry; ENTRIES_PER_PAGE],
    pub(crate) reserved: [u8; 24],
    /// From 0.
    pub(crate) number: U64,
    /// BLAKE3-256 of what stands before it, keyed with the root: the page belongs to this very table.
    pub(crate) checksum: [u8; HASH_BYTES],
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

/// Starts a record of dead ranges.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DeadHead {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) reserved: U32,

    /// How often the record was replaced.
    pub(crate) generation: U64,
    pub(crate) ranges: U64,

    pub(crate) pack: [u8; 32],
}

/// A range of a pack that is given up, in blocks of [`BLOCK_BYTES`].
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DeadRange {
    pub(crate) start: U32,
    pub(crate) blocks: U32,
}

/// Starts a file of filters.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct FilterHead {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) filters: U32,
}

/// A binary fuse filter with three segments and fingerprints of 16 bits, of the contents of one pack. A
/// key is the first 8 bytes of a content's hash.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct FilterEntry {
    pub(crate) pack: [u8; 32],

    pub(crate) seed: U64,
    pub(crate) segment_length: U32,
    pub(crate) segment_count_length: U32,

    /// How many fingerprints it has.
    pub(crate) fingerprints: U32,
    pub(crate) reserved: [u8; 12],
}

/// A fingerprint of a filter.
pub(crate) type Fingerprint = U16;

const _: () = assert!(size_of::<TocHead>() == 128);
const _: () = assert!(size_of::<TocEntry>() == 64);
const _: () = assert!(size_of::<TocPage>() == PAGE_BYTES);
const _: () = assert!(size_of::<DeadHead>() == 64);
const _: () = assert!(size_of::<FilterHead>() == 16);
const _: () = assert!(size_of::<FilterEntry>() == 64);
