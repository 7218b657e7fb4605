//! The read side of a store: what a node uses. Never writes.
//!
//! Everything read is checked before it is believed: lengths are bounded, a chain's id is
//! computed again from its diff IDs.

use std::io;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use uimgacc_types::{ChainId, DiffId, chain_ids};

use crate::path::{Observer, StorePath, is_foreign};
use crate::record::UNLEASED_READERS;
use crate::{ChainRecord, FORMAT_VERSION, ImageRecord, Layout, StoreRecord};

/// No JSON file of a store is longer.
const MAX_JSON_BYTES: u64 = 4 << 20;

/// Why something could not be read from the store.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
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
    /// The store was made by a preview of this program.
    #[error(
        "the store {root} has format {found} of a preview version, which this program no longer reads: make a new store in another directory and create the images again"
    )]
    TooOld {
        /// The folder.
        root: PathBuf,
        /// What `store.json` says.
        found: u32,
    },
    /// The store has something that this program does not know.
    #[error(
        "the store {root} has features that this program does not know ({}): upgrade it",
        unknown.join(", ")
    )]
    UnknownFeatures {
        /// The folder.
        root: PathBuf,
        /// Their names.
        unknown: Vec<String>,
    },
    /// The file system failed.
    #[error("cannot read {path}")]
    Io {
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An image's record says nothing, so what the image needs is not known.
    #[error(
        "the image record {path} cannot be read: remove it, then run `uimgacc create` for that image again"
    )]
    BrokenImage {
        path: PathBuf,
        source: Box<ReadError>,
    },
    /// A lease says nothing, so what its holder uses is not known.
    #[error(
        "the lease {path} cannot be read, so what it holds must stay: once nothing uses it, run `uimgacc store lease drop {name}` (`uimgacc store lease list` shows all)"
    )]
    BrokenLease {
        path: PathBuf,
        /// The lease.
        name: String,
        source: Box<ReadError>,
    },
}

/// Called with what could not be read: gives it back, or passes over it.
pub(crate) type OnError<'a> = &'a mut dyn FnMut(ReadError) -> Result<(), ReadError>;

/// A store that is only read.
#[derive(Debug, Clone)]
pub struct StoreReader {
    layout: Layout,
    record: StoreRecord,
}

/// The image records of a store.
#[derive(Debug)]
pub struct Images {
    /// Those that can be read, in the order of their target references.
    pub readable: Vec<ImageRecord>,
    /// Why the others cannot.
    pub broken: Vec<ReadError>,
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
        if record.format_version < FORMAT_VERSION {
            return Err(ReadError::TooOld {
                root: layout.root().to_owned(),
                found: record.format_version,
            });
        }
        check_features(&layout, &record.features.incompatible)?;
        Ok(Self { layout, record })
    }

    /// Whether nodes may read the store without a lease; then no space of single contents is given back.
    #[must_use]
    pub fn allows_unleased_readers(&self) -> bool {
        let features = &self.record.features.compatible;
        features.iter().any(|name| name == UNLEASED_READERS)
    }

    pub(crate) fn record(&self) -> &StoreRecord {
        &self.record
    }

    /// Whether this program knows all that it must know to change the store.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn check_writable(&self) -> Result<(), ReadError> {
        check_features(&self.layout, &self.record.features.read_only_compatible)
    }

    /// The same for somebody of that name: see [`Layout::acting_as`].
    #[must_use]
    pub fn acting_as(mut self, actor: &str) -> Self {
        self.layout = self.layout.acting_as(actor);
        self
    }

    /// The same with an observer: see [`Layout::observed_by`].
    #[must_use]
    pub fn observed_by(mut self, observer: Observer) -> Self {
        self.layout = self.layout.observed_by(observer);
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
        read_chain(&self.layout.chain(chain_id), chain_id)
    }

    /// The record that a chain had when it was retired: nodes that lease it still read its files,
    /// but no node starts anything from it.
    ///
    /// # Errors
    /// As for [`Self::chain`].
    pub fn retired_chain(&self, chain_id: ChainId) -> Result<Option<ChainRecord>, ReadError> {
        read_chain(&self.layout.retired_chain(chain_id), chain_id)
    }

    /// The record of the image with this (normalised) target reference.
    ///
    /// # Errors
    /// The file system's error, or a damaged file.
    pub fn image(&self, target: &str) -> Result<Option<ImageRecord>, ReadError> {
        read_image(&self.layout.image(target))
    }

    /// Every image record, in the order of their target references.
    ///
    /// # Errors
    /// The file system's error, or a damaged file.
    pub fn images(&self) -> Result<Vec<ImageRecord>, ReadError> {
        self.scan_images(&mut Err)
    }

    /// Every image record, whether it can be read or not.
    ///
    /// # Errors
    /// The file system's error.
    pub fn all_images(&self) -> Result<Images, ReadError> {
        let mut broken = Vec::new();
        let readable = self.scan_images(&mut |error| {
            broken.push(error);
            Ok(())
        })?;
        Ok(Images { readable, broken })
    }

    /// The same of those that can be read.
    pub(crate) fn scan_images(&self, on_error: OnError<'_>) -> Result<Vec<ImageRecord>, ReadError> {
        let mut images = Vec::new();
        for path in scan_fanned(&self.layout.directory("images"), "json", on_error)? {
            match read_image(&path) {
                // A record that was deleted since the listing is simply no more.
                Ok(image) => images.extend(image),
                Err(error) => on_error(error)?,
            }
        }
        images.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(images)
    }
}

/// This program knows no feature yet.
fn check_features(layout: &Layout, unknown: &[String]) -> Result<(), ReadError> {
    if unknown.is_empty() {
        return Ok(());
    }
    Err(ReadError::UnknownFeatures {
        root: layout.root().to_owned(),
        unknown: unknown.to_vec(),
    })
}

fn read_image(path: &StorePath) -> Result<Option<ImageRecord>, ReadError> {
    read_json(path).map_err(|error| ReadError::BrokenImage {
        path: path.on_host(),
        source: Box::new(error),
    })
}

fn read_chain(path: &StorePath, chain_id: ChainId) -> Result<Option<ChainRecord>, ReadError> {
    let Some(record) = read_json::<ChainRecord>(path)? else {
        return Ok(None);
    };
    let diff_ids: Vec<DiffId> = record.layers.iter().map(|layer| layer.diff_id).collect();
    if record.chain_id != chain_id || chain_ids(&diff_ids).last() != Some(&chain_id) {
        return Err(ReadError::Damaged {
            path: path.on_host(),
            reason: "its layers do not make its chain ID".to_owned(),
        });
    }
    Ok(Some(record))
}

/// Turns the system's error into ours: what the store never holds is damage.
pub(crate) fn unreadable(path: &StorePath) -> impl Fn(io::Error) -> ReadError {
    move |source| {
        let path = path.on_host();
        let reason = match source.kind() {
            _ if is_foreign(&source) => source.to_string(),
            io::ErrorKind::FileTooLarge => source.to_string(),
            io::ErrorKind::NotADirectory => {
                "it is, or lies below, a file in place of a directory".to_owned()
            }
            _ => return ReadError::Io { path, source },
        };
        ReadError::Damaged { path, reason }
    }
}

/// What the file holds is not what it should be.
pub(crate) fn damaged(path: &StorePath) -> impl FnOnce(String) -> ReadError {
    let path = path.on_host();
    move |reason| ReadError::Damaged { path, reason }
}

/// `None` where there is no such file.
pub(crate) fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a directory has the name of those that files are spread over: two hex digits.
pub(crate) fn is_fan(path: &StorePath) -> bool {
    path.name()
        .is_some_and(|name| name.len() == 2 && is_hex(name))
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether a file has a name that the store gives: `<aa>/<id>.<suffix>`.
pub(crate) fn has_own_name(path: &StorePath, suffix: &str) -> bool {
    let parent = path.parent();
    let fan = parent.as_ref().and_then(StorePath::name);
    path.has_suffix(suffix)
        && path.stem().is_some_and(|id| {
            id.len() == 64 && is_hex(id) && fan.is_some_and(|fan| id.starts_with(fan))
        })
}

/// Whether an NFS client keeps the file for a process that still has it open.
pub(crate) fn is_left_by_nfs(path: &StorePath) -> bool {
    path.name().is_some_and(|name| name.starts_with(".nfs"))
        && path.facts().is_ok_and(|facts| facts.is_file)
}

/// The store's own files `<directory>/<aa>/<id>.<suffix>`; none where `directory` is missing. What has
/// another name is not the store's.
pub(crate) fn list_fanned(
    directory: &StorePath,
    suffix: &str,
) -> Result<Vec<StorePath>, ReadError> {
    scan_fanned(directory, suffix, &mut Err)
}

/// The same of the directories that can be read.
pub(crate) fn scan_fanned(
    directory: &StorePath,
    suffix: &str,
    on_error: OnError<'_>,
) -> Result<Vec<StorePath>, ReadError> {
    let mut files = Vec::new();
    let fans = list(directory).or_else(|error| on_error(error).map(|()| Vec::new()))?;
    for fan in fans.iter().filter(|fan| is_fan(fan)) {
        let found = list(fan).or_else(|error| on_error(error).map(|()| Vec::new()))?;
        files.extend(found.into_iter().filter(|path| has_own_name(path, suffix)));
    }
    files.sort_by(|a, b| a.name().cmp(&b.name()));
    Ok(files)
}

/// The paths in a directory; none where it is missing.
pub(crate) fn list(directory: &StorePath) -> Result<Vec<StorePath>, ReadError> {
    Ok(there(directory.list())
        .map_err(unreadable(directory))?
        .unwrap_or_default())
}

/// Parses a JSON file; `None` where there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &StorePath) -> Result<Option<T>, ReadError> {
    let Some(text) = there(path.read(MAX_JSON_BYTES)).map_err(unreadable(path))? else {
        return Ok(None);
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| ReadError::Damaged {
            path: path.on_host(),
            reason: error.to_string(),
        })
}

/// `None` where it is damaged, which is logged.
pub(crate) fn sound<T>(result: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match result {
        Err(error @ ReadError::Damaged { .. }) => {
            tracing::warn!("{error} (run `uimgacc store verify`)");
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Parses the id that a file of the store has as its name.
pub(crate) fn id_of<T>(
    path: &StorePath,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, ReadError> {
    path.stem()
        .and_then(parse)
        .ok_or_else(|| ReadError::Damaged {
            path: path.on_host(),
            reason: "its name is no id".to_owned(),
        })
}
