//! Reading packs again: tables, records of what is dead, and each content against its hash.
//!
//! Contents are read by several threads, in parts of a pack and in the order of the file. Memory: the table of
//! one pack, 1 MiB a thread, and 24 bytes for each content of the store.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, mpsc};
use std::thread;

use parking_lot::Mutex;
use rustix::io::Errno;
use uimgacc_types::{ContentHash, Extent, PackId, with_causes};

use super::{Report, Scope, VerifyOptions, files};
use crate::copies::read_toc_copy;
use crate::dead::Dead;
use crate::index_file::{read_dead, read_toc};
use crate::machine;
use crate::path::is_foreign;
use crate::reader::ReadError;
use crate::toc::{Entries, Toc, key_of};
use crate::{Layout, StoreReader};

/// What is read by one thread at a time.
const PART_BYTES: u64 = 32 << 20;
/// So many damaged contents of a pack are named.
const MAX_NAMED: usize = 3;
/// What is read by one system call.
const WINDOW_BYTES: usize = 1 << 20;

/// The contents of a pack that are not given up, in the order of the file: start and length in bytes, and key in filters.
#[derive(Debug, Default)]
pub(crate) struct LiveContents(Vec<(u64, u64, u64)>);

impl LiveContents {
    fn of(toc: &Toc, dead: &Dead) -> Self {
        let live = live_entries(toc, dead);
        let live = live.map(|(hash, extent)| (extent.offset_bytes, extent.len_bytes, key_of(hash)));
        let mut contents: Vec<_> = live.collect();
        contents.sort_unstable();
        Self(contents)
    }

    /// Whether these bytes lie inside one content.
    pub(super) fn contains(&self, start: u64, len_bytes: u64) -> bool {
        let after = self.0.partition_point(|(offset, _, _)| *offset <= start);
        let before = after.checked_sub(1).and_then(|at| self.0.get(at));
        before.is_some_and(|(offset, length, _)| {
            start.saturating_add(len_bytes) <= offset.saturating_add(*length)
        })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|(_, _, key)| *key)
    }
}

fn live_entries<'a>(
    toc: &'a Toc,
    dead: &'a Dead,
) -> impl Iterator<Item = &'a (ContentHash, Extent)> {
    toc.entries
        .iter()
        .filter(|(_, extent)| !dead.touches(*extent))
}

/// A pack that is not as its table says.
#[derive(Debug, Default)]
pub(crate) struct DamagedPack {
    /// It is missing, has another length, or cannot be opened.
    pub(crate) is_broken: bool,
    /// What is given up of it is not known: all of its contents were read.
    pub(crate) is_dead_unknown: bool,
    /// It could not be read, which says nothing of what it has.
    pub(crate) is_unreadable: bool,
    /// Contents that it does not have, though its table names them.
    pub(crate) bad: Entries,
}

/// All packs, as they were found.
#[derive(Debug, Default)]
pub(crate) struct Packs {
    pub(crate) live: HashMap<PackId, LiveContents>,
    pub(crate) damaged: HashMap<PackId, DamagedPack>,
}

/// A part of a pack that is to be read.
struct Part {
    pack: PackId,
    file: Arc<File>,
    entries: Entries,
}

/// What was found in a part.
#[derive(Default)]
struct Read {
    contents: u64,
    bytes: u64,
    bad: Vec<Bad>,
}

/// A content that a pack does not have.
struct Bad {
    pack: PackId,
    content: (ContentHash, Extent),
    what: String,
    /// It could not be read.
    is_unreadable: bool,
}

/// Whether an error says that what was to be read is not there; others say nothing of it, as that of a server that
/// does not answer.
fn is_damage(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof].contains(&error.kind())
        || is_foreign(error)
        || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Checks packs. `progress` is called with the bytes hashed so far.
pub(crate) fn check(
    reader: &StoreReader,
    scope: &Scope,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(u64),
    report: &mut Report,
) -> Result<Packs, ReadError> {
    let layout = reader.layout();
    let mut packs = Packs::default();
    let tables = files(&layout.directory("packs"), "toc", report)?;
    let seed = machine::random_id().unwrap_or_default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    // More than there are processors: most of the time they wait for the store.
    let threads = (2 * threads).clamp(4, 16);
    let (parts, todo) = mpsc::sync_channel::<Part>(2 * threads);
    let todo = Mutex::new(todo);
    let (found, results) = mpsc::channel::<Read>();
    let checked = thread::scope(|scoped| {
        for _ in 0..threads {
            let (todo, found) = (&todo, found.clone());
            scoped.spawn(move || {
                let mut window = Vec::new();
                loop {
                    let Ok(part) = todo.lock().recv() else { return };
                    let _ = found.send(read_part(part, &mut window));
                }
            });
        }
        drop(found);
        let mut take = |read: Read, packs: &mut Packs, report: &mut Report| {
            report.contents += read.contents;
            report.bytes += read.bytes;
            for bad in read.bad {
                let pack = packs.damaged.entry(bad.pack).or_default();
                pack.bad.push(bad.content);
                pack.is_unreadable |= bad.is_unreadable;
                if !pack.is_broken && pack.bad.len() <= MAX_NAMED {
                    report.add(&layout.pack(bad.pack), bad.what);
                }
            }
            progress(report.bytes);
        };
        for path in tables {
            let (id, toc) = match read_toc(&path) {
                Ok(Some((id, toc))) if scope.has_pack(id) => (id, toc),
                Ok(_) => continue,
                Err(error) => {
                    report.add(&path, with_causes(&error));
                    continue;
                }
            };
            report.packs += 1;
            check_toc_copy(layout, id, &toc, report);
            let dead = dead_of(layout, id, &mut packs, report);
            packs.live.insert(id, LiveContents::of(&toc, &dead));
            let Some(file) = open(layout, id, &toc, &dead, &mut packs, report) else {
                continue;
            };
            if options.metadata_only {
                continue;
            }
            for (number, entries) in (0u64..).zip(split(&toc, &dead)) {
                if is_chosen(options.sample_percent, &seed, id, number) {
                    let (pack, file) = (id, Arc::clone(&file));
                    let part = Part {
                        pack,
                        file,
                        entries,
                    };
                    // All threads end only once this end is dropped.
                    let _ = parts.send(part);
                }
                while let Ok(read) = results.try_recv() {
                    take(read, &mut packs, report);
                }
            }
        }
        drop(parts);
        for read in results {
            take(read, &mut packs, report);
        }
        for (id, pack) in &packs.damaged {
            let more = pack.bad.len().saturating_sub(MAX_NAMED);
            if !pack.is_broken && more > 0 {
                report.add(
                    &layout.pack(*id),
                    format!("{more} more contents are damaged"),
                );
            }
        }
        packs
    });
    Ok(checked)
}

fn check_toc_copy(layout: &Layout, id: PackId, toc: &Toc, report: &mut Report) {
    let path = layout.toc_copy(id);
    match read_toc_copy(layout, id) {
        Ok(Some(copy)) if copy == *toc => {}
        Ok(Some(_)) => report.add(&path, "holds another table"),
        Ok(None) => report.add(&path, "the second copy of a table is missing"),
        Err(error) => report.add(&path, with_causes(&error)),
    }
}

/// What is given up of a pack; nothing where that is not known, which is a problem.
fn dead_of(layout: &Layout, id: PackId, packs: &mut Packs, report: &mut Report) -> Dead {
    let record = layout.dead(id);
    let what = match read_dead(&record) {
        Ok(Some(dead)) => return dead,
        Ok(None) => "is missing, so what is given up of its pack is not known".to_owned(),
        Err(error) => with_causes(&error),
    };
    report.add(&record, what);
    packs.damaged.entry(id).or_default().is_dead_unknown = true;
    Dead::default()
}

/// The file of a pack, also one of another length: what it has is read.
fn open(
    layout: &Layout,
    id: PackId,
    toc: &Toc,
    dead: &Dead,
    packs: &mut Packs,
    report: &mut Report,
) -> Option<Arc<File>> {
    let path = layout.pack(id);
    let mut broken = |what: String| {
        report.add(&path, what);
        packs.damaged.entry(id).or_default().is_broken = true;
    };
    let opened = path
        .open()
        .and_then(|file| Ok((file.metadata()?.len(), file)));
    match opened {
        Ok((length, file)) => {
            if length != toc.pack_bytes {
                let expected = toc.pack_bytes;
                broken(format!("is {length} bytes long instead of {expected}"));
            }
            Some(Arc::new(file))
        }
        Err(error) => {
            broken(format!("cannot be opened: {error}"));
            let pack = packs.damaged.entry(id).or_default();
            pack.is_unreadable = !is_damage(&error);
            pack.bad.extend(live_entries(toc, dead));
            None
        }
    }
}

/// What is to be read of a pack, in the order of the file and not of the hashes: one sweep over the disk.
fn split(toc: &Toc, dead: &Dead) -> Vec<Entries> {
    let mut entries: Entries = live_entries(toc, dead).copied().collect();
    entries.sort_unstable_by_key(|(_, extent)| extent.offset_bytes);
    let mut parts: Vec<Entries> = Vec::new();
    let mut bytes = PART_BYTES;
    for entry in entries {
        if bytes >= PART_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += entry.1.len_bytes;
        if let Some(part) = parts.last_mut() {
            part.push(entry);
        }
    }
    parts
}

/// Whether a part is in the sample.
fn is_chosen(percent: Option<f64>, seed: &str, pack: PackId, number: u64) -> bool {
    let Some(percent) = percent else { return true };
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed.as_bytes());
    hasher.update(pack.hex().as_bytes());
    hasher.update(&number.to_le_bytes());
    let first = hasher.finalize();
    let first = first.as_bytes().first_chunk().copied().unwrap_or_default();
    let drawn = f64::from(u32::from_le_bytes(first)) / (f64::from(u32::MAX) + 1.0);
    drawn * 100.0 < percent
}

fn read_part(part: Part, window: &mut Vec<u8>) -> Read {
    let mut read = Read::default();
    let mut window = Window {
        file: &part.file,
        start: 0,
        bytes: window,
    };
    window.bytes.clear();
    for (hash, extent) in part.entries {
        let Extent {
            offset_bytes,
            len_bytes,
        } = extent;
        let mut is_unreadable = false;
        let what = match window.hash(extent) {
            Ok(found) if found == hash => {
                read.contents += 1;
                read.bytes += len_bytes;
                continue;
            }
            Ok(_) => format!("the content at {offset_bytes} ({len_bytes} bytes) is not {hash}"),
            Err(error) => {
                is_unreadable = !is_damage(&error);
                format!("cannot be read at {offset_bytes}: {error}")
            }
        };
        read.bad.push(Bad {
            pack: part.pack,
            content: (hash, extent),
            what,
            is_unreadable,
        });
    }
    read
}

/// A stretch of a file in memory.
struct Window<'a> {
    file: &'a File,
    start: u64,
    bytes: &'a mut Vec<u8>,
}

impl Window<'_> {
    fn hash(&mut self, extent: Extent) -> io::Result<ContentHash> {
        let mut hasher = blake3::Hasher::new();
        let (mut at, mut left) = (extent.offset_bytes, extent.len_bytes);
        while left > 0 {
            let part = self.from(at)?;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(part.len());
            hasher.update(part.get(..wanted).unwrap_or_default());
            at += wanted as u64;
            left -= wanted as u64;
        }
        Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// What stands in the file from there on, one byte at least.
    fn from(&mut self, at: u64) -> io::Result<&[u8]> {
        let inside = |start: u64| usize::try_from(at.checked_sub(start)?).ok();
        let there = inside(self.start).filter(|skip| *skip < self.bytes.len());
        let skip = match there {
            Some(skip) => skip,
            None => {
                self.bytes.resize(WINDOW_BYTES, 0);
                let read = self.file.read_at(self.bytes, at);
                // After a failure nothing is known.
                self.bytes.truncate(read.as_ref().map_or(0, |read| *read));
                self.start = at;
                let read = read?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                0
            }
        };
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }
}
