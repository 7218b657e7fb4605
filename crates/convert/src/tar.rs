//! Reading a layer's tar as a stream.
//!
//! Takes what Go's `archive/tar` takes, since that is what containerd unpacks with: V7, ustar,
//! PAX, GNU and star headers, GNU long names, base-256 numbers, PAX sparse files (0.0, 0.1, 1.0);
//! and besides those old GNU sparse files (type `S`), which containerd refuses. Times keep their
//! sign and nanoseconds.
//!
//! Memory: one header with its extensions, [`MAX_EXTENSION_BYTES`] at most, and a sparse map of
//! [`MAX_SPARSE_SEGMENTS`] at most.

mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

use uimgacc_erofs::tree::Timestamp;

pub use sparse::Segment;

use header::{Format, Header};
use pax::Extensions;

/// Length of a block of a tar in bytes.
const BLOCK: usize = 512;
/// No PAX header or long name is longer (the limit of Go's `archive/tar`).
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// No file has more pieces of data between holes.
const MAX_SPARSE_SEGMENTS: usize = 1 << 20;

/// What is wrong with a tar.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum TarError {
    /// The stream failed.
    #[error("cannot read the tar at byte {offset}")]
    Io {
        /// Where in the tar.
        offset: u64,
        source: io::Error,
    },
    /// The stream ended inside an entry.
    #[error("the tar ends at byte {offset}, in the middle of {inside}")]
    Truncated {
        /// Where in the tar.
        offset: u64,
        /// `a header` or `the content of <name>`.
        inside: String,
    },
    /// A header makes no sense.
    #[error("the tar header at byte {offset} is damaged: {what}")]
    Header {
        /// Where in the tar.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, sparse or not.
    Regular,
    /// A hard link to an earlier entry.
    HardLink,
    /// A symlink.
    Symlink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A folder.
    Directory,
    /// A named pipe.
    Fifo,
    /// PAX records for all that follows; containerd ignores them.
    GlobalExtensions,
    /// Anything else, by its type flag.
    Other(u8),
}

impl EntryKind {
    fn of(flag: u8) -> Self {
        match flag {
            b'0' | b'S' => Self::Regular,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharacterDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            b'g' => Self::GlobalExtensions,
            other => Self::Other(other),
        }
    }

    /// Whether no content follows, whatever the size says.
    fn is_header_only(self) -> bool {
        matches!(
            self,
            Self::HardLink
                | Self::Symlink
                | Self::CharacterDevice
                | Self::BlockDevice
                | Self::Directory
                | Self::Fifo
        )
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name as written.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Target of a link as written.
    pub link: Vec<u8>,
    /// Permission bits, 0o7777 at most.
    pub permissions: u16,
    /// Owner; not checked.
    pub uid: i64,
    /// Group; not checked.
    pub gid: i64,
    /// Time of change.
    pub mtime: Timestamp,
    /// Length of the file in bytes, holes included.
    pub size_bytes: u64,
    /// Where the data of a sparse file goes: sorted, not overlapping, none empty, inside
    /// `size_bytes`.
    pub sparse: Option<Vec<Segment>>,
    /// Device number, not checked.
    pub device: (i64, i64),
    /// xattrs in the order of their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries from a stream. Reading from it gives the content of the current entry, of a
/// sparse file only the data between the holes.
#[derive(Debug)]
pub struct TarReader<R> {
    stream: R,
    offset: u64,
    /// Content of the current entry that was not read yet.
    left: u64,
    padding: u64,
    name: Vec<u8>,
    is_done: bool,
}

impl<R: Read> TarReader<R> {
    /// Reads from the start of a tar.
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            offset: 0,
            left: 0,
            padding: 0,
            name: Vec::new(),
            is_done: false,
        }
    }

    /// The stream behind the tar.
    pub fn into_inner(self) -> R {
        self.stream
    }

    /// The next entry; what was not read of the one before is passed over. `None` at the end.
    ///
    /// # Errors
    /// The stream failed, ended inside an entry, or a header makes no sense.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.is_done {
            return Ok(None);
        }
        let mut extensions = Extensions::default();
        loop {
            self.pass_over()?;
            if self.is_done {
                return Ok(None);
            }
            let at = self.offset;
            let damaged = |what: String| TarError::Header { offset: at, what };
            let Some(block) = self.header_block()? else {
                self.is_done = true;
                return Ok(None);
            };
            let header = Header::parse(&block).map_err(damaged)?;
            match header.flag {
                b'x' | b'L' | b'K' => {
                    let body = self.extension(&header)?;
                    extensions.add(header.flag, &body).map_err(damaged)?;
                }
                b'g' => {
                    self.extension(&header)?;
                    self.name.clone_from(&header.name);
                    return Ok(Some(Entry {
                        kind: EntryKind::GlobalExtensions,
                        ..blank(&header)
                    }));
                }
                _ => return self.entry(&block, header, extensions, at).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        header: Header,
        extensions: Extensions,
        at: u64,
    ) -> Result<Entry, TarError> {
        let damaged = |what: String| TarError::Header { offset: at, what };
        let mut entry = blank(&header);
        let mut stored = header.size;
        extensions.apply(&mut entry, &mut stored).map_err(damaged)?;
        let mut flag = header.flag;
        if flag == 0 {
            // The oldest tars have no type for folders, only a slash.
            flag = if entry.name.ends_with(b"/") {
                b'5'
            } else {
                b'0'
            };
        }
        entry.kind = EntryKind::of(flag);
        let stored = if entry.kind.is_header_only() {
            0
        } else {
            stored
        };
        let stored = u64::try_from(stored).map_err(|_| damaged(format!("its size is {stored}")))?;
        self.name.clone_from(&entry.name);
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        entry.size_bytes = stored;
        if flag == b'S' {
            if header.format != Format::Gnu {
                return Err(damaged(
                    "a sparse file of a format other than GNU".to_owned(),
                ));
            }
            let (segments, size) = self.old_sparse_map(block, at)?;
            entry.size_bytes = size;
            entry.sparse = Some(segments);
        } else if let Some(version) = extensions.sparse_version() {
            if let Some(name) = extensions.sparse_name() {
                entry.name = name;
            }
            entry.size_bytes = extensions.sparse_size(stored).map_err(damaged)?;
            let segments = match version {
                pax::SparseVersion::InRecords => extensions.sparse_map().map_err(damaged)?,
                pax::SparseVersion::InContent => self.sparse_map_in_content(at)?,
            };
            entry.sparse = Some(segments);
        }
        if let Some(segments) = &mut entry.sparse {
            if entry.kind != EntryKind::Regular {
                return Err(damaged(
                    "a sparse map on something that is no regular file".to_owned(),
                ));
            }
            sparse::check(segments, entry.size_bytes, self.left).map_err(damaged)?;
            // GNU tar ends the map of a file that ends in a hole with one of these.
            segments.retain(|segment| segment.len_bytes > 0);
        }
        Ok(entry)
    }

    /// Reads the map in the header and in the blocks behind it, which the size does not count.
    fn old_sparse_map(
        &mut self,
        block: &[u8; BLOCK],
        at: u64,
    ) -> Result<(Vec<Segment>, u64), TarError> {
        let damaged = |what: String| TarError::Header { offset: at, what };
        let (mut segments, size, mut more) = sparse::old_map_start(block).map_err(damaged)?;
        while more {
            let mut block = [0; BLOCK];
            self.fill(&mut block, "a sparse map")?;
            more = sparse::old_map_continue(&block, &mut segments).map_err(damaged)?;
            if segments.len() > MAX_SPARSE_SEGMENTS {
                return Err(damaged(format!(
                    "more than {MAX_SPARSE_SEGMENTS} pieces of data"
                )));
            }
        }
        Ok((segments, size))
    }

    /// Reads the map at the start of the content: decimal numbers, a line each, up to a block.
    fn sparse_map_in_content(&mut self, at: u64) -> Result<Vec<Segment>, TarError> {
        let damaged = |what: &str| TarError::Header {
            offset: at,
            what: what.to_owned(),
        };
        let mut numbers = sparse::Numbers::default();
        let mut wanted = 1;
        while numbers.complete() < wanted {
            if self.left < BLOCK as u64 {
                return Err(damaged("its sparse map is longer than its content"));
            }
            let mut block = [0; BLOCK];
            self.fill(&mut block, "a sparse map")?;
            self.left -= BLOCK as u64;
            numbers.add(&block).map_err(|what| damaged(&what))?;
            if let Some(count) = numbers.first() {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                if count > MAX_SPARSE_SEGMENTS {
                    return Err(damaged("too many pieces of data"));
                }
                wanted = 1 + 2 * count;
            }
        }
        Ok(numbers.segments(wanted))
    }

    /// The body of a PAX header or a long name.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let damaged = |what: String| TarError::Header {
            offset: self.offset,
            what,
        };
        let size = u64::try_from(header.size)
            .ok()
            .filter(|size| *size <= MAX_EXTENSION_BYTES)
            .ok_or_else(|| {
                damaged(format!(
                    "an extension of {} bytes ({MAX_EXTENSION_BYTES} at most)",
                    header.size
                ))
            })?;
        let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
        self.fill(&mut body, "an extended header")?;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(body)
    }

    fn pass_over(&mut self) -> Result<(), TarError> {
        if self.skip(self.left)? < self.left {
            return Err(self.truncated_content());
        }
        // A stream that ends in the padding ends the archive, as for Go.
        self.is_done = self.skip(self.padding)? < self.padding;
        self.left = 0;
        self.padding = 0;
        Ok(())
    }

    /// Passes over so many bytes, fewer where the stream ends; gives how many.
    fn skip(&mut self, count: u64) -> Result<u64, TarError> {
        let passed = io::copy(&mut (&mut self.stream).take(count), &mut io::sink())
            .map_err(|source| self.failed(source))?;
        self.offset += passed;
        Ok(passed)
    }

    /// The next header; `None` at the end of the stream or at two empty blocks.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let at = self.offset;
        let Some(block) = self.block_or_end()? else {
            return Ok(None);
        };
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        match self.block_or_end()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => Err(TarError::Header {
                offset: at,
                what: "an empty block in the middle".to_owned(),
            }),
            _ => Ok(None),
        }
    }

    fn block_or_end(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let rest = block.get_mut(have..).unwrap_or_default();
            match self.stream.read(rest) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => {
                    return Err(TarError::Truncated {
                        offset: self.offset,
                        inside: "a header".to_owned(),
                    });
                }
                Ok(count) => {
                    have += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        Ok(Some(block))
    }

    fn fill(&mut self, buffer: &mut [u8], inside: &str) -> Result<(), TarError> {
        self.stream.read_exact(buffer).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                TarError::Truncated {
                    offset: self.offset,
                    inside: inside.to_owned(),
                }
            } else {
                self.failed(source)
            }
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> TarError {
        TarError::Io {
            offset: self.offset,
            source,
        }
    }

    fn truncated_content(&self) -> TarError {
        TarError::Truncated {
            offset: self.offset,
            inside: format!("the content of {}", String::from_utf8_lossy(&self.name)),
        }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self
            .stream
            .read(buffer.get_mut(..want).unwrap_or_default())?;
        self.left -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The entry of a header alone.
fn blank(header: &Header) -> Entry {
    Entry {
        name: header.name.clone(),
        kind: EntryKind::of(header.flag),
        link: header.link.clone(),
        permissions: header.permissions,
        uid: header.uid,
        gid: header.gid,
        mtime: Timestamp {
            seconds: header.mtime,
            nanoseconds: 0,
        },
        size_bytes: 0,
        sparse: None,
        device: header.device,
        xattrs: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
