//! Sweeping what nothing refers to.
//!
//! gc has the store for itself (see [`crate::exclusive`]): it does nothing while a session lives.
//! Order, names before what they name, so that a crash leaves no dangling name:
//!
//! 1. Records of chains that no image needs are *retired*: a copy is kept as `<chain-id>.retired`
//!    and the record goes, so that no node starts anything from the chain any more.
//! 2. After a moment, leases are read (again). What a retired chain that is leased names stays,
//!    with its retired record, until the lease is gone.
//! 3. The rest goes: retired records, flattened indexes, layer indexes, copies, tables, packs.
//! 4. Contents that no index names any more give their space back ([`crate::free`]).
//!
//! What is young stays, with all that it names. gc works in slices, between which sessions get their turn.
//!
//! Each file goes through gc's own directory, see [`crate::workspace`]: one that was taken for dead
//! after a standstill removes nothing more.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use uimgacc_types::{ChainId, DiffId, Digest, PackId, with_causes};

use crate::clock::{server_now, server_time};
use crate::error::SessionError;
use crate::exclusive::{Attempt, Exclusive};
use crate::filters::merge_filters;
use crate::free::{DeadSpace, Scope, free, note, read_freeing};
use crate::index_file::packs_of;
use crate::layout::{INDEX_COPY_SUFFIX, PROFILE_SUFFIX, TOC_COPY_SUFFIX};
use crate::marks::{IndexPacks, Marks, mark};
use crate::path::StorePath;
use crate::publish::note_former;
use crate::reader::{ReadError, id_of, list, list_fanned, read_json, unreadable};
use crate::readers::unknown_readers;
use crate::workspace::Workspace;
use crate::{BlobRecord, ChainRecord, Layout, StoreReader};

/// Between retiring a chain and reading the leases once more: for nodes that tell a lease only
/// after they looked.
const SETTLE: Duration = Duration::from_secs(1);

/// So long gc works, once it knows what is in use, before sessions that wait for it get their turn.
const SLICE: Duration = Duration::from_secs(60);
/// So long they have to say that they live.
const TURN: Duration = Duration::from_millis(500);

/// What to sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepOptions {
    /// What is younger stays.
    pub grace: Duration,
    /// Nothing changes, and the answer says what would go.
    pub dry_run: bool,
    /// Looks at every pack for contents that no index names, and gives back the space of each of them. Else only
    /// at packs of which an image went, and not for little.
    pub all: bool,
}

impl SweepOptions {
    /// What is older than `grace`.
    #[must_use]
    pub fn older_than(grace: Duration) -> Self {
        Self {
            grace,
            ..Self::default()
        }
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Files that went (or would go).
    pub files: u64,
    /// Their bytes, and those of ranges of packs that were (or would be) given back.
    pub bytes: u64,
    /// Packs of which contents died, and what came of that.
    pub dead: Vec<DeadSpace>,
    /// Who may still read contents that no index names, so that nothing is given back: see `store-format.md`.
    pub kept_for: Vec<String>,
    /// Sessions (or another gc) that live: nothing was swept.
    pub waiting_for: Vec<String>,
    /// Who holds chains that no image needs any more: what they need stays.
    pub held_by: Vec<String>,
    /// What has a name of the store's but is no file: it is not the store's and stays.
    pub left_alone: Vec<PathBuf>,
}

impl Swept {
    fn count(&mut self, file: &Garbage) {
        self.files += 1;
        self.bytes += file.bytes;
    }

    /// Whether it is a regular file, so that it may go; something else is noted.
    fn may_go(&mut self, file: &Garbage) -> bool {
        if !file.is_foreign {
            return true;
        }
        let path = file.path.on_host();
        if !self.left_alone.contains(&path) {
            self.left_alone.push(path);
        }
        false
    }
}

/// A file that nothing refers to.
struct Garbage {
    path: StorePath,
    bytes: u64,
    modified: Option<SystemTime>,
    is_foreign: bool,
}

fn garbage(path: StorePath) -> Garbage {
    let facts = path.facts().ok();
    Garbage {
        bytes: facts.map_or(0, |facts| facts.len_bytes),
        modified: facts.map(|facts| facts.modified),
        is_foreign: facts.is_some_and(|facts| !facts.is_file),
        path,
    }
}

/// Sweeps files that nothing refers to, and gives back the space of contents that nothing refers to.
///
/// # Errors
/// The file system's error, or damage in what must be read to know what is in use.
pub fn sweep(reader: &StoreReader, options: &SweepOptions) -> Result<Swept, SessionError> {
    reader.check_writable()?;
    let mut swept = Swept::default();
    let mut seen = BTreeSet::new();
    if options.dry_run {
        sweep_in(reader, None, options, &mut seen, &mut swept)?;
        return Ok(swept);
    }
    loop {
        match Exclusive::acquire(reader.layout())? {
            Attempt::Alone(Exclusive(intent)) => {
                let workspace = intent.workspace();
                let is_done = sweep_in(reader, Some(workspace), options, &mut seen, &mut swept)
                    .map_err(|error| workspace.explain(error))?;
                if is_done {
                    return Ok(swept);
                }
            }
            Attempt::Busy { who, .. } => {
                swept.waiting_for = who;
                return Ok(swept);
            }
        }
        std::thread::sleep(TURN);
    }
}

/// A slice of a sweep through the own directory, or (without one) only what would go. `seen` are packs that were looked
/// at in earlier slices. Says whether all of it is done.
fn sweep_in(
    reader: &StoreReader,
    workspace: Option<&Workspace>,
    options: &SweepOptions,
    seen: &mut BTreeSet<PackId>,
    swept: &mut Swept,
) -> Result<bool, SessionError> {
    let layout = reader.layout();
    let now = server_now(layout).unwrap_or_else(SystemTime::now);
    let is_old = |file: &Garbage| {
        file.modified.is_none_or(|modified| {
            now.duration_since(modified).unwrap_or_default() >= options.grace
        })
    };
    let mut cache = IndexPacks::default();
    let mut marks = mark(reader, &mut cache)?;
    let (old_chains, young_chains): (Vec<_>, Vec<_>) = unmarked_chains(reader, &marks)?
        .into_iter()
        .filter(|(_, file)| swept.may_go(file))
        .partition(|(_, file)| is_old(file));
    if let Some(workspace) = workspace {
        for (chain_id, _) in &old_chains {
            keep_retired(reader, workspace, *chain_id)?;
            workspace.remove(&layout.chain(*chain_id))?;
        }
        forget_lost_indexes(reader, workspace, &marks)?;
        settle(reader)?;
        marks = mark(reader, &mut cache)?;
    } else {
        for (_, file) in &old_chains {
            swept.count(file);
        }
    }
    for (chain_id, _) in young_chains {
        if let Some(record) = reader.chain(chain_id)? {
            marks.add_record(reader, &mut cache, &record, true)?;
        }
    }
    let mut files = sweepable(reader, &mut marks, is_old)?;
    files.retain(|file| swept.may_go(file));
    let noted = packs_that_stay(layout, &files)?;
    let deadline = workspace.map(|_| Instant::now() + SLICE);
    let is_done = match workspace {
        Some(workspace) => {
            note(layout, workspace, &noted, server_time(layout))?;
            remove_all(layout, workspace, &files, deadline, swept)?
        }
        None => {
            files.iter().for_each(|file| swept.count(file));
            true
        }
    };
    if !is_done {
        return Ok(false);
    }
    swept.held_by = holders_of_retired(reader)?;
    if let Some(workspace) = workspace {
        sweep_temporaries(reader, workspace, now, options.grace, &marks.packs, swept)?;
    }
    let going: HashSet<PathBuf> = files.iter().map(|file| file.path.on_host()).collect();
    let is_done = free_space(
        reader,
        workspace,
        options,
        deadline,
        (&going, noted, &marks),
        seen,
        swept,
    )?;
    if let Some(workspace) = workspace {
        // What it counted is no answer where others worked on the store meanwhile.
        workspace.check()?;
    }
    Ok(is_done)
}

/// Removes files until it is late, one at least. Says whether all of them are gone.
fn remove_all(
    layout: &Layout,
    workspace: &Workspace,
    files: &[Garbage],
    deadline: Option<Instant>,
    swept: &mut Swept,
) -> Result<bool, SessionError> {
    for (number, file) in files.iter().enumerate() {
        if number > 0 && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        if file.path.has_suffix("retired") {
            // Who held it without our knowledge may read what its indexes named, also once it is made again.
            let chain_id = id_of(&file.path, |id| ChainId::from_hex(id).ok())?;
            note_former(layout, workspace, chain_id)?;
        }
        if remove(workspace, &file.path)? {
            swept.count(file);
        }
    }
    Ok(true)
}

/// The packs that indexes name which go, as far as the packs stay.
fn packs_that_stay(layout: &Layout, files: &[Garbage]) -> Result<BTreeSet<PackId>, SessionError> {
    let mut packs = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.has_suffix("erofs")) {
        match packs_of(&file.path) {
            Ok(named) => packs.extend(named),
            // It may have named any.
            Err(error) => {
                tracing::warn!("{}", with_causes(&error));
                for path in list_fanned(&layout.directory("packs"), "toc")? {
                    packs.insert(id_of(&path, |id| PackId::from_hex(id).ok())?);
                }
            }
        }
    }
    for file in files.iter().filter(|file| file.path.has_suffix("pack")) {
        packs.remove(&id_of(&file.path, |id| PackId::from_hex(id).ok())?);
    }
    packs.retain(|id| layout.pack(*id).exists().unwrap_or(true));
    Ok(packs)
}

/// Gives back the space of contents that no index names. `going` are files that are gone, or would be; `noted` are
/// packs that their indexes named.
fn free_space(
    reader: &StoreReader,
    workspace: Option<&Workspace>,
    options: &SweepOptions,
    deadline: Option<Instant>,
    (going, noted, marks): (&HashSet<PathBuf>, BTreeSet<PackId>, &Marks),
    seen: &mut BTreeSet<PackId>,
    swept: &mut Swept,
) -> Result<bool, SessionError> {
    let layout = reader.layout();
    let stays = |path: &StorePath| !going.contains(&path.on_host());
    let listed = read_freeing(layout)?.noted;
    let mut packs = noted;
    packs.extend(listed.keys());
    if options.all {
        for path in list_fanned(&layout.directory("packs"), "toc")? {
            packs.insert(id_of(&path, |id| PackId::from_hex(id).ok())?);
        }
    }
    packs.retain(|id| !seen.contains(id) && stays(&layout.pack(*id)));
    if packs.is_empty() {
        return Ok(true);
    }
    let mut indexes = list_fanned(&layout.directory("layers"), "erofs")?;
    indexes.extend(list_fanned(&layout.directory("indexes"), "erofs")?);
    let mut readers = unknown_readers(reader, workspace)?;
    if has_lost_index(layout, marks, &indexes) {
        readers.push("images whose indexes are lost (run `uimgacc store repair`)".to_owned());
    }
    if !readers.is_empty() {
        swept.kept_for = readers;
        return Ok(true);
    }
    indexes.retain(stays);
    let scope = Scope {
        indexes: &indexes,
        all: options.all,
        deadline,
    };
    if let Some(workspace) = workspace {
        // What is cut short is begun again, also where nobody noted it before.
        let unlisted = packs.iter().filter(|id| !listed.contains_key(id));
        let unlisted = unlisted.copied().collect();
        note(layout, workspace, &unlisted, server_time(layout))?;
    }
    let before = packs.clone();
    let dead = free(layout, workspace, &mut packs, &scope)?;
    seen.extend(before.difference(&packs));
    let freed = dead.iter().filter(|space| space.is_freed());
    swept.bytes += freed.map(|space| space.bytes).sum::<u64>();
    swept.dead.extend(dead);
    Ok(packs.is_empty())
}

/// Whether the index of something that stays is not among those that are there: what it names is not known.
fn has_lost_index(layout: &Layout, marks: &Marks, indexes: &[StorePath]) -> bool {
    let there: HashSet<PathBuf> = indexes.iter().map(StorePath::on_host).collect();
    let layers = marks.layers.iter().map(|id| layout.layer(*id));
    let flattened = marks.indexes.iter().map(|id| layout.index(*id));
    layers
        .chain(flattened)
        .any(|path| !there.contains(&path.on_host()))
}

/// Chains outside the marks with their records' files.
fn unmarked_chains(
    reader: &StoreReader,
    marks: &Marks,
) -> Result<Vec<(ChainId, Garbage)>, ReadError> {
    let mut found = Vec::new();
    for path in list_fanned(&reader.layout().directory("chains"), "json")? {
        let chain_id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if !marks.chains.contains(&chain_id) {
            found.push((chain_id, garbage(path)));
        }
    }
    Ok(found)
}

/// Writes the copy of a chain's record that is kept for nodes that have it already. The record may be
/// removed then: first the copy, so that a crash in between loses nothing.
///
/// A new file and a removal, no rename of the record: an NFS client that has looked the name up before
/// asks the server for the file at each opening, and that must say that the file is gone. For the
/// same reason leases are read only once the record is unlinked, not merely moved.
pub(crate) fn keep_retired(
    reader: &StoreReader,
    workspace: &Workspace,
    chain_id: ChainId,
) -> Result<Option<ChainRecord>, SessionError> {
    let record = match reader.chain(chain_id) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(None),
        Err(error @ ReadError::Damaged { .. }) => {
            tracing::warn!("{error}");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let mut kept = record.clone();
    // One that was retired before may still be leased as it was then.
    if let Some(older) = reader.retired_chain(chain_id)? {
        add_packs(&mut kept, older);
    }
    workspace.replace_json(&reader.layout().retired_chain(chain_id), &kept)?;
    Ok(Some(record))
}

fn add_packs(record: &mut ChainRecord, older: ChainRecord) {
    match (&mut record.index, older.index) {
        (Some(index), Some(older)) => {
            for pack in older.packs {
                if !index.packs.contains(&pack) {
                    index.packs.push(pack);
                }
            }
        }
        (index @ None, older) => *index = older,
        (Some(_), None) => {}
    }
}

/// Records that stay but name a flattened index that is gone name none from now on: such an index
/// is made again by the next `create`.
fn forget_lost_indexes(
    reader: &StoreReader,
    workspace: &Workspace,
    marks: &Marks,
) -> Result<(), SessionError> {
    let layout = reader.layout();
    let mut lost = marks.indexes.clone();
    // Who holds one has it mounted, and reads what only this index named: see `crate::readers`.
    lost.retain(|chain_id| !marks.leased.contains(chain_id));
    for path in list_fanned(&layout.directory("indexes"), "erofs")? {
        lost.remove(&id_of(&path, |id| ChainId::from_hex(id).ok())?);
    }
    for chain_id in &lost {
        if let Some(record) = reader.chain(*chain_id)?
            && record.index.is_some()
        {
            let record = ChainRecord {
                index: None,
                ..record
            };
            workspace.replace_json(&layout.chain(*chain_id), &record)?;
        }
    }
    Ok(())
}

/// Waits until the youngest retired record is [`SETTLE`] old.
fn settle(reader: &StoreReader) -> Result<(), ReadError> {
    let youngest = retired(reader)?
        .into_iter()
        .filter_map(|(_, file)| file.modified)
        .max();
    let now = server_now(reader.layout()).unwrap_or_else(SystemTime::now);
    if let Some(youngest) = youngest {
        let age = now.duration_since(youngest).unwrap_or_default();
        std::thread::sleep(SETTLE.saturating_sub(age));
    }
    Ok(())
}

/// Every retired chain with its record's file.
fn retired(reader: &StoreReader) -> Result<Vec<(ChainId, Garbage)>, ReadError> {
    list_fanned(&reader.layout().directory("chains"), "retired")?
        .into_iter()
        .map(|path| {
            let chain_id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
            Ok((chain_id, garbage(path)))
        })
        .collect()
}

fn holders_of_retired(reader: &StoreReader) -> Result<Vec<String>, ReadError> {
    let chains: Vec<ChainId> = retired(reader)?.into_iter().map(|(id, _)| id).collect();
    if chains.is_empty() {
        return Ok(Vec::new());
    }
    crate::holders(reader, &chains)
}

/// Files outside the marks, in the order in which they must go. What is too young stays and marks
/// the packs that it names.
fn sweepable(
    reader: &StoreReader,
    marks: &mut Marks,
    is_old: impl Fn(&Garbage) -> bool,
) -> Result<Vec<Garbage>, ReadError> {
    let layout = reader.layout();
    let mut files: Vec<Garbage> = retired(reader)?
        .into_iter()
        .filter(|(chain_id, _)| !marks.leased.contains(chain_id))
        .map(|(_, file)| file)
        .collect();
    // Before the layers, so that none is left without one for long.
    for path in list_fanned(&layout.directory("blobs"), "json")? {
        let is_needed = match read_json::<BlobRecord>(&path) {
            Ok(record) => record.is_some_and(|record| marks.layers.contains(&record.diff_id)),
            Err(ReadError::Damaged { .. }) => false,
            Err(error) => return Err(error),
        };
        let file = garbage(path);
        if !is_needed && is_old(&file) {
            files.push(file);
        }
    }
    for path in list_fanned(&layout.directory("profiles"), PROFILE_SUFFIX)? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        let file = garbage(path);
        if !marks.chains.contains(&id) && is_old(&file) {
            files.push(file);
        }
    }
    let mut unmarked = Vec::new();
    for path in list_fanned(&layout.directory("indexes"), "erofs")? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if !marks.indexes.contains(&id) {
            unmarked.push(garbage(path));
        }
    }
    for path in list_fanned(&layout.directory("layers"), "erofs")? {
        let id = id_of(&path, |id| DiffId::from_hex(id).ok())?;
        if !marks.layers.contains(&id) {
            unmarked.push(garbage(path));
        }
    }
    for file in unmarked {
        if is_old(&file) {
            files.push(file);
        } else {
            marks.add_index_file(&file.path);
        }
    }
    for path in list_fanned(&layout.directory("copies"), INDEX_COPY_SUFFIX)? {
        let digest = id_of(&path, |id| Digest::from_hex(id).ok())?;
        let file = garbage(path);
        if !marks.copies.contains(&digest) && is_old(&file) {
            files.push(file);
        }
    }
    for path in list_fanned(&layout.directory("packs"), "pack")? {
        let id = id_of(&path, |id| PackId::from_hex(id).ok())?;
        let file = garbage(path);
        if !marks.packs.contains(&id) && is_old(&file) {
            files.push(file);
        }
    }
    Ok(files)
}

/// Removes a file; of a pack its table first, so that no table is ever without its pack.
fn remove(workspace: &Workspace, path: &StorePath) -> Result<bool, SessionError> {
    if path.has_suffix("pack") {
        for suffix in ["toc", TOC_COPY_SUFFIX, "dead"] {
            workspace.remove(&path.with_suffix(suffix))?;
        }
    }
    Ok(workspace.remove(path)?)
}

/// Whether the pack of a table is there.
fn has_pack(table: &StorePath) -> Result<bool, ReadError> {
    let pack = table.with_suffix("pack");
    pack.exists().map_err(unreadable(&pack))
}

fn is_file(path: &StorePath) -> bool {
    path.facts().is_ok_and(|facts| facts.is_file)
}

/// Loose files in `tmp/` (records that were never renamed), what is left of packs, and filters.
fn sweep_temporaries(
    reader: &StoreReader,
    workspace: &Workspace,
    now: SystemTime,
    grace: Duration,
    needed: &HashSet<PackId>,
    swept: &mut Swept,
) -> Result<(), SessionError> {
    let grace = grace.max(Duration::from_secs(60));
    for path in list(&reader.layout().tmp())? {
        let file = garbage(path);
        let is_old = file
            .modified
            .is_some_and(|modified| now.duration_since(modified).unwrap_or_default() >= grace);
        if is_file(&file.path) && is_old && workspace.remove(&file.path)? {
            swept.count(&file);
        }
    }
    for suffix in ["toc", TOC_COPY_SUFFIX, "dead"] {
        for path in list_fanned(&reader.layout().directory("packs"), suffix)? {
            let file = garbage(path);
            let id = id_of(&file.path, |id| PackId::from_hex(id).ok())?;
            // Those of a lost pack that something needs are needed to bring it back.
            let is_left = !has_pack(&file.path)? && !needed.contains(&id);
            if is_left && swept.may_go(&file) && workspace.remove(&file.path)? {
                swept.files += 1;
            }
        }
    }
    let packs = list_fanned(&reader.layout().directory("packs"), "toc")?
        .iter()
        .map(|path| id_of(path, |id| PackId::from_hex(id).ok()))
        .collect::<Result<_, _>>()?;
    merge_filters(reader.layout(), workspace, &packs)
}
