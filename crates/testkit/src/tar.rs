//! Tar archives with full control of every byte: what image builders write, and what only an enemy would.
//!
//! Nothing is checked or cleaned: a name may be absolute, empty or 300 bytes long, a hard link may lead nowhere, an archive may end in
//! the middle of a header. Formats by POSIX.1-2017 (pax, ustar) and the GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".

mod header;
mod sparse;
#[cfg(test)]
mod tests;

pub use sparse::{Segment, SparseFormat};

/// The unit of a tar archive, in bytes.
pub const BLOCK_BYTES: usize = 512;

/// How a name of more than 100 bytes (or a number that its field cannot hold) is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// PAX extended headers.
    #[default]
    Pax,
    /// GNU `@LongLink` entries (types `L` and `K`) and numbers in base 256.
    Gnu,
}

/// The type of an entry, as its type flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `0`: a plain file.
    File,
    /// `\0`: a plain file as before POSIX.
    OldFile,
    /// `1`: a hard link.
    HardLink,
    /// `2`: a symbolic link.
    Symlink,
    /// `3`: a character device.
    CharDevice,
    /// `4`: a block device.
    BlockDevice,
    /// `5`: a folder.
    Directory,
    /// `6`: a named pipe.
    Fifo,
    /// Any other flag.
    Other(u8),
}

impl Kind {
    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::OldFile => 0,
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
            Self::Other(flag) => flag,
        }
    }
}

/// One entry. Public fields, so that a test can say anything.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name, as bytes; need not be UTF-8.
    pub path: Vec<u8>,
    /// The type.
    pub kind: Kind,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970, may be negative.
    pub mtime: i64,
    /// Nanoseconds after `mtime`, below 1,000,000,000; only PAX can say them.
    pub mtime_nanos: u32,
    /// Device number, major and minor.
    pub device: (u32, u32),
    /// The content of a file.
    pub content: Vec<u8>,
    /// Further PAX records, in this order, e.g. `SCHILY.xattr.user.a`. They come after the ones that the builder makes.
    pub pax: Vec<(String, Vec<u8>)>,
    /// How long names and numbers are written.
    pub dialect: Dialect,
}

impl Entry {
    /// An entry owned by root, of 2023-11-14 22:13:20 UTC, with mode 0755 for folders and 0644 for all else.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Self {
        Self {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode: if kind == Kind::Directory {
                0o755
            } else {
                0o644
            },
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            mtime_nanos: 0,
            device: (0, 0),
            content: Vec::new(),
            pax: Vec::new(),
            dialect: Dialect::Pax,
        }
    }

    /// Sets the permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Sets the time, in seconds since 1970 and nanoseconds after that.
    #[must_use]
    pub fn mtime(mut self, seconds: i64, nanos: u32) -> Self {
        (self.mtime, self.mtime_nanos) = (seconds, nanos);
        self
    }

    /// Adds an extended attribute, e.g. `security.capability`.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.pax
            .push((format!("SCHILY.xattr.{name}"), value.into()));
        self
    }

    /// Sets the content.
    #[must_use]
    pub fn content(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.content = content.into();
        self
    }

    /// Sets the target of a link.
    #[must_use]
    pub fn link(mut self, target: impl Into<Vec<u8>>) -> Self {
        self.link = target.into();
        self
    }

    /// Sets the device number.
    #[must_use]
    pub fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    /// Writes long names and numbers as GNU tar does.
    #[must_use]
    pub fn gnu(mut self) -> Self {
        self.dialect = Dialect::Gnu;
        self
    }
}

/// Writes an archive into memory.
#[derive(Debug, Clone, Default)]
pub struct TarBuilder {
    bytes: Vec<u8>,
}

impl TarBuilder {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an entry.
    #[must_use]
    pub fn entry(mut self, entry: &Entry) -> Self {
        header::write(&mut self.bytes, entry);
        self
    }

    /// Appends a folder.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(&Entry::new(path, Kind::Directory).mode(mode))
    }

    /// Appends a plain file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.entry(&Entry::new(path, Kind::File).mode(mode).content(content))
    }

    /// Appends a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(&Entry::new(path, Kind::Symlink).mode(0o777).link(target))
    }

    /// Appends a hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(&Entry::new(path, Kind::HardLink).link(target))
    }

    /// Appends the whiteout of a name: the file `.wh.<name>` beside it (OCI image spec, layer.md).
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let whiteout = match path.rsplit_once('/') {
            Some((parent, name)) => format!("{parent}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(&whiteout, 0o644, "")
    }

    /// Appends the mark that hides what lower layers have in a folder.
    #[must_use]
    pub fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), 0o644, "")
    }

    /// Appends a sparse file of `size` bytes with these pieces of data, in rising order. `entry.content` is not used.
    ///
    /// # Panics
    /// Where a piece lies outside of `size`.
    #[must_use]
    pub fn sparse(
        mut self,
        entry: &Entry,
        format: SparseFormat,
        size: u64,
        segments: &[Segment],
    ) -> Self {
        sparse::write(&mut self.bytes, entry, format, size, segments);
        self
    }

    /// Appends a global PAX header (type `g`).
    #[must_use]
    pub fn global_pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let records: Vec<_> = records
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_vec()))
            .collect();
        header::write_pax(&mut self.bytes, b'g', &records);
        self
    }

    /// Appends bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The archive, closed by two empty blocks.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK_BYTES, 0);
        self.bytes
    }

    /// The archive without its end; cut `missing` bytes before that.
    #[must_use]
    pub fn truncated(mut self, missing: usize) -> Vec<u8> {
        self.bytes
            .truncate(self.bytes.len().saturating_sub(missing));
        self.bytes
    }
}
