//! What comes back without any layer: tables, indexes, records, filters.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rustix::io::Errno;
use uimgacc_types::{ChainId, DiffId, Digest, PackId, chain_ids};

use super::{Repairs, images_with, index_files};
use crate::copies::{digest_of_copy, read_toc_copy, restore_index, write_copy};
use crate::device::pack_of;
use crate::error::SessionError;
use crate::filters::read_filter_file;
use crate::index_file::{packs_of, read_index, read_toc};
use crate::layout::{PROFILE_SUFFIX, TOC_COPY_SUFFIX};
use crate::path::StorePath;
use crate::reader::{ReadError, id_of, list_fanned, read_json};
use crate::session::Session;
use crate::toc;
use crate::{ChainLayer, ChainRecord, ImageRecord, IndexRecord, StoreReader};

/// Repairs all of it, as far as it can; gives the image records.
pub(super) fn repair(
    session: &Session,
    repairs: &mut Repairs,
) -> Result<Vec<ImageRecord>, SessionError> {
    let images = images(session, repairs)?;
    let known = Known::of(session.reader(), &images)?;
    let layers = indexes(session, &known, &images, repairs)?;
    chains(session, &known, &layers, &images, repairs)?;
    tables(session, &images, repairs)?;
    advice(session, repairs)?;
    Ok(images)
}

/// What was read; `None` where it is missing or damaged, also where the disk says so.
fn intact<T, E>(read: Result<Option<T>, E>) -> Result<Option<T>, SessionError>
where
    SessionError: From<E>,
{
    match read.map_err(SessionError::from) {
        Err(
            SessionError::DamagedIndex { .. }
            | SessionError::Read(ReadError::Damaged { .. } | ReadError::BrokenImage { .. }),
        ) => Ok(None),
        Err(SessionError::Read(ReadError::Io { source, .. }))
            if source.raw_os_error() == Some(Errno::IO.raw_os_error()) =>
        {
            Ok(None)
        }
        other => other,
    }
}

/// The image records, each under its own name.
fn images(session: &Session, repairs: &mut Repairs) -> Result<Vec<ImageRecord>, SessionError> {
    let layout = session.reader().layout();
    let mut found: BTreeMap<String, ImageRecord> = BTreeMap::new();
    let mut misplaced = Vec::new();
    for path in list_fanned(&layout.directory("images"), "json")? {
        let Some(record) = intact(read_json::<ImageRecord>(&path))? else {
            let what = "cannot be read: remove it, then create that image again";
            repairs.unrepaired(&path, what, BTreeSet::new());
            continue;
        };
        if layout.image(&record.target) == path {
            found.insert(record.target.clone(), record);
        } else {
            misplaced.push((path, record));
        }
    }
    // A record may have the name of another one that is misplaced too: none is overwritten that is nowhere else.
    let mut spares = Vec::new();
    for (_, record) in &misplaced {
        let own = layout.image(&record.target);
        if misplaced.iter().any(|(path, _)| *path == own) {
            let spare = layout.image(&format!("{} (moved)", record.target));
            session.workspace().replace_json(&spare, record)?;
            spares.push(spare);
        }
    }
    for (path, record) in &misplaced {
        if !found.contains_key(&record.target) {
            let own = layout.image(&record.target);
            session.workspace().replace_json(&own, record)?;
            repairs.repaired(&own, format!("found under the name {path}"));
            found.insert(record.target.clone(), record.clone());
        }
    }
    let old = misplaced.into_iter().map(|(path, _)| path).chain(spares);
    for path in old {
        // Somebody may have created the image that belongs there.
        let there = intact(read_json::<ImageRecord>(&path))?;
        if there.is_some_and(|there| layout.image(&there.target) != path) {
            session.workspace().remove(&path)?;
        }
    }
    Ok(found.into_values().collect())
}

/// The digests that records give indexes.
struct Known {
    /// Chains with records that can be read.
    chains: HashMap<ChainId, ChainRecord>,
    /// Those of live chains first.
    layers: BTreeMap<DiffId, Vec<Digest>>,
    flattened: BTreeMap<ChainId, Vec<Digest>>,
}

/// Adds a digest behind the others.
fn add(digests: &mut Vec<Digest>, digest: Digest) {
    if !digests.contains(&digest) {
        digests.push(digest);
    }
}

impl Known {
    fn of(reader: &StoreReader, images: &[ImageRecord]) -> Result<Self, SessionError> {
        let mut known = Self {
            chains: HashMap::new(),
            layers: BTreeMap::new(),
            flattened: BTreeMap::new(),
        };
        let directory = reader.layout().directory("chains");
        for suffix in ["json", "retired"] {
            for path in list_fanned(&directory, suffix)? {
                let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
                let read = match suffix {
                    "json" => reader.chain(id),
                    _ => reader.retired_chain(id),
                };
                let Some(record) = intact(read)? else {
                    continue;
                };
                for layer in &record.layers {
                    let digests = known.layers.entry(layer.diff_id).or_default();
                    add(digests, layer.index_digest);
                }
                if let Some(index) = &record.index {
                    add(known.flattened.entry(id).or_default(), index.digest);
                }
                if suffix == "json" {
                    known.chains.insert(id, record);
                }
            }
        }
        for image in images {
            let digests = known.flattened.entry(image.chain_id).or_default();
            add(digests, image.index.digest);
            for diff_id in &image.diff_ids {
                known.layers.entry(*diff_id).or_default();
            }
        }
        Ok(known)
    }
}

/// Repairs all indexes; gives the digests of those of layers.
fn indexes(
    session: &Session,
    known: &Known,
    images: &[ImageRecord],
    repairs: &mut Repairs,
) -> Result<HashMap<DiffId, Digest>, SessionError> {
    let layout = session.reader().layout();
    let mut layers = HashMap::new();
    for (diff_id, digests) in &known.layers {
        let path = layout.layer(*diff_id);
        match index(session, &path, digests, repairs)? {
            Some(digest) => drop(layers.insert(*diff_id, digest)),
            None => {
                let users = images_with(images, &[&[*diff_id]]);
                let what = "the index of a layer has no sound second copy";
                repairs.unrepaired(&path, what, users);
            }
        }
    }
    for (chain_id, digests) in &known.flattened {
        let path = layout.index(*chain_id);
        if index(session, &path, digests, repairs)?.is_none() {
            let users = images.iter().filter(|image| image.chain_id == *chain_id);
            let users = users.map(|image| image.target.clone()).collect();
            repairs.unrepaired(&path, "a flattened index has no sound second copy", users);
        }
    }
    Ok(layers)
}

/// Brings an index and its second copy back; gives its digest where both are there.
fn index(
    session: &Session,
    path: &StorePath,
    digests: &[Digest],
    repairs: &mut Repairs,
) -> Result<Option<Digest>, SessionError> {
    let (layout, workspace) = (session.reader().layout(), session.workspace());
    let there = intact(read_index(path))?.map(|(_, digest, _)| digest);
    let has_copy = match there {
        Some(digest) => intact(digest_of_copy(&layout.index_copy(digest)))? == Some(digest),
        None => false,
    };
    if let Some(digest) = there
        && (digests.is_empty() || digests.contains(&digest))
    {
        if !has_copy {
            let copy = layout.index_copy(digest);
            let mut file = path.open().map_err(workspace.failed("open", path))?;
            write_copy(workspace, &mut file, &copy)?;
            repairs.repaired(&copy, "made again from the index");
        }
        return Ok(there);
    }
    for digest in digests {
        // Somebody may have made it again meanwhile.
        let is_damaged = || Ok(intact(read_index(path))?.map(|(_, digest, _)| digest) == there);
        if restore_index(layout, workspace, *digest, path, is_damaged)? {
            repairs.repaired(path, "restored from its second copy");
            return Ok(Some(*digest));
        }
    }
    // Both are as they were made: it is the record that is damaged.
    Ok(there.filter(|_| has_copy))
}

/// The records of the chains of all images.
fn chains(
    session: &Session,
    known: &Known,
    layers: &HashMap<DiffId, Digest>,
    images: &[ImageRecord],
    repairs: &mut Repairs,
) -> Result<(), SessionError> {
    let layout = session.reader().layout();
    let mut done: BTreeSet<ChainId> = BTreeSet::new();
    for image in images {
        for (length, chain_id) in (1..).zip(chain_ids(&image.diff_ids)) {
            if !done.insert(chain_id) {
                continue;
            }
            let path = layout.chain(chain_id);
            let of_chain = image.diff_ids.iter().take(length);
            let of_chain = of_chain.filter_map(|diff_id| {
                let index_digest = *layers.get(diff_id)?;
                Some(ChainLayer {
                    diff_id: *diff_id,
                    index_digest,
                })
            });
            let record = ChainRecord {
                chain_id,
                layers: of_chain.collect(),
                index: flattened(&layout.index(chain_id))?
                    .or_else(|| known.chains.get(&chain_id)?.index.clone()),
            };
            if record.layers.len() < length {
                let what = "the record of a chain of which a layer is lost";
                repairs.unrepaired(&path, what, [image.target.clone()].into());
            } else if known.chains.get(&chain_id) != Some(&record) {
                session.publish_chain(&record)?;
                repairs.repaired(&path, "written again from the indexes that are there");
            }
        }
    }
    Ok(())
}

/// What a chain's record says of its flattened index; `None` where there is none.
fn flattened(path: &StorePath) -> Result<Option<IndexRecord>, SessionError> {
    let found = intact(read_index(path))?;
    Ok(found.map(|(tree, digest, size)| IndexRecord {
        digest,
        size,
        packs: tree.devices.iter().filter_map(pack_of).collect(),
    }))
}

/// The tables of all packs that are there or that an index names.
fn tables(
    session: &Session,
    images: &[ImageRecord],
    repairs: &mut Repairs,
) -> Result<(), SessionError> {
    let (layout, workspace) = (session.reader().layout(), session.workspace());
    let packs = layout.directory("packs");
    let mut found: BTreeSet<PackId> = BTreeSet::new();
    for suffix in ["toc", TOC_COPY_SUFFIX] {
        for path in list_fanned(&packs, suffix)? {
            found.insert(id_of(&path, |id| PackId::from_hex(id).ok())?);
        }
    }
    let named = named_packs(session.reader())?;
    found.extend(named.keys());
    for id in found {
        let path = layout.toc(id);
        let there = intact(read_toc(&path))?.map(|(_, toc)| toc);
        let copy = intact(read_toc_copy(layout, id))?;
        match (there, copy) {
            (Some(toc), Some(copy)) if toc == copy => {}
            (Some(toc), _) => {
                let (bytes, _) = toc::encode(toc);
                let copy = layout.toc_copy(id);
                write_copy(workspace, &mut bytes.as_slice(), &copy)?;
                repairs.repaired(&copy, "made again from the table");
            }
            (None, Some(toc)) => {
                let (bytes, _) = toc::encode(toc);
                workspace.replace(&workspace.stage(&bytes, &path)?, &path)?;
                repairs.repaired(&path, "restored from its second copy");
            }
            (None, None) => {
                let layers: Vec<&[DiffId]> = named
                    .get(&id)
                    .into_iter()
                    .flatten()
                    .map(Vec::as_slice)
                    .collect();
                let users = images_with(images, &layers);
                repairs.unrepaired(&path, "a table has no sound second copy", users);
            }
        }
    }
    Ok(())
}

/// The packs that indexes name, with the layers of these indexes.
fn named_packs(reader: &StoreReader) -> Result<BTreeMap<PackId, Vec<Vec<DiffId>>>, SessionError> {
    let mut named: BTreeMap<PackId, Vec<Vec<DiffId>>> = BTreeMap::new();
    for file in index_files(reader)? {
        for pack in intact(packs_of(&file.path).map(Some))?.unwrap_or_default() {
            named.entry(pack).or_default().push(file.layers.clone());
        }
    }
    Ok(named)
}

/// What is only advice, and is made again when it is needed: damaged files of it go.
fn advice(session: &Session, repairs: &mut Repairs) -> Result<(), SessionError> {
    let (reader, workspace) = (session.reader(), session.workspace());
    let layout = reader.layout();
    let mut damaged: Vec<StorePath> = Vec::new();
    for path in list_fanned(&layout.directory("filters"), "filter")? {
        if intact(read_filter_file(&path))?.is_none() {
            damaged.push(path);
        }
    }
    for path in list_fanned(&layout.directory("blobs"), "json")? {
        let id = id_of(&path, |id| Digest::from_hex(id).ok())?;
        if intact(reader.verified_diff_id(id))?.is_none() {
            damaged.push(path);
        }
    }
    for path in list_fanned(&layout.directory("profiles"), PROFILE_SUFFIX)? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if intact(reader.profile(id))?.is_none() {
            damaged.push(path);
        }
    }
    for path in damaged {
        if workspace.remove(&path)? {
            repairs.repaired(&path, "removed, as it can be done without");
        }
    }
    // Makes the filters that are missing.
    session.shared.known(layout)?;
    Ok(())
}
