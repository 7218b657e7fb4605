//! Reading a whole store again and checking every hash.
//!
//! Checked: each record parses and leads to files that are there; each index has the digest that
//! its records carry, parses, and every chunk of it lies inside a content of a pack's table; each
//! table hashes to its pack's name; each content of each pack hashes to what the table says; each
//! lease can be read; and nothing stands in the store that is not the store's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use uimgacc_erofs::tree::{Contents, Kind, Tree};
use uimgacc_types::{ChainId, DiffId, Digest, PackId, with_causes};

use crate::dead::Dead;
use crate::device::pack_of;
use crate::filters::read_filter_file;
use crate::format::BLOCK_BYTES;
use crate::index_file::{read_dead, read_index, read_toc};
use crate::layout::PROFILE_SUFFIX;
use crate::lease::lease_files;
use crate::path::StorePath;
use crate::reader::{ReadError, id_of, read_json, scan_fanned};
use crate::toc::{Toc, key_of};
use crate::{ChainRecord, ImageRecord, StoreReader, strays};

/// The contents of a pack that are not given up: where each starts, how long it is, and its key in filters.
type LiveContents = BTreeMap<u64, (u64, u64)>;

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// What was read and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Packs read.
    pub packs: u64,
    /// Contents hashed.
    pub contents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Layer and flattened indexes read.
    pub indexes: u64,
    /// Image records read.
    pub images: u64,
    /// Empty for a clean store.
    pub problems: Vec<Problem>,
}

impl Report {
    fn add(&mut self, path: &StorePath, what: impl Into<String>) {
        self.problems.push(Problem {
            path: path.on_host(),
            what: what.into(),
        });
    }

    fn add_error(&mut self, error: ReadError) {
        let what = with_causes(&error);
        let (ReadError::NoStore { root: path }
        | ReadError::TooNew { root: path, .. }
        | ReadError::TooOld { root: path, .. }
        | ReadError::UnknownFeatures { root: path, .. }
        | ReadError::Io { path, .. }
        | ReadError::Damaged { path, .. }
        | ReadError::BrokenImage { path, .. }
        | ReadError::BrokenLease { path, .. }) = error;
        self.problems.push(Problem { path, what });
    }
}

/// Checks a store. `progress` is called with the bytes hashed so far.
///
/// With `metadata_only` contents are not read again.
///
/// # Errors
/// None at present: what fails is a problem in the report.
pub fn verify(
    reader: &StoreReader,
    metadata_only: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, ReadError> {
    let layout = reader.layout();
    let mut report = Report::default();
    strays::report(layout, &mut |path, what| report.add(path, what));
    let strays: HashSet<PathBuf> = paths(&report.problems);
    for file in scanned(lease_files(layout), &mut report) {
        if let Err(error) = file.lease {
            report.add(&file.path, with_causes(&error));
        }
    }
    let tocs = check_packs(reader, metadata_only, progress, &mut report)?;
    let mut layers: HashMap<DiffId, Digest> = HashMap::new();
    for path in files(&layout.directory("layers"), "erofs", &mut report)? {
        let id = id_of(&path, |id| DiffId::from_hex(id).ok())?;
        if let Some(digest) = check_index(&path, &tocs, &mut report) {
            layers.insert(id, digest);
        }
    }
    let mut indexes: HashMap<ChainId, Digest> = HashMap::new();
    for path in files(&layout.directory("indexes"), "erofs", &mut report)? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if let Some(digest) = check_index(&path, &tocs, &mut report) {
            indexes.insert(id, digest);
        }
    }
    check_filters(reader, &tocs, &mut report)?;
    check_blobs(reader, &mut report)?;
    check_profiles(reader, &mut report)?;
    let chains = check_chains(reader, &layers, &indexes, &mut report)?;
    check_images(reader, &chains, &mut report)?;
    // What is not the store's is reported once, as that.
    let mut seen = HashSet::new();
    report
        .problems
        .retain(|problem| !strays.contains(&problem.path) || seen.insert(problem.path.clone()));
    Ok(report)
}

fn paths(problems: &[Problem]) -> HashSet<PathBuf> {
    problems
        .iter()
        .map(|problem| problem.path.clone())
        .collect()
}

/// What could not be read is a problem.
fn scanned<T: Default>(result: Result<T, ReadError>, report: &mut Report) -> T {
    result.unwrap_or_else(|error| {
        report.add_error(error);
        T::default()
    })
}

/// The store's own files of a directory; what cannot be listed is a problem.
fn files(
    directory: &StorePath,
    suffix: &str,
    report: &mut Report,
) -> Result<Vec<StorePath>, ReadError> {
    scan_fanned(directory, suffix, &mut |error| {
        report.add_error(error);
        Ok(())
    })
}

fn check_packs(
    reader: &StoreReader,
    metadata_only: bool,
    progress: &mut dyn FnMut(u64),
    report: &mut Report,
) -> Result<HashMap<PackId, LiveContents>, ReadError> {
    let mut tocs = HashMap::new();
    for path in files(&reader.layout().directory("packs"), "toc", report)? {
        let (id, toc) = match read_toc(&path) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => {
                report.add(&path, with_causes(&error));
                continue;
            }
        };
        report.packs += 1;
        let layout = reader.layout();
        let (pack, record) = (layout.pack(id), layout.dead(id));
        let dead = match read_dead(&record) {
            Ok(Some(dead)) => dead,
            Ok(None) => {
                report.add(
                    &record,
                    "is missing, so what is given up of its pack is not known",
                );
                Dead::default()
            }
            Err(error) => {
                report.add(&record, with_causes(&error));
                Dead::default()
            }
        };
        if let Err(what) = check_pack(&pack, &toc, &dead, metadata_only, progress, report) {
            report.add(&pack, what);
        }
        let live = toc
            .entries
            .iter()
            .filter(|(_, extent)| !dead.touches(*extent));
        let contents =
            live.map(|(hash, extent)| (extent.offset_bytes, (extent.len_bytes, key_of(hash))));
        tocs.insert(id, contents.collect());
    }
    Ok(tocs)
}

fn check_pack(
    path: &StorePath,
    toc: &Toc,
    dead: &Dead,
    metadata_only: bool,
    progress: &mut dyn FnMut(u64),
    report: &mut Report,
) -> Result<(), String> {
    let file = path
        .open()
        .map_err(|error| format!("cannot be opened: {error}"))?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length != toc.pack_bytes {
        return Err(format!(
            "is {length} bytes long instead of {}",
            toc.pack_bytes
        ));
    }
    if metadata_only {
        return Ok(());
    }
    // In the order of the file, not of the hashes: one sweep over the disk.
    let live = toc
        .entries
        .iter()
        .filter(|(_, extent)| !dead.touches(*extent));
    let mut entries: Vec<_> = live.collect();
    entries.sort_by_key(|(_, extent)| extent.offset_bytes);
    let mut buffer = vec![0; 1 << 20];
    for (hash, extent) in entries {
        let mut hasher = blake3::Hasher::new();
        let mut done = 0;
        while done < extent.len_bytes {
            let want = (extent.len_bytes - done).min(buffer.len() as u64);
            let part = buffer
                .get_mut(..usize::try_from(want).unwrap_or_default())
                .unwrap_or_default();
            file.read_exact_at(part, extent.offset_bytes + done)
                .map_err(|error| {
                    format!("cannot be read at {}: {error}", extent.offset_bytes + done)
                })?;
            hasher.update(part);
            done += want;
        }
        report.contents += 1;
        report.bytes += extent.len_bytes;
        progress(report.bytes);
        if hasher.finalize().as_bytes() != hash.as_bytes() {
            report.add(
                path,
                format!(
                    "the content at {} ({} bytes) is not {hash}",
                    extent.offset_bytes, extent.len_bytes
                ),
            );
        }
    }
    Ok(())
}

fn check_index(
    path: &StorePath,
    tocs: &HashMap<PackId, LiveContents>,
    report: &mut Report,
) -> Option<Digest> {
    report.indexes += 1;
    match read_index(path) {
        Ok(Some((tree, digest, _))) => {
            if let Err(what) = check_chunks(&tree, tocs) {
                report.add(path, what);
            }
            Some(digest)
        }
        Ok(None) => None,
        Err(error) => {
            report.add(path, with_causes(&error));
            None
        }
    }
}

/// Every chunk must lie inside one content of its pack.
fn check_chunks(tree: &Tree, tocs: &HashMap<PackId, LiveContents>) -> Result<(), String> {
    let packs: Vec<(PackId, Option<&LiveContents>)> = tree
        .devices
        .iter()
        .map(|device| {
            let id = pack_of(device).ok_or("a device of it is no pack")?;
            Ok((id, tocs.get(&id)))
        })
        .collect::<Result<_, &str>>()?;
    for (_, inode) in tree.iter() {
        let Kind::Regular(Contents::Chunks(contents)) = &inode.kind else {
            continue;
        };
        let chunk_bytes = 1u64 << contents.chunk_log2;
        for (number, chunk) in (0u64..).zip(&contents.chunks) {
            let Some(chunk) = chunk else { continue };
            let (id, extents) = packs
                .get(usize::from(chunk.device))
                .ok_or("a chunk lies on no device")?;
            let extents = extents.ok_or_else(|| format!("its pack {id} is not in the store"))?;
            let start = u64::from(chunk.start_block) * BLOCK_BYTES;
            let len = contents
                .size_bytes
                .saturating_sub(number.saturating_mul(chunk_bytes))
                .min(chunk_bytes);
            let inside = extents
                .range(..=start)
                .next_back()
                .is_some_and(|(offset, (length, _))| start + len <= offset + length);
            if !inside {
                return Err(format!(
                    "a file of it lies outside of the contents of pack {id}, or in one that is given up (at {start})"
                ));
            }
        }
    }
    Ok(())
}

/// Files of filters are advice, but one that denies what its pack has makes contents be written twice.
fn check_filters(
    reader: &StoreReader,
    tocs: &HashMap<PackId, LiveContents>,
    report: &mut Report,
) -> Result<(), ReadError> {
    for path in files(&reader.layout().directory("filters"), "filter", report)? {
        let filters = match read_filter_file(&path) {
            Ok(filters) => filters.unwrap_or_default(),
            Err(error) => {
                report.add(&path, with_causes(&error));
                continue;
            }
        };
        for filter in filters {
            let contents = tocs.get(&filter.pack).into_iter().flatten();
            let denied = contents
                .filter(|(_, (_, key))| !filter.may_have(*key))
                .count();
            if denied > 0 {
                let pack = filter.pack;
                report.add(&path, format!("denies {denied} contents of pack {pack}"));
            }
        }
    }
    Ok(())
}

fn check_blobs(reader: &StoreReader, report: &mut Report) -> Result<(), ReadError> {
    for path in files(&reader.layout().directory("blobs"), "json", report)? {
        let id = id_of(&path, |id| Digest::from_hex(id).ok())?;
        if let Err(error) = reader.verified_diff_id(id) {
            report.add(&path, with_causes(&error));
        }
    }
    Ok(())
}

fn check_profiles(reader: &StoreReader, report: &mut Report) -> Result<(), ReadError> {
    for path in files(
        &reader.layout().directory("profiles"),
        PROFILE_SUFFIX,
        report,
    )? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if let Err(error) = reader.profile(id) {
            report.add(&path, with_causes(&error));
        }
    }
    Ok(())
}

fn check_chains(
    reader: &StoreReader,
    layers: &HashMap<DiffId, Digest>,
    indexes: &HashMap<ChainId, Digest>,
    report: &mut Report,
) -> Result<HashMap<ChainId, ChainRecord>, ReadError> {
    let mut chains = HashMap::new();
    for path in files(&reader.layout().directory("chains"), "json", report)? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        let record = match reader.chain(id) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                report.add(&path, with_causes(&error));
                continue;
            }
        };
        for layer in &record.layers {
            match layers.get(&layer.diff_id) {
                Some(digest) if *digest == layer.index_digest => {}
                Some(digest) => report.add(
                    &reader.layout().layer(layer.diff_id),
                    format!("has the digest {digest} instead of {}", layer.index_digest),
                ),
                None => report.add(
                    &path,
                    format!("its layer {} is not in the store", layer.diff_id),
                ),
            }
        }
        if let Some(index) = &record.index
            && indexes.get(&id) != Some(&index.digest)
        {
            report.add(
                &reader.layout().index(id),
                format!("is missing or has not the digest {}", index.digest),
            );
        }
        chains.insert(id, record);
    }
    Ok(chains)
}

fn check_images(
    reader: &StoreReader,
    chains: &HashMap<ChainId, ChainRecord>,
    report: &mut Report,
) -> Result<(), ReadError> {
    for path in files(&reader.layout().directory("images"), "json", report)? {
        let record = match read_json::<ImageRecord>(&path) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(error) => {
                report.add(&path, with_causes(&error));
                continue;
            }
        };
        report.images += 1;
        if reader.layout().image(&record.target) != path {
            report.add(
                &path,
                format!("it is the record of {}, under a wrong name", record.target),
            );
        }
        for chain_id in uimgacc_types::chain_ids(&record.diff_ids) {
            if !chains.contains_key(&chain_id) {
                report.add(&path, format!("its chain {chain_id} is not in the store"));
            }
        }
        let index = chains
            .get(&record.chain_id)
            .and_then(|chain| chain.index.as_ref());
        if index != Some(&record.index) {
            report.add(&path, "its flattened index is not the one of its chain");
        }
    }
    Ok(())
}
