//! Which packs a content may be in, without reading their tables: pure.
//!
//! One binary fuse filter for each pack, of 16 bits a content (2.3 bytes with all): it never says no of a
//! content that the pack has, and says yes of one in 65,536 of those that it has not. A file holds the
//! filters of many packs; to merge files is to write their filters one after the other.
//!
//! A filter is advice: where one is missing or damaged it is made again from the pack's table.

use uimgacc_types::{ContentHash, PackId};
use xorf::{BinaryFuse16, Descriptor, Filter as _};
use zerocopy::{FromBytes, IntoBytes};

use crate::format::{BINARY_VERSION, FILTER_MAGIC, FilterEntry, FilterHead, Fingerprint};
use crate::seal::{sealed, unsealed};
use crate::toc::key_of;

/// The filter of a pack.
#[derive(Debug, Clone)]
pub(crate) struct PackFilter {
    /// The pack.
    pub(crate) pack: PackId,
    filter: BinaryFuse16,
}

impl PackFilter {
    /// The filter of a pack with these contents; `None` where none can be made, which takes two contents
    /// with the same first 8 bytes of their hashes.
    pub(crate) fn of<'h>(
        pack: PackId,
        contents: impl IntoIterator<Item = &'h ContentHash>,
    ) -> Option<Self> {
        let mut keys: Vec<u64> = contents.into_iter().map(key_of).collect();
        keys.sort_unstable();
        keys.dedup();
        let filter = BinaryFuse16::try_from(keys).ok()?;
        Some(Self { pack, filter })
    }

    /// Whether the pack may have a content whose hash begins with this key.
    pub(crate) fn may_have(&self, key: u64) -> bool {
        self.filter.contains(&key)
    }

    /// How much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.filter.fingerprints.len() * size_of::<u16>()
    }
}

/// A file of filters.
pub(crate) fn encode<'f>(filters: impl Iterator<Item = &'f PackFilter> + Clone) -> Vec<u8> {
    let count = filters.clone().count();
    let head = FilterHead {
        magic: FILTER_MAGIC,
        version: BINARY_VERSION.into(),
        // No store has so many packs.
        filters: u32::try_from(count).unwrap_or(u32::MAX).into(),
    };
    let mut bytes = head.as_bytes().to_vec();
    for filter in filters.clone() {
        let descriptor = &filter.filter.descriptor;
        let entry = FilterEntry {
            pack: *filter.pack.as_bytes(),
            seed: descriptor.seed.into(),
            segment_length: descriptor.segment_length.into(),
            segment_count_length: descriptor.segment_count_length.into(),
            // The length is three segments at least, and counted in 32 bits by who made it.
            fingerprints: u32::try_from(filter.filter.fingerprints.len())
                .unwrap_or(u32::MAX)
                .into(),
            reserved: [0; 12],
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    for filter in filters {
        for fingerprint in &filter.filter.fingerprints {
            bytes.extend_from_slice(&fingerprint.to_le_bytes());
        }
    }
    sealed(bytes)
}

/// Parses a file of filters.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<PackFilter>, String> {
    let body = unsealed(bytes)?;
    let (head, rest) = FilterHead::ref_from_prefix(body).map_err(|_| "shorter than its head")?;
    if head.magic != FILTER_MAGIC || head.version.get() != BINARY_VERSION {
        return Err("it is not a file of filters that this program knows".to_owned());
    }
    let count = usize::try_from(head.filters.get()).unwrap_or(usize::MAX);
    let (entries, rest) = <[FilterEntry]>::ref_from_prefix_with_elems(rest, count)
        .map_err(|_| "shorter than its filters")?;
    let mut fingerprints =
        <[Fingerprint]>::ref_from_bytes(rest).map_err(|_| "a fingerprint of it is cut short")?;
    let mut filters = Vec::with_capacity(entries.len());
    for entry in entries {
        let count = usize::try_from(entry.fingerprints.get()).unwrap_or(usize::MAX);
        let (own, others) = fingerprints
            .split_at_checked(count)
            .ok_or("shorter than its fingerprints")?;
        fingerprints = others;
        filters.push(parse_filter(entry, own)?);
    }
    if !fingerprints.is_empty() {
        return Err("it is longer than its filters".to_owned());
    }
    Ok(filters)
}

fn parse_filter(entry: &FilterEntry, fingerprints: &[Fingerprint]) -> Result<PackFilter, String> {
    let (segment_length, segment_count_length) =
        (entry.segment_length.get(), entry.segment_count_length.get());
    // A look-up adds two segments to a place below `segment_count_length`, and trusts that it is inside.
    let needed = segment_length
        .checked_mul(2)
        .and_then(|two| two.checked_add(segment_count_length));
    let is_sound = segment_length.is_power_of_two()
        && segment_count_length > 0
        && segment_count_length.is_multiple_of(segment_length)
        && needed == Some(entry.fingerprints.get());
    if !is_sound {
        return Err("a filter of it is impossible".to_owned());
    }
    let descriptor = Descriptor {
        seed: entry.seed.get(),
        segment_length,
        segment_length_mask: segment_length - 1,
        segment_count_length,
    };
    let fingerprints = fingerprints.iter().map(|one| one.get()).collect();
    Ok(PackFilter {
        pack: PackId::from_bytes(entry.pack),
        filter: BinaryFuse16 {
            descriptor,
            fingerprints,
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::HASH_BYTES;

    fn hashes(seed: u64, count: u64) -> Vec<ContentHash> {
        let hash =
            |at: u64| *blake3::hash(&[seed.to_le_bytes(), at.to_le_bytes()].concat()).as_bytes();
        (0..count)
            .map(|at| ContentHash::from_bytes(hash(at)))
            .collect()
    }

    fn filter(seed: u64, count: u64) -> PackFilter {
        let pack = PackId::from_bytes([u8::try_from(seed).unwrap(); 32]);
        PackFilter::of(pack, &hashes(seed, count)).unwrap()
    }

    #[test]
    fn what_the_pack_has_is_never_denied_and_little_else_is_not() {
        for count in [0, 1, 2, 3, 10, 63, 1000, 50_000] {
            let filters = [filter(1, count), filter(2, 7)];
            let parsed = parse(&encode(filters.iter())).unwrap();
            let packs: Vec<_> = parsed.iter().map(|one| one.pack).collect();
            assert_eq!(packs, filters.each_ref().map(|one| one.pack));
            let may_have = |hash: &ContentHash| parsed[0].may_have(key_of(hash));
            assert!(hashes(1, count).iter().all(may_have));
            let others = hashes(3, 100_000);
            let wrong = others.iter().filter(|one| may_have(one)).count();
            // One in 65,536 is to be expected; filters of nothing have no bits to tell.
            assert!(wrong <= 20 || count == 0, "{wrong} of 100,000 at {count}");
        }
    }

    #[test]
    fn it_takes_little_more_than_16_bits_a_content() {
        let bytes = encode([filter(1, 200_000)].iter()).len();
        assert!(bytes < 500_000, "{bytes}");
    }

    proptest! {
        /// Even with a right hash nonsense is refused, or leads to filters that can be asked anything.
        #[test]
        fn nonsense_with_a_right_hash(count in 0u64..70, at in 0usize..160, value: u8, keys: [u64; 16]) {
            let mut bytes = encode([filter(1, count), filter(2, 3)].iter());
            bytes.truncate(bytes.len() - HASH_BYTES);
            let at = at.min(bytes.len() - 1);
            bytes[at] = value;
            let hash = blake3::hash(&bytes);
            bytes.extend_from_slice(hash.as_bytes());
            for filter in parse(&bytes).unwrap_or_default() {
                for key in keys {
                    let _ = filter.may_have(key);
                }
            }
        }

        #[test]
        fn one_changed_bit_is_seen(at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = encode([filter(1, 9)].iter());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
