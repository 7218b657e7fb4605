//! Any answer of a registry: an error, or something within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uimgacc_registry::{Platform, fuzzing};
use uimgacc_types::ImageReference;

const TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

fuzz_target!(|answer: (u8, &str, &[u8])| {
    let (kind, text, bytes) = answer;
    fuzzing::document(TYPES[usize::from(kind) % TYPES.len()], bytes);
    fuzzing::document(text, bytes);
    fuzzing::refusal(text, bytes);
    let _ = text.parse::<Platform>();
    if let Ok(image) = text.parse::<ImageReference>() {
        let again = image.to_string().parse::<ImageReference>();
        assert_eq!(again.expect("what is shown can be read"), image);
    }
});
