//! Digests as OCI and the store write them.
//!
//! A [`Digest`] is only ever SHA-256: containerd, the registries in use and every original image
//! use it, and a second algorithm would double each place that compares chain IDs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct ParseDigestError {
    text: String,
    what: &'static str,
}

fn to_hex(bytes: &[u8; 32]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A newtype of 32 bytes that is written as `PREFIX` and 64 lower-case hex digits.
macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes of a hash that was computed elsewhere.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The 64 lower-case hex digits, without a prefix.
            #[must_use]
            pub fn hex(&self) -> String {
                to_hex(&self.0)
            }

            /// Parses 64 lower-case hex digits, without a prefix.
            pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
                from_hex(text).map(Self).ok_or_else(|| ParseDigestError {
                    text: text.to_owned(),
                    what: $what,
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix)
                    .and_then(from_hex)
                    .map(Self)
                    .ok_or_else(|| ParseDigestError {
                        text: text.to_owned(),
                        what: $what,
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest_type! {
    /// SHA-256 of a blob, written `sha256:<hex>` (OCI image spec, descriptor).
    Digest, "sha256:", "SHA-256 digest (sha256: and 64 lower-case hex digits)"
}
digest_type! {
    /// SHA-256 of a layer's uncompressed tar (OCI image spec, config).
    DiffId, "sha256:", "diff ID (sha256: and 64 lower-case hex digits)"
}
digest_type! {
    /// Names a stack of layers (OCI image spec, config, "Layer ChainID").
    ChainId, "sha256:", "chain ID (sha256: and 64 lower-case hex digits)"
}
digest_type! {
    /// Stands for a chain ID where more people read than may know the chain ID itself.
    ///
    /// Whoever knows a chain ID can claim to have the image, so objects of the cluster hold tokens.
    /// A token is a one-way function of the chain ID: equal tokens mean equal chains, and nobody
    /// gets from the token to the chain ID.
    ChainToken, "chain:", "chain token (chain: and 64 lower-case hex digits)"
}
digest_type! {
    /// BLAKE3-256 of a file's content; the key of the store's deduplication.
    ContentHash, "blake3:", "content hash (blake3: and 64 lower-case hex digits)"
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// Keeps tokens apart from every other hash of a chain ID.
const CHAIN_TOKEN_CONTEXT: &str = "uimgacc.io 2026-11 token of a chain ID";

impl ChainToken {
    /// The token of `chain`.
    #[must_use]
    pub fn of(chain: ChainId) -> Self {
        Self(blake3::derive_key(CHAIN_TOKEN_CONTEXT, &chain.0))
    }
}

/// The chain IDs of every prefix of `diff_ids`, bottom first; as long as `diff_ids`.
#[must_use]
pub fn chain_ids(diff_ids: &[DiffId]) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => ChainId(diff_id.0),
            Some(parent) => ChainId(Digest::of(format!("{parent} {diff_id}").as_bytes()).0),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in [
            "",
            "sha256:",
            "sha512:00",
            "sha256:E3",
            &digest.to_string().to_uppercase(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    /// Nodes and Jobs of different versions compare tokens, so they never change.
    #[test]
    fn chain_tokens_stay_the_same() {
        let token = ChainToken::of(ChainId([7; 32]));
        assert_eq!(
            token.to_string(),
            "chain:3840aae8aedef0fc74e25d6f747b22e39e850f9a75c19a62f49dd381b3216517"
        );
        assert_eq!(token.to_string().parse(), Ok(token));
        assert!(ChainId([7; 32]).to_string().parse::<ChainToken>().is_err());
        assert_ne!(token, ChainToken::of(ChainId([8; 32])));
    }

    #[test]
    fn chain_id_of_the_spec() {
        let layers = [DiffId(Digest::of(b"a").0), DiffId(Digest::of(b"b").0)];
        let chain = chain_ids(&layers);
        assert_eq!(chain[0].hex(), layers[0].hex());
        let joined = format!("{} {}", layers[0], layers[1]);
        assert_eq!(
            chain[1].as_bytes(),
            Digest::of(joined.as_bytes()).as_bytes()
        );
    }
}
