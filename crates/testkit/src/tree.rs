//! A mounted tree as a list, to compare what two file systems show of one image.
//!
//! [`snapshot`] looks at everything a container could see: names, types, modes, owners, sizes, times, link groups, device numbers,
//! extended attributes and contents. Not looked at: sizes of folders and link counts, which file systems make up as they like, and the
//! attributes that overlayfs keeps for itself.

mod content;
mod diff;
#[cfg(test)]
mod tests;
mod walk;

pub use diff::{diff, diff_except};
pub use walk::snapshot;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root; `.` for the root itself.
    pub path: PathBuf,
    /// The type.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file or of a link's target; 0 for all else.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i128,
    /// The first name (in byte order) of the names that are hard links of one file, this one among them.
    pub link_group: PathBuf,
    /// Major and minor number of a device, else zeros.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The target of a symbolic link, else empty.
    pub target: PathBuf,
    /// A BLAKE3 hash over size and content of a file, else empty. Holes and zeros are the same.
    pub content: String,
}
