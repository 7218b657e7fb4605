//! Any bytes as a file of the store: an error, or what is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uimgacc_store::fuzzing;
use uimgacc_store::{BlobRecord, ChainRecord, ImageRecord, Lease, StoreRecord};

fuzz_target!(|file: (u8, &[u8])| {
    let (kind, bytes) = file;
    match kind % 5 {
        0 => fuzzing::table(bytes),
        1 => {
            let (hashes, _) = bytes.as_chunks::<32>();
            fuzzing::entries(hashes);
        }
        2 => fuzzing::dead_ranges(bytes),
        3 => fuzzing::filters(bytes),
        _ => {
            let _ = serde_json::from_slice::<StoreRecord>(bytes);
            let _ = serde_json::from_slice::<ImageRecord>(bytes);
            let _ = serde_json::from_slice::<ChainRecord>(bytes);
            let _ = serde_json::from_slice::<BlobRecord>(bytes);
            let _ = serde_json::from_slice::<Lease>(bytes);
        }
    }
});
