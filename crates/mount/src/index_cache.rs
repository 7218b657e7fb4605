//! The node's own copy of an index.
//!
//! Owns a folder per chain: `index.erofs`, the copy, and `record.json`, its digest, size, packs and, where
//! it was made here, layers. The copy of a whole image is a file of the store; that of a mere prefix of images is
//! made here, by stacking the layers' own indexes.
//!
//! Guarantees: what [`load`] and [`fetch`] return had its SHA-256 computed from the local file in
//! that call. That costs some milliseconds (2 GB/s), and a mount happens once a boot, so there is
//! no state "checked before" that could be wrong. The kernel only ever parses such a file.
//! A crash leaves at most a file named `*.new`, which the next call replaces.
//!
//! Assumptions: one process works on a folder at a time.

mod checked;
mod device_table;
mod prefix;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uimgacc_erofs::{ReadError as TreeReadError, WriteError as TreeWriteError};
use uimgacc_store::flatten::FlattenError;
use uimgacc_store::{
    ChainLayer, ChainRecord, IndexRecord, Layout, ReadError, StoreFile, StoreReader,
};
use uimgacc_types::{ChainId, Digest, PackId};

pub use checked::Checked;

/// No index is longer: that is some 20 million files.
const MAX_INDEX_BYTES: u64 = 4 << 30;
/// How many packs (devices) one mount may have here. Flattened images of the store have 16 at
/// most; prefixes of images may need more.
pub const MAX_PACKS_PER_MOUNT: usize = 64;
const MAX_RECORD_BYTES: u64 = 1 << 20;
const BUFFER_BYTES: usize = 1 << 20;

/// An index on the node's disk, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedIndex {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its packs, in the order of its device table and from there: what the digest covers.
    pub packs: Vec<IndexedPack>,
    /// The layers that it was made of here; none where it is a file of the store.
    pub layers: Vec<ChainLayer>,
}

/// `record.json`.
#[derive(Debug, Serialize, Deserialize)]
struct LocalRecord {
    #[serde(flatten)]
    index: IndexRecord,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<ChainLayer>,
}

/// A pack as an index names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedPack {
    /// The pack.
    pub id: PackId,
    /// Its length in bytes.
    pub len_bytes: u64,
}

impl CachedIndex {
    /// Whether the store still keeps all that this index names: the chain's record is there with this index, or it
    /// is retired and leased. Where it does not, contents may have been given up and read as zeros.
    ///
    /// # Errors
    /// The file system's error, or a damaged record.
    pub fn is_kept(&self, store: &StoreReader, chain: ChainId) -> Result<bool, ReadError> {
        if let Some(record) = store.chain(chain)? {
            return Ok(self.is_of(&record));
        }
        let Some(record) = store.retired_chain(chain)? else {
            return Ok(false);
        };
        Ok(self.is_of(&record) && !uimgacc_store::holders(store, &[chain])?.is_empty())
    }

    fn is_of(&self, record: &ChainRecord) -> bool {
        let named = record.index.as_ref().map(|index| index.digest);
        let is_made_of_its_layers = !self.layers.is_empty() && self.layers == record.layers;
        named == Some(self.digest) || is_made_of_its_layers
    }

    /// The packs in the store, each a regular file of the length that the index names.
    ///
    /// # Errors
    /// A pack is missing, is something else, or has another length.
    pub fn open_packs(&self, store: &Layout) -> Result<Vec<StoreFile>, IndexError> {
        let open = |pack: &IndexedPack| {
            let path = store.pack(pack.id);
            let file = path.handle().map_err(failed("open", &path.on_host()))?;
            if file.len_bytes() != pack.len_bytes {
                return Err(IndexError::WrongSize {
                    path: path.on_host(),
                    found: file.len_bytes(),
                    expected: pack.len_bytes,
                });
            }
            Ok(file)
        };
        self.packs.iter().map(open).collect()
    }
}

/// Why there is no local index.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum IndexError {
    /// The file system failed, of the store or of the node.
    #[error("cannot {action} {path}")]
    Io {
        /// In a word.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file of the store is not the one that its record names.
    #[error("{path} has digest {found} where {expected} was recorded: run `uimgacc store verify`")]
    WrongDigest {
        path: PathBuf,
        /// Of its bytes.
        found: Digest,
        /// Of the record.
        expected: Digest,
    },
    /// A file of the store is shorter or longer than recorded, or than anything we take.
    #[error("{path} is {found} bytes long where {expected} were recorded")]
    WrongSize {
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// Of the record, or the most that we take.
        expected: u64,
    },
    /// A layer's index is no EROFS image, or not ours.
    #[error("{path} is no index")]
    Unreadable {
        path: PathBuf,
        source: TreeReadError,
    },
    /// The device table is damaged.
    #[error("{path} has a damaged device table")]
    DeviceTable { path: PathBuf },
    /// The layers cannot be stacked.
    #[error("the layers of {chain} cannot be stacked")]
    Flatten {
        /// The chain ID.
        chain: ChainId,
        source: FlattenError,
    },
    /// The stacked layers cannot be written.
    #[error("cannot write the index {path}")]
    Write {
        path: PathBuf,
        source: TreeWriteError,
    },
    /// More devices than a mount should have.
    #[error("chain {chain} needs {count} packs; a mount takes {MAX_PACKS_PER_MOUNT}")]
    TooManyPacks {
        /// The chain ID.
        chain: ChainId,
        /// How many it needs.
        count: usize,
    },
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> IndexError {
    move |source| IndexError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The index that the folder already holds; `None` where it has none, or a damaged one.
///
/// # Errors
/// The node's file system failed.
pub fn load(folder: &Path) -> Result<Option<CachedIndex>, IndexError> {
    let record_path = folder.join("record.json");
    let mut text = Vec::new();
    match File::open(&record_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &record_path)(error)),
        Ok(file) => file
            .take(MAX_RECORD_BYTES)
            .read_to_end(&mut text)
            .map_err(failed("read", &record_path))?,
    };
    let Ok(LocalRecord {
        index: record,
        layers,
    }) = serde_json::from_slice(&text)
    else {
        return Ok(None);
    };
    let path = folder.join("index.erofs");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("open", &path))?,
    };
    match copy_checked(file, &path, &mut io::sink(), &path, &record) {
        Ok(()) => cached(path, record.digest, layers).map(Some),
        Err(IndexError::WrongDigest { .. } | IndexError::WrongSize { .. }) => {
            tracing::warn!(path = %path.display(), "the local copy of the index is damaged; it is fetched again");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The digest that the folder's copy had when it was made, where there is one. Reads no copy: for
/// telling which one is there, not that it is sound.
#[must_use]
pub fn recorded(folder: &Path) -> Option<Digest> {
    let text = fs::read(folder.join("record.json")).ok()?;
    let record: LocalRecord = serde_json::from_slice(&text).ok()?;
    let is_there = folder.join("index.erofs").exists();
    is_there.then_some(record.index.digest)
}

/// Copies (or, for a prefix, makes) the index of `chain` into the folder, checked.
///
/// # Errors
/// The store's file is not the recorded one, or a file system failed.
pub fn fetch(
    store: &StoreReader,
    chain: &ChainRecord,
    folder: &Path,
) -> Result<CachedIndex, IndexError> {
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    let path = folder.join("index.erofs");
    let new = folder.join("index.new");
    let mut file = File::create(&new).map_err(failed("make", &new))?;
    let record = match &chain.index {
        Some(record) => {
            check_count(chain, record.packs.len())?;
            let source = store.layout().index(chain.chain_id);
            let from_path = source.on_host();
            let from = source.open().map_err(failed("open", &from_path))?;
            ask_ahead(&from, record.size);
            copy_checked(from, &from_path, &mut file, &new, record)?;
            record.clone()
        }
        None => {
            let packs = prefix::write(store, chain, &mut file, &new)?;
            let size = file.metadata().map_err(failed("look at", &new))?.len();
            let digest = digest_of(&new)?;
            IndexRecord {
                digest,
                size,
                packs,
            }
        }
    };
    file.sync_all().map_err(failed("sync", &new))?;
    fs::rename(&new, &path).map_err(failed("rename", &new))?;
    let layers = match chain.index {
        Some(_) => Vec::new(),
        None => chain.layers.clone(),
    };
    let record = LocalRecord {
        index: record,
        layers,
    };
    save_record(folder, &record)?;
    let cached = cached(path, record.index.digest, record.layers)?;
    // The record is the store's word; what the digest covers may name more.
    check_count(chain, cached.packs.len())?;
    Ok(cached)
}

/// A local copy whose digest was checked.
fn cached(
    path: PathBuf,
    digest: Digest,
    layers: Vec<ChainLayer>,
) -> Result<CachedIndex, IndexError> {
    let file = File::open(&path).map_err(failed("open", &path))?;
    Ok(CachedIndex {
        packs: device_table::read(&file, &path)?,
        path,
        digest,
        layers,
    })
}

/// Whether everything that a mount of `chain` needs is in the store: cheap, reads headers only, and
/// not those that it saw a moment ago.
///
/// # Errors
/// What is missing or damaged.
pub fn probe(store: &StoreReader, chain: &ChainRecord, seen: &Checked) -> Result<(), IndexError> {
    let packs = match &chain.index {
        Some(record) => {
            let path = store.layout().index(chain.chain_id);
            let found = path.handle().map_err(failed("find", &path.on_host()))?;
            let found = found.len_bytes();
            if found != record.size {
                return Err(IndexError::WrongSize {
                    path: path.on_host(),
                    found,
                    expected: record.size,
                });
            }
            record.packs.clone()
        }
        None => prefix::packs(store, chain, seen)?,
    };
    check_count(chain, packs.len())?;
    for pack in packs {
        seen.pack(store, pack)?;
    }
    Ok(())
}

/// Deletes what the folder holds of an index.
///
/// # Errors
/// The node's file system failed.
pub fn remove(folder: &Path) -> Result<(), IndexError> {
    // The record first: without it the rest counts for nothing.
    for name in ["record.json", "record.new", "index.erofs", "index.new"] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_count(chain: &ChainRecord, count: usize) -> Result<(), IndexError> {
    if count > MAX_PACKS_PER_MOUNT {
        return Err(IndexError::TooManyPacks {
            chain: chain.chain_id,
            count,
        });
    }
    Ok(())
}

fn save_record(folder: &Path, record: &LocalRecord) -> Result<(), IndexError> {
    let new = folder.join("record.new");
    let path = folder.join("record.json");
    let text = serde_json::to_vec(record).map_err(|error| failed("write", &new)(error.into()))?;
    let mut file = File::create(&new).map_err(failed("make", &new))?;
    file.write_all(&text).map_err(failed("write", &new))?;
    file.sync_all().map_err(failed("sync", &new))?;
    fs::rename(&new, &path).map_err(failed("rename", &new))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync", folder))
}

/// Copies and checks in one pass. `from_path` and `to_path` are for messages.
fn copy_checked(
    from: impl Read,
    from_path: &Path,
    to: &mut impl io::Write,
    to_path: &Path,
    record: &IndexRecord,
) -> Result<(), IndexError> {
    let wrong_size = |found| IndexError::WrongSize {
        path: from_path.to_owned(),
        found,
        expected: record.size.min(MAX_INDEX_BYTES),
    };
    if record.size > MAX_INDEX_BYTES {
        return Err(wrong_size(record.size));
    }
    // One byte more than recorded tells a longer file.
    let mut from = from.take(record.size + 1);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut copied = 0u64;
    loop {
        let length = from.read(&mut buffer).map_err(failed("read", from_path))?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        hash.update(bytes);
        to.write_all(bytes).map_err(failed("write", to_path))?;
        copied += length as u64;
    }
    if copied != record.size {
        return Err(wrong_size(copied));
    }
    let found = Digest::from_bytes(hash.finalize().into());
    if found != record.digest {
        return Err(IndexError::WrongDigest {
            path: from_path.to_owned(),
            found,
            expected: record.digest,
        });
    }
    Ok(())
}

/// Asks for all of a file before the first byte is waited for: a slow store answers many reads at
/// once, and the kernel would ask for two. Only advice.
fn ask_ahead(file: &File, len_bytes: u64) {
    /// What the kernel takes at most of one piece of advice.
    const STEP_BYTES: u64 = 128 << 10;
    let step = std::num::NonZeroU64::new(STEP_BYTES);
    for number in 0..len_bytes.min(MAX_INDEX_BYTES).div_ceil(STEP_BYTES) {
        let start = number * STEP_BYTES;
        if rustix::fs::fadvise(file, start, step, rustix::fs::Advice::WillNeed).is_err() {
            return;
        }
    }
}

fn digest_of(path: &Path) -> Result<Digest, IndexError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = file.read(&mut buffer).map_err(failed("read", path))?;
        match buffer.get(..length) {
            Some(bytes) if length > 0 => hash.update(bytes),
            _ => return Ok(Digest::from_bytes(hash.finalize().into())),
        }
    }
}
