//! Parsers of what registries send, for fuzz targets: see `fuzz/`.

use crate::{api_error, challenge, manifest};

/// Any bytes as a manifest or an index of that media type.
pub fn document(media_type: &str, bytes: &[u8]) {
    let _ = manifest::parse(media_type, bytes);
}

/// Any text as a challenge, any bytes as an error.
pub fn refusal(header: &str, body: &[u8]) {
    let _ = challenge::parse(header);
    let _ = api_error::parse(body);
}
