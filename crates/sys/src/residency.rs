//! Which pages of a file are in the page cache.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// So much of a file is looked at at once: what the table of its pages takes is bounded by this.
const WINDOW_BYTES: u64 = 1 << 30;

/// The ranges of `file` that are in the page cache, in bytes, ascending and apart, each a multiple of
/// the page size. Reads nothing of the file.
///
/// By `mincore(2)`, which tells the truth to who may write the file or owns it, and to root.
///
/// # Errors
/// The system's error.
pub fn resident(file: &File) -> io::Result<Vec<Range<u64>>> {
    let len_bytes = file.metadata()?.len();
    let page_bytes = rustix::param::page_size() as u64;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut start = 0;
    while start < len_bytes {
        let window = WINDOW_BYTES.min(len_bytes - start);
        for (number, is_there) in residency_of(file, start, window)?.into_iter().enumerate() {
            if !is_there {
                continue;
            }
            let at = start + number as u64 * page_bytes;
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end += page_bytes,
                _ => ranges.push(at..at + page_bytes),
            }
        }
        start += window;
    }
    Ok(ranges)
}

/// One answer a page of a window; `start` is a multiple of the page size.
fn residency_of(file: &File, start: u64, len_bytes: u64) -> io::Result<Vec<bool>> {
    let len = usize::try_from(len_bytes).map_err(io::Error::other)?;
    let mut table = vec![0u8; len.div_ceil(rustix::param::page_size())];
    // SAFETY: a new private mapping, chosen by the kernel, that nobody ever reads or writes: should
    // the file shrink, no access can fault.
    let mapping = unsafe {
        mmap(
            ptr::null_mut::<c_void>(),
            len,
            ProtFlags::READ,
            MapFlags::PRIVATE,
            file,
            start,
        )?
    };
    // SAFETY: the mapping is `len` bytes long and lives; the table has a byte for each of its pages.
    let answered = unsafe { libc::mincore(mapping, len, table.as_mut_ptr()) };
    let answer = if answered == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    };
    // SAFETY: the mapping of above, to which nothing refers any more.
    unsafe { munmap(mapping, len)? };
    answer.map(|()| table.into_iter().map(|page| page & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn what_was_read_is_there() {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let drop = |advice| rustix::fs::fadvise(&file, 0, None, advice).unwrap();
        drop(rustix::fs::Advice::DontNeed);
        assert_eq!(resident(&file).unwrap(), Vec::new());
        drop(rustix::fs::Advice::Random);
        file.read_exact_at(&mut [0; 10], 40_000).unwrap();
        file.read_exact_at(&mut [0; 8192], 500_000).unwrap();
        let found = resident(&file).unwrap();
        let covers = |at: u64| found.iter().any(|range| range.contains(&at));
        assert!(covers(40_000) && covers(500_000) && covers(508_000));
        assert!(!covers(0) && !covers(1_000_000), "{found:?}");
        assert_eq!(resident(&tempfile::tempfile().unwrap()).unwrap(), []);
    }
}
