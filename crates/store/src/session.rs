//! A session: everything that one `create` writes.
//!
//! Guarantees: nothing that was there changes or goes; each file appears whole, in the order
//! packs, tables, layer indexes, chains, flattened index, image record; whatever happens in
//! between, what remains is a clean store with at most files that nothing refers to.
//!
//! A session says in `tmp/` that it lives, so that gc keeps its hands off contents that it may
//! have counted on (see [`crate::intent`]). One that was taken for dead publishes nothing more: all
//! that it publishes comes out of its own directory (see [`crate::workspace`]).

use std::sync::Arc;

use uimgacc_erofs::Limits;
use uimgacc_erofs::tree::{Device, Tree};
use uimgacc_types::PackId;

use crate::copies::write_copy;
use crate::dead::{self, Dead};
use crate::dedup::PackRef;
use crate::device::{open_slot, pack_of, tag};
use crate::error::SessionError;
use crate::exclusive::wait_for_gc;
use crate::filter::PackFilter;
use crate::filters::publish_filters;
use crate::format::BLOCK_BYTES;
use crate::index_file::{read_dead, read_toc};
use crate::intent::{Intent, Role};
use crate::pack::PackWriter;
use crate::path::StorePath;
use crate::reader::{ReadError, sound, unreadable};
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
    /// Starts a session: says so in `tmp/`, and waits for a gc that is at work.
    ///
    /// # Errors
    /// The store is not writable, by this program or at all, or a gc does not end within a quarter of an hour.
    pub fn begin(reader: StoreReader) -> Result<Self, SessionError> {
        reader.check_writable()?;
        let intent = Intent::declare(reader.layout(), Role::Create)?;
        wait_for_gc(reader.layout())?;
        let shared = Shared::new(reader.layout(), intent.workspace().clone());
        Ok(Self {
            shared: Arc::new(shared),
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

    /// Starts another pack. The first one reads which contents the store has.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn pack_writer(&self) -> Result<PackWriter, SessionError> {
        let known = self.shared.known(self.reader.layout())?;
        let slot = {
            let mut slots = self.shared.slots.lock();
            let slot = u32::try_from(slots.len()).unwrap_or(u32::MAX);
            slots.push(Slot::Open);
            slot
        };
        Ok(PackWriter::create(Arc::clone(&self.shared), known, slot)?)
    }

    /// The device for a tree whose files lie in `pack`. Devices of open packs get their id when
    /// [`Self::settle`] is called after sealing.
    #[must_use]
    pub fn device(&self, pack: PackRef) -> Device {
        match pack {
            PackRef::Sealed(id) => Device {
                tag: tag(&id.hex()),
                blocks: self.shared.blocks(pack),
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
    pub fn seal(&self, writer: PackWriter) -> Result<(), SessionError> {
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
            let toc = Toc {
                pack_bytes: writer.end,
                salt: 0,
                entries: writer.entries,
            };
            let id = self.publish_pack(&writer.path, &toc)?;
            let filter = PackFilter::of(id, toc.entries.iter().map(|(hash, _)| hash));
            self.shared.filters.lock().extend(filter);
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

    /// Gives a pack its name, with its record of dead ranges and its table; the table comes last. Where an equal
    /// pack is there of which something is given up, or may be, the new one gets another name.
    fn publish_pack(&self, file: &StorePath, toc: &Toc) -> Result<PackId, SessionError> {
        let (layout, workspace) = (self.reader.layout(), self.workspace());
        let mut toc = toc.clone();
        loop {
            let (bytes, id) = toc::encode(toc.clone());
            let (pack, record, table) = (layout.pack(id), layout.dead(id), layout.toc(id));
            let has_table = table.exists().map_err(unreadable(&table))?;
            match sound(read_dead(&record))? {
                Some(Some(dead)) if dead.is_empty() => match pack.facts() {
                    // What is left of a damaged one makes room.
                    Ok(there) if there.len_bytes != toc.pack_bytes || !there.is_file => {
                        workspace.replace(file, &pack)?;
                    }
                    _ => {
                        workspace.publish(file, &pack)?;
                    }
                },
                // Garbage: a session that was cut short left it, or a gc, after it had given up parts of it.
                Some(None) if !has_table => {
                    workspace.replace(file, &pack)?;
                    let bytes = dead::encode(&Dead::default(), id);
                    workspace.replace(&workspace.stage(&bytes, &record)?, &record)?;
                }
                _ => {
                    toc.salt += 1;
                    continue;
                }
            }
            write_copy(workspace, &mut bytes.as_slice(), &layout.toc_copy(id))?;
            // Tables of equal packs are equal.
            let staged = workspace.stage(&bytes, &table)?;
            match read_toc(&table) {
                Err(ReadError::Damaged { .. }) => workspace.replace(&staged, &table)?,
                _ => {
                    workspace.publish(&staged, &table)?;
                }
            }
            return Ok(id);
        }
    }

    /// Writes the filters that the store lacks, so that the next session need not read tables for them.
    pub(crate) fn publish_filters(&self) -> Result<(), SessionError> {
        let filters = std::mem::take(&mut *self.shared.filters.lock());
        publish_filters(self.reader.layout(), self.workspace(), &filters)?;
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
