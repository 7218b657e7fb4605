//! Where contents lie in the store.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ContentHash, ParseDigestError};

/// How many packs one flattened index may refer to. Each is a device of the mount.
pub const MAX_PACKS_PER_IMAGE: usize = 16;

/// Names a pack: BLAKE3-256 of the first page of its table of contents, written as 64 lower-case hex digits.
///
/// That page holds a hash of the whole table, which holds the hash of every content, so the name covers the
/// whole pack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackId(ContentHash);

impl PackId {
    /// Takes the hash of the first page of a table of contents.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(ContentHash::from_bytes(bytes))
    }

    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The 64 lower-case hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// Parses 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
        ContentHash::from_hex(text).map(Self)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for PackId {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::from_hex(&text)
    }
}

impl From<PackId> for String {
    fn from(id: PackId) -> Self {
        id.hex()
    }
}

/// A stretch of a pack; both in bytes, the offset a multiple of 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Where it starts in the pack.
    pub offset_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
}
