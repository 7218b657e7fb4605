//! Reading tables of contents and indexes of the store, each whole.

use uimgacc_erofs::tree::Tree;
use uimgacc_types::{Digest, PackId};

use crate::error::SessionError;
use crate::format::MAX_INDEX_BYTES;
use crate::path::StorePath;
use crate::reader::{OnError, ReadError, scan_fanned, there, unreadable};
use crate::toc::{self, Toc};
use crate::{Layout, StoreReader};

/// A table that gc takes away gets this suffix (up to 0.1; newer ones leave it).
const DOOMED: &str = "doomed";

/// Every table of contents whose pack is there as a whole, with the pack's id.
///
/// A damaged table is told and passed over: what is in its pack is then simply written again.
pub(crate) fn read_tocs(reader: &StoreReader) -> Result<Vec<(PackId, Toc)>, ReadError> {
    scan_tocs(reader, &mut Err)
}

/// The same of the directories that can be read.
pub(crate) fn scan_tocs(
    reader: &StoreReader,
    on_error: OnError<'_>,
) -> Result<Vec<(PackId, Toc)>, ReadError> {
    let mut tocs = Vec::new();
    for path in scan_fanned(&reader.layout().directory("packs"), "toc", on_error)? {
        match read_toc(&path) {
            Ok(Some((id, toc))) if has_pack(reader.layout(), id, &toc) => tocs.push((id, toc)),
            Ok(Some((id, _))) => {
                tracing::warn!("the pack {id} is missing or cut short (run `store verify`)");
            }
            Ok(None) => {}
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::warn!("{error} (run `store verify`)");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(tocs)
}

fn has_pack(layout: &Layout, id: PackId, toc: &Toc) -> bool {
    layout
        .pack(id)
        .facts()
        .is_ok_and(|pack| pack.is_file && pack.len_bytes == toc.pack_bytes)
}

/// The table of one pack, where table and pack are there and whole.
pub(crate) fn toc_of(layout: &Layout, id: PackId) -> Result<Option<Toc>, ReadError> {
    let path = layout.toc(id);
    for path in [path.with_suffix(DOOMED), path] {
        match read_toc(&path) {
            Ok(Some((_, toc))) if has_pack(layout, id, &toc) => return Ok(Some(toc)),
            Ok(_) => {}
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::warn!("{error} (run `store verify`)");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// One table of contents; `None` where it is gone.
pub(crate) fn read_toc(path: &StorePath) -> Result<Option<(PackId, Toc)>, ReadError> {
    let damaged = |reason: String| ReadError::Damaged {
        path: path.on_host(),
        reason,
    };
    let id = path
        .stem()
        .and_then(|stem| PackId::from_hex(stem).ok())
        .ok_or_else(|| damaged("its name is no pack id".to_owned()))?;
    let Some(bytes) = read_whole(path)? else {
        return Ok(None);
    };
    let toc = toc::parse(&bytes, id).map_err(damaged)?;
    Ok(Some((id, toc)))
}

/// An index of the store: its tree, digest and length; `None` where there is none.
pub(crate) fn read_index(path: &StorePath) -> Result<Option<(Tree, Digest, u64)>, SessionError> {
    let Some(bytes) = read_whole(path)? else {
        return Ok(None);
    };
    let tree =
        uimgacc_erofs::read(&bytes, &uimgacc_erofs::Limits::default()).map_err(|source| {
            SessionError::DamagedIndex {
                path: path.on_host(),
                source,
            }
        })?;
    Ok(Some((tree, Digest::of(&bytes), bytes.len() as u64)))
}

/// Like [`read_index`], but a damaged one is told and counts as not there.
pub(crate) fn read_sound_index(
    path: &StorePath,
) -> Result<Option<(Tree, Digest, u64)>, SessionError> {
    match read_index(path) {
        Err(
            error @ (SessionError::DamagedIndex { .. }
            | SessionError::Read(ReadError::Damaged { .. })),
        ) => {
            tracing::warn!("{error} (run `store verify`)");
            Ok(None)
        }
        other => other,
    }
}

/// Digest and length of a file; `None` where there is none.
pub(crate) fn digest_of(path: &StorePath) -> Result<Option<(Digest, u64)>, ReadError> {
    Ok(read_whole(path)?.map(|bytes| (Digest::of(&bytes), bytes.len() as u64)))
}

fn read_whole(path: &StorePath) -> Result<Option<Vec<u8>>, ReadError> {
    there(path.read(MAX_INDEX_BYTES)).map_err(unreadable(path))
}
