//! Parsers of the store's binary files, for fuzz targets: see `fuzz/`.

use uimgacc_types::{ContentHash, Extent, PackId};

use crate::format::PAGE_BYTES;
use crate::seal::sealed;
use crate::{dead, filter, toc};

/// Any bytes as a table: an error, or one that is written the same and finds its contents.
///
/// # Panics
/// Where that is not so.
pub fn table(bytes: &[u8]) {
    // The right name, so that the fuzzer gets past it.
    let first = bytes.get(..PAGE_BYTES).unwrap_or(bytes);
    let id = PackId::from_bytes(*blake3::hash(first).as_bytes());
    let Ok(table) = toc::parse(bytes, id) else {
        return;
    };
    assert_eq!(toc::encode(table.clone()), (bytes.to_vec(), id));
    let Ok(head) = toc::parse_head(first, id) else {
        return;
    };
    for (hash, extent) in &table.entries {
        let page = |number: u64| {
            let start = usize::try_from(number + 1).unwrap_or(usize::MAX) * PAGE_BYTES;
            head.parse_page(
                number,
                bytes.get(start..start + PAGE_BYTES).unwrap_or_default(),
            )
        };
        assert_eq!(toc::find(&head, hash, page), Ok(Some(*extent)));
    }
}

/// Entries by the fuzzer's choice as a table: it is read as it was written.
///
/// # Panics
/// Where that is not so.
pub fn entries(hashes: &[[u8; 32]]) {
    let entries = (0u64..).zip(hashes).map(|(number, hash)| {
        let extent = Extent {
            offset_bytes: number * 4096,
            len_bytes: 1 + number % 4096,
        };
        (ContentHash::from_bytes(*hash), extent)
    });
    let (bytes, _) = toc::encode(toc::Toc {
        pack_bytes: hashes.len() as u64 * 4096,
        salt: 0,
        entries: entries.collect(),
    });
    table(&bytes);
}

/// Any bytes as a record of dead ranges: an error, or one that is written the same.
///
/// # Panics
/// Where that is not so.
pub fn dead_ranges(bytes: &[u8]) {
    let pack = bytes
        .get(32..64)
        .and_then(|id| <[u8; 32]>::try_from(id).ok());
    let pack = PackId::from_bytes(pack.unwrap_or_default());
    let bytes = sealed(bytes.to_vec());
    if let Ok(record) = dead::parse(&bytes, pack) {
        assert_eq!(dead::encode(&record, pack), bytes);
    }
}

/// Any bytes as a file of filters: an error, or filters that answer.
pub fn filters(bytes: &[u8]) {
    for filter in filter::parse(&sealed(bytes.to_vec())).unwrap_or_default() {
        for key in [0, 1, u64::MAX] {
            filter.may_have(key);
        }
    }
}
