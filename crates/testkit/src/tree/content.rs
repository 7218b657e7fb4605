//! The hash of a file's content, where holes cost nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Content is hashed in blocks of this many bytes, and blocks of zeros are left out, whether they are stored or a hole.
const BLOCK_BYTES: usize = 4096;

/// Bytes read at once; a multiple of the block.
const READ_BYTES: usize = 1 << 20;

/// Hashes size and content of a file.
pub(super) fn hash(path: &Path, size: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while let Some((start, end)) = next_data(&file, at, size)? {
        // Blocks are cut at the same places however the data lies.
        at = start - start % BLOCK_BYTES as u64;
        while at < end {
            let wanted =
                usize::try_from((size - at).min(READ_BYTES as u64)).expect("at most 1 MiB");
            file.read_exact_at(&mut buffer[..wanted], at)?;
            for block in buffer[..wanted].chunks(BLOCK_BYTES) {
                if block.iter().any(|byte| *byte != 0) {
                    hasher.update(&at.to_le_bytes());
                    hasher.update(block);
                }
                at += block.len() as u64;
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The next stretch of data at or after `at`, as its start and end; the whole rest where the file system knows no holes.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(size))))
}
