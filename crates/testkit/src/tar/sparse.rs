//! Sparse files in the three forms that are in use.

use super::header::{append_padded, length, prepare};
use super::{BLOCK_BYTES, Dialect, Entry};

/// A piece of data in a sparse file; all else is a hole.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Where it starts, in bytes.
    pub offset: u64,
    /// What stands there.
    pub data: Vec<u8>,
}

/// The form of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SparseFormat {
    /// Old GNU: type `S` with the map in the header and in blocks after it.
    Gnu,
    /// PAX 0.1: the map in the record `GNU.sparse.map`.
    Pax01,
    /// PAX 1.0: the map before the data.
    Pax10,
}

/// Entries of the map in a header, and in each block after it.
const IN_HEADER: usize = 4;
const IN_BLOCK: usize = 21;

pub(super) fn write(
    out: &mut Vec<u8>,
    entry: &Entry,
    format: SparseFormat,
    size: u64,
    segments: &[Segment],
) {
    // GNU tar ends each map with an empty piece at the end of a file, so that a hole there is told.
    let mut map: Vec<(u64, u64)> = segments
        .iter()
        .map(|segment| (segment.offset, length(&segment.data)))
        .collect();
    let end = map.last().map_or(0, |(offset, bytes)| offset + bytes);
    assert!(
        end <= size,
        "the data ends at {end}, behind the size {size}"
    );
    if end < size {
        map.push((size, 0));
    }
    let data: Vec<u8> = segments
        .iter()
        .flat_map(|segment| segment.data.iter().copied())
        .collect();
    match format {
        SparseFormat::Gnu => write_gnu(out, entry, size, &map, &data),
        SparseFormat::Pax01 => {
            let numbers: Vec<String> = map
                .iter()
                .map(|(offset, bytes)| format!("{offset},{bytes}"))
                .collect();
            let records = [
                ("GNU.sparse.size".to_owned(), size.to_string().into_bytes()),
                (
                    "GNU.sparse.numblocks".to_owned(),
                    map.len().to_string().into_bytes(),
                ),
                ("GNU.sparse.map".to_owned(), numbers.join(",").into_bytes()),
            ];
            prepare(out, entry, b'0', length(&data), &records).append_to(out);
            append_padded(out, &data);
        }
        SparseFormat::Pax10 => write_pax10(out, entry, size, &map, &data),
    }
}

fn write_gnu(out: &mut Vec<u8>, entry: &Entry, size: u64, map: &[(u64, u64)], data: &[u8]) {
    let entry = Entry {
        dialect: Dialect::Gnu,
        ..entry.clone()
    };
    let mut block = prepare(out, &entry, b'S', length(data), &[]);
    let (first, rest) = map.split_at(map.len().min(IN_HEADER));
    for (index, (offset, bytes)) in first.iter().enumerate() {
        number(&mut block.0, 386 + index * 24, *offset);
        number(&mut block.0, 386 + index * 24 + 12, *bytes);
    }
    block.0[482] = u8::from(!rest.is_empty());
    number(&mut block.0, 483, size);
    block.append_to(out);
    let mut blocks = rest.chunks(IN_BLOCK).peekable();
    while let Some(pieces) = blocks.next() {
        let mut extension = [0; BLOCK_BYTES];
        for (index, (offset, bytes)) in pieces.iter().enumerate() {
            number(&mut extension, index * 24, *offset);
            number(&mut extension, index * 24 + 12, *bytes);
        }
        extension[504] = u8::from(blocks.peek().is_some());
        out.extend_from_slice(&extension);
    }
    append_padded(out, data);
}

/// A field of 12 bytes: octal, or base 256 where 11 digits are too few.
fn number(block: &mut [u8; BLOCK_BYTES], at: usize, value: u64) {
    let digits = format!("{value:011o}");
    if digits.len() <= 11 {
        block[at..at + 11].copy_from_slice(digits.as_bytes());
    } else {
        block[at] = 0x80;
        block[at + 4..at + 12].copy_from_slice(&value.to_be_bytes());
    }
}

fn write_pax10(out: &mut Vec<u8>, entry: &Entry, size: u64, map: &[(u64, u64)], data: &[u8]) {
    let mut text = format!("{}\n", map.len());
    for (offset, bytes) in map {
        text.push_str(&format!("{offset}\n{bytes}\n"));
    }
    let mut content = Vec::new();
    append_padded(&mut content, text.as_bytes());
    content.extend_from_slice(data);
    let records = [
        ("GNU.sparse.major".to_owned(), b"1".to_vec()),
        ("GNU.sparse.minor".to_owned(), b"0".to_vec()),
        ("GNU.sparse.name".to_owned(), entry.path.clone()),
        (
            "GNU.sparse.realsize".to_owned(),
            size.to_string().into_bytes(),
        ),
    ];
    // The real name stands in the record; a reader that knows nothing of it unpacks a file of this name.
    let stand_in = Entry {
        path: b"GNUSparseFile.0/stand-in".to_vec(),
        dialect: Dialect::Pax,
        ..entry.clone()
    };
    prepare(out, &stand_in, b'0', length(&content), &records).append_to(out);
    append_padded(out, &content);
}
