//! A file system's metadata in memory: what the writer takes and the reader gives.
//!
//! Guarantees: every [`InodeId`] handed out by a [`Tree`] stays valid for that tree; inode 0 is
//! the root folder. A folder's entries are ordered by their bytes, as EROFS wants them.
//!
//! Memory: about 200 bytes an inode, plus names, inline contents and xattrs.

use std::collections::BTreeMap;

/// A file name, a symlink's target or an xattr's name: bytes without NUL.
pub type Bytes = Box<[u8]>;

/// Which inode of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u32);

/// A time: seconds since 1970 (negative before it) and nanoseconds (below 1,000,000,000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

/// A device number as `stat` splits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeviceNumber {
    /// At most 12 bits.
    pub major: u32,
    /// At most 20 bits.
    pub minor: u32,
}

impl DeviceNumber {
    /// What overlayfs takes for a whiteout (kernel: `include/linux/fs.h`, `WHITEOUT_DEV`).
    pub const WHITEOUT: Self = Self { major: 0, minor: 0 };
}

/// Where one chunk of a regular file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkAddress {
    /// Index into the devices of the image, from 0.
    pub device: u16,
    /// First block of 4096 bytes on that device.
    pub start_block: u32,
}

/// What a regular file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// The bytes themselves, kept beside the inode. At most [`crate::MAX_INLINE_BYTES`].
    Inline(Bytes),
    /// Chunks on extra devices.
    Chunks(ChunkedContents),
}

/// A regular file whose bytes lie on extra devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkedContents {
    /// Length of the file in bytes, not 0.
    pub size_bytes: u64,
    /// A chunk is `1 << chunk_log2` bytes; 12 to 43. The last chunk may be cut by `size_bytes`.
    pub chunk_log2: u8,
    /// One a chunk, `size_bytes` divided by the chunk's size and rounded up; `None` is a hole.
    pub chunks: Vec<Option<ChunkAddress>>,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder: names (1 to 255 bytes, no `/`, no NUL, not `.` or `..`) to inodes.
    Directory(BTreeMap<Bytes, InodeId>),
    /// A regular file.
    Regular(Contents),
    /// A symlink: its target, 1 to 4095 bytes.
    Symlink(Bytes),
    /// A character device; number 0:0 is an overlayfs whiteout.
    CharacterDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One inode. Several folder entries may name it (hard links), unless it is a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Permission bits with setuid, setgid and sticky (0o7777); the type is in `kind`.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Full names (`user.x`, `security.capability`) to values.
    pub xattrs: BTreeMap<Bytes, Bytes>,
    /// What it is.
    pub kind: Kind,
}

impl Inode {
    /// An empty folder of root with mode 0755 and time 0.
    #[must_use]
    pub fn empty_directory() -> Self {
        Self {
            permissions: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: BTreeMap::new(),
            kind: Kind::Directory(BTreeMap::new()),
        }
    }

    /// Its entries, where it is a folder.
    #[must_use]
    pub fn entries(&self) -> Option<&BTreeMap<Bytes, InodeId>> {
        match &self.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// Its entries to change, where it is a folder.
    pub fn entries_mut(&mut self) -> Option<&mut BTreeMap<Bytes, InodeId>> {
        match &mut self.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// Whether overlayfs takes it for a whiteout.
    #[must_use]
    pub fn is_whiteout(&self) -> bool {
        matches!(self.kind, Kind::CharacterDevice(DeviceNumber::WHITEOUT))
    }
}

/// An extra device of an image: for uimgacc a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// 64 bytes of text in the device table; for a pack its id in hex.
    pub tag: [u8; 64],
    /// Length of the device in blocks of 4096 bytes.
    pub blocks: u32,
}

/// A whole file system. Inodes that no folder names are not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    inodes: Vec<Inode>,
    /// The extra devices that [`ChunkAddress::device`] counts.
    pub devices: Vec<Device>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The root folder.
    pub const ROOT: InodeId = InodeId(0);

    /// A tree of an empty root folder.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inodes: vec![Inode::empty_directory()],
            devices: Vec::new(),
        }
    }

    /// A tree of these inodes, the first of which is the root folder.
    pub(crate) fn from_parts(inodes: Vec<Inode>, devices: Vec<Device>) -> Self {
        Self { inodes, devices }
    }

    /// Adds an inode that no folder names yet. `None` when all 2^32 ids are used.
    pub fn add(&mut self, inode: Inode) -> Option<InodeId> {
        let id = u32::try_from(self.inodes.len()).ok()?;
        self.inodes.push(inode);
        Some(InodeId(id))
    }

    /// The inode; of another tree's id possibly another inode, or the root where it is too large.
    #[must_use]
    pub fn inode(&self, id: InodeId) -> &Inode {
        self.inodes.get(id.0 as usize).unwrap_or(&self.inodes[0])
    }

    /// The inode to change.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        let index = id.0 as usize;
        let index = if index < self.inodes.len() { index } else { 0 };
        &mut self.inodes[index]
    }

    /// How many inodes there are, with those that no folder names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Never: the root is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Every inode with its id, in the order of adding.
    pub fn iter(&self) -> impl Iterator<Item = (InodeId, &Inode)> {
        (0u32..).map(InodeId).zip(&self.inodes)
    }

    /// Every inode to change.
    pub fn inodes_mut(&mut self) -> impl Iterator<Item = &mut Inode> {
        self.inodes.iter_mut()
    }
}
