//! An inode's xattrs: those beside it, and those in the shared area that it names.

use std::collections::BTreeMap;

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::U32;

use super::Budget;
use super::image::Image;
use crate::error::ReadError;
use crate::format::{XATTR_ALIGN, XattrEntry, XattrHeader};
use crate::tree::Bytes;
use crate::xattr::{self, PAIR_BYTES};

pub(super) fn parse(
    image: &Image<'_>,
    nid: u64,
    body: &[u8],
    budget: &mut Budget,
) -> Result<BTreeMap<Bytes, Bytes>, ReadError> {
    let malformed = |what, found: u64| ReadError::Malformed { nid, what, found };
    let (header, mut rest) = XattrHeader::read_from_prefix(body)
        .map_err(|_| malformed("its length of xattrs", body.len() as u64))?;
    let mut found = BTreeMap::new();
    for _ in 0..header.shared_count {
        let (id, after) = U32::read_from_prefix(rest)
            .map_err(|_| malformed("its count of shared xattrs", header.shared_count.into()))?;
        rest = after;
        let area = image.rest(image.shared_xattr_offset(id.get()));
        let (entry, _) = entry(area).ok_or_else(|| malformed("a shared xattr", id.get().into()))?;
        keep(entry, nid, &mut found, budget)?;
    }
    while !rest.is_empty() {
        let at = (body.len() - rest.len()) as u64;
        let (pair, after) = entry(rest).ok_or_else(|| malformed("the place of an xattr", at))?;
        rest = after;
        keep(pair, nid, &mut found, budget)?;
    }
    Ok(found)
}

/// An entry as it lies in the image.
struct Raw<'bytes> {
    prefix: u8,
    suffix: &'bytes [u8],
    value: &'bytes [u8],
}

/// The entry that `bytes` begins with, and what follows it.
fn entry(bytes: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let (head, rest) = XattrEntry::read_from_prefix(bytes).ok()?;
    let (suffix, rest) = rest.split_at_checked(head.name_bytes.into())?;
    let (value, _) = rest.split_at_checked(head.value_bytes.get().into())?;
    let length = size_of::<XattrEntry>() + suffix.len() + value.len();
    let after = bytes.get(length.next_multiple_of(XATTR_ALIGN)..)?;
    let raw = Raw {
        prefix: head.prefix,
        suffix,
        value,
    };
    Some((raw, after))
}

fn keep(
    raw: Raw<'_>,
    nid: u64,
    found: &mut BTreeMap<Bytes, Bytes>,
    budget: &mut Budget,
) -> Result<(), ReadError> {
    let malformed = |what| ReadError::Malformed {
        nid,
        what,
        found: raw.prefix.into(),
    };
    let length = (raw.suffix.len() + raw.value.len()) as u64;
    budget.take_bytes(length + PAIR_BYTES)?;
    let name = xattr::join(raw.prefix, raw.suffix);
    let name = name.ok_or_else(|| malformed("an xattr's prefix"))?;
    if found.insert(name, raw.value.into()).is_some() {
        return Err(malformed("the prefix of an xattr that is there twice"));
    }
    Ok(())
}
