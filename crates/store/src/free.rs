//! Giving back the space of contents that no index names any more.
//!
//! Packs keep their names and offsets, so indexes stay valid byte for byte: a dead content becomes a hole. For
//! who has the store alone ([`crate::exclusive`]):
//!
//! 1. Before an index is removed, the packs that it names and that stay are noted in `freeing.json`.
//! 2. Of each noted pack the contents are found that no index in the store names. Every index counts that is
//!    there, also of chains that are retired, leased or young: what a node may read has an index.
//! 3. The pack is opened, then the contents are recorded as dead in `packs/<aa>/<pack-id>.dead`, durably. From then
//!    on nothing shares them ([`crate::tables`]).
//! 4. The ranges are deallocated through the descriptor of 3, and the pack is taken off the list.
//!
//! Cut short anywhere, the next gc does the same once more. Who was taken for dead between 3 and 4 deallocates
//! ranges of a file that was the pack when the record took effect, and nothing else: the record is written by a
//! rename out of the own directory, which fails after that ([`crate::workspace`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use fixedbitset::FixedBitSet;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uimgacc_erofs::tree::{Contents, Kind, Tree};
use uimgacc_types::{Extent, PackId};

use crate::commit::failed;
use crate::dead::{self, Dead};
use crate::device::pack_of;
use crate::error::SessionError;
use crate::format::{BLOCK_BYTES, PAGE_BYTES};
use crate::index_file::{packs_of, read_dead, read_index, toc_of};
use crate::layout::Layout;
use crate::path::StorePath;
use crate::reader::{ReadError, sound, there, unreadable};
use crate::repack::pieces;
use crate::toc::Toc;
use crate::workspace::Workspace;

/// A pack is worth the work when at least this part of it died since the last time.
const MIN_DEAD_PERCENT: u64 = 25;
/// Or so much.
const MIN_DEAD_BYTES: u64 = 256 << 20;
/// Of so many contents is decided at once: some 200 MB of memory.
const MAX_CONTENTS_AT_ONCE: usize = 2_000_000;
/// And of so many blocks of packs: 64 MiB of memory, 2 TiB of packs.
const MAX_BLOCKS_AT_ONCE: u64 = 1 << 29;
/// No list of packs is longer: some 750,000 packs.
const MAX_FREEING_BYTES: u64 = 64 << 20;

/// `freeing.json`: packs of which contents may have died.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Freeing {
    /// To be looked at: an index that named them is gone, since so many seconds after 1970.
    pub(crate) noted: BTreeMap<PackId, u64>,
}

/// What came of contents that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Their space was given back, or would be.
    Freed,
    /// They are too few to be worth the work.
    TooLittle,
    /// The file system cannot take back space from the middle of a file.
    Unsupported,
    /// An index names contents that are recorded as given up: the store is damaged, and nothing was done.
    Damaged,
}

/// What died of a pack since space of it was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadSpace {
    /// The pack.
    pub pack: PackId,
    /// Its blocks, in bytes.
    pub bytes: u64,
    /// What came of them.
    pub outcome: Outcome,
}

impl DeadSpace {
    /// Whether their space was given back, or would be.
    #[must_use]
    pub fn is_freed(&self) -> bool {
        self.outcome == Outcome::Freed
    }
}

/// What to look at.
pub(crate) struct Scope<'a> {
    /// Every index that stays.
    pub(crate) indexes: &'a [StorePath],
    /// However little it is.
    pub(crate) all: bool,
    /// When to stop; something is done in any case.
    pub(crate) deadline: Option<Instant>,
}

/// Reads the list of packs of which contents may have died.
pub(crate) fn read_freeing(layout: &Layout) -> Result<Freeing, ReadError> {
    let path = layout.freeing();
    let read = there(path.read(MAX_FREEING_BYTES)).map_err(unreadable(&path));
    let bytes = sound(read)?.flatten().unwrap_or_default();
    if bytes.is_empty() {
        return Ok(Freeing::default());
    }
    // Damaged, it says nothing: `gc --all` looks at every pack.
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!("{path} is damaged: {error} (run `uimgacc store gc --all`)");
        Freeing::default()
    }))
}

/// Notes packs before an index that names them goes, `now` in seconds since 1970.
pub(crate) fn note(
    layout: &Layout,
    workspace: &Workspace,
    packs: &BTreeSet<PackId>,
    now: u64,
) -> Result<(), SessionError> {
    if packs.is_empty() {
        return Ok(());
    }
    let mut freeing = read_freeing(layout)?;
    freeing.noted.extend(packs.iter().map(|id| (*id, now)));
    Ok(workspace.replace_json(&layout.freeing(), &freeing)?)
}

/// Gives back what is dead of these packs, or (without a workspace) says what would be. Those that it has looked at
/// are taken out of `packs`; some of them at least.
pub(crate) fn free(
    layout: &Layout,
    workspace: Option<&Workspace>,
    packs: &mut BTreeSet<PackId>,
    scope: &Scope<'_>,
) -> Result<Vec<DeadSpace>, SessionError> {
    let mut found = Vec::new();
    let users = users_of(scope.indexes, packs)?;
    let mut disk = Disk::default();
    while !packs.is_empty() {
        let (mut batch, taken) = take_batch(layout, packs)?;
        for index in users_of_any(&users, &batch) {
            if let Some((tree, _, _)) = read_index(index)? {
                mark(&tree, &mut batch);
            }
        }
        for (id, pack) in &batch {
            found.extend(free_pack(
                layout, workspace, *id, pack, scope.all, &mut disk,
            )?);
        }
        if let Some(workspace) = workspace {
            forget(layout, workspace, &taken)?;
        }
        if scope
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            break;
        }
    }
    Ok(found)
}

/// Takes packs off the list.
fn forget(
    layout: &Layout,
    workspace: &Workspace,
    packs: &BTreeSet<PackId>,
) -> Result<(), SessionError> {
    let mut freeing = read_freeing(layout)?;
    let before = freeing.noted.len();
    freeing.noted.retain(|id, _| !packs.contains(id));
    if freeing.noted.len() < before {
        workspace.replace_json(&layout.freeing(), &freeing)?;
    }
    Ok(())
}

/// A pack while it is found out what is live of it.
struct Candidate {
    toc: Toc,
    dead: Dead,
    /// Blocks that an index names.
    live: FixedBitSet,
}

impl Candidate {
    /// Whether an index names what is recorded as dead.
    fn is_damaged(&self) -> bool {
        self.dead.ranges().any(|range| {
            let blocks = block(range.start)..block(range.end).min(self.live.len());
            blocks.start < blocks.end && self.live.contains_any_in_range(blocks)
        })
    }

    /// Contents that no index names and that are not recorded as dead yet.
    fn newly_dead(&self) -> impl Iterator<Item = Extent> + '_ {
        let extents = self.toc.entries.iter().map(|(_, extent)| *extent);
        extents.filter(|extent| {
            let end = extent.offset_bytes + extent.len_bytes;
            let blocks = block(extent.offset_bytes)..block(end.next_multiple_of(BLOCK_BYTES));
            !self.dead.touches(*extent) && !self.live.contains_any_in_range(blocks)
        })
    }
}

fn block(bytes: u64) -> usize {
    usize::try_from(bytes / BLOCK_BYTES).unwrap_or(usize::MAX)
}

/// The indexes that name any of these packs, with the packs that they name.
fn users_of<'a>(
    indexes: &'a [StorePath],
    packs: &BTreeSet<PackId>,
) -> Result<Vec<(&'a StorePath, Vec<PackId>)>, SessionError> {
    let mut users = Vec::new();
    if packs.is_empty() {
        return Ok(users);
    }
    for path in indexes {
        let named = packs_of(path)?;
        if named.iter().any(|id| packs.contains(id)) {
            users.push((path, named));
        }
    }
    Ok(users)
}

fn users_of_any<'a>(
    users: &[(&'a StorePath, Vec<PackId>)],
    batch: &BTreeMap<PackId, Candidate>,
) -> Vec<&'a StorePath> {
    let names_any = |named: &[PackId]| named.iter().any(|id| batch.contains_key(id));
    users
        .iter()
        .filter(|(_, named)| names_any(named))
        .map(|(path, _)| *path)
        .collect()
}

/// Takes out as many packs as are decided at once, and says which. One that is not whole is left alone: `verify`
/// names it.
fn take_batch(
    layout: &Layout,
    packs: &mut BTreeSet<PackId>,
) -> Result<(BTreeMap<PackId, Candidate>, BTreeSet<PackId>), SessionError> {
    let (mut batch, mut taken) = (BTreeMap::new(), BTreeSet::new());
    let (mut blocks, mut contents) = (0, 0);
    while let Some(id) = packs.pop_first() {
        taken.insert(id);
        let Some(toc) = toc_of(layout, id)? else {
            continue;
        };
        let Some(dead) = sound(read_dead(&layout.dead(id)))?.flatten() else {
            continue;
        };
        let live = FixedBitSet::with_capacity(block(toc.pack_bytes));
        blocks += toc.pack_bytes / BLOCK_BYTES;
        contents += toc.entries.len();
        batch.insert(id, Candidate { toc, dead, live });
        if blocks >= MAX_BLOCKS_AT_ONCE || contents >= MAX_CONTENTS_AT_ONCE {
            break;
        }
    }
    Ok((batch, taken))
}

/// Marks the blocks that an index names.
fn mark(tree: &Tree, batch: &mut BTreeMap<PackId, Candidate>) {
    let packs: Vec<Option<PackId>> = tree.devices.iter().map(pack_of).collect();
    for (_, inode) in tree.iter() {
        let Kind::Regular(Contents::Chunks(contents)) = &inode.kind else {
            continue;
        };
        for (chunk, len_bytes) in pieces(contents) {
            let id = packs.get(usize::from(chunk.device)).copied().flatten();
            let Some(pack) = id.and_then(|id| batch.get_mut(&id)) else {
                continue;
            };
            let start = usize::try_from(chunk.start_block).unwrap_or(usize::MAX);
            let end = start.saturating_add(block(len_bytes.next_multiple_of(BLOCK_BYTES)));
            let end = end.min(pack.live.len());
            if start < end {
                pack.live.insert_range(start..end);
            }
        }
    }
}

/// Gives back what is dead of a pack; `None` where nothing is.
fn free_pack(
    layout: &Layout,
    workspace: Option<&Workspace>,
    id: PackId,
    pack: &Candidate,
    all: bool,
    disk: &mut Disk,
) -> Result<Option<DeadSpace>, SessionError> {
    let all_dead = pack.dead.with(pack.newly_dead());
    let bytes = all_dead.bytes().saturating_sub(pack.dead.bytes());
    let space = |outcome| DeadSpace {
        pack: id,
        bytes,
        outcome,
    };
    if pack.is_damaged() {
        tracing::error!(
            "an index names contents of pack {id} that are given up (run `uimgacc store verify`)"
        );
        return Ok(Some(space(Outcome::Damaged)));
    }
    let percent = MIN_DEAD_PERCENT.saturating_mul(pack.toc.pack_bytes) / 100;
    let is_worth = bytes > 0 && (all || bytes >= percent.min(MIN_DEAD_BYTES));
    let mut outcome = if is_worth {
        Outcome::Freed
    } else {
        Outcome::TooLittle
    };
    // What was recorded before may not have been deallocated: that was cut short, or it is done already.
    let dead = if is_worth { &all_dead } else { &pack.dead };
    if let Some(workspace) = workspace
        && !dead.is_empty()
        && !disk.deallocate(layout, workspace, id, dead)?
    {
        outcome = Outcome::Unsupported;
    }
    Ok((bytes > 0).then(|| space(outcome)))
}

/// What is known of the file system.
#[derive(Debug, Default)]
struct Disk {
    can_deallocate: Option<bool>,
}

impl Disk {
    /// Records what is dead of a pack and deallocates it; says whether the file system can do that.
    fn deallocate(
        &mut self,
        layout: &Layout,
        workspace: &Workspace,
        id: PackId,
        dead: &Dead,
    ) -> Result<bool, SessionError> {
        let can = match self.can_deallocate {
            Some(can) => can,
            None => {
                let root = layout.directory("");
                // After a crash no name that was removed may come back: what it led to has holes by then.
                root.sync_file_system()
                    .map_err(failed("sync the file system of", &root))?;
                *self.can_deallocate.insert(can_deallocate(workspace)?)
            }
        };
        if !can {
            return Ok(false);
        }
        let (path, record) = (layout.pack(id), layout.dead(id));
        // Before the record: see the head of this module.
        let file = path.open_to_change().map_err(failed("open", &path))?;
        let bytes = dead::encode(dead, id);
        workspace.replace(&workspace.stage(&bytes, &record)?, &record)?;
        path.deallocate(&file, dead.ranges())
            .and_then(|()| file.sync_all())
            .map_err(failed("give back space of", &path))?;
        Ok(true)
    }
}

/// Whether the file system takes blocks back from the middle of a file: tried, as it depends on the server.
fn can_deallocate(workspace: &Workspace) -> Result<bool, SessionError> {
    let (path, file) = workspace.create("probe")?;
    let tried = file
        .write_all_at(&[1; 2 * PAGE_BYTES], 0)
        .and_then(|()| path.deallocate(&file, std::iter::once(0..BLOCK_BYTES)));
    let can = match tried {
        Err(error) if is_unsupported(&error) => false,
        other => other
            .map(|()| true)
            .map_err(workspace.failed("give back space of", &path))?,
    };
    workspace.remove_own(&path)?;
    Ok(can)
}

fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [Errno::OPNOTSUPP, Errno::NOSYS];
    unsupported
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
