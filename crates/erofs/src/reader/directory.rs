//! A folder's entries, checked: `.` and `..` right, names allowed and in order.

use zerocopy::FromBytes;

use super::Budget;
use super::image::Image;
use super::inode::FlatData;
use crate::error::ReadError;
use crate::format::{DirectoryEntry, FILE_TYPE_DIRECTORY};
use crate::tree::Bytes;
use crate::validate;

/// One entry, not `.` or `..`.
pub(super) struct Entry {
    pub(super) name: Bytes,
    pub(super) nid: u64,
    pub(super) file_type: u8,
}

pub(super) fn entries(
    image: &Image<'_>,
    data: &FlatData,
    nid: u64,
    parent_nid: u64,
    budget: &mut Budget,
) -> Result<Vec<Entry>, ReadError> {
    let mut found = Vec::new();
    let mut last: Option<&[u8]> = None;
    let mut dots = [false; 2];
    for index in 0..data.blocks() {
        let wrong = |what| ReadError::Directory {
            nid,
            block: index,
            what,
        };
        for (entry, name) in block(data.block(image, index)?).map_err(wrong)? {
            if last.is_some_and(|last| last >= name) {
                return Err(wrong("names are not in order"));
            }
            last = Some(name);
            let entry_nid = entry.nid.get();
            let (dot, expected) = match name {
                b"." => (0, nid),
                b".." => (1, parent_nid),
                _ => {
                    validate::entry_name(name).map_err(|wrong| ReadError::Inode { nid, wrong })?;
                    budget.take_name(name.len())?;
                    found.push(Entry {
                        name: name.into(),
                        nid: entry_nid,
                        file_type: entry.file_type,
                    });
                    continue;
                }
            };
            if entry_nid != expected || entry.file_type != FILE_TYPE_DIRECTORY {
                return Err(wrong("`.` or `..` leads elsewhere"));
            }
            dots[dot] = true;
        }
    }
    if dots != [true; 2] {
        return Err(ReadError::Directory {
            nid,
            block: 0,
            what: "`.` or `..` is missing",
        });
    }
    Ok(found)
}

/// The entries of one block with their names.
fn block(bytes: &[u8]) -> Result<Vec<(DirectoryEntry, &[u8])>, &'static str> {
    const BROKEN: &str = "an entry's name lies outside of its block";
    let (first, _) = DirectoryEntry::read_from_prefix(bytes).map_err(|_| "it is too short")?;
    let entries_bytes = usize::from(first.name_offset.get());
    let entry_bytes = size_of::<DirectoryEntry>();
    if entries_bytes == 0 || !entries_bytes.is_multiple_of(entry_bytes) {
        return Err("its first name does not follow its entries");
    }
    let raw = bytes
        .get(..entries_bytes)
        .ok_or(BROKEN)?
        .chunks_exact(entry_bytes);
    let entries: Vec<_> = raw
        .filter_map(|raw| DirectoryEntry::read_from_bytes(raw).ok())
        .collect();
    let offset = |index: usize| {
        entries
            .get(index)
            .map(|entry| entry.name_offset.get().into())
    };
    let mut found = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let begin: usize = entry.name_offset.get().into();
        let name = match offset(index + 1) {
            Some(end) => bytes.get(begin..end).ok_or(BROKEN)?,
            None => {
                // The last name ends with the block, or with a NUL before.
                let rest = bytes.get(begin..).ok_or(BROKEN)?;
                rest.split(|&byte| byte == 0).next().unwrap_or_default()
            }
        };
        found.push((*entry, name));
    }
    Ok(found)
}
