//! Sweeping what nothing refers to, and deleting images.
//!
//! Order (names before what they name, so that a crash leaves no dangling name): tables of
//! contents of doomed packs are renamed to `.doomed` first, so that no new session counts on
//! them; then living sessions are looked for and, where there is one, the tables go back and
//! nothing is swept; then everything is marked once more; then go chains, flattened indexes,
//! layer indexes, packs and last the renamed tables. A crash in between leaves `.doomed` tables,
//! which the next run puts back or finishes.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uimgacc_types::{ChainId, DiffId, PackId, chain_ids};

use crate::commit::{remove_file, replace};
use crate::marks::{IndexPacks, Marks, id_of, mark};
use crate::reader::{ReadError, list, list_fanned};
use crate::session::SessionError;
use crate::{ImageRecord, StoreReader, intent, leases};

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Files that went (or would go).
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sessions that live: nothing but what dead ones left was swept.
    pub waiting_for: Vec<String>,
}

/// Why an image was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// There is no record of it.
    #[error("there is no image {0} in the store (`uimgacc get` lists them)")]
    NoImage(String),
    /// Somebody has it mounted.
    #[error("{target} is in use by {}: stop what uses it, or delete with --force", .holders.join(", "))]
    InUse {
        /// The image.
        target: String,
        /// Who.
        holders: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SessionError),
}

impl From<ReadError> for DeleteError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

/// A file that nothing refers to.
struct Garbage {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

fn garbage(path: PathBuf) -> Garbage {
    let metadata = std::fs::metadata(&path).ok();
    Garbage {
        bytes: metadata.as_ref().map_or(0, std::fs::Metadata::len),
        modified: metadata.and_then(|metadata| metadata.modified().ok()),
        path,
    }
}

/// Files outside the marks, in the order in which they must go; tables of packs not among them.
fn sweepable(
    reader: &StoreReader,
    marks: &Marks,
) -> Result<(Vec<Garbage>, Vec<PackId>), ReadError> {
    let root = reader.layout().root();
    let mut files = Vec::new();
    for path in list_fanned(&root.join("chains"), "json")? {
        if !marks
            .chains
            .contains(&id_of(&path, |id| ChainId::from_hex(id).ok())?)
        {
            files.push(garbage(path));
        }
    }
    for path in list_fanned(&root.join("indexes"), "erofs")? {
        if !marks
            .indexes
            .contains(&id_of(&path, |id| ChainId::from_hex(id).ok())?)
        {
            files.push(garbage(path));
        }
    }
    for path in list_fanned(&root.join("layers"), "erofs")? {
        if !marks
            .layers
            .contains(&id_of(&path, |id| DiffId::from_hex(id).ok())?)
        {
            files.push(garbage(path));
        }
    }
    let mut packs = Vec::new();
    for path in list_fanned(&root.join("packs"), "pack")? {
        let id = id_of(&path, |id| PackId::from_hex(id).ok())?;
        if !marks.packs.contains(&id) {
            packs.push(id);
            files.push(garbage(path));
        }
    }
    Ok((files, packs))
}

fn doomed_path(toc: &Path) -> PathBuf {
    toc.with_extension("doomed")
}

/// Puts back tables that an earlier run took away, where their packs still stand.
fn put_back(reader: &StoreReader) -> Result<(), SessionError> {
    for doomed in list_fanned(&reader.layout().root().join("packs"), "doomed")? {
        if doomed.with_extension("pack").exists() {
            replace(&doomed, &doomed.with_extension("toc"))?;
        } else {
            remove_file(&doomed)?;
        }
    }
    Ok(())
}

/// Sweeps files that nothing refers to and that are older than `grace`.
///
/// With `dry_run` nothing changes and the answer says what would go.
///
/// # Errors
/// The file system's error, or damage in what must be read to know what is in use.
pub fn sweep(reader: &StoreReader, grace: Duration, dry_run: bool) -> Result<Swept, SessionError> {
    let layout = reader.layout();
    let mut swept = Swept::default();
    if !dry_run {
        put_back(reader)?;
        intent::clear_dead(layout)?;
    }
    let now = intent::server_now(layout).unwrap_or_else(SystemTime::now);
    let is_old = |file: &Garbage| {
        file.modified
            .is_none_or(|modified| now.duration_since(modified).unwrap_or_default() >= grace)
    };
    let (mut files, packs) = sweepable(reader, &mark(reader)?)?;
    files.retain(is_old);
    if !dry_run {
        for id in &packs {
            let toc = layout.toc(*id);
            if files.iter().any(|file| file.path == layout.pack(*id)) && toc.exists() {
                replace(&toc, &doomed_path(&toc))?;
            }
        }
        swept.waiting_for = intent::found(layout)?
            .into_iter()
            .filter(|intent| intent.alive)
            .map(|intent| intent.who)
            .collect();
        if !swept.waiting_for.is_empty() {
            put_back(reader)?;
            return Ok(swept);
        }
        // A session that ended since may have committed an image: mark once more.
        (files, _) = sweepable(reader, &mark(reader)?)?;
        files.retain(is_old);
    }
    for file in files {
        if file.path.extension().is_some_and(|suffix| suffix == "pack") && !dry_run {
            // Only packs whose table was taken away first.
            if !doomed_path(&file.path).exists() && file.path.with_extension("toc").exists() {
                continue;
            }
        }
        if dry_run || remove_file(&file.path)? {
            swept.files += 1;
            swept.bytes += file.bytes;
        }
    }
    if !dry_run {
        put_back(reader)?;
        sweep_temporaries(reader, now, grace, &mut swept)?;
    }
    Ok(swept)
}

/// Loose files in `tmp/` (records that were never renamed) and orphaned tables.
fn sweep_temporaries(
    reader: &StoreReader,
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
        if file.path.is_file() && is_old && remove_file(&file.path)? {
            swept.files += 1;
            swept.bytes += file.bytes;
        }
    }
    for toc in list_fanned(&reader.layout().root().join("packs"), "toc")? {
        if !toc.with_extension("pack").exists() && remove_file(&toc)? {
            swept.files += 1;
        }
    }
    Ok(())
}

/// Deletes the image with this (normalised) target reference; its space goes with a sweep.
///
/// Two phases: the record and the chains that only this image has go first, so that no node
/// starts another container from them; then leases are looked at once more, and if a node took
/// one meanwhile (and `force` is not set), all of it comes back.
///
/// # Errors
/// No such image, somebody holds it, or the store's error.
pub fn delete(reader: &StoreReader, target: &str, force: bool) -> Result<ImageRecord, DeleteError> {
    let Some(image) = reader.image(target)? else {
        return Err(DeleteError::NoImage(target.to_owned()));
    };
    let others: Vec<ImageRecord> = reader
        .images()?
        .into_iter()
        .filter(|other| other.target != image.target)
        .collect();
    let shared: std::collections::HashSet<ChainId> = others
        .iter()
        .flat_map(|other| chain_ids(&other.diff_ids))
        .collect();
    let own: Vec<ChainId> = chain_ids(&image.diff_ids)
        .into_iter()
        .filter(|chain| !shared.contains(chain))
        .collect();
    let check = || -> Result<(), DeleteError> {
        let holders = holders(reader, &own)?;
        if force || holders.is_empty() {
            return Ok(());
        }
        Err(DeleteError::InUse {
            target: image.target.clone(),
            holders,
        })
    };
    check()?;
    let layout = reader.layout();
    let mut chains = Vec::new();
    for chain in &own {
        chains.extend(reader.chain(*chain)?);
    }
    remove_file(&layout.image(&image.target)).map_err(SessionError::from)?;
    for chain in own.iter().rev() {
        remove_file(&layout.chain(*chain)).map_err(SessionError::from)?;
    }
    if let Err(refused) = check() {
        for record in &chains {
            crate::commit::replace_json(layout, &layout.chain(record.chain_id), record)
                .map_err(SessionError::from)?;
        }
        crate::commit::replace_json(layout, &layout.image(&image.target), &image)
            .map_err(SessionError::from)?;
        return Err(refused);
    }
    Ok(image)
}

/// Who holds one of these chains.
///
/// # Errors
/// The file system's error, or a damaged lease.
pub fn holders(reader: &StoreReader, chains: &[ChainId]) -> Result<Vec<String>, ReadError> {
    Ok(leases(reader.layout())?
        .into_iter()
        .filter(|lease| lease.holds() && lease.chains.iter().any(|chain| chains.contains(chain)))
        .map(|lease| lease.holder)
        .collect())
}

/// Bytes in packs that the image has for itself alone.
///
/// # Errors
/// The file system's error, or a damaged file.
pub fn unique_pack_bytes(reader: &StoreReader, image: &ImageRecord) -> Result<u64, SessionError> {
    let mut others = Marks::default();
    let mut cache = IndexPacks::default();
    for other in reader
        .images()?
        .iter()
        .filter(|other| other.target != image.target)
    {
        others.add_image(reader, &mut cache, other)?;
    }
    let mut own = Marks::default();
    own.add_image(reader, &mut cache, image)?;
    Ok(own
        .packs
        .difference(&others.packs)
        .map(|id| std::fs::metadata(reader.layout().pack(*id)).map_or(0, |metadata| metadata.len()))
        .sum())
}
