//! What can be wrong with a tree or an image, by name and place.

use std::io;

use crate::limits::{
    MAX_DEVICES, MAX_INLINE_BYTES, MAX_NAME_BYTES, MAX_SHARED_XATTRS, MAX_SYMLINK_BYTES,
    MAX_XATTR_BODY_BYTES, MAX_XATTR_NAME_BYTES, MAX_XATTR_VALUE_BYTES,
};

/// Why an inode cannot be in an image. The writer names its path, the reader its number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Wrong {
    /// A folder's entry without a name.
    #[error("an entry has an empty name")]
    NameEmpty,
    /// A folder's entry with a long name.
    #[error("the name {name:?} has {found} bytes, at most {MAX_NAME_BYTES} are allowed")]
    NameTooLong {
        /// The name, with what is not UTF-8 replaced.
        name: String,
        /// Its length.
        found: usize,
    },
    /// `.`, `..`, or a name with `/` or NUL.
    #[error("an entry cannot be named {name:?}")]
    NameForbidden {
        /// The name, with what is not UTF-8 replaced.
        name: String,
    },
    /// A folder that two entries name, or that is its own ancestor.
    #[error("the folder has a second name; only other inodes can be hard links")]
    FolderTwice,
    /// A root that is something else.
    #[error("the root is not a folder")]
    RootNoFolder,
    /// An entry that names an inode that the tree does not have.
    #[error("the entry names inode {id}, which the tree does not have")]
    NoSuchInode {
        /// The id.
        id: u32,
    },
    /// A symlink to nothing, or with NUL in its target.
    #[error("a symlink's target must not be empty or hold NUL")]
    SymlinkForbidden,
    /// A symlink with a long target.
    #[error("the symlink's target has {found} bytes, at most {MAX_SYMLINK_BYTES} are allowed")]
    SymlinkTooLong {
        /// Its length.
        found: usize,
    },
    /// Contents beside the inode that are too long.
    #[error("{found} bytes of content are beside the inode, at most {MAX_INLINE_BYTES} may be")]
    InlineTooLarge {
        /// The length.
        found: u64,
    },
    /// A size of 0 with chunks, or one that the kernel cannot express.
    #[error("a chunked file of {found} bytes is not possible")]
    FileSize {
        /// The size.
        found: u64,
    },
    /// A chunk that is too small or too large.
    #[error("a chunk of 2^{found} bytes is not possible, only 2^12 to 2^43")]
    ChunkSize {
        /// The power of two.
        found: u8,
    },
    /// A chunk array that does not fit the file.
    #[error("the file has {found} chunk addresses, its size needs {expected}")]
    ChunkCount {
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: u64,
    },
    /// A chunk on a device that the image does not have.
    #[error("a chunk lies on device {device}, the image has {devices}")]
    ChunkDevice {
        /// The device, from 0.
        device: u16,
        /// How many there are.
        devices: usize,
    },
    /// A chunk past the end of its device.
    #[error(
        "a chunk begins at block {start_block} and runs past the {blocks} blocks of device {device}"
    )]
    ChunkPastEnd {
        /// The device, from 0.
        device: u16,
        /// Where the chunk begins.
        start_block: u32,
        /// The device's length.
        blocks: u32,
    },
    /// An xattr name of no namespace that EROFS knows.
    #[error(
        "the xattr {name:?} is of no namespace that EROFS can hold: user., trusted., security., system.posix_acl_access, system.posix_acl_default"
    )]
    XattrPrefix {
        /// The name, with what is not UTF-8 replaced.
        name: String,
    },
    /// An xattr name that is only a prefix, has NUL, or is too long.
    #[error(
        "the xattr name {name:?} is empty after its prefix, holds NUL or is longer than {MAX_XATTR_NAME_BYTES} bytes"
    )]
    XattrName {
        /// The name, with what is not UTF-8 replaced.
        name: String,
    },
    /// A long xattr value.
    #[error(
        "the xattr {name:?} has a value of {found} bytes, at most {MAX_XATTR_VALUE_BYTES} are allowed"
    )]
    XattrValueTooLarge {
        /// The name, with what is not UTF-8 replaced.
        name: String,
        /// The value's length.
        found: usize,
    },
    /// Too many xattrs.
    #[error("the inode's xattrs take {found} bytes, at most {MAX_XATTR_BODY_BYTES} are allowed")]
    XattrsTooLarge {
        /// Their length on disk.
        found: u64,
    },
    /// Nanoseconds of a second or more.
    #[error("{found} nanoseconds are a second or more")]
    Nanoseconds {
        /// How many.
        found: u32,
    },
    /// Permission bits that are none.
    #[error("permissions {found:#o} have bits outside of 0o7777")]
    Permissions {
        /// The bits.
        found: u16,
    },
    /// A device number that Linux cannot express.
    #[error("device number {major}:{minor} is past 4095:1048575")]
    DeviceNumber {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
}

/// Why a tree was not written. Nothing is worth a second try but [`WriteError::Output`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// An inode that EROFS cannot hold.
    #[error("{}: {wrong}", String::from_utf8_lossy(path))]
    Inode {
        /// Where it is, from the root: bytes, beginning with `/`.
        path: Vec<u8>,
        /// What is wrong with it.
        wrong: Wrong,
    },
    /// Too many devices.
    #[error("the image has {found} devices, at most {MAX_DEVICES} are allowed")]
    TooManyDevices {
        /// How many there are.
        found: usize,
    },
    /// More than 2^32 blocks of image, or a shared xattr past 16 GiB.
    #[error("the image would be larger than 2^32 blocks of 4096 bytes")]
    ImageTooLarge,
    /// More than a reader with these limits takes. Only [`crate::check`] says so.
    #[error("it has {found} {what}, at most {max} can be read again")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// The output failed.
    #[error("cannot write the image")]
    Output(#[source] io::Error),
}

/// Why an image was not read. The image is damaged, hostile, or uses what uimgacc never writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Not EROFS.
    #[error("not an EROFS image: no superblock at byte 1024")]
    NoSuperblock,
    /// The superblock's checksum is wrong.
    #[error("the superblock's checksum is {found:#010x}, its bytes give {expected:#010x}")]
    Checksum {
        /// As written in the superblock.
        found: u32,
        /// As its bytes give.
        expected: u32,
    },
    /// A feature that this reader does not know.
    #[error("the image uses {what} ({found:#x}), which this reader does not know")]
    Unsupported {
        /// The feature.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// Something lies past the end of the image.
    #[error("{what} at byte {offset}, {length} bytes long, runs past the end of the image")]
    OutOfBounds {
        /// What it is.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// A limit of [`crate::Limits`] is reached.
    #[error("the image holds more than {max} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// An inode that breaks a rule of the format.
    #[error("inode {nid}: {what} is {found}")]
    Malformed {
        /// The inode's number.
        nid: u64,
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// A folder's entries that break a rule of the format.
    #[error("inode {nid}: folder block {block}: {what}")]
    Directory {
        /// The folder's number.
        nid: u64,
        /// Which of its blocks.
        block: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An inode that a [`crate::Tree`] cannot hold.
    #[error("inode {nid}: {wrong}")]
    Inode {
        /// The inode's number.
        nid: u64,
        /// What is wrong with it.
        wrong: Wrong,
    },
}

/// Bytes as text for a message.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const _: () = assert!(MAX_SHARED_XATTRS <= u8::MAX as usize);
