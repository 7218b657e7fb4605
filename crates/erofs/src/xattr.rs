//! Xattrs as EROFS keeps them: a prefix as a number, pairs of several inodes once in a shared
//! area, all others beside their inode.

use std::collections::HashMap;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U16, U32};

use crate::error::{WriteError, Wrong};
use crate::format::{XATTR_ALIGN, XattrEntry, XattrHeader};
use crate::limits::{MAX_SHARED_XATTRS, MAX_XATTR_BODY_BYTES};
use crate::tree::Inode;

/// What a pair costs in memory besides its bytes, in bytes: so empty values are not free.
pub(crate) const PAIR_BYTES: u64 = 64;

/// The namespaces that EROFS numbers (kernel: `EROFS_XATTR_INDEX_`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) number: u8,
    pub(crate) text: &'static [u8],
}

impl Prefix {
    /// Whether the prefix is all of a name, so that nothing may follow it.
    pub(crate) fn is_whole_name(self) -> bool {
        !self.text.ends_with(b".")
    }
}

const PREFIXES: [Prefix; 5] = [
    prefix(1, b"user."),
    prefix(2, b"system.posix_acl_access"),
    prefix(3, b"system.posix_acl_default"),
    prefix(4, b"trusted."),
    prefix(6, b"security."),
];

const fn prefix(number: u8, text: &'static [u8]) -> Prefix {
    Prefix { number, text }
}

/// The prefix of a full name and what follows it.
pub(crate) fn split(name: &[u8]) -> Option<(Prefix, &[u8])> {
    PREFIXES.iter().find_map(|prefix| {
        let suffix = name.strip_prefix(prefix.text)?;
        (suffix.is_empty() || !prefix.is_whole_name()).then_some((*prefix, suffix))
    })
}

/// The full name of a numbered prefix and what follows it.
pub(crate) fn join(number: u8, suffix: &[u8]) -> Option<Box<[u8]>> {
    let prefix = PREFIXES.iter().find(|prefix| prefix.number == number)?;
    (suffix.is_empty() || !prefix.is_whole_name()).then(|| [prefix.text, suffix].concat().into())
}

/// A name and its value.
pub(crate) type Pair<'tree> = (&'tree [u8], &'tree [u8]);

/// How long an entry is on disk.
fn entry_bytes((name, value): Pair<'_>) -> u64 {
    let suffix_bytes = split(name).map_or(0, |(_, suffix)| suffix.len());
    (size_of::<XattrEntry>() + suffix_bytes + value.len()).next_multiple_of(XATTR_ALIGN) as u64
}

/// Appends an entry. The pair has been checked by [`crate::validate`].
fn push_entry((name, value): Pair<'_>, out: &mut Vec<u8>) {
    let Some((prefix, suffix)) = split(name) else {
        return;
    };
    let entry = XattrEntry {
        // Both fit: `validate` has seen to it.
        name_bytes: u8::try_from(suffix.len()).unwrap_or(u8::MAX),
        prefix: prefix.number,
        value_bytes: U16::new(u16::try_from(value.len()).unwrap_or(u16::MAX)),
    };
    out.extend_from_slice(entry.as_bytes());
    out.extend_from_slice(suffix);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(XATTR_ALIGN), 0);
}

/// The shared area: pairs that cost less room there than beside each of their inodes.
#[derive(Debug, Default)]
pub(crate) struct Shared<'tree> {
    /// In the order of the first inode that has them.
    pub(crate) pairs: Vec<Pair<'tree>>,
    /// Their ids: offsets in the area, in units of 4 bytes.
    ids: HashMap<Pair<'tree>, u32>,
    /// Length of the area.
    pub(crate) size_bytes: u64,
}

impl<'tree> Shared<'tree> {
    /// Chooses the pairs to share.
    pub(crate) fn new<I>(inodes: I) -> Result<Self, WriteError>
    where
        I: Iterator<Item = &'tree Inode> + Clone,
    {
        let mut uses: HashMap<Pair<'tree>, u64> = HashMap::new();
        for pair in inodes.clone().flat_map(pairs) {
            *uses.entry(pair).or_default() += 1;
        }
        uses.retain(|&pair, &mut count| {
            let entry = entry_bytes(pair);
            count > 1 && entry + count * (size_of::<U32>() as u64) < count * entry
        });
        let mut shared = Self::default();
        if uses.is_empty() {
            return Ok(shared);
        }
        for pair in inodes.flat_map(pairs) {
            if !uses.contains_key(&pair) || shared.ids.contains_key(&pair) {
                continue;
            }
            let id = u32::try_from(shared.size_bytes / XATTR_ALIGN as u64)
                .map_err(|_| WriteError::ImageTooLarge)?;
            shared.ids.insert(pair, id);
            shared.pairs.push(pair);
            shared.size_bytes += entry_bytes(pair);
        }
        Ok(shared)
    }

    /// How long an inode's xattrs are beside it.
    pub(crate) fn body_bytes(&self, inode: &Inode) -> Result<u32, Wrong> {
        if inode.xattrs.is_empty() {
            return Ok(0);
        }
        let mut shared = 0;
        let mut found = size_of::<XattrHeader>() as u64;
        for pair in pairs(inode) {
            if shared < MAX_SHARED_XATTRS && self.ids.contains_key(&pair) {
                shared += 1;
                found += size_of::<U32>() as u64;
            } else {
                found += entry_bytes(pair);
            }
        }
        if found > MAX_XATTR_BODY_BYTES {
            return Err(Wrong::XattrsTooLarge { found });
        }
        u32::try_from(found).map_err(|_| Wrong::XattrsTooLarge { found })
    }

    /// Appends what lies beside an inode, [`Self::body_bytes`] long.
    pub(crate) fn push_body(&self, inode: &Inode, out: &mut Vec<u8>) {
        if inode.xattrs.is_empty() {
            return;
        }
        let shared_ids = || {
            pairs(inode)
                .filter_map(|pair| self.ids.get(&pair))
                .take(MAX_SHARED_XATTRS)
        };
        let header = XattrHeader {
            name_filter: U32::ZERO,
            shared_count: u8::try_from(shared_ids().count()).unwrap_or(u8::MAX),
            reserved: [0; 7],
        };
        out.extend_from_slice(header.as_bytes());
        for &id in shared_ids() {
            out.extend_from_slice(&id.to_le_bytes());
        }
        let mut shared = 0;
        for pair in pairs(inode) {
            if shared < MAX_SHARED_XATTRS && self.ids.contains_key(&pair) {
                shared += 1;
            } else {
                push_entry(pair, out);
            }
        }
    }

    /// The area's entries, one after the other.
    pub(crate) fn push_pair(pair: Pair<'tree>, out: &mut Vec<u8>) {
        push_entry(pair, out);
    }
}

fn pairs(inode: &Inode) -> impl Iterator<Item = Pair<'_>> {
    let pairs = inode.xattrs.iter();
    pairs.map(|(name, value)| (&**name, &**value))
}
