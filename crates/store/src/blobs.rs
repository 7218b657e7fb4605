//! Which compressed blob was verified to hold which layer.
//!
//! A diff ID stands in an image's configuration and proves nothing: whoever writes a configuration
//! may name any. The digest of a layer's blob stands in the manifest; who names it has read the
//! manifest, or has the blob. So `blobs/<aa>/<blob-digest>.json` keeps what `create` computed itself
//! while the blob streamed in, and nothing is taken from the store by a diff ID alone.
//!
//! A record is true for ever: it is published once and never replaced by another statement. One that
//! is missing or damaged costs a download.

use serde::{Deserialize, Serialize};
use uimgacc_types::{DiffId, Digest};

use crate::error::SessionError;
use crate::reader::{ReadError, StoreReader, read_json, unreadable};
use crate::session::Session;

/// `blobs/<aa>/<blob-digest>.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Digest of the blob as the registry has it.
    pub blob: Digest,
    /// Digest of its uncompressed content.
    pub diff_id: DiffId,
}

impl StoreReader {
    /// The diff ID that the blob was verified to have; `None` where nobody verified it.
    ///
    /// # Errors
    /// The file system's error, or a damaged record.
    pub fn verified_diff_id(&self, blob: Digest) -> Result<Option<DiffId>, ReadError> {
        let path = self.layout().blob(blob);
        let Some(record) = read_json::<BlobRecord>(&path)? else {
            return Ok(None);
        };
        if record.blob == blob {
            return Ok(Some(record.diff_id));
        }
        Err(ReadError::Damaged {
            path: path.on_host(),
            reason: format!("it is the record of {}", record.blob),
        })
    }
}

impl Session {
    /// Whether the store has an index of the layer, sound or not.
    ///
    /// # Errors
    /// The file system's error.
    pub fn has_layer(&self, diff_id: DiffId) -> Result<bool, SessionError> {
        let path = self.reader().layout().layer(diff_id);
        Ok(path.exists().map_err(unreadable(&path))?)
    }

    /// Whether the blob was verified to hold the layer `diff_id`. A damaged record is logged and
    /// counts as missing.
    ///
    /// # Errors
    /// The file system's error.
    pub fn is_verified(&self, blob: Digest, diff_id: DiffId) -> Result<bool, SessionError> {
        match self.reader().verified_diff_id(blob) {
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::warn!("{error}");
                Ok(false)
            }
            other => Ok(other? == Some(diff_id)),
        }
    }

    /// Records that the blob holds the layer `diff_id`. Only for who has read and hashed all of it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn record_verified(&self, blob: Digest, diff_id: DiffId) -> Result<(), SessionError> {
        let path = self.reader().layout().blob(blob);
        let record = BlobRecord { blob, diff_id };
        match self.reader().verified_diff_id(blob) {
            Ok(Some(known)) if known == diff_id => {}
            Ok(None) => {
                self.workspace().publish_json(&path, &record)?;
            }
            // Damaged, or a lie: what was computed just now takes its place.
            Ok(Some(_)) | Err(ReadError::Damaged { .. }) => {
                self.workspace().replace_json(&path, &record)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
