//! Reading tables of contents, records of dead ranges and indexes of the store.

use std::io::Read as _;

use uimgacc_erofs::tree::Tree;
use uimgacc_types::{Digest, PackId};

use crate::dead::{self, Dead};
use crate::device::pack_of;
use crate::error::SessionError;
use crate::format::{MAX_INDEX_BYTES, PAGE_BYTES};
use crate::path::StorePath;
use crate::reader::{OnError, ReadError, damaged, id_of, scan_fanned, sound, there, unreadable};
use crate::toc::{self, Toc};
use crate::{Layout, StoreReader};

/// Few indexes have a device table that reaches further.
const DEVICES_BYTES: u64 = 64 << 10;

/// Every table of contents whose pack is there as a whole, with the pack's id. A damaged table is logged and
/// passed over: what is in its pack is then simply written again.
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
    let found = sound(read_toc(&layout.toc(id)))?.flatten();
    Ok(found
        .map(|(_, toc)| toc)
        .filter(|toc| has_pack(layout, id, toc)))
}

/// One table of contents; `None` where it is gone.
pub(crate) fn read_toc(path: &StorePath) -> Result<Option<(PackId, Toc)>, ReadError> {
    let id = id_of(path, |id| PackId::from_hex(id).ok())?;
    let Some(bytes) = read_whole(path)? else {
        return Ok(None);
    };
    let toc = toc::parse(&bytes, id).map_err(damaged(path))?;
    Ok(Some((id, toc)))
}

/// The first page of a table; `None` where the table is gone.
pub(crate) fn read_toc_head(path: &StorePath) -> Result<Option<toc::Head>, ReadError> {
    let id = id_of(path, |id| PackId::from_hex(id).ok())?;
    let mut page = Vec::with_capacity(PAGE_BYTES);
    let read = path
        .open()
        .and_then(|file| file.take(PAGE_BYTES as u64).read_to_end(&mut page));
    let Some(_) = there(read).map_err(unreadable(path))? else {
        return Ok(None);
    };
    toc::parse_head(&page, id).map(Some).map_err(damaged(path))
}

/// What is given up of a pack; `None` where there is no record of it.
pub(crate) fn read_dead(path: &StorePath) -> Result<Option<Dead>, ReadError> {
    let id = id_of(path, |id| PackId::from_hex(id).ok())?;
    let Some(bytes) = read_whole(path)? else {
        return Ok(None);
    };
    dead::parse(&bytes, id).map(Some).map_err(damaged(path))
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

/// The packs that an index file refers to; none where it is gone. Reads no more of it than its device table.
pub(crate) fn packs_of(path: &StorePath) -> Result<Vec<PackId>, SessionError> {
    let mut bytes = Vec::new();
    let read = path
        .open()
        .and_then(|file| file.take(DEVICES_BYTES).read_to_end(&mut bytes));
    if there(read).map_err(unreadable(path))?.is_none() {
        return Ok(Vec::new());
    }
    let mut devices = uimgacc_erofs::read_devices(&bytes);
    if matches!(devices, Err(uimgacc_erofs::ReadError::OutOfBounds { .. })) {
        let whole = read_whole(path)?.unwrap_or_default();
        devices = uimgacc_erofs::read_devices(&whole);
    }
    let devices = devices.map_err(|source| SessionError::DamagedIndex {
        path: path.on_host(),
        source,
    })?;
    Ok(devices.iter().filter_map(pack_of).collect())
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
