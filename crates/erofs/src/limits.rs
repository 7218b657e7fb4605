//! The sizes that the format and the kernel allow, and what a reader may spend on an image that
//! it does not trust.

/// The largest content that an inode may keep beside itself, in bytes.
pub const MAX_INLINE_BYTES: usize = 2048;

/// The longest name of a folder's entry, in bytes (`EROFS_NAME_LEN`).
pub const MAX_NAME_BYTES: usize = 255;

/// The longest target of a symlink, in bytes (`PATH_MAX` without its NUL).
pub const MAX_SYMLINK_BYTES: usize = 4095;

/// The longest full name of an xattr, in bytes (`XATTR_NAME_MAX`).
pub const MAX_XATTR_NAME_BYTES: usize = 255;

/// The longest value of an xattr, in bytes: what `e_value_size` can say.
pub const MAX_XATTR_VALUE_BYTES: usize = 65_535;

/// All xattrs of one inode, in bytes: what `i_xattr_icount` can say.
pub const MAX_XATTR_BODY_BYTES: u64 = 12 + 4 * (65_535 - 1);

/// How many shared xattrs one inode may name (`h_shared_count`).
pub const MAX_SHARED_XATTRS: usize = 255;

/// The most devices that an image may name: their ids begin at 1 and have 16 bits.
pub const MAX_DEVICES: usize = 65_535;

/// The largest file, in bytes: the kernel's sizes are signed.
pub const MAX_FILE_BYTES: u64 = i64::MAX.unsigned_abs();

/// The smallest and the largest chunk, as a power of two.
pub const CHUNK_LOG2: std::ops::RangeInclusive<u8> = 12..=43;

/// The major number of a device has 12 bits, the minor 20 (kernel: `kdev_t.h`).
pub const MAX_MAJOR: u32 = (1 << 12) - 1;
/// See [`MAX_MAJOR`].
pub const MAX_MINOR: u32 = (1 << 20) - 1;

/// What [`crate::read`] may spend on one image. An image past a limit is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Inodes, each with its hard links counted once.
    pub max_inodes: u32,
    /// Names in all folders together.
    pub max_names: u32,
    /// Names, contents, targets, xattrs and chunk addresses together, in bytes.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// Room for an image of ten million files: more than any registry holds.
    fn default() -> Self {
        Self {
            max_inodes: 10_000_000,
            max_names: 20_000_000,
            max_bytes: 4 << 30,
        }
    }
}
