//! The read side of a store: what a node uses. Never writes.
//!
//! Everything read is checked before it is believed: lengths are bounded, a chain's id is
//! computed again from its diff IDs.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use uimgacc_types::{ChainId, DiffId, chain_ids};

use crate::{ChainRecord, FORMAT_VERSION, ImageRecord, Layout, StoreRecord};

/// No JSON file of a store is longer.
const MAX_JSON_BYTES: u64 = 4 << 20;

/// Why something could not be read from the store.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The folder has no `store.json`.
    #[error(
        "{root} is no store: it has no store.json (make one with `uimgacc store init --store {root}`)"
    )]
    NoStore {
        /// The folder.
        root: PathBuf,
    },
    /// The store is newer than this program.
    #[error(
        "the store {root} has format {found}; this program understands up to {newest}: upgrade it"
    )]
    TooNew {
        /// The folder.
        root: PathBuf,
        /// What `store.json` says.
        found: u32,
        /// [`FORMAT_VERSION`].
        newest: u32,
    },
    /// The file system failed.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A store that is only read.
#[derive(Debug, Clone)]
pub struct StoreReader {
    layout: Layout,
    record: StoreRecord,
}

impl StoreReader {
    /// Opens the store in `root`.
    ///
    /// # Errors
    /// No store there, a newer format, or the file system's error.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ReadError> {
        let layout = Layout::new(root);
        let Some(record) = read_json::<StoreRecord>(&layout.store_json())? else {
            return Err(ReadError::NoStore {
                root: layout.root().to_owned(),
            });
        };
        if record.format_version > FORMAT_VERSION {
            return Err(ReadError::TooNew {
                root: layout.root().to_owned(),
                found: record.format_version,
                newest: FORMAT_VERSION,
            });
        }
        Ok(Self { layout, record })
    }

    /// The same for somebody of that name: see [`Layout::acting_as`].
    #[must_use]
    pub fn acting_as(mut self, actor: &str) -> Self {
        self.layout = self.layout.acting_as(actor);
        self
    }

    /// The paths of the store.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The store's id.
    #[must_use]
    pub fn store_id(&self) -> &str {
        &self.record.store_id
    }

    /// The chain, where all its layers are in the store; `None` where they are not.
    ///
    /// # Errors
    /// The file system's error, or a file whose content does not lead to `chain_id`.
    pub fn chain(&self, chain_id: ChainId) -> Result<Option<ChainRecord>, ReadError> {
        read_chain(self.layout.chain(chain_id), chain_id)
    }

    /// The record that a chain had when it was retired: nodes that lease it still read its files,
    /// but no node starts anything from it.
    ///
    /// # Errors
    /// As for [`Self::chain`].
    pub fn retired_chain(&self, chain_id: ChainId) -> Result<Option<ChainRecord>, ReadError> {
        read_chain(self.layout.retired_chain(chain_id), chain_id)
    }

    /// The record of the image with this (normalised) target reference.
    ///
    /// # Errors
    /// The file system's error, or a damaged file.
    pub fn image(&self, target: &str) -> Result<Option<ImageRecord>, ReadError> {
        read_json(&self.layout.image(target))
    }

    /// Every image record with its path, in the order of their target references.
    ///
    /// # Errors
    /// The file system's error, or a damaged file.
    pub fn images(&self) -> Result<Vec<ImageRecord>, ReadError> {
        let mut images = Vec::new();
        for path in list_fanned(&self.layout.root().join("images"), "json")? {
            // A record that was deleted since the listing is simply no more.
            images.extend(read_json::<ImageRecord>(&path)?);
        }
        images.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(images)
    }
}

fn read_chain(path: PathBuf, chain_id: ChainId) -> Result<Option<ChainRecord>, ReadError> {
    let Some(record) = read_json::<ChainRecord>(&path)? else {
        return Ok(None);
    };
    let diff_ids: Vec<DiffId> = record.layers.iter().map(|layer| layer.diff_id).collect();
    if record.chain_id != chain_id || chain_ids(&diff_ids).last() != Some(&chain_id) {
        return Err(ReadError::Damaged {
            path,
            reason: "its layers do not make its chain ID".to_owned(),
        });
    }
    Ok(Some(record))
}

/// The files `<folder>/<aa>/*.<suffix>`; none where `folder` is missing.
pub(crate) fn list_fanned(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>, ReadError> {
    let mut files = Vec::new();
    for fan in list(folder)? {
        for path in list(&fan)? {
            if path.extension().is_some_and(|found| found == suffix) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The paths in a folder; none where it is missing or no folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let io = |source| ReadError::Io {
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
        other => other.map_err(io)?,
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(io))
        .collect()
}

/// Parses a JSON file; `None` where there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReadError> {
    let io = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?,
    };
    let mut text = Vec::new();
    let read = file
        .take(MAX_JSON_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(io)?;
    let damaged = |reason| ReadError::Damaged {
        path: path.to_owned(),
        reason,
    };
    if read as u64 > MAX_JSON_BYTES {
        return Err(damaged(format!("longer than {MAX_JSON_BYTES} bytes")));
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| damaged(error.to_string()))
}
