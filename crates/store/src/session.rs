//! A session: everything that one `create` writes.
//!
//! Guarantees: nothing that was there changes or goes; each file appears whole, in the order
//! packs, tables, layer indexes, chains, flattened index, image record; whatever happens in
//! between, what remains is a clean store with at most files that nothing refers to.
//!
//! A session says in `tmp/` that it lives, so that gc keeps its hands off contents that it may
//! have counted on (see [`crate::intent`]).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use uimgacc_erofs::tree::{Device, Tree};
use uimgacc_types::{ChainId, ContentHash, DiffId, Digest, PackId};

use crate::commit::{self, CommitError, Published, failed, publish, replace_json};
use crate::dedup::{Dedup, PackRef, Placement};
use crate::format::BLOCK_BYTES;
use crate::intent::Intent;
use crate::pack::PackWriter;
use crate::reader::{ReadError, list_fanned};
use crate::toc::{self, Toc};
use crate::{ChainLayer, ChainRecord, ImageRecord, IndexRecord, StoreReader, machine};

/// No index of a sane image is longer; read whole, it must fit in memory.
pub(crate) const MAX_INDEX_BYTES: u64 = 4 << 30;

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Something could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A tree cannot be written as an index.
    #[error("cannot write the index {path}")]
    Index {
        /// Where it was to go.
        path: PathBuf,
        /// Why.
        source: uimgacc_erofs::WriteError,
    },
    /// An index of the store cannot be parsed.
    #[error("the index {path} is damaged")]
    DamagedIndex {
        /// The file.
        path: PathBuf,
        /// Why.
        source: uimgacc_erofs::ReadError,
    },
    /// A content could not be copied from one pack into another.
    #[error("cannot repack a content of {path}")]
    Repack {
        /// The pack.
        path: PathBuf,
        /// Why.
        source: crate::pack::PutError,
    },
    /// A pack that the session counts on is gone.
    #[error(
        "the pack {0} vanished while the image was made (was the store swept from elsewhere?): run create again"
    )]
    PackGone(PackId),
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Open,
    Sealed { id: PackId, blocks: u32 },
    Empty,
}

/// What a session's writers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    dedup: Mutex<Dedup>,
    slots: Mutex<Vec<Slot>>,
    /// Length of each pack of the store in blocks.
    blocks: std::collections::HashMap<PackId, u32>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single step: a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn find(&self, hash: &ContentHash) -> Option<Placement> {
        locked(&self.dedup).get(hash)
    }

    pub(crate) fn remember(&self, hash: ContentHash, placement: Placement) -> Placement {
        locked(&self.dedup).insert(hash, placement)
    }
}

/// Everything that one `create` writes. Dropping it removes what has no final name yet.
#[derive(Debug)]
pub struct Session {
    reader: StoreReader,
    shared: Arc<Shared>,
    _intent: Intent,
}

impl Session {
    /// Starts a session: says so in `tmp/`, then reads every table of contents.
    ///
    /// # Errors
    /// The store is not writable, or one of its tables is damaged.
    pub fn begin(reader: StoreReader) -> Result<Self, SessionError> {
        let intent = Intent::declare(reader.layout())?;
        let mut dedup = Dedup::default();
        let mut blocks = std::collections::HashMap::new();
        for (id, toc) in read_tocs(&reader)? {
            // Lengths beyond 32 bits of blocks are never written; such a pack is not used.
            if let Ok(count) = u32::try_from(toc.pack_bytes / BLOCK_BYTES) {
                dedup.add_pack(id, &toc.entries);
                blocks.insert(id, count);
            }
        }
        dedup.finish();
        Ok(Self {
            shared: Arc::new(Shared {
                dir: intent.dir().to_owned(),
                dedup: Mutex::new(dedup),
                slots: Mutex::new(Vec::new()),
                blocks,
            }),
            reader,
            _intent: intent,
        })
    }

    /// The read side of the same store.
    #[must_use]
    pub fn reader(&self) -> &StoreReader {
        &self.reader
    }

    /// Starts another pack.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn pack_writer(&self) -> Result<PackWriter, CommitError> {
        let slot = {
            let mut slots = locked(&self.shared.slots);
            let slot = u32::try_from(slots.len()).unwrap_or(u32::MAX);
            slots.push(Slot::Open);
            slot
        };
        PackWriter::create(Arc::clone(&self.shared), slot)
    }

    /// The device for a tree whose files lie in `pack`. Devices of open packs get their id when
    /// [`Self::settle`] is called after sealing.
    #[must_use]
    pub fn device(&self, pack: PackRef) -> Device {
        match pack {
            PackRef::Sealed(id) => Device {
                tag: tag(&id.hex()),
                blocks: self.shared.blocks.get(&id).copied().unwrap_or_default(),
            },
            PackRef::Open(slot) => Device {
                tag: tag(&format!("open-{slot}")),
                blocks: 0,
            },
        }
    }

    /// Whether every device of the tree is a pack that has its final name.
    #[must_use]
    pub fn is_settled(&self, tree: &Tree) -> bool {
        let slots = locked(&self.shared.slots);
        tree.devices.iter().all(|device| {
            open_slot(device)
                .is_none_or(|slot| matches!(slots.get(slot), Some(Slot::Sealed { .. })))
        })
    }

    /// Gives the devices of packs that were sealed meanwhile their ids.
    pub fn settle(&self, tree: &mut Tree) {
        let slots = locked(&self.shared.slots);
        for device in &mut tree.devices {
            if let Some(Slot::Sealed { id, blocks }) =
                open_slot(device).and_then(|slot| slots.get(slot))
            {
                *device = Device {
                    tag: tag(&id.hex()),
                    blocks: *blocks,
                };
            }
        }
    }

    /// Gives a pack and its table their names. A pack without contents just goes.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn seal(&self, writer: PackWriter) -> Result<(), CommitError> {
        let slot = writer.slot as usize;
        let sealed = if writer.entries.is_empty() {
            commit::remove_file(&writer.path)?;
            Slot::Empty
        } else {
            writer
                .file
                .set_len(writer.end)
                .and_then(|()| writer.file.sync_all())
                .map_err(failed("sync", &writer.path))?;
            let (bytes, id) = toc::encode(Toc {
                pack_bytes: writer.end,
                entries: writer.entries,
            });
            publish(&writer.path, &self.reader.layout().pack(id))?;
            let path = self.shared.dir.join(format!("toc-{slot}"));
            let mut file = File::create_new(&path).map_err(failed("create", &path))?;
            file.write_all(&bytes)
                .and_then(|()| file.sync_all())
                .map_err(failed("write", &path))?;
            publish(&path, &self.reader.layout().toc(id))?;
            Slot::Sealed {
                id,
                // Held below 8 TiB by the writer.
                blocks: u32::try_from(writer.end / BLOCK_BYTES).unwrap_or(u32::MAX),
            }
        };
        if let Some(slot) = locked(&self.shared.slots).get_mut(slot) {
            *slot = sealed;
        }
        Ok(())
    }

    /// The file of an open pack, to read back what was put there.
    pub(crate) fn pack_path(&self, device: &Device) -> Option<PathBuf> {
        match open_slot(device) {
            Some(slot) => Some(self.shared.dir.join(format!("pack-{slot}"))),
            None => pack_of(device).map(|id| self.reader.layout().pack(id)),
        }
    }

    /// The tree of a layer that is in the store with all of its packs.
    ///
    /// # Errors
    /// The file system's error, or a damaged index.
    pub fn layer(&self, diff_id: DiffId) -> Result<Option<(Tree, ChainLayer)>, SessionError> {
        let path = self.reader.layout().layer(diff_id);
        let Some((tree, digest, _)) = read_index(&path)? else {
            return Ok(None);
        };
        let whole = tree
            .devices
            .iter()
            .all(|device| pack_of(device).is_some_and(|id| self.shared.blocks.contains_key(&id)));
        if !whole {
            // A layer whose packs were lost is converted again; its index must make room.
            commit::remove_file(&path)?;
            return Ok(None);
        }
        Ok(Some((
            tree,
            ChainLayer {
                diff_id,
                index_digest: digest,
            },
        )))
    }

    /// The flattened index of a chain that is in the store with all that it needs.
    ///
    /// # Errors
    /// The file system's error, or a damaged file.
    pub fn index(&self, chain_id: ChainId) -> Result<Option<(Tree, IndexRecord)>, SessionError> {
        let Some(record) = self.reader.chain(chain_id)?.and_then(|chain| chain.index) else {
            return Ok(None);
        };
        let path = self.reader.layout().index(chain_id);
        let Some((tree, digest, _)) = read_index(&path)? else {
            return Ok(None);
        };
        if digest != record.digest {
            return Err(ReadError::Damaged {
                path,
                reason: format!("its digest is {digest} instead of {}", record.digest),
            }
            .into());
        }
        if record
            .packs
            .iter()
            .all(|id| self.shared.blocks.contains_key(id))
        {
            return Ok(Some((tree, record)));
        }
        // An index whose packs were lost is made again; record and file must make room.
        commit::remove_file(&self.reader.layout().chain(chain_id))?;
        commit::remove_file(&path)?;
        Ok(None)
    }

    /// Writes a layer's index. All packs must be sealed and the tree settled.
    ///
    /// # Errors
    /// The tree cannot be written, or the store cannot.
    pub fn publish_layer(&self, diff_id: DiffId, tree: &Tree) -> Result<ChainLayer, SessionError> {
        let path = self.reader.layout().layer(diff_id);
        let (_, index_digest, _) = self.publish_index_file(&path, tree)?;
        Ok(ChainLayer {
            diff_id,
            index_digest,
        })
    }

    /// Writes the flattened index of a chain.
    ///
    /// # Errors
    /// The tree cannot be written, or the store cannot.
    pub fn publish_index(
        &self,
        chain_id: ChainId,
        tree: &Tree,
    ) -> Result<IndexRecord, SessionError> {
        let path = self.reader.layout().index(chain_id);
        let (devices, digest, size) = self.publish_index_file(&path, tree)?;
        Ok(IndexRecord {
            digest,
            size,
            packs: devices.iter().filter_map(pack_of).collect(),
        })
    }

    /// Writes an index unless its name is taken; gives the devices, digest and length of the one
    /// that has the name in the end.
    fn publish_index_file(
        &self,
        path: &Path,
        tree: &Tree,
    ) -> Result<(Vec<Device>, Digest, u64), SessionError> {
        let id = machine::random_id().map_err(failed("name a temporary file for", path))?;
        let temporary = self.shared.dir.join(format!("index-{id}"));
        let file = File::create_new(&temporary).map_err(failed("create", &temporary))?;
        let mut out = Hashing {
            inner: BufWriter::with_capacity(1 << 20, file),
            hasher: Sha256::new(),
            written: 0,
        };
        uimgacc_erofs::write(tree, &mut out).map_err(|source| SessionError::Index {
            path: path.to_owned(),
            source,
        })?;
        let file = out
            .inner
            .into_inner()
            .map_err(|error| failed("write", &temporary)(error.into_error()))?;
        file.sync_all().map_err(failed("sync", &temporary))?;
        if publish(&temporary, path)? == Published::AlreadyThere
            && let Some((there, digest, size)) = read_index(path)?
        {
            return Ok((there.devices, digest, size));
        }
        let digest = Digest::from_bytes(out.hasher.finalize().into());
        Ok((tree.devices.clone(), digest, out.written))
    }

    /// Writes a chain record; one that already has a flattened index stays.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn publish_chain(&self, record: &ChainRecord) -> Result<(), SessionError> {
        let there = self.reader.chain(record.chain_id)?;
        if there.is_some_and(|there| there.index.is_some() || there == *record) {
            return Ok(());
        }
        let layout = self.reader.layout();
        Ok(replace_json(
            layout,
            &layout.chain(record.chain_id),
            record,
        )?)
    }

    /// Writes the image record: the commit point.
    ///
    /// # Errors
    /// A pack is gone, or the store cannot be written.
    pub fn publish_image(&self, record: &ImageRecord) -> Result<(), SessionError> {
        let layout = self.reader.layout();
        for id in &record.index.packs {
            if !layout.pack(*id).exists() {
                return Err(SessionError::PackGone(*id));
            }
        }
        Ok(replace_json(layout, &layout.image(&record.target), record)?)
    }

    /// Now, as records write it.
    #[must_use]
    pub fn now(&self) -> String {
        machine::rfc3339_now()
    }
}

/// Counts and hashes what passes.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    written: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn tag(text: &str) -> [u8; 64] {
    let mut tag = [0; 64];
    for (to, from) in tag.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    tag
}

fn open_slot(device: &Device) -> Option<usize> {
    let text = std::str::from_utf8(&device.tag).ok()?;
    text.trim_end_matches('\0')
        .strip_prefix("open-")?
        .parse()
        .ok()
}

/// The pack that a device of an index stands for.
#[must_use]
pub fn pack_of(device: &Device) -> Option<PackId> {
    PackId::from_hex(std::str::from_utf8(&device.tag).ok()?).ok()
}

/// Every table of contents with its pack's id.
pub(crate) fn read_tocs(reader: &StoreReader) -> Result<Vec<(PackId, Toc)>, ReadError> {
    let mut tocs = Vec::new();
    for path in list_fanned(&reader.layout().root().join("packs"), "toc")? {
        if let Some(found) = read_toc(&path)? {
            tocs.push(found);
        }
    }
    Ok(tocs)
}

/// One table of contents; `None` where it is gone.
pub(crate) fn read_toc(path: &Path) -> Result<Option<(PackId, Toc)>, ReadError> {
    let damaged = |reason: String| ReadError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let id = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .and_then(|stem| PackId::from_hex(stem).ok())
        .ok_or_else(|| damaged("its name is no pack id".to_owned()))?;
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?,
    };
    let toc = toc::parse(&bytes, id).map_err(damaged)?;
    Ok(Some((id, toc)))
}

/// An index of the store: its tree, digest and length; `None` where there is none.
pub(crate) fn read_index(path: &Path) -> Result<Option<(Tree, Digest, u64)>, SessionError> {
    let io = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    let size = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?.len(),
    };
    if size > MAX_INDEX_BYTES {
        return Err(ReadError::Damaged {
            path: path.to_owned(),
            reason: format!("longer than {MAX_INDEX_BYTES} bytes"),
        }
        .into());
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let tree =
        uimgacc_erofs::read(&bytes, &uimgacc_erofs::Limits::default()).map_err(|source| {
            SessionError::DamagedIndex {
                path: path.to_owned(),
                source,
            }
        })?;
    Ok(Some((tree, Digest::of(&bytes), bytes.len() as u64)))
}
