use proptest::prelude::*;

use super::*;

fn toc(lengths: &[u64]) -> Toc {
    let mut end = 0;
    let entries = lengths
        .iter()
        .enumerate()
        .map(|(number, len_bytes)| {
            let extent = Extent {
                offset_bytes: end,
                len_bytes: *len_bytes,
            };
            end = (end + len_bytes).next_multiple_of(BLOCK_BYTES);
            let hash = blake3::hash(&number.to_le_bytes());
            (ContentHash::from_bytes(*hash.as_bytes()), extent)
        })
        .collect();
    Toc {
        pack_bytes: end,
        entries,
    }
}

/// The table with its hash made right again after a change.
fn rehashed(mut bytes: Vec<u8>) -> (Vec<u8>, PackId) {
    let body = bytes.len() - TRAILER_BYTES;
    let hash = blake3::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(hash.as_bytes());
    (bytes, PackId::from_bytes(*hash.as_bytes()))
}

proptest! {
    #[test]
    fn round_trip(lengths in proptest::collection::vec(1u64..1 << 40, 0..40)) {
        let mut toc = toc(&lengths);
        let (bytes, id) = encode(toc.clone());
        toc.entries.sort_by_key(|(hash, _)| *hash);
        prop_assert_eq!(parse(&bytes, id), Ok(toc));
    }

    #[test]
    fn one_changed_bit_is_seen(lengths in proptest::collection::vec(1u64..1 << 20, 1..9), at: prop::sample::Index, bit in 0u8..8) {
        let (mut bytes, id) = encode(toc(&lengths));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(parse(&bytes, id).is_err());
    }

    /// Even with a right hash a table of nonsense is refused, and nothing panics.
    #[test]
    fn nonsense_with_a_right_hash(lengths in proptest::collection::vec(1u64..1 << 20, 1..9), at: prop::sample::Index, value: u8) {
        let (mut bytes, _) = encode(toc(&lengths));
        let at = at.index(bytes.len() - TRAILER_BYTES);
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
fn what_is_no_table() {
    let (bytes, id) = encode(toc(&[5, 6]));
    for end in 0..bytes.len() {
        assert!(parse(&bytes[..end], id).is_err(), "{end}");
    }
    let other = PackId::from_bytes([7; 32]);
    assert_eq!(
        parse(&bytes, other),
        Err("it belongs to another pack".to_owned())
    );
    let mut newer = bytes;
    newer[8] = 2;
    let (newer, id) = rehashed(newer);
    assert!(parse(&newer, id).unwrap_err().contains("version 2"));
}
