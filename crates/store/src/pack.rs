//! Writing a pack: contents in, each once, at block starts.
//!
//! A writer belongs to one thread at a time. A content is known to others only once all of it is
//! in the file; one that turns out to be known already is cut off again. Nothing has its final
//! name before [`crate::Session::seal`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use uimgacc_types::{ContentHash, Extent};

use crate::commit::{CommitError, failed};
use crate::dedup::{Dedup, PackRef, Placement};
use crate::error::PutError;
use crate::format::BLOCK_BYTES;
use crate::path::StorePath;
use crate::shared::Shared;

/// Contents up to this length are hashed before anything is written.
const SMALL_BYTES: u64 = 1 << 20;
/// A pack's blocks are counted in 32 bits; half of that leaves room to finish a content.
const MAX_PACK_BYTES: u64 = 8 << 40;

/// A pack that is being written.
#[derive(Debug)]
pub struct PackWriter {
    shared: Arc<Shared>,
    known: Arc<Dedup>,
    pub(crate) slot: u32,
    pub(crate) path: StorePath,
    pub(crate) file: File,
    /// Where the next content starts.
    pub(crate) end: u64,
    pub(crate) entries: Vec<(ContentHash, Extent)>,
    /// The same by their hashes, from the first copy on: copies are not known to the session.
    by_hash: Option<HashMap<ContentHash, Extent>>,
    buffer: Vec<u8>,
}

impl PackWriter {
    pub(crate) fn create(
        shared: Arc<Shared>,
        known: Arc<Dedup>,
        slot: u32,
    ) -> Result<Self, CommitError> {
        let (path, file) = shared.workspace.create(&format!("pack-{slot}"))?;
        Ok(Self {
            shared,
            known,
            slot,
            path,
            file,
            end: 0,
            entries: Vec::new(),
            by_hash: None,
            buffer: Vec::new(),
        })
    }

    /// Bytes in the pack so far.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.end
    }

    /// Stores the next `len_bytes` (not 0) of `source`, unless the store or the session has them.
    ///
    /// # Errors
    /// The source failed or ended early, or the store could not be written. The pack is then as
    /// before.
    pub fn put(&mut self, source: &mut dyn Read, len_bytes: u64) -> Result<Placement, PutError> {
        if len_bytes <= SMALL_BYTES {
            self.fill(source, len_bytes)?;
            let hash = ContentHash::from_bytes(*blake3::hash(&self.buffer).as_bytes());
            if let Some(known) = self.find(&hash)? {
                return Ok(known);
            }
            self.check_room(len_bytes)?;
            self.file
                .write_all_at(&self.buffer, self.end)
                .map_err(self.shared.workspace.failed("write", &self.path))?;
            return Ok(self.keep(hash, len_bytes, true));
        }
        let hash = self.stream(source, len_bytes).inspect_err(|_| {
            // Cut back what was begun; if even that fails, sealing sets the length again.
            let _ = self.file.set_len(self.end);
        })?;
        if let Some(known) = self.find(&hash)? {
            self.cut_back()?;
            return Ok(known);
        }
        Ok(self.keep(hash, len_bytes, true))
    }

    /// Stores a content of another pack once more, whether the store has it or not; but never
    /// twice in this pack.
    pub(crate) fn copy(
        &mut self,
        source: &mut dyn Read,
        len_bytes: u64,
    ) -> Result<Placement, PutError> {
        let hash = self.stream(source, len_bytes)?;
        let by_hash = self
            .by_hash
            .get_or_insert_with(|| self.entries.iter().copied().collect());
        if let Some(extent) = by_hash.get(&hash).copied() {
            self.cut_back()?;
            return Ok(self.placed(extent));
        }
        Ok(self.keep(hash, len_bytes, false))
    }

    /// Where the content lies, if the store, the session or this pack has it.
    fn find(&self, hash: &ContentHash) -> Result<Option<Placement>, PutError> {
        let own = self.by_hash.as_ref().and_then(|own| own.get(hash).copied());
        match own {
            Some(extent) => Ok(Some(self.placed(extent))),
            None => Ok(self.shared.find(&self.known, hash)?),
        }
    }

    fn placed(&self, extent: Extent) -> Placement {
        Placement {
            pack: PackRef::Open(self.slot),
            extent,
        }
    }

    fn cut_back(&self) -> Result<(), CommitError> {
        self.file
            .set_len(self.end)
            .map_err(self.shared.workspace.failed("cut back", &self.path))
    }

    fn check_room(&self, len_bytes: u64) -> Result<(), CommitError> {
        match self.end.checked_add(len_bytes) {
            Some(end) if end <= MAX_PACK_BYTES => Ok(()),
            _ => Err(failed("extend", &self.path)(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "a pack holds 8 TiB at most",
            ))),
        }
    }

    fn fill(&mut self, source: &mut dyn Read, len_bytes: u64) -> Result<(), PutError> {
        self.buffer.clear();
        let read = source
            .take(len_bytes)
            .read_to_end(&mut self.buffer)
            .map_err(PutError::Source)? as u64;
        match len_bytes.checked_sub(read) {
            Some(0) => Ok(()),
            missing => Err(PutError::Short {
                missing: missing.unwrap_or_default(),
            }),
        }
    }

    fn stream(&mut self, source: &mut dyn Read, len_bytes: u64) -> Result<ContentHash, PutError> {
        self.check_room(len_bytes)?;
        let mut hasher = blake3::Hasher::new();
        let mut done = 0;
        while done < len_bytes {
            self.fill(source, SMALL_BYTES.min(len_bytes - done))
                .map_err(|error| match error {
                    PutError::Short { missing } => PutError::Short {
                        missing: missing + len_bytes.saturating_sub(done + SMALL_BYTES),
                    },
                    other => other,
                })?;
            hasher.update(&self.buffer);
            self.file
                .write_all_at(&self.buffer, self.end + done)
                .map_err(self.shared.workspace.failed("write", &self.path))?;
            done += self.buffer.len() as u64;
        }
        Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// Takes what was just written at `end` into the table.
    fn keep(&mut self, hash: ContentHash, len_bytes: u64, share: bool) -> Placement {
        let extent = Extent {
            offset_bytes: self.end,
            len_bytes,
        };
        let placement = self.placed(extent);
        self.entries.push((hash, extent));
        if let Some(by_hash) = &mut self.by_hash {
            by_hash.insert(hash, extent);
        }
        self.end = (self.end + len_bytes).next_multiple_of(BLOCK_BYTES);
        // Another writer may have finished the same content meanwhile: then it stands twice, in
        // two packs, and either place is good.
        if share {
            self.shared.remember(hash, placement)
        } else {
            placement
        }
    }
}
