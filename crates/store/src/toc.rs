//! Tables of contents to bytes and back: pure.
//!
//! A table is read whole ([`parse`]), or only where a hash can stand ([`find`]): hashes are spread evenly,
//! so that place is computed, and each page proves that it belongs to this very table.
//!
//! Guarantees: what [`parse`] gives back is sorted by hash, hashes to the id it was asked for, and every
//! extent lies inside the pack at a block's start. Of a single page the same holds for what is in it.

use std::mem::size_of;

use uimgacc_types::{ContentHash, Extent, PackId};
use zerocopy::{FromBytes, FromZeros as _, IntoBytes};

use crate::format::{
    BINARY_VERSION, BLOCK_BYTES, ENCODING_RAW, ENTRIES_PER_PAGE, HASH_BYTES, KIND_CONTENTS,
    PAGE_BYTES, TOC_MAGIC, TocEntry, TocHead, TocPage,
};

/// After so many wrong guesses hashes are not spread evenly, and what is left is halved.
const MAX_GUESSES: u32 = 8;

/// Contents of a pack and where they lie.
pub(crate) type Entries = Vec<(ContentHash, Extent)>;

/// A pack's table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toc {
    /// Length of the pack in bytes, a multiple of 4096.
    pub(crate) pack_bytes: u64,
    /// 0, or a number that tells equal packs apart.
    pub(crate) salt: u64,
    /// Sorted by hash, each hash once.
    pub(crate) entries: Entries,
}

/// What the first page of a table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Length of the pack in bytes, a multiple of 4096.
    pub(crate) pack_bytes: u64,
    /// See [`Toc`].
    pub(crate) salt: u64,
    /// How many contents the pack has.
    pub(crate) entries: u64,
    root: [u8; HASH_BYTES],
}

impl Head {
    /// How many pages come after the first one.
    pub(crate) fn pages(&self) -> u64 {
        self.entries.div_ceil(ENTRIES_PER_PAGE as u64)
    }

    fn entries_of(&self, page: u64) -> usize {
        let before = page.saturating_mul(ENTRIES_PER_PAGE as u64);
        let rest = self.entries.saturating_sub(before);
        usize::try_from(rest).map_or(ENTRIES_PER_PAGE, |rest| rest.min(ENTRIES_PER_PAGE))
    }

    /// The entries of page `number`, from 0.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub(crate) fn parse_page(&self, number: u64, bytes: &[u8]) -> Result<Entries, String> {
        let page = TocPage::ref_from_bytes(bytes).map_err(|_| "a page of it is cut short")?;
        if checksum(page, &self.root) != page.checksum {
            return Err(format!("page {number} does not match its checksum"));
        }
        let count = self.entries_of(number);
        let (entries, rest) = page.entries.split_at_checked(count).unwrap_or_default();
        if page.number.get() != number || rest.as_bytes().iter().any(|byte| *byte != 0) {
            return Err(format!("page {number} is not where it belongs"));
        }
        let mut parsed: Entries = Vec::with_capacity(count);
        for raw in entries {
            let (hash, extent) = self.parse_entry(raw)?;
            if parsed.last().is_some_and(|(last, _)| *last >= hash) {
                return Err("it is not sorted".to_owned());
            }
            parsed.push((hash, extent));
        }
        Ok(parsed)
    }

    fn parse_entry(&self, entry: &TocEntry) -> Result<(ContentHash, Extent), String> {
        let hash = ContentHash::from_bytes(entry.hash);
        let extent = Extent {
            offset_bytes: entry.offset.get(),
            len_bytes: entry.length.get(),
        };
        let fits = extent
            .offset_bytes
            .checked_add(extent.len_bytes)
            .is_some_and(|end| end <= self.pack_bytes);
        if !fits || !extent.offset_bytes.is_multiple_of(BLOCK_BYTES) || extent.len_bytes == 0 {
            return Err(format!("{hash} lies at an impossible place"));
        }
        if entry.encoding.get() != ENCODING_RAW || entry.stored_length.get() != extent.len_bytes {
            return Err(format!(
                "{hash} has an encoding that this program does not know"
            ));
        }
        Ok((hash, extent))
    }
}

fn checksum(page: &TocPage, root: &[u8; HASH_BYTES]) -> [u8; HASH_BYTES] {
    let (body, _) = page
        .as_bytes()
        .split_at_checked(PAGE_BYTES - HASH_BYTES)
        .unwrap_or_default();
    *blake3::keyed_hash(root, body).as_bytes()
}

/// The table's bytes and the pack's id. Of a hash that is there twice the first place stands.
pub(crate) fn encode(mut toc: Toc) -> (Vec<u8>, PackId) {
    toc.entries.sort_by_key(|(hash, _)| *hash);
    toc.entries.dedup_by_key(|(hash, _)| *hash);
    let entries: Vec<TocEntry> = toc.entries.iter().map(encode_entry).collect();
    let root = *blake3::hash(entries.as_bytes()).as_bytes();
    let head = TocHead {
        magic: TOC_MAGIC,
        version: BINARY_VERSION.into(),
        kind: KIND_CONTENTS.into(),
        salt: toc.salt.into(),
        entries: (entries.len() as u64).into(),
        pack_bytes: toc.pack_bytes.into(),
        reserved: [0; 24],
        root,
        reserved_2: [0; 32],
    };
    let mut bytes = head.as_bytes().to_vec();
    bytes.resize(PAGE_BYTES, 0);
    let id = PackId::from_bytes(*blake3::hash(&bytes).as_bytes());
    for (number, part) in (0u64..).zip(entries.chunks(ENTRIES_PER_PAGE)) {
        let mut page = TocPage::new_zeroed();
        for (to, from) in page.entries.iter_mut().zip(part) {
            *to = *from;
        }
        page.number = number.into();
        page.checksum = checksum(&page, &root);
        bytes.extend_from_slice(page.as_bytes());
    }
    (bytes, id)
}

fn encode_entry((hash, extent): &(ContentHash, Extent)) -> TocEntry {
    TocEntry {
        hash: *hash.as_bytes(),
        offset: extent.offset_bytes.into(),
        length: extent.len_bytes.into(),
        stored_length: extent.len_bytes.into(),
        encoding: ENCODING_RAW.into(),
        reserved: 0.into(),
    }
}

/// Parses the first page of the table of pack `id`.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(crate) fn parse_head(page: &[u8], id: PackId) -> Result<Head, String> {
    if page.len() != PAGE_BYTES {
        return Err("shorter than its first page".to_owned());
    }
    let (head, rest) = TocHead::ref_from_prefix(page).map_err(|_| "shorter than its head")?;
    if head.magic != TOC_MAGIC {
        return Err("it is not a table of contents".to_owned());
    }
    if head.version.get() != BINARY_VERSION {
        return Err(format!(
            "it has version {}, this program understands {BINARY_VERSION}",
            head.version
        ));
    }
    if PackId::from_bytes(*blake3::hash(page).as_bytes()) != id {
        return Err("it does not match its name, which is a hash of it".to_owned());
    }
    let reserved = [&head.reserved[..], &head.reserved_2, rest];
    let is_known = head.kind.get() == KIND_CONTENTS
        && reserved
            .iter()
            .all(|bytes| bytes.iter().all(|byte| *byte == 0));
    if !is_known {
        return Err("it is of a kind that this program does not know".to_owned());
    }
    let (pack_bytes, entries) = (head.pack_bytes.get(), head.entries.get());
    let is_possible = pack_bytes.is_multiple_of(BLOCK_BYTES)
        && pack_bytes / BLOCK_BYTES <= u64::from(u32::MAX)
        && entries <= pack_bytes / BLOCK_BYTES;
    if !is_possible {
        return Err(format!(
            "a pack of {pack_bytes} bytes with {entries} contents is impossible"
        ));
    }
    Ok(Head {
        pack_bytes: head.pack_bytes.get(),
        salt: head.salt.get(),
        entries: head.entries.get(),
        root: head.root,
    })
}

/// Parses the table of pack `id`.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(crate) fn parse(bytes: &[u8], id: PackId) -> Result<Toc, String> {
    let (first, pages) = bytes
        .split_at_checked(PAGE_BYTES)
        .ok_or("shorter than its first page")?;
    let head = parse_head(first, id)?;
    let expected = head.pages().checked_mul(PAGE_BYTES as u64);
    if expected != Some(pages.len() as u64) {
        return Err(format!(
            "it is {} bytes long, which does not fit {} entries",
            bytes.len(),
            head.entries
        ));
    }
    let mut entries: Entries = Vec::with_capacity(pages.len() / size_of::<TocEntry>());
    let mut root = blake3::Hasher::new();
    for (number, page) in (0u64..).zip(pages.chunks(PAGE_BYTES)) {
        let part = head.parse_page(number, page)?;
        if let (Some((last, _)), Some((first, _))) = (entries.last(), part.first())
            && last >= first
        {
            return Err("it is not sorted".to_owned());
        }
        let raw = part.len() * size_of::<TocEntry>();
        root.update(page.get(..raw).unwrap_or_default());
        entries.extend(part);
    }
    if *root.finalize().as_bytes() != head.root {
        return Err("its entries do not match its head".to_owned());
    }
    Ok(Toc {
        pack_bytes: head.pack_bytes,
        salt: head.salt,
        entries,
    })
}

/// Looks a content up. `read` gives the entries of a page; usually one or two are asked for.
///
/// # Errors
/// What `read` says.
pub(crate) fn find<P, E>(
    head: &Head,
    hash: &ContentHash,
    mut read: impl FnMut(u64) -> Result<P, E>,
) -> Result<Option<Extent>, E>
where
    P: AsRef<[(ContentHash, Extent)]>,
{
    // The hash lies in one of the pages from `low` on and before `high`, which begin at these positions of
    // the range of hashes.
    let (mut low, mut high) = (0, head.pages());
    let (mut low_key, mut high_key) = (0, u64::MAX);
    let key = key_of(hash);
    let mut tries = 0;
    while low < high {
        tries += 1;
        let page = if tries <= MAX_GUESSES {
            between(low, high, low_key, high_key, key)
        } else {
            low.midpoint(high)
        };
        let entries = read(page)?;
        let entries = entries.as_ref();
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return Ok(None);
        };
        if hash < first {
            (high, high_key) = (page, key_of(first));
        } else if hash > last {
            (low, low_key) = (page + 1, key_of(last));
        } else {
            let at = entries.binary_search_by_key(hash, |(hash, _)| *hash).ok();
            return Ok(at.and_then(|at| Some(entries.get(at)?.1)));
        }
    }
    Ok(None)
}

/// The first 8 bytes of a hash as a number: what filters have, and how far it is through a table.
pub(crate) fn key_of(hash: &ContentHash) -> u64 {
    let first = hash.as_bytes().first_chunk();
    u64::from_be_bytes(*first.unwrap_or(&[0; 8]))
}

/// Which of the pages `low..high`, that hold keys from `low_key` to `high_key`, is likely to hold `key`.
fn between(low: u64, high: u64, low_key: u64, high_key: u64, key: u64) -> u64 {
    let width = u128::from(high_key.saturating_sub(low_key)) + 1;
    let at = u128::from(key.saturating_sub(low_key)) * u128::from(high - low) / width;
    let last = high - 1;
    u64::try_from(at).map_or(last, |at| low.saturating_add(at).min(last))
}

#[cfg(test)]
mod tests;
