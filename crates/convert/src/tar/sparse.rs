//! Sparse maps of the old GNU format and of PAX 1.0: pure.

use super::BLOCK;
use super::header::{field, number};

/// A piece of data of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it goes.
    pub offset_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
}

/// The segments must be sorted, apart, inside the file, and as long as the stored content.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), String> {
    let mut end = 0u64;
    let mut total = 0u64;
    for segment in segments {
        let next = segment.offset_bytes.checked_add(segment.len_bytes);
        match next {
            Some(next) if segment.offset_bytes >= end && next <= size => end = next,
            _ => return Err("its sparse map is out of order or beyond its size".to_owned()),
        }
        total += segment.len_bytes;
    }
    if total != stored {
        return Err(format!(
            "its sparse map has {total} bytes of data, its content {stored}"
        ));
    }
    Ok(())
}

fn old_entries(area: &[u8], segments: &mut Vec<Segment>) -> Result<(), String> {
    for pair in area.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if pair.first() == Some(&0) {
            break;
        }
        let unsigned =
            |value: i64| u64::try_from(value).map_err(|_| "a negative sparse offset".to_owned());
        segments.push(Segment {
            offset_bytes: unsigned(number(offset)?)?,
            len_bytes: unsigned(number(length)?)?,
        });
    }
    Ok(())
}

/// The map in a header of type `S`, the file's length, and whether more blocks follow.
pub(super) fn old_map_start(block: &[u8; BLOCK]) -> Result<(Vec<Segment>, u64, bool), String> {
    let mut segments = Vec::new();
    old_entries(field(block, 386, 96), &mut segments)?;
    let size = number(field(block, 483, 12))?;
    let size = u64::try_from(size).map_err(|_| format!("its real size is {size}"))?;
    Ok((segments, size, block[482] != 0))
}

/// A block with more of the map; says whether yet another one follows.
pub(super) fn old_map_continue(
    block: &[u8; BLOCK],
    segments: &mut Vec<Segment>,
) -> Result<bool, String> {
    old_entries(field(block, 0, 504), segments)?;
    Ok(block[504] != 0)
}

/// Decimal numbers that come a line each.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    complete: Vec<u64>,
    partial: Vec<u8>,
}

impl Numbers {
    pub(super) fn complete(&self) -> usize {
        self.complete.len()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.complete.first().copied()
    }

    /// Takes in a block. Behind the last number that counts may stand anything.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<(), String> {
        for byte in block {
            match byte {
                b'\n' => {
                    let text = std::str::from_utf8(&self.partial).unwrap_or_default();
                    let value = text
                        .parse()
                        .map_err(|_| format!("{text:?} in its sparse map is no number"))?;
                    self.complete.push(value);
                    self.partial.clear();
                }
                b'0'..=b'9' if self.partial.len() < 20 => self.partial.push(*byte),
                // Padding, which starts after the last line.
                0 if self.partial.is_empty() => break,
                _ => return Err("its sparse map is no list of numbers".to_owned()),
            }
        }
        Ok(())
    }

    /// The pairs after the count, `wanted` numbers in all.
    pub(super) fn segments(&self, wanted: usize) -> Vec<Segment> {
        let (pairs, _) = self
            .complete
            .get(1..wanted)
            .unwrap_or_default()
            .as_chunks::<2>();
        pairs
            .iter()
            .map(|[offset_bytes, len_bytes]| Segment {
                offset_bytes: *offset_bytes,
                len_bytes: *len_bytes,
            })
            .collect()
    }
}
