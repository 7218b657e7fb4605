//! What one start read, on its way from a node to the store.

use serde::{Deserialize, Serialize};
use uimgacc_types::ChainId;

use crate::format::{
    DecodeError, FileReads, Profile, VERSION, check, compress, decompress, within_bounds,
};

/// No record is longer once it is compressed: it travels in an object of Kubernetes.
pub const MAX_RECORD_BYTES: u64 = 256 << 10;

/// What one start read. Does not say of which image, for more people may read records than may know
/// chain IDs; nor when: whoever writes the profile knows that, and a node could lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    version: u32,
    read_ahead_kb: u32,
    files: Vec<FileReads>,
}

impl Record {
    /// A start with a read-ahead of `read_ahead_kb` KiB. What is beyond the bounds of a profile is left
    /// out, the last first.
    #[must_use]
    pub fn new(read_ahead_kb: u32, files: Vec<FileReads>) -> Self {
        Self {
            version: VERSION,
            read_ahead_kb,
            files: within_bounds(files),
        }
    }

    /// As it travels: JSON, compressed by zstd. Files that have no room are left out, the last first.
    ///
    /// # Errors
    /// A path or a run is impossible.
    pub fn encode(mut self) -> Result<Vec<u8>, DecodeError> {
        loop {
            self.check()?;
            match compress(&self, MAX_RECORD_BYTES) {
                Err(DecodeError::TooLong(_)) if !self.files.is_empty() => {
                    self.files.truncate(self.files.len() * 7 / 8);
                }
                done => return done,
            }
        }
    }

    /// Reads what a node sent, or somebody else did.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record: Self = serde_json::from_slice(&decompress(bytes, MAX_RECORD_BYTES)?)?;
        record.check()?;
        Ok(record)
    }

    /// The profile of an image that was started like this once, at `recorded` (RFC 3339).
    #[must_use]
    pub fn into_profile(
        self,
        chain_id: ChainId,
        platform: String,
        origin: String,
        recorded: String,
    ) -> Profile {
        let files = self.files.into_iter().map(|file| FileReads {
            // Neither is a node's to say.
            content: None,
            starts: 1,
            ..file
        });
        Profile {
            version: VERSION,
            chain_id,
            platform,
            recorded,
            origin,
            read_ahead_kb: self.read_ahead_kb,
            starts: 1,
            files: files.collect(),
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        check(self.version, &[], &self.files)
    }
}
