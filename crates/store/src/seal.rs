//! Files that end with the hash of all bytes before it: pure.

use crate::format::HASH_BYTES;

/// The bytes with their hash.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// The bytes without their hash.
///
/// # Errors
/// They do not match it.
pub(crate) fn unsealed(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let body_len = bytes
        .len()
        .checked_sub(HASH_BYTES)
        .ok_or("shorter than its hash")?;
    let (body, hash) = bytes.split_at(body_len);
    if blake3::hash(body).as_bytes() == hash {
        return Ok(body);
    }
    Err("it does not match its hash")
}
