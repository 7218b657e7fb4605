//! EROFS as it lies on disk (kernel: `fs/erofs/erofs_fs.h`, the parts that uimgacc uses). Data
//! only, little-endian, without padding. The comment of a struct or field that has another name in
//! the kernel ends with that name, as in Linux 6.6.

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A block is `1 << BLOCK_LOG2` bytes: the one size that every kernel can mount.
pub const BLOCK_LOG2: u8 = 12;
/// A block in bytes.
pub const BLOCK_BYTES: usize = 1 << BLOCK_LOG2;
/// A block in bytes, as a file offset.
pub const BLOCK_BYTES_U64: u64 = 1 << BLOCK_LOG2;

/// Where the superblock lies, in bytes.
pub const SUPERBLOCK_OFFSET: usize = 1024;
/// The first field of the superblock.
pub const MAGIC: u32 = 0xE0F5_E1E2;

/// The superblock has a checksum.
pub const COMPAT_SUPERBLOCK_CHECKSUM: u32 = 0x1;
/// Times are those of the last change of the content, not of the inode.
pub const COMPAT_MTIME: u32 = 0x2;

/// Some inode is [`LAYOUT_CHUNK_BASED`] (Linux 5.15).
pub const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
/// There is a device table (Linux 5.16).
pub const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
/// What [`crate::read`] understands.
pub const INCOMPAT_KNOWN: u32 = INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE;

/// The superblock. `erofs_super_block`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Superblock {
    /// [`MAGIC`].
    pub magic: U32,
    /// CRC-32C without the last inversion, from here to the end of the block, this field being 0.
    pub checksum: U32,
    /// `COMPAT_` flags.
    pub feature_compat: U32,
    /// [`BLOCK_LOG2`]. `blkszbits`.
    pub block_log2: u8,
    /// Superblock bytes after these 128, in 16s. `sb_extslots`.
    pub extension_slots: u8,
    /// The root folder.
    pub root_nid: U16,

    /// How many inodes there are. `inos`.
    pub inodes: U64,
    /// Seconds since 1970 of every compact inode. `build_time`.
    pub build_seconds: I64,

    /// Nanoseconds of every compact inode. `build_time_nsec`.
    pub build_nanoseconds: U32,
    /// Length of the image in blocks, without the extra devices.
    pub blocks: U32,
    /// First block of the inodes. `meta_blkaddr`.
    pub meta_block: U32,
    /// First block of the shared xattrs. `xattr_blkaddr`.
    pub xattr_block: U32,

    /// Any 16 bytes.
    pub uuid: [u8; 16],

    /// Text, ended by NUL.
    pub volume_name: [u8; 16],

    /// `INCOMPAT_` flags.
    pub feature_incompat: U32,
    /// For compressed images. `u1`.
    pub compression: U16,
    /// Length of the device table.
    pub extra_devices: U16,
    /// Where the device table begins, in units of [`DeviceSlot`]. `devt_slotoff`.
    pub device_table_slot: U16,
    /// A directory's block in blocks, as a power of two: 0. `dirblkbits`.
    pub directory_block_log2: u8,
    /// Long xattr prefixes: 0. `xattr_prefix_count`.
    pub xattr_prefixes: u8,
    /// Long xattr prefixes: 0.
    pub xattr_prefix_start: U32,

    /// For packed fragments: 0.
    pub packed_nid: U64,
    /// For xattr filters and later extensions: 0. `xattr_filter_reserved` and `reserved2`.
    pub reserved: [u8; 24],
}

/// One entry of the device table. `erofs_deviceslot`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DeviceSlot {
    /// Text.
    pub tag: [u8; 64],

    /// Length of the device in blocks.
    pub blocks: U32,
    /// Where the device lies in the unified block space; 0: nowhere. `mapped_blkaddr`.
    pub mapped_block: U32,
    /// 0.
    pub reserved: [u8; 56],
}

/// An inode number counts these many bytes from the first block of the inodes.
pub const NID_BYTES: u64 = 32;

/// Bit 0 of `format`: the inode is an [`ExtendedInode`].
pub const FORMAT_EXTENDED: u16 = 0x1;
/// The lowest bit of the layout in `format`.
pub const FORMAT_LAYOUT_SHIFT: u16 = 1;
/// All bits of `format`.
pub const FORMAT_ALL: u16 = 0xF;

/// Contents lie in whole blocks from `detail` on.
pub const LAYOUT_FLAT_PLAIN: u16 = 0;
/// The same, but the last, partial block lies right after the inode and its xattrs.
pub const LAYOUT_FLAT_INLINE: u16 = 2;
/// Chunk addresses follow the inode and its xattrs, aligned to 8 bytes.
pub const LAYOUT_CHUNK_BASED: u16 = 4;

/// In a chunked inode's `detail`: the chunk in blocks, as a power of two.
pub const CHUNK_BLOCKS_LOG2_MASK: u32 = 0x1F;
/// In a chunked inode's `detail`: addresses are [`ChunkIndex`], not bare block numbers.
pub const CHUNK_INDEXES: u32 = 0x20;
/// The block number of a hole.
pub const NULL_BLOCK: u32 = u32::MAX;

/// The short inode: ids of 16 bits, size of 32 bits, the superblock's time. `erofs_inode_compact`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CompactInode {
    /// `FORMAT_` bits and the layout. `i_format`.
    pub format: U16,
    /// 0, or xattr bytes past the header, in 4s, plus 1. `i_xattr_icount`.
    pub xattr_count: U16,
    /// Type and permissions as in `stat`. `i_mode`.
    pub mode: U16,
    /// Names of the inode. `i_nlink`.
    pub links: U16,
    /// Length of the contents in bytes. `i_size`.
    pub size: U32,
    /// 0. `i_reserved`.
    pub reserved: U32,

    /// First block, device number or chunk format. `i_u`.
    pub detail: U32,
    /// A number for 32-bit `stat`. `i_ino`.
    pub ino: U32,
    /// Owner. `i_uid`.
    pub uid: U16,
    /// Group. `i_gid`.
    pub gid: U16,
    /// 0. `i_reserved2`.
    pub reserved2: U32,
}

/// The long inode. `erofs_inode_extended`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ExtendedInode {
    /// `FORMAT_` bits and the layout. `i_format`.
    pub format: U16,
    /// 0, or xattr bytes past the header, in 4s, plus 1. `i_xattr_icount`.
    pub xattr_count: U16,
    /// Type and permissions as in `stat`. `i_mode`.
    pub mode: U16,
    /// 0. `i_reserved`.
    pub reserved: U16,
    /// Length of the contents in bytes. `i_size`.
    pub size: U64,

    /// First block, device number or chunk format. `i_u`.
    pub detail: U32,
    /// A number for 32-bit `stat`. `i_ino`.
    pub ino: U32,
    /// Owner. `i_uid`.
    pub uid: U32,
    /// Group. `i_gid`.
    pub gid: U32,

    /// Seconds since 1970. `i_mtime`.
    pub mtime_seconds: I64,
    /// Nanoseconds after that. `i_mtime_nsec`.
    pub mtime_nanoseconds: U32,
    /// Names of the inode. `i_nlink`.
    pub links: U32,

    /// 0. `i_reserved2`.
    pub reserved2: [u8; 16],
}

/// Where a chunk lies. `erofs_inode_chunk_index`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ChunkIndex {
    /// 0.
    pub advise: U16,
    /// 0 is the image itself, then come the devices of the table.
    pub device_id: U16,
    /// First block, or [`NULL_BLOCK`]. `blkaddr`.
    pub start_block: U32,
}

/// A directory's entry. Names follow the entries of their block. `erofs_dirent`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DirectoryEntry {
    /// Which inode.
    pub nid: U64,
    /// Where the name begins in its block. `nameoff`.
    pub name_offset: U16,
    /// `FILE_TYPE_` of the inode.
    pub file_type: u8,
    /// 0.
    pub reserved: u8,
}

/// What begins an inode's xattrs: then come the ids of shared ones, then inline entries.
/// `erofs_xattr_ibody_header`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct XattrHeader {
    /// Only meant with a flag that we do not set: 0. `h_name_filter`.
    pub name_filter: U32,
    /// How many shared ids follow. `h_shared_count`.
    pub shared_count: u8,
    /// 0. `h_reserved2`.
    pub reserved: [u8; 7],
}

/// An xattr, inline or shared: name and value follow, filled up to 4 bytes. `erofs_xattr_entry`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct XattrEntry {
    /// Length of the name without its prefix. `e_name_len`.
    pub name_bytes: u8,
    /// Which prefix. `e_name_index`.
    pub prefix: u8,
    /// Length of the value. `e_value_size`.
    pub value_bytes: U16,
}

/// Xattrs are aligned to this.
pub const XATTR_ALIGN: usize = 4;

/// `FILE_TYPE_` and `MODE_` values by type (kernel: `fs_types.h`, `stat.h`).
pub const FILE_TYPE_REGULAR: u8 = 1;
/// A folder.
pub const FILE_TYPE_DIRECTORY: u8 = 2;
/// A character device.
pub const FILE_TYPE_CHARACTER: u8 = 3;
/// A block device.
pub const FILE_TYPE_BLOCK: u8 = 4;
/// A named pipe.
pub const FILE_TYPE_FIFO: u8 = 5;
/// A socket.
pub const FILE_TYPE_SOCKET: u8 = 6;
/// A symlink.
pub const FILE_TYPE_SYMLINK: u8 = 7;

/// The bits of the type in a mode.
pub const MODE_TYPE_MASK: u16 = 0o170_000;
/// The bits of a mode that are not its type.
pub const MODE_PERMISSIONS_MASK: u16 = 0o7777;
/// A regular file.
pub const MODE_REGULAR: u16 = 0o100_000;
/// A folder.
pub const MODE_DIRECTORY: u16 = 0o040_000;
/// A character device.
pub const MODE_CHARACTER: u16 = 0o020_000;
/// A block device.
pub const MODE_BLOCK: u16 = 0o060_000;
/// A named pipe.
pub const MODE_FIFO: u16 = 0o010_000;
/// A socket.
pub const MODE_SOCKET: u16 = 0o140_000;
/// A symlink.
pub const MODE_SYMLINK: u16 = 0o120_000;

const _: () = assert!(size_of::<Superblock>() == 128);
const _: () = assert!(std::mem::offset_of!(Superblock, uuid) == 48);
const _: () = assert!(std::mem::offset_of!(Superblock, feature_incompat) == 80);
const _: () = assert!(size_of::<DeviceSlot>() == 128);
const _: () = assert!(size_of::<CompactInode>() == 32);
const _: () = assert!(size_of::<ExtendedInode>() == 64);
const _: () = assert!(size_of::<ChunkIndex>() == 8);
const _: () = assert!(size_of::<DirectoryEntry>() == 12);
const _: () = assert!(size_of::<XattrHeader>() == 12);
const _: () = assert!(size_of::<XattrEntry>() == 4);

/// The superblock's checksum over `SUPERBLOCK_OFFSET..BLOCK_BYTES` of the image, the checksum
/// field being 0. The kernel leaves out CRC-32C's last inversion.
#[must_use]
pub fn superblock_checksum(first_block_rest: &[u8]) -> u32 {
    !crc32c::crc32c(first_block_rest)
}
