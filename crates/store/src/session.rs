//! A session: everything that one `create` writes.
//!
//! Guarantees: nothing that was there changes or goes; each file appears whole, in the order
//! packs, tables, layer indexes, chains, flattened index, image record; whatever happens in
//! between, what remains is a clean store with at most files that nothing refers to.
//!
//! A session says in `tmp/` that it lives, so that gc keeps its hands off contents that it may
//! have counted on (see [`crate::intent`]). One that was taken for dead publishes nothing more: all
//! that it publishes comes out of its own directory (see [`crate::workspace`]).

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use uimgacc_erofs::Limits;
use uimgacc_erofs::tree::{Device, Tree};
use uimgacc_types::PackId;

use crate::commit::CommitError;
use crate::dedup::{Dedup, PackRef};
use crate::error::SessionError;
use crate::exclusive::wait_for_gc;
use crate::format::BLOCK_BYTES;
use crate::index_file::{read_toc, read_tocs, toc_of};
use crate::intent::{Intent, Role};
use crate::pack::PackWriter;
use crate::path::StorePath;
use crate::reader::ReadError;
use crate::shared::{Shared, Slot};
use crate::toc::{self, Toc};
use crate::workspace::Workspace;
use crate::{StoreReader, machine};

/// Everything that one `create` writes. Dropping it removes what has no final name yet.
#[derive(Debug)]
pub struct Session {
    reader: StoreReader,
    pub(crate) shared: Arc<Shared>,
    /// Keeps the session's directory until the end.
    _intent: Intent,
    /// What an index may have so that it can be read again.
    pub(crate) limits: Limits,
}

impl Session {
    /// Starts a session: says so in `tmp/`, waits for a gc that is at work, then reads every table
    /// of contents. Damaged tables are told and passed over.
    ///
    /// # Errors
    /// The store is not writable, or a gc does not end within a quarter of an hour.
    pub fn begin(reader: StoreReader) -> Result<Self, SessionError> {
        let intent = Intent::declare(reader.layout(), Role::Create)?;
        wait_for_gc(reader.layout())?;
        let mut dedup = Dedup::default();
        let mut blocks = HashMap::new();
        for (id, toc) in read_tocs(&reader)? {
            if let Some(count) = blocks_of(&toc) {
                dedup.add_pack(id, &toc.entries);
                blocks.insert(id, count);
            }
        }
        dedup.finish();
        Ok(Self {
            shared: Arc::new(Shared {
                workspace: intent.workspace().clone(),
                dedup: Mutex::new(dedup),
                slots: Mutex::new(Vec::new()),
                blocks: Mutex::new(blocks),
            }),
            reader,
            _intent: intent,
            limits: Limits::default(),
        })
    }

    /// The read side of the same store.
    #[must_use]
    pub fn reader(&self) -> &StoreReader {
        &self.reader
    }

    /// The session's own directory.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.shared.workspace
    }

    /// Starts another pack.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn pack_writer(&self) -> Result<PackWriter, CommitError> {
        let slot = {
            let mut slots = self.shared.slots.lock();
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
                blocks: self
                    .shared
                    .blocks
                    .lock()
                    .get(&id)
                    .copied()
                    .unwrap_or_default(),
            },
            PackRef::Open(slot) => Device {
                tag: tag(&format!("open-{slot}")),
                blocks: 0,
            },
        }
    }

    /// Whether a pack is in the store, its table too. One that came after the start of this
    /// session is looked for and counted on from then on.
    pub(crate) fn knows_pack(&self, id: PackId) -> Result<bool, ReadError> {
        if self.shared.blocks.lock().contains_key(&id) {
            return Ok(true);
        }
        let Some(count) = toc_of(self.reader.layout(), id)?
            .as_ref()
            .and_then(blocks_of)
        else {
            return Ok(false);
        };
        self.shared.blocks.lock().insert(id, count);
        Ok(true)
    }

    /// Whether every device of the tree is a pack that has its final name.
    #[must_use]
    pub fn is_settled(&self, tree: &Tree) -> bool {
        let slots = self.shared.slots.lock();
        tree.devices.iter().all(|device| {
            open_slot(device)
                .is_none_or(|slot| matches!(slots.get(slot), Some(Slot::Sealed { .. })))
        })
    }

    /// Gives the devices of packs that were sealed meanwhile their ids.
    pub fn settle(&self, tree: &mut Tree) {
        let slots = self.shared.slots.lock();
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
        let workspace = self.workspace();
        let slot = writer.slot as usize;
        let sealed = if writer.entries.is_empty() {
            workspace.remove_own(&writer.path)?;
            Slot::Empty
        } else {
            writer
                .file
                .set_len(writer.end)
                .and_then(|()| writer.file.sync_all())
                .map_err(workspace.failed("sync", &writer.path))?;
            let (bytes, id) = toc::encode(Toc {
                pack_bytes: writer.end,
                entries: writer.entries,
            });
            let pack = self.reader.layout().pack(id);
            // Tables of equal packs are equal; what is left of a damaged one makes room.
            match pack.facts() {
                Ok(there) if there.len_bytes != writer.end || !there.is_file => {
                    workspace.replace(&writer.path, &pack)?;
                }
                _ => {
                    workspace.publish(&writer.path, &pack)?;
                }
            }
            let toc = self.reader.layout().toc(id);
            let staged = workspace.stage(&bytes, &toc)?;
            match read_toc(&toc) {
                Err(ReadError::Damaged { .. }) => workspace.replace(&staged, &toc)?,
                _ => {
                    workspace.publish(&staged, &toc)?;
                }
            }
            Slot::Sealed {
                id,
                // Held below 8 TiB by the writer.
                blocks: u32::try_from(writer.end / BLOCK_BYTES).unwrap_or(u32::MAX),
            }
        };
        if let Some(slot) = self.shared.slots.lock().get_mut(slot) {
            *slot = sealed;
        }
        Ok(())
    }

    /// The file of an open pack, to read back what was put there.
    pub(crate) fn pack_path(&self, device: &Device) -> Option<StorePath> {
        match open_slot(device) {
            Some(slot) => Some(self.workspace().path(&format!("pack-{slot}"))),
            None => pack_of(device).map(|id| self.reader.layout().pack(id)),
        }
    }

    /// Now, as records write it.
    #[must_use]
    pub fn now(&self) -> String {
        machine::rfc3339_now()
    }
}

/// A pack's length in blocks. Lengths beyond 32 bits are never written; such a pack is not used.
fn blocks_of(toc: &Toc) -> Option<u32> {
    u32::try_from(toc.pack_bytes / BLOCK_BYTES).ok()
}

/// Counts and hashes what passes.
pub(crate) struct Hashing<W> {
    pub(crate) inner: W,
    pub(crate) hasher: Sha256,
    pub(crate) written: u64,
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
