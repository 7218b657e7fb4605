//! Any bytes: an error, or a profile that is within its bounds, by itself and merged, and reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uimgacc_profile::{MAX_BYTES, MAX_RUNS, Profile, Record};

fuzz_target!(|bytes: (bool, &[u8])| {
    let (is_text, bytes) = bytes;
    if let Ok(record) = Record::decode(bytes) {
        record.encode().expect("what was decoded can be encoded");
    }
    let decoded = if is_text {
        Profile::from_json(bytes)
    } else {
        Profile::decode(bytes)
    };
    let Ok(profile) = decoded else { return };
    assert!(profile.runs() <= MAX_RUNS && profile.len_bytes() <= MAX_BYTES);
    for file in &profile.files {
        assert!(!file.path.starts_with('/'));
        assert!(file.path.split('/').all(|name| name != ".."));
    }
    let encoded = profile.encode().expect("what was decoded can be encoded");
    let again = Profile::decode(&encoded).expect("what was encoded can be decoded");
    assert_eq!(again, profile);
    let merged = profile.clone().merged_with(profile);
    merged.encode().expect("what was merged is within bounds");
});
