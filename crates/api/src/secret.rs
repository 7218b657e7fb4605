//! Texts that are never printed.

use std::fmt;

use serde::Deserialize;

/// A password or a private key.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Of this text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// It itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
