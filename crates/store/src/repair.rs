//! Bringing back what is damaged, under the same names and byte for byte, beside running containers.
//!
//! Tables and indexes come back from their second copies, records from what names them. Contents come from
//! the image's layers: whoever calls this reads those that [`Repair::next_layer`] asks for and hands every
//! content to [`Repair::put`]. A content is written only once its hash was checked.
//!
//! - A pack with wrong bytes is written in place: who has it mounted reads the right ones from then on. A crash
//!   leaves it no worse than it was.
//! - A pack that is missing or has another length is put together in the session's directory, and takes the name
//!   only once it has all that an index names.
//! - A content that no index names and that is damaged is given up ([`crate::dead`]), so that nothing shares it.
//!
//! A repair is a session, so nothing is removed or given back meanwhile. What cannot be brought back is reported with
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
use crate::dead;
use crate::error::{PutError, SessionError};
use crate::format::BLOCK_BYTES;
use crate::index_file::{packs_of, read_dead, read_sound_index, read_toc};
use crate::path::StorePath;
use crate::reader::{ReadError, id_of, list_fanned, sound};
use crate::session::Session;
use crate::toc::Toc;
use crate::verify::{DamagedPack, Report, Scope, VerifyOptions, check_packs};
use crate::{ImageRecord, StoreReader, machine};

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

/// Something that cannot be repaired.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Lost {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// Target references of the images that need it: created again, they work again.
    pub images: Vec<String>,
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Repairs {
    /// What was repaired.
    pub repaired: Vec<Repaired>,
    /// What could not be.
    pub lost: Vec<Lost>,
}

impl Repairs {
    fn repaired(&mut self, path: &StorePath, what: impl Into<String>) {
        self.repaired.push(Repaired {
            path: path.on_host(),
            what: what.into(),
        });
    }

    fn lost(&mut self, path: &StorePath, what: impl Into<String>, images: BTreeSet<String>) {
        self.lost.push(Lost {
            path: path.on_host(),
            what: what.into(),
            images: images.into_iter().collect(),
        });
    }
}

/// A pack that contents are written to.
#[derive(Debug)]
struct Target {
    file: File,
    /// Where it is put together; `None` where it is written in place.
    staged: Option<StorePath>,
}

/// A repair that is under way.
#[derive(Debug)]
pub struct Repair {
    session: Session,
    images: Vec<ImageRecord>,
    repairs: Repairs,
    wanted: Mutex<Wanted>,
    targets: BTreeMap<PackId, Target>,
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
        let mut repair = Self {
            session,
            images,
            repairs,
            wanted: Mutex::default(),
            targets: BTreeMap::new(),
        };
        repair.find_wanted(packs.damaged.iter())?;
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

    fn find_wanted<'a>(
        &mut self,
        damaged: impl Iterator<Item = (&'a PackId, &'a DamagedPack)>,
    ) -> Result<(), SessionError> {
        let wanted = self.wanted.get_mut();
        for (id, pack) in damaged {
            wanted.add(*id, pack.bad.clone());
        }
        let layout = self.session.reader().layout();
        let names_any = |path: &StorePath, wanted: &Wanted| -> bool {
            // One that cannot be read was reported.
            packs_of(path).is_ok_and(|packs| packs.iter().any(|id| wanted.is_of(*id)))
        };
        for path in list_fanned(&layout.directory("layers"), "erofs")? {
            let diff_id = id_of(&path, |id| DiffId::from_hex(id).ok())?;
            if names_any(&path, wanted)
                && let Some((tree, _, _)) = read_sound_index(&path)?
            {
                wanted.named(&tree, vec![diff_id], true);
            }
        }
        for path in list_fanned(&layout.directory("indexes"), "erofs")? {
            let chain_id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
            if names_any(&path, wanted)
                && let Some((tree, _, _)) = read_sound_index(&path)?
            {
                wanted.named(&tree, layers_of(self.session.reader(), chain_id)?, false);
            }
        }
        wanted.ready();
        Ok(())
    }

    /// Makes a damaged pack ready for what it lacks.
    fn prepare(&mut self, id: PackId, pack: &DamagedPack) -> Result<(), SessionError> {
        let (session, wanted) = (&self.session, self.wanted.get_mut());
        let layout = session.reader().layout();
        let (path, record) = (layout.pack(id), layout.dead(id));
        if pack.is_broken && !wanted.is_needed(id) {
            // gc removes it, as nothing needs it.
            return Ok(());
        }
        let unnamed = wanted.unnamed(id);
        if pack.is_dead_unknown || !unnamed.is_empty() {
            let dead = sound(read_dead(&record))?.flatten().unwrap_or_default();
            let (count, dead) = (unnamed.len(), dead.with(unnamed));
            let workspace = session.workspace();
            let staged = workspace.stage(&dead::encode(&dead, id), &record)?;
            workspace.replace(&staged, &record)?;
            let what = format!("{count} damaged contents that nothing needs are given up");
            self.repairs.repaired(&record, what);
        }
        if !pack.is_broken && !wanted.is_named(id) {
            return Ok(());
        }
        let target = if pack.is_broken {
            let Some((_, toc)) = read_toc(&layout.toc(id))? else {
                return Ok(());
            };
            put_together(session, id, &toc, pack)?
        } else {
            Target {
                file: path.open_to_change().map_err(failed("open", &path))?,
                staged: None,
            }
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
        let name = machine::random_id();
        let name = name.map_err(workspace.failed("name a file in", workspace.dir()))?;
        let (spool, file) = workspace.create(&format!("content-{name}"))?;
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
        let workspace = self.session.workspace();
        let layout = self.session.reader().layout();
        let wanted = self.wanted.lock();
        let mut repairs = self.repairs.clone();
        for (id, target) in &self.targets {
            let path = layout.pack(*id);
            target
                .file
                .sync_all()
                .map_err(workspace.failed("write", &path))?;
            let (missing, layers) = wanted.missing(*id);
            let (found, bytes) = wanted.found(*id);
            let images = images_with(&self.images, &layers);
            if let Some(staged) = &target.staged {
                if missing == 0 {
                    workspace.replace(staged, &path)?;
                    let what = format!(
                        "put together again, {found} contents ({bytes} bytes) of it from layers"
                    );
                    repairs.repaired(&path, what);
                } else {
                    workspace.remove_own(staged)?;
                }
            } else if found > 0 {
                let what = format!("{found} contents ({bytes} bytes) written again");
                repairs.repaired(&path, what);
            }
            if missing > 0 {
                let what =
                    format!("{missing} contents are damaged and no layer was found that has them");
                repairs.lost(&path, what, images);
            }
        }
        self.session.publish_filters()?;
        Ok(repairs)
    }
}

/// Begins a new file for a pack that is missing or has another length, with what is left of it.
fn put_together(
    session: &Session,
    id: PackId,
    toc: &Toc,
    pack: &DamagedPack,
) -> Result<Target, SessionError> {
    let path = session.reader().layout().pack(id);
    let workspace = session.workspace();
    let (staged, file) = workspace.create(&format!("pack-{}", id.hex()))?;
    file.set_len(toc.pack_bytes)
        .map_err(workspace.failed("write", &staged))?;
    if let Ok(old) = path.open() {
        let bad: HashSet<u64> = pack
            .bad
            .iter()
            .map(|(_, extent)| extent.offset_bytes)
            .collect();
        let good = toc.entries.iter().map(|(_, extent)| *extent);
        for Extent {
            offset_bytes,
            len_bytes,
        } in good.filter(|extent| !bad.contains(&extent.offset_bytes))
        {
            // What is given up may be missing too.
            match copy(&old, offset_bytes, &file, offset_bytes, len_bytes) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                copied => copied.map_err(workspace.failed("write", &staged))?,
            }
        }
    }
    let staged = Some(staged);
    Ok(Target { file, staged })
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
