//! Bringing back what is damaged, under the same names and byte for byte, beside running containers.
//!
//! Tables and indexes come back from their second copies, records from what names them. Contents come from
//! the image's layers: whoever calls this reads those that [`Repair::next_layer`] asks for and hands every
//! content to [`Repair::put`]. A content is written only once its hash was checked.
//!
//! - A pack with wrong bytes is written in place: whoever reads it from the store gets the right ones from then on. A
//!   crash leaves it no worse than it was.
//! - A pack that is missing or has another length is put together in the session's directory, and takes the name
//!   only once it has all that an index names.
//! - A damaged content that no index names is given up ([`crate::dead`]), so that nothing shares it. Nobody else works on the
//!   store in that moment, and all indexes can be read: else it stays as it is, and so does a pack that lacks it.
//!
//! A repair is a session, so nothing is removed or given back meanwhile. What is not repaired is reported with
//! the images that need it.

mod metadata;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use parking_lot::Mutex;
use uimgacc_types::{ChainId, ContentHash, DiffId, Extent, PackId};

use crate::commit::failed;
use crate::dead::{self, Dead};
use crate::error::{PutError, SessionError};
use crate::exclusive::{Attempt, Exclusive};
use crate::format::BLOCK_BYTES;
use crate::index_file::{packs_of, read_dead, read_sound_index, read_toc};
use crate::path::StorePath;
use crate::reader::{ReadError, id_of, list_fanned, sound};
use crate::session::Session;
use crate::toc::Toc;
use crate::verify::{DamagedPack, Problem, Report, Scope, VerifyOptions, check_packs};
use crate::{ImageRecord, StoreReader};

use wanted::Wanted;

/// What is kept of a content in memory at a time.
const BUFFER_BYTES: u64 = 1 << 20;

/// Something that was repaired.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Repaired {
    /// The file.
    pub path: PathBuf,
    /// What was done.
    pub what: String,
}

/// Something that was not repaired.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unrepaired {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// Target references of images that need it, as far as that is known.
    pub images: Vec<String>,
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Repairs {
    /// What was repaired.
    pub repaired: Vec<Repaired>,
    /// What was not.
    pub unrepaired: Vec<Unrepaired>,
}

impl Repairs {
    fn repaired(&mut self, path: &StorePath, what: impl Into<String>) {
        self.repaired.push(Repaired {
            path: path.on_host(),
            what: what.into(),
        });
    }

    fn unrepaired(&mut self, path: &StorePath, what: impl Into<String>, images: BTreeSet<String>) {
        self.unrepaired.push(Unrepaired {
            path: path.on_host(),
            what: what.into(),
            images: images.into_iter().collect(),
        });
    }

    /// Adds what a check of the whole store finds afterwards.
    pub fn add_problems(&mut self, problems: Vec<Problem>) {
        for Problem { path, what } in problems {
            if self.unrepaired.iter().all(|known| known.path != path) {
                let images = Vec::new();
                self.unrepaired.push(Unrepaired { path, what, images });
            }
        }
    }
}

/// A pack that contents are written to.
#[derive(Debug)]
struct Target {
    file: File,
    /// Where it is put together; `None` where it is written in place.
    staged: Option<StorePath>,
    /// Damaged contents that no index named.
    unnamed: Vec<Extent>,
    is_dead_unknown: bool,
}

/// A repair that is under way.
#[derive(Debug)]
pub struct Repair {
    // Before the session, which clears its directory away.
    targets: BTreeMap<PackId, Target>,
    wanted: Mutex<Wanted>,
    repairs: Repairs,
    images: Vec<ImageRecord>,
    session: Session,
}

impl Repair {
    /// Repairs what needs no layer, and finds what does: reads the whole store. `progress` is called with the
    /// bytes of contents read so far.
    ///
    /// # Errors
    /// The store cannot be read or written, or a gc does not end.
    pub fn begin(
        reader: &StoreReader,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, SessionError> {
        let session = Session::begin(reader.clone())?;
        let mut repairs = Repairs::default();
        let images = metadata::repair(&session, &mut repairs)?;
        let (options, mut report) = (VerifyOptions::default(), Report::default());
        let packs = check_packs(reader, &Scope::default(), &options, progress, &mut report)?;
        let mut wanted = Wanted::default();
        for (id, pack) in &packs.damaged {
            wanted.add(*id, pack.bad.clone());
        }
        find_names(reader, &mut wanted)?;
        wanted.ready();
        let mut repair = Self {
            targets: BTreeMap::new(),
            wanted: Mutex::new(wanted),
            repairs,
            images,
            session,
        };
        for (id, pack) in &packs.damaged {
            repair.prepare(*id, pack)?;
        }
        Ok(repair)
    }

    /// The image records that can be read: where layers come from.
    #[must_use]
    pub fn images(&self) -> &[ImageRecord] {
        &self.images
    }

    /// A layer that has contents which are missing still; each is given once.
    pub fn next_layer(&self) -> Option<DiffId> {
        self.wanted.lock().next_layer()
    }

    /// Makes a damaged pack ready for what it lacks.
    fn prepare(&mut self, id: PackId, pack: &DamagedPack) -> Result<(), SessionError> {
        let (session, wanted) = (&self.session, self.wanted.get_mut());
        let path = session.reader().layout().pack(id);
        if pack.is_unreadable {
            let what = "cannot be read at the moment, which says nothing of what it has";
            self.repairs.unrepaired(&path, what, BTreeSet::new());
            return Ok(());
        }
        if pack.is_broken && !wanted.is_needed(id) {
            // gc removes it, as nothing needs it.
            return Ok(());
        }
        let unnamed = wanted.unnamed(id);
        let is_dead_unknown = pack.is_dead_unknown;
        let (staged, file) = if pack.is_broken {
            let table = session.reader().layout().toc(id);
            let Some((_, toc)) = read_toc(&table)? else {
                return Ok(());
            };
            let (staged, file) = put_together(session, id, &toc, pack)?;
            (Some(staged), file)
        } else {
            (None, path.open_to_change().map_err(failed("open", &path))?)
        };
        let target = Target {
            file,
            staged,
            unnamed,
            is_dead_unknown,
        };
        self.targets.insert(id, target);
        Ok(())
    }

    /// Takes the next `len_bytes` of `source`, a content of a layer, and writes them wherever they are missing.
    ///
    /// # Errors
    /// The source failed or ended early, or the store cannot be written.
    pub fn put(&self, source: &mut dyn Read, len_bytes: u64) -> Result<(), PutError> {
        let mut source = source.take(len_bytes);
        if !self.wanted.lock().may_want(len_bytes) {
            let read = io::copy(&mut source, &mut io::sink()).map_err(PutError::Source)?;
            return whole(read, len_bytes);
        }
        if len_bytes <= BUFFER_BYTES {
            let mut bytes = Vec::new();
            let read = source.read_to_end(&mut bytes).map_err(PutError::Source)?;
            whole(read as u64, len_bytes)?;
            let hash = ContentHash::from_bytes(*blake3::hash(&bytes).as_bytes());
            return self.fill(&hash, |file, path, offset| {
                file.write_all_at(&bytes, offset)
                    .map_err(failed("write", path))
            });
        }
        let workspace = self.session.workspace();
        let (spool, file) = workspace.create_unnamed("content")?;
        let hash = spool_to(&mut source, &file, len_bytes, |error| {
            workspace.failed("write", &spool)(error).into()
        });
        let filled = hash.and_then(|hash| {
            self.fill(&hash, |to, path, offset| {
                copy(&file, 0, to, offset, len_bytes).map_err(failed("write", path))
            })
        });
        workspace.remove_own(&spool)?;
        filled
    }

    /// Writes a content wherever it is missing.
    fn fill(
        &self,
        hash: &ContentHash,
        write: impl Fn(&File, &StorePath, u64) -> Result<(), crate::CommitError>,
    ) -> Result<(), PutError> {
        let places = self.wanted.lock().places_of(hash);
        if places.is_empty() {
            return Ok(());
        }
        for (pack, extent) in places {
            let Some(target) = self.targets.get(&pack) else {
                continue;
            };
            let path = self.session.reader().layout().pack(pack);
            write(&target.file, &path, extent.offset_bytes)?;
            // Up to the next content a pack has zeros.
            let end = extent.offset_bytes + extent.len_bytes;
            let padding = end.next_multiple_of(BLOCK_BYTES) - end;
            let padding = vec![0; usize::try_from(padding).unwrap_or_default()];
            let written = target.file.write_all_at(&padding, end);
            written.map_err(failed("write", &path))?;
        }
        self.wanted.lock().filled(hash);
        Ok(())
    }

    /// Ends the repair: what is whole again gets its name.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn finish(&self) -> Result<Repairs, SessionError> {
        let layout = self.session.reader().layout();
        let mut repairs = self.repairs.clone();
        let mut to_give_up = Vec::new();
        for (id, target) in &self.targets {
            let path = layout.pack(*id);
            let synced = target.file.sync_all();
            synced.map_err(self.session.workspace().failed("write", &path))?;
            let (missing, layers) = {
                let wanted = self.wanted.lock();
                let (missing, layers) = wanted.missing(*id);
                (missing, images_with(&self.images, &layers))
            };
            if missing > 0 {
                let what =
                    format!("{missing} contents are damaged, and no layer was found that has them");
                repairs.unrepaired(&path, what, layers);
            }
            if !target.unnamed.is_empty() || target.is_dead_unknown {
                to_give_up.push((*id, target, missing));
            } else if missing == 0 || target.staged.is_none() {
                self.name(*id, target, &mut repairs)?;
            }
        }
        if !to_give_up.is_empty() {
            self.give_up(&to_give_up, &mut repairs)?;
        }
        self.session.publish_filters()?;
        Ok(repairs)
    }

    /// Reports what was written to a pack; one that was put together, and has all that it needs, takes its name.
    fn name(&self, id: PackId, target: &Target, repairs: &mut Repairs) -> Result<(), SessionError> {
        let workspace = self.session.workspace();
        let path = self.session.reader().layout().pack(id);
        let (found, bytes) = self.wanted.lock().found(id);
        let Some(staged) = &target.staged else {
            if found > 0 {
                let what = format!("{found} contents ({bytes} bytes) written again");
                repairs.repaired(&path, what);
            }
            return Ok(());
        };
        let length = target.file.metadata().map_err(failed("read", &path))?.len();
        match path.facts() {
            Ok(facts) if !facts.is_file => {
                let what = format!("is {} in place of a pack: move it away", facts.what);
                repairs.unrepaired(&path, what, BTreeSet::new());
            }
            // Somebody else brought it back.
            Ok(facts) if facts.len_bytes == length => {}
            _ => {
                workspace.replace(staged, &path)?;
                let what = format!(
                    "put together again, {found} contents ({bytes} bytes) of it from layers"
                );
                repairs.repaired(&path, what);
            }
        }
        Ok(())
    }

    /// Gives up damaged contents that no index names, while nobody else works on the store: a session may count on what no
    /// index names yet.
    fn give_up(
        &self,
        packs: &[(PackId, &Target, usize)],
        repairs: &mut Repairs,
    ) -> Result<(), SessionError> {
        let reader = self.session.reader();
        let layout = reader.layout();
        let own = self.session.workspace();
        let _alone = match Exclusive::acquire_beside(layout, own.dir())? {
            Attempt::Alone(alone) => alone,
            Attempt::Busy { who, .. } => {
                let what = format!(
                    "has damaged contents that no index names; {} is at work: run the repair again afterwards",
                    who.join(", ")
                );
                for (id, _, _) in packs {
                    repairs.unrepaired(&layout.pack(*id), &*what, BTreeSet::new());
                }
                return Ok(());
            }
        };
        let mut names = Wanted::default();
        for (id, target, _) in packs {
            let hash = ContentHash::from_bytes([0; 32]);
            let unnamed = target.unnamed.iter().map(|extent| (hash, *extent));
            names.add(*id, unnamed.collect());
        }
        let all_are_known = find_names(reader, &mut names)?;
        for (id, target, missing) in packs {
            let (path, record) = (layout.pack(*id), layout.dead(*id));
            if !all_are_known || names.is_named(*id) {
                let what = "has damaged contents, and whether something needs them is not known: repair or delete the images whose indexes are damaged, and run the repair again";
                repairs.unrepaired(&path, what, BTreeSet::new());
                continue;
            }
            let there = match read_dead(&record) {
                Ok(Some(dead)) => dead,
                Ok(None) | Err(ReadError::Damaged { .. }) if target.is_dead_unknown => {
                    Dead::default()
                }
                Ok(None) => continue,
                Err(error) => return Err(error.into()),
            };
            let dead = there.with(target.unnamed.iter().copied());
            let staged = own.stage(&dead::encode(&dead, *id), &record)?;
            own.replace(&staged, &record)?;
            let count = target.unnamed.len();
            let what = format!("{count} damaged contents that nothing needs are given up");
            repairs.repaired(&record, what);
            if *missing == 0 || target.staged.is_none() {
                self.name(*id, target, repairs)?;
            }
        }
        Ok(())
    }
}

/// An index that is there.
struct IndexFile {
    path: StorePath,
    /// The layers that have what it names.
    layers: Vec<DiffId>,
    is_of_layer: bool,
}

/// Every index that is there, first those of layers.
fn index_files(reader: &StoreReader) -> Result<Vec<IndexFile>, ReadError> {
    let layout = reader.layout();
    let mut files = Vec::new();
    for path in list_fanned(&layout.directory("layers"), "erofs")? {
        let layers = vec![id_of(&path, |id| DiffId::from_hex(id).ok())?];
        files.push(IndexFile {
            path,
            layers,
            is_of_layer: true,
        });
    }
    for path in list_fanned(&layout.directory("indexes"), "erofs")? {
        let chain_id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        files.push(IndexFile {
            path,
            layers: layers_of(reader, chain_id)?,
            is_of_layer: false,
        });
    }
    Ok(files)
}

/// Finds who names what is wanted; says whether all indexes could be read that records name.
fn find_names(reader: &StoreReader, wanted: &mut Wanted) -> Result<bool, SessionError> {
    let layout = reader.layout();
    let mut all_are_known = true;
    let mut there = HashSet::new();
    for file in index_files(reader)? {
        there.insert(file.path.on_host());
        let may_name = match packs_of(&file.path) {
            Ok(packs) => packs.iter().any(|id| wanted.is_of(*id)),
            Err(
                SessionError::DamagedIndex { .. } | SessionError::Read(ReadError::Damaged { .. }),
            ) => true,
            Err(error) => return Err(error),
        };
        if !may_name {
            continue;
        }
        match read_sound_index(&file.path)? {
            Some((tree, _, _)) => wanted.named(&tree, file.layers, file.is_of_layer),
            None => all_are_known = false,
        }
    }
    for image in reader.all_images()?.readable {
        let layers = image.diff_ids.iter().map(|id| layout.layer(*id));
        let mut needed = layers.chain([layout.index(image.chain_id)]);
        all_are_known &= needed.all(|path| there.contains(&path.on_host()));
    }
    Ok(all_are_known)
}

/// Begins a new file for a pack that is missing or has another length, with what is left of it.
fn put_together(
    session: &Session,
    id: PackId,
    toc: &Toc,
    pack: &DamagedPack,
) -> Result<(StorePath, File), SessionError> {
    let layout = session.reader().layout();
    let (path, workspace) = (layout.pack(id), session.workspace());
    let (staged, file) = workspace.create(&format!("pack-{}", id.hex()))?;
    file.set_len(toc.pack_bytes)
        .map_err(workspace.failed("write", &staged))?;
    let bad: HashSet<u64> = pack
        .bad
        .iter()
        .map(|(_, extent)| extent.offset_bytes)
        .collect();
    let dead = sound(read_dead(&layout.dead(id)))?
        .flatten()
        .unwrap_or_default();
    let good = toc.entries.iter().map(|(_, extent)| *extent);
    let good: Vec<Extent> = good
        .filter(|extent| !bad.contains(&extent.offset_bytes) && !dead.touches(*extent))
        .collect();
    if good.is_empty() {
        return Ok((staged, file));
    }
    let old = path.open().map_err(failed("open", &path))?;
    for Extent {
        offset_bytes,
        len_bytes,
    } in good
    {
        copy(&old, offset_bytes, &file, offset_bytes, len_bytes).map_err(failed("copy", &path))?;
    }
    Ok((staged, file))
}

fn copy(from: &File, from_at: u64, to: &File, to_at: u64, len_bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(len_bytes.min(BUFFER_BYTES)).unwrap_or_default()];
    let mut done = 0;
    while done < len_bytes {
        let wanted = usize::try_from(len_bytes - done).unwrap_or(usize::MAX);
        let part = wanted.min(buffer.len());
        let part = buffer.get_mut(..part).unwrap_or_default();
        from.read_exact_at(part, from_at + done)?;
        to.write_all_at(part, to_at + done)?;
        done += part.len() as u64;
    }
    Ok(())
}

/// Writes a content to a file of its own; gives its hash.
fn spool_to(
    source: &mut dyn Read,
    file: &File,
    len_bytes: u64,
    failed: impl Fn(io::Error) -> PutError,
) -> Result<ContentHash, PutError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    let mut done = 0;
    loop {
        buffer.clear();
        let mut part = (&mut *source).take(BUFFER_BYTES);
        let read = part.read_to_end(&mut buffer).map_err(PutError::Source)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer);
        file.write_all_at(&buffer, done).map_err(&failed)?;
        done += read as u64;
    }
    whole(done, len_bytes)?;
    Ok(ContentHash::from_bytes(*hasher.finalize().as_bytes()))
}

fn whole(read: u64, len_bytes: u64) -> Result<(), PutError> {
    match len_bytes.checked_sub(read) {
        Some(0) | None => Ok(()),
        Some(missing) => Err(PutError::Short { missing }),
    }
}

/// The layers of a chain; none where no record says.
fn layers_of(reader: &StoreReader, chain_id: ChainId) -> Result<Vec<DiffId>, ReadError> {
    let record = match sound(reader.chain(chain_id))?.flatten() {
        Some(record) => Some(record),
        None => sound(reader.retired_chain(chain_id))?.flatten(),
    };
    let layers = record.into_iter().flat_map(|record| record.layers);
    Ok(layers.map(|layer| layer.diff_id).collect())
}

/// The images that have all layers of one of these indexes.
fn images_with(images: &[ImageRecord], indexes: &[&[DiffId]]) -> BTreeSet<String> {
    let has = |image: &ImageRecord, layers: &[DiffId]| {
        layers.iter().all(|id| image.diff_ids.contains(id))
    };
    images
        .iter()
        .filter(|image| {
            indexes
                .iter()
                .any(|layers| !layers.is_empty() && has(image, layers))
        })
        .map(|image| image.target.clone())
        .collect()
}
