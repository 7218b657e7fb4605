//! Second copies of what nothing else could bring back: compressed, and read by `verify` and `repair` alone.
//!
//! That of a table lies beside it; that of an index is named by the index's digest, which chain records have.
//! A copy is written before the original has its name, so what has a name has a copy, also after a crash.

use std::io::{self, Read, Write as _};

use uimgacc_types::{Digest, PackId, with_causes};

use crate::commit::CommitError;
use crate::error::SessionError;
use crate::format::{MAX_INDEX_BYTES, PAGE_BYTES};
use crate::hashing::Hashing;
use crate::layout::Layout;
use crate::path::StorePath;
use crate::reader::{ReadError, damaged, there, unreadable};
use crate::toc::{self, Toc};
use crate::workspace::Workspace;

/// The next higher levels take twice the time for hardly fewer bytes.
const LEVEL: i32 = 3;
/// What is unpacked at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes a copy of `source`, in place of the one that has the name.
pub(crate) fn write_copy(
    workspace: &Workspace,
    source: &mut dyn Read,
    path: &StorePath,
) -> Result<(), CommitError> {
    let (temporary, file) = workspace.create_unnamed("copy")?;
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
    let mut first = (&mut copy).take(PAGE_BYTES as u64);
    first
        .read_to_end(&mut bytes)
        .map_err(unreadable_copy(&path))?;
    // No more than the head announces, and a byte that would be too many.
    let head = toc::parse_head(&bytes, id).map_err(damaged(&path))?;
    let rest = head.pages().saturating_mul(PAGE_BYTES as u64);
    let mut rest = copy.take(rest.saturating_add(1));
    rest.read_to_end(&mut bytes)
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

/// Brings the index with this digest back to `to`, unless `is_wanted` says in the last moment that it is not needed
/// any more; says whether there is a sound copy of it.
pub(crate) fn restore_index(
    layout: &Layout,
    workspace: &Workspace,
    digest: Digest,
    to: &StorePath,
    is_wanted: impl FnOnce() -> Result<bool, SessionError>,
) -> Result<bool, SessionError> {
    let path = layout.index_copy(digest);
    let Some(mut copy) = open_copy(&path)? else {
        return Ok(false);
    };
    let (temporary, file) = workspace.create_unnamed("copy")?;
    let mut out = Hashing::of(file);
    let mut buffer = vec![0; BUFFER_BYTES];
    let is_sound = loop {
        match copy.read(&mut buffer) {
            Ok(0) => break out.digest() == digest,
            Ok(read) => out
                .write_all(buffer.get(..read).unwrap_or_default())
                .map_err(workspace.failed("write", &temporary))?,
            // Whatever is wrong with it, it brings nothing back.
            Err(error) => {
                tracing::warn!("{}", with_causes(&unreadable_copy(&path)(error)));
                break false;
            }
        }
    };
    if !is_sound {
        workspace.remove_own(&temporary)?;
        return Ok(false);
    }
    out.inner
        .sync_all()
        .map_err(workspace.failed("write", &temporary))?;
    if is_wanted()? {
        workspace.replace(&temporary, to)?;
    } else {
        workspace.remove_own(&temporary)?;
    }
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
