//! Sweeping what nothing refers to.
//!
//! gc has the store for itself (see [`crate::exclusive`]): it does nothing while a session lives.
//! Order, names before what they name, so that a crash leaves no dangling name:
//!
//! 1. Records of chains that no image needs are *retired*: a copy is kept as `<chain-id>.retired`
//!    and the record goes, so that no node starts anything from the chain any more.
//! 2. After a moment, leases are read (again). What a retired chain that is leased names stays,
//!    with its retired record, until the lease is gone.
//! 3. The rest goes: retired records, flattened indexes, layer indexes, tables, packs.
//!
//! What is young stays, with all that it names.
//!
//! Each file goes through gc's own directory, see [`crate::workspace`]: one that was taken for dead
//! after a standstill removes nothing more.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use uimgacc_types::{ChainId, DiffId, PackId};

use crate::clock::server_now;
use crate::error::SessionError;
use crate::exclusive::{Attempt, Exclusive};
use crate::format::MAX_INDEX_BYTES;
use crate::layout::PROFILE_SUFFIX;
use crate::marks::{IndexPacks, Marks, id_of, mark};
use crate::path::StorePath;
use crate::reader::{Images, ReadError, list, list_fanned, read_json, unreadable};
use crate::workspace::Workspace;
use crate::{BlobRecord, ChainRecord, ImageRecord, StoreReader};

/// Between retiring a chain and reading the leases once more: for nodes that tell a lease only
/// after they looked.
const SETTLE: Duration = Duration::from_secs(1);

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Files that went (or would go).
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
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

/// Sweeps files that nothing refers to and that are older than `grace`.
///
/// With `dry_run` nothing changes and the answer says what would go.
///
/// # Errors
/// The file system's error, or damage in what must be read to know what is in use.
pub fn sweep(reader: &StoreReader, grace: Duration, dry_run: bool) -> Result<Swept, SessionError> {
    if dry_run {
        return sweep_in(reader, None, grace);
    }
    match Exclusive::acquire(reader.layout())? {
        Attempt::Alone(Exclusive(intent)) => {
            let workspace = intent.workspace();
            sweep_in(reader, Some(workspace), grace).map_err(|error| workspace.explain(error))
        }
        Attempt::Busy { who, .. } => Ok(Swept {
            waiting_for: who,
            ..Swept::default()
        }),
    }
}

/// Sweeps through the own directory, or only says what would go.
fn sweep_in(
    reader: &StoreReader,
    workspace: Option<&Workspace>,
    grace: Duration,
) -> Result<Swept, SessionError> {
    let layout = reader.layout();
    let mut swept = Swept::default();
    if let Some(workspace) = workspace {
        put_back(reader, workspace)?;
    }
    let now = server_now(layout).unwrap_or_else(SystemTime::now);
    let is_old = |file: &Garbage| {
        file.modified
            .is_none_or(|modified| now.duration_since(modified).unwrap_or_default() >= grace)
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
    for file in sweepable(reader, &mut marks, is_old)? {
        if !swept.may_go(&file) {
            continue;
        }
        if let Some(workspace) = workspace
            && !remove(workspace, &file.path)?
        {
            continue;
        }
        swept.count(&file);
    }
    swept.held_by = holders_of_retired(reader)?;
    if let Some(workspace) = workspace {
        sweep_temporaries(reader, workspace, now, grace, &mut swept)?;
        // What it counted is no answer where others worked on the store meanwhile.
        workspace.check()?;
    }
    Ok(swept)
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
        workspace.remove(&path.with_suffix("toc"))?;
    }
    Ok(workspace.remove(path)?)
}

/// Puts back tables that a gc of version 0.1 took away and did not come to sweep.
fn put_back(reader: &StoreReader, workspace: &Workspace) -> Result<(), SessionError> {
    for doomed in list_fanned(&reader.layout().directory("packs"), "doomed")? {
        if has_pack(&doomed)? {
            // A copy goes out of the own directory before the table goes into it: cut short in
            // between, none is lost.
            let bytes = doomed.read(MAX_INDEX_BYTES).map_err(unreadable(&doomed))?;
            let table = doomed.with_suffix("toc");
            workspace.replace(&workspace.stage(&bytes, &table)?, &table)?;
        }
        workspace.remove(&doomed)?;
    }
    Ok(())
}

/// Whether the pack of a table is there.
fn has_pack(table: &StorePath) -> Result<bool, ReadError> {
    let pack = table.with_suffix("pack");
    pack.exists().map_err(unreadable(&pack))
}

fn is_file(path: &StorePath) -> bool {
    path.facts().is_ok_and(|facts| facts.is_file)
}

/// Loose files in `tmp/` (records that were never renamed) and orphaned tables.
fn sweep_temporaries(
    reader: &StoreReader,
    workspace: &Workspace,
    now: SystemTime,
    grace: Duration,
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
    for toc in list_fanned(&reader.layout().directory("packs"), "toc")? {
        let file = garbage(toc);
        if !has_pack(&file.path)? && swept.may_go(&file) && workspace.remove(&file.path)? {
            swept.files += 1;
        }
    }
    Ok(())
}

/// Bytes in packs that the image has for itself alone among `images`, which are all of the store.
/// `None` where one of them cannot be read, for what that shares is not known.
///
/// # Errors
/// The file system's error, or a damaged file.
pub fn unique_pack_bytes(
    reader: &StoreReader,
    image: &ImageRecord,
    images: &Images,
) -> Result<Option<u64>, SessionError> {
    if !images.broken.is_empty() {
        return Ok(None);
    }
    let mut others = Marks::default();
    let mut cache = IndexPacks::default();
    let others_of = images.readable.iter();
    for other in others_of.filter(|other| other.target != image.target) {
        others.add_image(reader, &mut cache, other)?;
    }
    let mut own = Marks::default();
    own.add_image(reader, &mut cache, image)?;
    let unique = own.packs.difference(&others.packs).map(|id| {
        let pack = reader.layout().pack(*id).facts();
        pack.map_or(0, |facts| facts.len_bytes)
    });
    Ok(Some(unique.sum()))
}
