//! Indexes of layers and flattened ones, and their second copies.

use std::collections::{BTreeSet, HashMap};

use uimgacc_erofs::tree::{Contents, Kind, Tree};
use uimgacc_types::{ChainId, DiffId, Digest, PackId, with_causes};

use super::packs::LiveContents;
use super::{Packs, Report, Scope, files};
use crate::copies::digest_of_copy;
use crate::device::pack_of;
use crate::format::BLOCK_BYTES;
use crate::index_file::read_index;
use crate::path::StorePath;
use crate::reader::{ReadError, id_of};
use crate::repack::pieces;
use crate::{ChainRecord, Layout, StoreReader};

/// The digests of the indexes that could be read.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    pub(super) layers: HashMap<DiffId, Digest>,
    pub(super) flattened: HashMap<ChainId, Digest>,
}

/// Checks every index.
pub(super) fn check(
    reader: &StoreReader,
    scope: &Scope,
    packs: &Packs,
    report: &mut Report,
) -> Result<Indexes, ReadError> {
    let layout = reader.layout();
    let mut indexes = Indexes::default();
    for path in files(&layout.directory("layers"), "erofs", report)? {
        let id = id_of(&path, |id| DiffId::from_hex(id).ok())?;
        if scope.has(|marks| marks.layers.contains(&id))
            && let Some(digest) = check_index(&path, packs, report)
        {
            indexes.layers.insert(id, digest);
        }
    }
    for path in files(&layout.directory("indexes"), "erofs", report)? {
        let id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if scope.has(|marks| marks.indexes.contains(&id))
            && let Some(digest) = check_index(&path, packs, report)
        {
            indexes.flattened.insert(id, digest);
        }
    }
    Ok(indexes)
}

/// Checks the second copies of the indexes that these chains name.
pub(super) fn check_copies<'a>(
    layout: &Layout,
    chains: impl Iterator<Item = &'a ChainRecord>,
    report: &mut Report,
) {
    let digests: BTreeSet<Digest> = chains.flat_map(ChainRecord::index_digests).collect();
    for digest in digests {
        let path = layout.index_copy(digest);
        match digest_of_copy(&path) {
            Ok(Some(found)) if found == digest => {}
            Ok(Some(found)) => report.add(&path, format!("holds an index with the digest {found}")),
            Ok(None) => report.add(&path, "the second copy of an index is missing"),
            Err(error) => report.add(&path, with_causes(&error)),
        }
    }
}

fn check_index(path: &StorePath, packs: &Packs, report: &mut Report) -> Option<Digest> {
    report.indexes += 1;
    match read_index(path) {
        Ok(Some((tree, digest, _))) => {
            if let Err(what) = check_chunks(&tree, packs) {
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
fn check_chunks(tree: &Tree, packs: &Packs) -> Result<(), String> {
    let packs: Vec<(PackId, Option<&LiveContents>)> = tree
        .devices
        .iter()
        .map(|device| {
            let id = pack_of(device).ok_or("a device of it is not a pack")?;
            Ok((id, packs.live.get(&id)))
        })
        .collect::<Result<_, &str>>()?;
    for (_, inode) in tree.iter() {
        let Kind::Regular(Contents::Chunks(contents)) = &inode.kind else {
            continue;
        };
        for (chunk, len_bytes) in pieces(contents) {
            let (id, contents) = packs
                .get(usize::from(chunk.device))
                .ok_or("a chunk lies on no device")?;
            let contents =
                contents.ok_or_else(|| format!("the table of its pack {id} is missing"))?;
            let start = u64::from(chunk.start_block) * BLOCK_BYTES;
            if !contents.contains(start, len_bytes) {
                return Err(format!(
                    "a file of it lies outside of the contents of pack {id}, or in one that is given up (at {start})"
                ));
            }
        }
    }
    Ok(())
}
