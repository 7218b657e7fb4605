//! Tables of contents, read only where that is asked for.
//!
//! Memory: 50 KB for each stretch of a table that is kept, [`MAX_STRETCHES`] at most.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use parking_lot::Mutex;
use uimgacc_types::{ContentHash, Extent, PackId};

use crate::dead::Dead;
use crate::format::{BLOCK_BYTES, PAGE_BYTES};
use crate::index_file::{read_dead, read_toc_head};
use crate::layout::Layout;
use crate::reader::{ReadError, damaged, sound, unreadable};
use crate::toc::{self, Entries, Head};

/// Pages that are read at once: a read costs a round trip, and these many hardly more.
const PAGES_PER_STRETCH: u64 = 16;
/// How many stretches are kept.
const MAX_STRETCHES: usize = 512;

/// A pack of the store that contents may be shared with.
#[derive(Debug)]
pub(crate) struct Table {
    head: Head,
    dead: Dead,
    /// Length of the pack.
    blocks: u32,
}

/// The entries of some pages, one page after the other.
type Stretch = Vec<Entries>;

impl Table {
    /// Whether any of these bytes is given up.
    pub(crate) fn is_dead(&self, extent: Extent) -> bool {
        self.dead.touches(extent)
    }
}

/// The tables that a session asked for.
#[derive(Debug)]
pub(crate) struct Tables {
    layout: Layout,
    known: Mutex<HashMap<PackId, Arc<Table>>>,
    /// Packs that contents are not shared with: they are missing, or something of them is damaged.
    unfit: Mutex<HashSet<PackId>>,
    stretches: Mutex<HashMap<(PackId, u64), Arc<Stretch>>>,
}

impl Tables {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            known: Mutex::default(),
            unfit: Mutex::default(),
            stretches: Mutex::default(),
        }
    }

    /// The table of a pack that is there with all that it needs. What is damaged is logged and counts as not
    /// there: contents of it are written again. What comes later is found when it is asked for again.
    pub(crate) fn get(&self, id: PackId) -> Result<Option<Arc<Table>>, ReadError> {
        if let Some(table) = self.known.lock().get(&id) {
            return Ok(Some(Arc::clone(table)));
        }
        let found = sound(self.open(id))?.flatten();
        Ok(found.map(|table| {
            let table = Arc::new(table);
            self.known.lock().insert(id, Arc::clone(&table));
            table
        }))
    }

    /// Length of a pack that was asked for, in blocks.
    pub(crate) fn blocks(&self, id: PackId) -> Option<u32> {
        Some(self.known.lock().get(&id)?.blocks)
    }

    fn open(&self, id: PackId) -> Result<Option<Table>, ReadError> {
        let Some(head) = read_toc_head(&self.layout.toc(id))? else {
            return Ok(None);
        };
        let Some(dead) = read_dead(&self.layout.dead(id))? else {
            return Ok(None);
        };
        let pack = self.layout.pack(id);
        let is_whole = pack
            .facts()
            .is_ok_and(|pack| pack.is_file && pack.len_bytes == head.pack_bytes);
        // Longer packs are never written.
        let blocks = u32::try_from(head.pack_bytes / BLOCK_BYTES).ok();
        let Some(blocks) = blocks.filter(|_| is_whole) else {
            tracing::warn!("{pack} is missing or cut short (run `uimgacc store verify`)");
            return Ok(None);
        };
        Ok(Some(Table { head, dead, blocks }))
    }

    /// Where the content lies in that pack, if the pack has it and it is not given up.
    pub(crate) fn find(&self, id: PackId, hash: &ContentHash) -> Result<Option<Extent>, ReadError> {
        // Else it would be opened again, and logged, for each content.
        if self.unfit.lock().contains(&id) {
            return Ok(None);
        }
        if let Some(table) = self.get(id)? {
            let read = |page: u64| self.page(id, &table.head, page);
            if let Some(found) = sound(toc::find(&table.head, hash, read))? {
                return Ok(found.filter(|extent| !table.is_dead(*extent)));
            }
        }
        self.unfit.lock().insert(id);
        Ok(None)
    }

    fn page(&self, id: PackId, head: &Head, page: u64) -> Result<PageOf, ReadError> {
        let stretch = page / PAGES_PER_STRETCH;
        let at = usize::try_from(page % PAGES_PER_STRETCH).unwrap_or_default();
        let key = (id, stretch);
        if let Some(pages) = self.stretches.lock().get(&key) {
            let pages = Arc::clone(pages);
            return Ok(PageOf { pages, at });
        }
        let pages = Arc::new(self.read_stretch(id, head, stretch)?);
        let mut kept = self.stretches.lock();
        if kept.len() >= MAX_STRETCHES {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&pages));
        Ok(PageOf { pages, at })
    }

    fn read_stretch(&self, id: PackId, head: &Head, stretch: u64) -> Result<Stretch, ReadError> {
        let path = self.layout.toc(id);
        let first = stretch.saturating_mul(PAGES_PER_STRETCH);
        let count = head.pages().saturating_sub(first).min(PAGES_PER_STRETCH);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or_default() * PAGE_BYTES];
        // The first page of the file is the head.
        let offset = (first + 1).saturating_mul(PAGE_BYTES as u64);
        path.open()
            .and_then(|file| file.read_exact_at(&mut bytes, offset))
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged(&path)("it is cut short".to_owned()),
                _ => unreadable(&path)(error),
            })?;
        (first..)
            .zip(bytes.chunks(PAGE_BYTES))
            .map(|(number, page)| head.parse_page(number, page))
            .collect::<Result<_, _>>()
            .map_err(damaged(&path))
    }
}

/// A page of a stretch.
struct PageOf {
    pages: Arc<Stretch>,
    at: usize,
}

impl AsRef<[(ContentHash, Extent)]> for PageOf {
    fn as_ref(&self) -> &[(ContentHash, Extent)] {
        self.pages.get(self.at).map_or(&[], Vec::as_slice)
    }
}
