//! The rules that every inode keeps, in a tree to be written and in one just read.

use crate::error::{Wrong, lossy};
use crate::format::{BLOCK_BYTES_U64, MODE_PERMISSIONS_MASK};
use crate::limits::{
    CHUNK_LOG2, MAX_FILE_BYTES, MAX_INLINE_BYTES, MAX_MAJOR, MAX_MINOR, MAX_NAME_BYTES,
    MAX_SYMLINK_BYTES, MAX_XATTR_NAME_BYTES, MAX_XATTR_VALUE_BYTES,
};
use crate::tree::{ChunkedContents, Contents, Device, DeviceNumber, Inode, Kind};
use crate::xattr;

/// Checks all of an inode but its place in the tree and the names in it.
pub(crate) fn inode(inode: &Inode, devices: &[Device]) -> Result<(), Wrong> {
    if inode.permissions & !MODE_PERMISSIONS_MASK != 0 {
        return Err(Wrong::Permissions {
            found: inode.permissions,
        });
    }
    if inode.mtime.nanoseconds >= 1_000_000_000 {
        return Err(Wrong::Nanoseconds {
            found: inode.mtime.nanoseconds,
        });
    }
    for (name, value) in &inode.xattrs {
        xattr_pair(name, value)?;
    }
    match &inode.kind {
        Kind::Directory(_) | Kind::Fifo | Kind::Socket => Ok(()),
        Kind::Regular(Contents::Inline(bytes)) => inline_size(bytes.len() as u64),
        Kind::Regular(Contents::Chunks(chunks)) => chunked(chunks, devices),
        Kind::Symlink(target) => symlink(target),
        Kind::CharacterDevice(number) | Kind::BlockDevice(number) => device_number(*number),
    }
}

/// Checks the name of a folder's entry.
pub(crate) fn entry_name(name: &[u8]) -> Result<(), Wrong> {
    if name.is_empty() {
        return Err(Wrong::NameEmpty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Wrong::NameTooLong {
            name: lossy(name),
            found: name.len(),
        });
    }
    if name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(Wrong::NameForbidden { name: lossy(name) });
    }
    Ok(())
}

/// Checks the length of contents beside an inode.
pub(crate) fn inline_size(size_bytes: u64) -> Result<(), Wrong> {
    if size_bytes > MAX_INLINE_BYTES as u64 {
        return Err(Wrong::InlineTooLarge { found: size_bytes });
    }
    Ok(())
}

fn symlink(target: &[u8]) -> Result<(), Wrong> {
    if target.is_empty() || target.contains(&0) {
        return Err(Wrong::SymlinkForbidden);
    }
    if target.len() > MAX_SYMLINK_BYTES {
        return Err(Wrong::SymlinkTooLong {
            found: target.len(),
        });
    }
    Ok(())
}

fn device_number(number: DeviceNumber) -> Result<(), Wrong> {
    let DeviceNumber { major, minor } = number;
    if major > MAX_MAJOR || minor > MAX_MINOR {
        return Err(Wrong::DeviceNumber { major, minor });
    }
    Ok(())
}

fn xattr_pair(name: &[u8], value: &[u8]) -> Result<(), Wrong> {
    let Some((prefix, suffix)) = xattr::split(name) else {
        return Err(Wrong::XattrPrefix { name: lossy(name) });
    };
    let empty = suffix.is_empty() && !prefix.is_whole_name();
    if empty || name.len() > MAX_XATTR_NAME_BYTES || name.contains(&0) {
        return Err(Wrong::XattrName { name: lossy(name) });
    }
    if value.len() > MAX_XATTR_VALUE_BYTES {
        return Err(Wrong::XattrValueTooLarge {
            name: lossy(name),
            found: value.len(),
        });
    }
    Ok(())
}

/// How many chunks a file has. Checks its size and its chunks' size.
pub(crate) fn chunk_count(size_bytes: u64, chunk_log2: u8) -> Result<u64, Wrong> {
    if size_bytes == 0 || size_bytes > MAX_FILE_BYTES {
        return Err(Wrong::FileSize { found: size_bytes });
    }
    if !CHUNK_LOG2.contains(&chunk_log2) {
        return Err(Wrong::ChunkSize { found: chunk_log2 });
    }
    Ok(size_bytes.div_ceil(1 << chunk_log2))
}

fn chunked(contents: &ChunkedContents, devices: &[Device]) -> Result<(), Wrong> {
    let expected = chunk_count(contents.size_bytes, contents.chunk_log2)?;
    if contents.chunks.len() as u64 != expected {
        return Err(Wrong::ChunkCount {
            found: contents.chunks.len(),
            expected,
        });
    }
    let chunk_bytes = 1_u64 << contents.chunk_log2;
    let mut left_bytes = contents.size_bytes;
    for chunk in &contents.chunks {
        let length_bytes = left_bytes.min(chunk_bytes);
        left_bytes -= length_bytes;
        let Some(address) = chunk else { continue };
        let Some(device) = devices.get(usize::from(address.device)) else {
            return Err(Wrong::ChunkDevice {
                device: address.device,
                devices: devices.len(),
            });
        };
        let end = u64::from(address.start_block) + length_bytes.div_ceil(BLOCK_BYTES_U64);
        if end > u64::from(device.blocks) {
            return Err(Wrong::ChunkPastEnd {
                device: address.device,
                start_block: address.start_block,
                blocks: device.blocks,
            });
        }
    }
    Ok(())
}
