//! Tables of contents to bytes and back: pure.
//!
//! Guarantees: what [`parse`] gives back is sorted by hash, hashes to the id it was asked for,
//! and every extent lies inside the pack at a block's start.

use std::mem::size_of;

use uimgacc_types::{ContentHash, Extent, PackId};
use zerocopy::{FromBytes, IntoBytes};

use crate::format::{
    BLOCK_BYTES, ENCODING_RAW, TOC_MAGIC, TOC_VERSION, TRAILER_BYTES, TocEntry, TocHeader,
};

/// A pack's table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toc {
    /// Length of the pack in bytes, a multiple of 4096.
    pub(crate) pack_bytes: u64,
    /// Sorted by hash, each hash once.
    pub(crate) entries: Vec<(ContentHash, Extent)>,
}

/// The table's bytes and the pack's id. Of a hash that is there twice the first place stands.
pub(crate) fn encode(mut toc: Toc) -> (Vec<u8>, PackId) {
    toc.entries.sort_by_key(|(hash, _)| *hash);
    toc.entries.dedup_by_key(|(hash, _)| *hash);
    let header = TocHeader {
        magic: TOC_MAGIC,
        version: TOC_VERSION.into(),
        reserved: 0.into(),
        entries: (toc.entries.len() as u64).into(),
        pack_bytes: toc.pack_bytes.into(),
        reserved_2: [0; 32],
    };
    let mut bytes = header.as_bytes().to_vec();
    for (hash, extent) in &toc.entries {
        let entry = TocEntry {
            hash: *hash.as_bytes(),
            offset: extent.offset_bytes.into(),
            length: extent.len_bytes.into(),
            stored_length: extent.len_bytes.into(),
            encoding: ENCODING_RAW.into(),
            reserved: 0.into(),
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    (bytes, PackId::from_bytes(*hash.as_bytes()))
}

/// Parses the table of pack `id`.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(crate) fn parse(bytes: &[u8], id: PackId) -> Result<Toc, String> {
    let body_len = bytes
        .len()
        .checked_sub(TRAILER_BYTES)
        .ok_or("shorter than its hash")?;
    let (body, trailer) = bytes.split_at(body_len);
    let hash = blake3::hash(body);
    if hash.as_bytes() != trailer {
        return Err("its content does not match its hash".to_owned());
    }
    if PackId::from_bytes(*hash.as_bytes()) != id {
        return Err("it belongs to another pack".to_owned());
    }
    let (header, rest) =
        TocHeader::read_from_prefix(body).map_err(|_| "shorter than its header")?;
    if header.magic != TOC_MAGIC {
        return Err("it is no table of contents".to_owned());
    }
    if header.version.get() != TOC_VERSION {
        return Err(format!(
            "it has version {}, this program understands {TOC_VERSION}",
            header.version
        ));
    }
    let raw = <[TocEntry]>::ref_from_bytes(rest).map_err(|_| {
        format!(
            "its entries are no multiple of {} bytes",
            size_of::<TocEntry>()
        )
    })?;
    if raw.len() as u64 != header.entries.get() {
        return Err(format!(
            "it has {} entries instead of {}",
            raw.len(),
            header.entries
        ));
    }
    let mut entries: Vec<(ContentHash, Extent)> = Vec::with_capacity(raw.len());
    for entry in raw {
        let hash = ContentHash::from_bytes(entry.hash);
        let extent = Extent {
            offset_bytes: entry.offset.get(),
            len_bytes: entry.length.get(),
        };
        let fits = extent
            .offset_bytes
            .checked_add(extent.len_bytes)
            .is_some_and(|end| end <= header.pack_bytes.get());
        if !fits || !extent.offset_bytes.is_multiple_of(BLOCK_BYTES) || extent.len_bytes == 0 {
            return Err(format!("{hash} lies at an impossible place"));
        }
        if entry.encoding.get() != ENCODING_RAW || entry.stored_length.get() != extent.len_bytes {
            return Err(format!(
                "{hash} has an encoding that this program does not know"
            ));
        }
        if entries.last().is_some_and(|(last, _)| *last >= hash) {
            return Err("it is not sorted".to_owned());
        }
        entries.push((hash, extent));
    }
    Ok(Toc {
        pack_bytes: header.pack_bytes.get(),
        entries,
    })
}

#[cfg(test)]
mod tests;
