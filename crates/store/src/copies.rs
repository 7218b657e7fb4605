//! Second copies of what nothing else could bring back: compressed, and read by `verify` and `repair` alone.
//!
//! That of a table lies beside it; that of an index is named by the index's digest, which chain records have.
//! A copy is written before the original has its name, so what has a name has a copy, also after a crash.

use std::io::{self, Read};

use uimgacc_types::{Digest, PackId};

use crate::commit::CommitError;
use crate::error::SessionError;
use crate::format::MAX_INDEX_BYTES;
use crate::layout::Layout;
use crate::machine;
use crate::path::StorePath;
use crate::reader::{ReadError, there, unreadable};
use crate::session::Hashing;
use crate::toc::{self, Toc};
use crate::workspace::Workspace;

/// The next higher levels take twice the time for hardly fewer bytes.
const LEVEL: i32 = 3;

/// Writes a copy of `source`, in place of the one that has the name.
pub(crate) fn write_copy(
    workspace: &Workspace,
    source: &mut dyn Read,
    path: &StorePath,
) -> Result<(), CommitError> {
    let (temporary, file) = workspace.create(&temporary_name(workspace, path)?)?;
    zstd::stream::copy_encode(source, &file, LEVEL)
        .and_then(|()| file.sync_all())
        .map_err(workspace.failed("write", &temporary))?;
    workspace.replace(&temporary, path)
}

/// The table that the copy of pack `id` holds; `None` where there is no copy.
pub(crate) fn read_toc_copy(layout: &Layout, id: PackId) -> Result<Option<Toc>, ReadError> {
    let path = layout.toc_copy(id);
    let Some(mut copy) = open_copy(&path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    copy.read_to_end(&mut bytes)
        .map_err(unreadable_copy(&path))?;
    toc::parse(&bytes, id).map(Some).map_err(damaged(&path))
}

/// The digest of the index that a copy holds; `None` where there is no copy.
pub(crate) fn digest_of_copy(path: &StorePath) -> Result<Option<Digest>, ReadError> {
    let Some(mut copy) = open_copy(path)? else {
        return Ok(None);
    };
    let mut out = Hashing::of(io::sink());
    io::copy(&mut copy, &mut out).map_err(unreadable_copy(path))?;
    Ok(Some(out.digest()))
}

/// Brings the index with this digest back to `to`; says whether there is a sound copy of it.
pub(crate) fn restore_index(
    layout: &Layout,
    workspace: &Workspace,
    digest: Digest,
    to: &StorePath,
) -> Result<bool, SessionError> {
    let path = layout.index_copy(digest);
    let Some(mut copy) = open_copy(&path)? else {
        return Ok(false);
    };
    let (temporary, file) = workspace.create(&temporary_name(workspace, to)?)?;
    let mut out = Hashing::of(file);
    let copied = io::copy(&mut copy, &mut out);
    if let Err(error) = copied {
        workspace.remove_own(&temporary)?;
        return match unreadable_copy(&path)(error) {
            ReadError::Damaged { .. } => Ok(false),
            other => Err(other.into()),
        };
    }
    if out.digest() != digest {
        workspace.remove_own(&temporary)?;
        return Ok(false);
    }
    out.inner
        .sync_all()
        .map_err(workspace.failed("write", &temporary))?;
    workspace.replace(&temporary, to)?;
    Ok(true)
}

/// What a copy unpacks to, no more than an index may have; `None` where there is none.
fn open_copy(path: &StorePath) -> Result<Option<impl Read + use<>>, ReadError> {
    let Some(file) = there(path.open()).map_err(unreadable(path))? else {
        return Ok(None);
    };
    let decoder = zstd::stream::read::Decoder::new(file).map_err(unreadable_copy(path))?;
    Ok(Some(decoder.take(MAX_INDEX_BYTES)))
}

/// What the system does not say is said by the decoder.
fn unreadable_copy(path: &StorePath) -> impl Fn(io::Error) -> ReadError {
    move |error| match error.raw_os_error() {
        Some(_) => unreadable(path)(error),
        None => damaged(path)(error.to_string()),
    }
}

fn damaged(path: &StorePath) -> impl FnOnce(String) -> ReadError {
    let path = path.on_host();
    move |reason| ReadError::Damaged { path, reason }
}

fn temporary_name(workspace: &Workspace, path: &StorePath) -> Result<String, CommitError> {
    let id = machine::random_id();
    let id = id.map_err(workspace.failed("name a temporary file for", path))?;
    Ok(format!("copy-{id}"))
}
