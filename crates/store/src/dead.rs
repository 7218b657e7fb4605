//! Ranges of a pack that are given up: pure.
//!
//! A pack keeps its name and all offsets when contents of it die. What is dead stands in
//! `packs/<aa>/<pack-id>.dead`, before any of it is deallocated: it may be zeros from then on. The record is made
//! with the pack and only ever replaced, so that no look-up that a client has cached hides it.
//!
//! Guarantees: ranges are ascending and apart, none is empty, and all end within 2^32 blocks.

use std::ops::Range;

use uimgacc_types::{Extent, PackId};
use zerocopy::{FromBytes, IntoBytes};

use crate::format::{BINARY_VERSION, BLOCK_BYTES, DEAD_MAGIC, DeadHead, DeadRange};
use crate::seal::{sealed, unsealed};

/// What is dead of a pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dead {
    /// How often the record was replaced; 0 when the pack was made.
    pub(crate) generation: u64,
    /// Blocks of 4096 bytes.
    ranges: Vec<Range<u32>>,
}

impl Dead {
    /// The ranges, in bytes.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges
            .iter()
            .map(|range| u64::from(range.start) * BLOCK_BYTES..u64::from(range.end) * BLOCK_BYTES)
    }

    /// How many bytes are dead.
    pub(crate) fn bytes(&self) -> u64 {
        self.ranges().map(|range| range.end - range.start).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether any of these bytes is dead.
    pub(crate) fn touches(&self, extent: Extent) -> bool {
        let end = extent.offset_bytes.saturating_add(extent.len_bytes);
        let last_before_end = self
            .ranges
            .partition_point(|range| u64::from(range.start) * BLOCK_BYTES < end);
        let range = last_before_end
            .checked_sub(1)
            .and_then(|at| self.ranges.get(at));
        range.is_some_and(|range| u64::from(range.end) * BLOCK_BYTES > extent.offset_bytes)
    }

    /// The next record, with the blocks of these contents dead too. What lies beyond 2^32 blocks is left out.
    pub(crate) fn with(&self, extents: impl IntoIterator<Item = Extent>) -> Self {
        let blocks = extents.into_iter().filter_map(|extent| {
            let end = extent.offset_bytes.checked_add(extent.len_bytes)?;
            let start = u32::try_from(extent.offset_bytes / BLOCK_BYTES).ok()?;
            let end = u32::try_from(end.div_ceil(BLOCK_BYTES)).ok()?;
            (start < end).then_some(start..end)
        });
        let mut all: Vec<Range<u32>> = self.ranges.iter().cloned().chain(blocks).collect();
        all.sort_unstable_by_key(|range| range.start);
        let mut ranges: Vec<Range<u32>> = Vec::with_capacity(all.len());
        for range in all {
            match ranges.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => ranges.push(range),
            }
        }
        Self {
            generation: self.generation.saturating_add(1),
            ranges,
        }
    }
}

/// The record of the dead ranges of a pack.
pub(crate) fn encode(dead: &Dead, pack: PackId) -> Vec<u8> {
    let head = DeadHead {
        magic: DEAD_MAGIC,
        version: BINARY_VERSION.into(),
        reserved: 0.into(),
        generation: dead.generation.into(),
        ranges: (dead.ranges.len() as u64).into(),
        pack: *pack.as_bytes(),
    };
    let mut bytes = head.as_bytes().to_vec();
    for range in &dead.ranges {
        let range = DeadRange {
            start: range.start.into(),
            blocks: (range.end - range.start).into(),
        };
        bytes.extend_from_slice(range.as_bytes());
    }
    sealed(bytes)
}

/// Parses the record of the dead ranges of that pack.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(crate) fn parse(bytes: &[u8], pack: PackId) -> Result<Dead, String> {
    let body = unsealed(bytes)?;
    let (head, rest) = DeadHead::ref_from_prefix(body).map_err(|_| "shorter than its head")?;
    if head.magic != DEAD_MAGIC || head.version.get() != BINARY_VERSION {
        return Err("it is not a record of dead ranges that this program knows".to_owned());
    }
    if head.pack != *pack.as_bytes() {
        return Err("it belongs to another pack".to_owned());
    }
    let raw = <[DeadRange]>::ref_from_bytes(rest).map_err(|_| "a range of it is cut short")?;
    if raw.len() as u64 != head.ranges.get() {
        return Err(format!(
            "it has {} ranges instead of {}",
            raw.len(),
            head.ranges
        ));
    }
    let mut ranges: Vec<Range<u32>> = Vec::with_capacity(raw.len());
    for range in raw {
        let start = range.start.get();
        let end = start
            .checked_add(range.blocks.get())
            .filter(|end| *end > start)
            .ok_or("a range of it is impossible")?;
        if ranges.last().is_some_and(|last| last.end >= start) {
            return Err("its ranges are not ascending and apart".to_owned());
        }
        ranges.push(start..end);
    }
    Ok(Dead {
        generation: head.generation.get(),
        ranges,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::format::HASH_BYTES;

    const PACK: PackId = PackId::from_bytes([5; 32]);

    fn extent(start: u64, blocks: u64) -> Extent {
        Extent {
            offset_bytes: start * BLOCK_BYTES,
            // Contents end anywhere in their last block.
            len_bytes: (blocks * BLOCK_BYTES).saturating_sub(7),
        }
    }

    proptest! {
        #[test]
        fn ranges_are_those_of_the_blocks(added in proptest::collection::vec((0u64..200, 1u64..9), 0..30), asked in (0u64..200, 1u64..9)) {
            let blocks: BTreeSet<u64> = added.iter().flat_map(|(start, blocks)| *start..start + blocks).collect();
            let (first, rest) = added.split_at(added.len() / 2);
            let of = |part: &[(u64, u64)]| part.iter().map(|(start, blocks)| extent(*start, *blocks)).collect::<Vec<_>>();
            let dead = Dead::default().with(of(first)).with(of(rest));
            prop_assert_eq!(dead.bytes(), blocks.len() as u64 * BLOCK_BYTES);
            let found: BTreeSet<u64> = dead.ranges().flat_map(|range| range.start / BLOCK_BYTES..range.end / BLOCK_BYTES).collect();
            prop_assert_eq!(&found, &blocks);
            let touches = (asked.0..asked.0 + asked.1).any(|block| blocks.contains(&block));
            prop_assert_eq!(dead.touches(extent(asked.0, asked.1)), touches);
            let bytes = encode(&dead, PACK);
            prop_assert_eq!(parse(&bytes, PACK), Ok(dead));
        }

        #[test]
        fn one_changed_bit_is_seen(starts in proptest::collection::vec(0u64..1000, 0..9), at: prop::sample::Index, bit in 0u8..8) {
            let dead = Dead::default().with(starts.into_iter().map(|start| extent(start, 1)));
            let mut bytes = encode(&dead, PACK);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(parse(&bytes, PACK).is_err());
        }

        /// Even with a right hash nonsense is refused or leads to ranges in order, and nothing panics.
        #[test]
        fn nonsense_with_a_right_hash(starts in proptest::collection::vec(0u64..1000, 0..9), at: prop::sample::Index, value: u8) {
            let dead = Dead::default().with(starts.into_iter().map(|start| extent(start, 1)));
            let mut bytes = encode(&dead, PACK);
            bytes.truncate(bytes.len() - HASH_BYTES);
            let at = at.index(bytes.len());
            bytes[at] = value;
            let hash = blake3::hash(&bytes);
            bytes.extend_from_slice(hash.as_bytes());
            if let Ok(dead) = parse(&bytes, PACK) {
                let ranges: Vec<_> = dead.ranges().collect();
                prop_assert!(ranges.iter().all(|range| range.start < range.end));
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }

    #[test]
    fn a_record_of_another_pack_is_refused() {
        let bytes = encode(&Dead::default(), PACK);
        assert!(parse(&bytes, PACK).unwrap().is_empty());
        let other = PackId::from_bytes([6; 32]);
        assert_eq!(
            parse(&bytes, other),
            Err("it belongs to another pack".to_owned())
        );
    }
}
