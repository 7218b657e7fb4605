use std::cell::Cell;

use proptest::prelude::*;

use super::*;

fn hash(number: u64) -> ContentHash {
    ContentHash::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn toc(lengths: &[u64]) -> Toc {
    let mut end = 0;
    let entries = (0u64..)
        .zip(lengths)
        .map(|(number, len_bytes)| {
            let extent = Extent {
                offset_bytes: end,
                len_bytes: *len_bytes,
            };
            end = (end + len_bytes).next_multiple_of(BLOCK_BYTES);
            (hash(number), extent)
        })
        .collect();
    Toc {
        pack_bytes: end,
        salt: 0,
        entries,
    }
}

/// The table with all its hashes made right again after a change.
fn rehashed(mut bytes: Vec<u8>) -> (Vec<u8>, PackId) {
    let entries = bytes[PAGE_BYTES..]
        .chunks(PAGE_BYTES)
        .flat_map(|page| page.chunks(64).take(ENTRIES_PER_PAGE));
    let count = u64::from_le_bytes(*bytes[24..].first_chunk().unwrap());
    let mut root = blake3::Hasher::new();
    for entry in entries.take(usize::try_from(count).unwrap_or(usize::MAX)) {
        root.update(entry);
    }
    let root = *root.finalize().as_bytes();
    bytes[64..96].copy_from_slice(&root);
    for page in bytes[PAGE_BYTES..].chunks_exact_mut(PAGE_BYTES) {
        let (body, checksum) = page.split_at_mut(PAGE_BYTES - HASH_BYTES);
        checksum.copy_from_slice(blake3::keyed_hash(&root, body).as_bytes());
    }
    let id = PackId::from_bytes(*blake3::hash(&bytes[..PAGE_BYTES]).as_bytes());
    (bytes, id)
}

/// Looks a content up; says as well how many pages were read.
fn looked_up(bytes: &[u8], id: PackId, hash: &ContentHash) -> (Option<Extent>, u32) {
    let head = parse_head(&bytes[..PAGE_BYTES], id).unwrap();
    let reads = Cell::new(0);
    let read = |page: u64| {
        reads.set(reads.get() + 1);
        let at = usize::try_from(page + 1).unwrap() * PAGE_BYTES;
        head.parse_page(page, &bytes[at..at + PAGE_BYTES])
    };
    (find(&head, hash, read).unwrap(), reads.get())
}

proptest! {
    #[test]
    fn round_trip(lengths in proptest::collection::vec(1u64..1 << 36, 0..200), salt: u64) {
        let mut toc = toc(&lengths);
        toc.salt = salt;
        let (bytes, id) = encode(toc.clone());
        toc.entries.sort_by_key(|(hash, _)| *hash);
        prop_assert_eq!(parse(&bytes, id), Ok(toc.clone()));
        for (hash, extent) in &toc.entries {
            prop_assert_eq!(looked_up(&bytes, id, hash).0, Some(*extent));
        }
        for other in 200..220 {
            prop_assert_eq!(looked_up(&bytes, id, &hash(other)).0, None);
        }
    }

    #[test]
    fn one_changed_bit_is_seen(lengths in proptest::collection::vec(1u64..1 << 20, 1..90), at: prop::sample::Index, bit in 0u8..8) {
        let (mut bytes, id) = encode(toc(&lengths));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(parse(&bytes, id).is_err());
    }

    /// Even with right hashes a table of nonsense is refused, and nothing panics.
    #[test]
    fn nonsense_with_right_hashes(lengths in proptest::collection::vec(1u64..1 << 20, 1..90), at: prop::sample::Index, value: u8) {
        let (mut bytes, _) = encode(toc(&lengths));
        let at = at.index(bytes.len());
        bytes[at] = value;
        let (bytes, id) = rehashed(bytes);
        if let Ok(toc) = parse(&bytes, id) {
            for (_, extent) in toc.entries {
                prop_assert!(extent.offset_bytes + extent.len_bytes <= toc.pack_bytes);
                prop_assert!(extent.offset_bytes.is_multiple_of(BLOCK_BYTES));
            }
        }
    }
}

#[test]
fn a_look_up_reads_few_pages() {
    let toc = toc(&vec![1; 100_000]);
    let (bytes, id) = encode(toc.clone());
    let mut reads = 0;
    for number in (0..100_000).step_by(50) {
        let (found, count) = looked_up(&bytes, id, &hash(number));
        assert!(found.is_some() && count < 10, "{count}");
        reads += count;
    }
    // Of 1,588 pages, 2,000 times.
    assert!(reads < 6000, "{reads}");
}

#[test]
fn a_look_up_ends_where_hashes_are_not_spread_evenly() {
    let mut toc = toc(&vec![1; 3000]);
    for (number, (hash, _)) in (0u64..).zip(&mut toc.entries) {
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        *hash = ContentHash::from_bytes(bytes);
    }
    let (bytes, id) = encode(toc.clone());
    for (hash, extent) in &toc.entries {
        let (found, count) = looked_up(&bytes, id, hash);
        assert!(found == Some(*extent) && count < 20, "{count}");
    }
}

#[test]
fn a_page_of_another_table_is_refused() {
    let (bytes, id) = encode(toc(&[5, 6]));
    let (others, _) = encode(toc(&[5, 7]));
    let head = parse_head(&bytes[..PAGE_BYTES], id).unwrap();
    head.parse_page(0, &bytes[PAGE_BYTES..]).unwrap();
    let refused = head.parse_page(0, &others[PAGE_BYTES..]).unwrap_err();
    assert!(refused.contains("checksum"), "{refused}");
}

#[test]
fn what_is_no_table() {
    let (bytes, id) = encode(toc(&[5, 6]));
    for end in 0..bytes.len() {
        assert!(parse(&bytes[..end], id).is_err(), "{end}");
    }
    let other = PackId::from_bytes([7; 32]);
    assert!(parse(&bytes, other).unwrap_err().contains("its name"));
    let mut newer = bytes;
    newer[8] = 3;
    let (newer, id) = rehashed(newer);
    assert!(parse(&newer, id).unwrap_err().contains("version 3"));
}
