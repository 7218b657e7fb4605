//! A folder's blocks: in each, its entries, then their names. Entries are ordered by name over all
//! blocks, `.` and `..` among them, so that the kernel can search by halves.

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U16, U64};

use crate::format::{BLOCK_BYTES, BLOCK_BYTES_U64, DirectoryEntry};

/// What an entry says of its inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) nid: u64,
    pub(crate) file_type: u8,
}

/// Names ordered by their bytes, with `.` and `..` put in.
pub(crate) fn with_dots<'name, T>(
    entries: impl Iterator<Item = (&'name [u8], T)>,
    itself: T,
    parent: T,
) -> impl Iterator<Item = (&'name [u8], T)> {
    let mut dots = [(&b"."[..], itself), (&b".."[..], parent)]
        .into_iter()
        .peekable();
    let mut entries = entries.peekable();
    std::iter::from_fn(move || match (dots.peek(), entries.peek()) {
        (Some((dot, _)), Some((name, _))) if name < dot => entries.next(),
        (Some(_), _) => dots.next(),
        (None, _) => entries.next(),
    })
}

/// How long a folder with these names is, in bytes: whole blocks but for the last.
pub(crate) fn size_bytes<'name>(names: impl Iterator<Item = &'name [u8]>) -> u64 {
    let mut whole_bytes = 0;
    let mut used = 0;
    for name in names {
        let entry = size_of::<DirectoryEntry>() + name.len();
        if used + entry > BLOCK_BYTES {
            whole_bytes += BLOCK_BYTES_U64;
            used = 0;
        }
        used += entry;
    }
    whole_bytes + used as u64
}

/// A folder's bytes, as long as [`size_bytes`] says.
pub(crate) fn encode<'name>(entries: impl Iterator<Item = (&'name [u8], Target)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block: Vec<(&[u8], Target)> = Vec::new();
    let mut used = 0;
    for (name, target) in entries {
        let entry = size_of::<DirectoryEntry>() + name.len();
        if used + entry > BLOCK_BYTES {
            push_block(&block, &mut out);
            out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
            block.clear();
            used = 0;
        }
        used += entry;
        block.push((name, target));
    }
    push_block(&block, &mut out);
    out
}

fn push_block(block: &[(&[u8], Target)], out: &mut Vec<u8>) {
    let mut name_offset = size_of::<DirectoryEntry>() * block.len();
    for (name, target) in block {
        let entry = DirectoryEntry {
            nid: U64::new(target.nid),
            // Below a block's length, as the caller has filled it.
            name_offset: U16::new(u16::try_from(name_offset).unwrap_or(u16::MAX)),
            file_type: target.file_type,
            reserved: 0,
        };
        out.extend_from_slice(entry.as_bytes());
        name_offset += name.len();
    }
    for (name, _) in block {
        out.extend_from_slice(name);
    }
}
