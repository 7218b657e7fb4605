//! The second pass of the writer: the bytes, in order, once into a hash and once out.
//!
//! Guarantees: the output is only written to, in order, in pieces of some 64 KiB. The image's UUID
//! is a hash over all of it, so overlayfs can tell images apart and still the same tree gives the
//! same bytes.
//!
//! Memory: the tree, some 80 bytes an inode, and the largest folder's bytes.

use std::io::{self, Write};

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};

use crate::directory::{self, Target};
use crate::error::WriteError;
use crate::format::{
    BLOCK_BYTES, BLOCK_BYTES_U64, BLOCK_LOG2, CHUNK_INDEXES, COMPAT_MTIME,
    COMPAT_SUPERBLOCK_CHECKSUM, ChunkIndex, CompactInode, DeviceSlot, ExtendedInode,
    FILE_TYPE_BLOCK, FILE_TYPE_CHARACTER, FILE_TYPE_DIRECTORY, FILE_TYPE_FIFO, FILE_TYPE_REGULAR,
    FILE_TYPE_SOCKET, FILE_TYPE_SYMLINK, FORMAT_EXTENDED, FORMAT_LAYOUT_SHIFT,
    INCOMPAT_CHUNKED_FILE, INCOMPAT_DEVICE_TABLE, LAYOUT_CHUNK_BASED, MAGIC, MODE_BLOCK,
    MODE_CHARACTER, MODE_DIRECTORY, MODE_FIFO, MODE_REGULAR, MODE_SOCKET, MODE_SYMLINK, NULL_BLOCK,
    SUPERBLOCK_OFFSET, Superblock, XATTR_ALIGN, XattrHeader, superblock_checksum,
};
use crate::layout::{CHUNK_ALIGN, Layout, Placed};
use crate::tree::{ChunkedContents, Contents, DeviceNumber, Kind, Tree};
use crate::xattr::Shared;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image.
    pub bytes: u64,
    /// How many inodes it has.
    pub inodes: u64,
}

/// Writes a tree as one image, in order and without seeking. The same tree gives the same bytes.
///
/// # Errors
/// Where EROFS or the kernel cannot hold the tree, with the path; where `out` fails. In the first
/// case nothing has been written.
pub fn write(tree: &Tree, out: &mut impl Write) -> Result<Summary, WriteError> {
    let layout = Layout::new(tree)?;
    let mut hasher = blake3::Hasher::new();
    emit(&layout, [0; 16], &mut hasher).map_err(WriteError::Output)?;
    let bytes = emit(&layout, uuid(&hasher), out).map_err(WriteError::Output)?;
    Ok(Summary {
        bytes,
        inodes: layout.placed.len() as u64,
    })
}

/// A UUID of version 8 (RFC 9562) from a hash.
fn uuid(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut uuid = [0; 16];
    hasher.finalize_xof().fill(&mut uuid);
    uuid[6] = (uuid[6] & 0x0F) | 0x80;
    uuid[8] = (uuid[8] & 0x3F) | 0x80;
    uuid
}

/// Collects bytes and counts them.
struct Sink<'out, W> {
    out: &'out mut W,
    buffer: Vec<u8>,
    flushed_bytes: u64,
}

impl<W: Write> Sink<'_, W> {
    const FLUSH_BYTES: usize = 1 << 16;

    fn position(&self) -> u64 {
        self.flushed_bytes + self.buffer.len() as u64
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.flushed_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Called between items, so a buffer holds at most one item more than its size.
    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= Self::FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Fills up with zeros to a position that is not passed yet.
    fn fill_to(&mut self, position: u64) -> io::Result<()> {
        while self.position() < position {
            let gap = (position - self.position()).min(BLOCK_BYTES_U64);
            let gap = usize::try_from(gap).unwrap_or(BLOCK_BYTES);
            self.buffer.resize(self.buffer.len() + gap, 0);
            self.flush_if_full()?;
        }
        Ok(())
    }

    fn fill_block(&mut self) -> io::Result<()> {
        self.fill_to(self.position().next_multiple_of(BLOCK_BYTES_U64))
    }
}

fn emit(layout: &Layout<'_>, uuid: [u8; 16], out: &mut impl Write) -> io::Result<u64> {
    let mut sink = Sink {
        out,
        buffer: Vec::with_capacity(Sink::<Vec<u8>>::FLUSH_BYTES * 2),
        flushed_bytes: 0,
    };
    push_header(layout, uuid, &mut sink.buffer);
    sink.fill_block()?;

    for &pair in &layout.shared.pairs {
        Shared::push_pair(pair, &mut sink.buffer);
        sink.flush_if_full()?;
    }
    sink.fill_block()?;

    let meta_bytes = sink.position();
    for &place in &layout.by_offset {
        let place = place as usize;
        sink.fill_to(meta_bytes + layout.placed[place].offset)?;
        push_inode(layout, place, &mut sink.buffer);
        sink.flush_if_full()?;
    }
    sink.fill_block()?;

    for (place, placed) in layout.placed.iter().enumerate() {
        if placed.data_blocks() == 0 {
            continue;
        }
        let whole_bytes = placed.size_bytes - placed.inline_bytes();
        with_contents(layout, place, |bytes| {
            let whole = usize::try_from(whole_bytes).unwrap_or(bytes.len());
            sink.buffer
                .extend_from_slice(&bytes[..whole.min(bytes.len())]);
        });
        sink.fill_block()?;
        sink.flush_if_full()?;
    }
    sink.flush()?;
    Ok(sink.position())
}

/// Superblock and device table, from the first byte of the image.
fn push_header(layout: &Layout<'_>, uuid: [u8; 16], out: &mut Vec<u8>) {
    let devices = &layout.tree.devices;
    let chunked = layout
        .placed
        .iter()
        .any(|placed| placed.layout == LAYOUT_CHUNK_BASED);
    let mut incompat = 0;
    if chunked {
        incompat |= INCOMPAT_CHUNKED_FILE;
    }
    if !devices.is_empty() {
        incompat |= INCOMPAT_DEVICE_TABLE;
    }
    let table_slot = (SUPERBLOCK_OFFSET + size_of::<Superblock>()) / size_of::<DeviceSlot>();
    let root_nid = layout.placed.first().map_or(0, Placed::nid);
    let superblock = Superblock {
        magic: U32::new(MAGIC),
        checksum: U32::ZERO,
        feature_compat: U32::new(COMPAT_SUPERBLOCK_CHECKSUM | COMPAT_MTIME),
        block_log2: BLOCK_LOG2,
        extension_slots: 0,
        // The root is placed first, so this is small.
        root_nid: U16::new(u16::try_from(root_nid).unwrap_or(u16::MAX)),
        inodes: U64::new(layout.placed.len() as u64),
        build_seconds: I64::new(layout.build_time.seconds),
        build_nanoseconds: U32::new(layout.build_time.nanoseconds),
        blocks: U32::new(layout.blocks),
        meta_block: U32::new(layout.meta_block),
        xattr_block: U32::new(layout.xattr_block),
        uuid,
        volume_name: [0; 16],
        feature_incompat: U32::new(incompat),
        compression: U16::ZERO,
        // `Layout` has checked their number.
        extra_devices: U16::new(u16::try_from(devices.len()).unwrap_or(u16::MAX)),
        device_table_slot: U16::new(if devices.is_empty() {
            0
        } else {
            u16::try_from(table_slot).unwrap_or(u16::MAX)
        }),
        directory_block_log2: 0,
        xattr_prefixes: 0,
        xattr_prefix_start: U32::ZERO,
        packed_nid: U64::ZERO,
        reserved: [0; 24],
    };
    let begin = out.len();
    out.resize(begin + SUPERBLOCK_OFFSET, 0);
    out.extend_from_slice(superblock.as_bytes());
    for device in devices {
        let slot = DeviceSlot {
            tag: device.tag,
            blocks: U32::new(device.blocks),
            mapped_block: U32::ZERO,
            reserved: [0; 56],
        };
        out.extend_from_slice(slot.as_bytes());
    }
    out.resize(begin + (out.len() - begin).next_multiple_of(BLOCK_BYTES), 0);

    let checked = begin + SUPERBLOCK_OFFSET..begin + BLOCK_BYTES;
    let checksum = superblock_checksum(&out[checked.clone()]).to_le_bytes();
    let field = std::mem::offset_of!(Superblock, checksum);
    out[checked][field..][..checksum.len()].copy_from_slice(&checksum);
}

/// An inode and all that lies beside it.
fn push_inode(layout: &Layout<'_>, place: usize, out: &mut Vec<u8>) {
    let visited = &layout.walk.inodes[place];
    let placed = &layout.placed[place];
    let begin = out.len();
    push_inode_head(layout, place, out);
    layout.shared.push_body(visited.inode, out);
    if let Kind::Regular(Contents::Chunks(contents)) = &visited.inode.kind {
        // Inodes are aligned to 32 bytes, so alignment here is alignment in the image.
        let length = (out.len() - begin).next_multiple_of(CHUNK_ALIGN);
        out.resize(begin + length, 0);
        push_chunks(contents, out);
    } else if placed.inline_bytes() > 0 {
        with_contents(layout, place, |bytes| {
            let inline = usize::try_from(placed.inline_bytes()).unwrap_or(bytes.len());
            out.extend_from_slice(&bytes[bytes.len().saturating_sub(inline)..]);
        });
    }
}

fn push_inode_head(layout: &Layout<'_>, place: usize, out: &mut Vec<u8>) {
    let visited = &layout.walk.inodes[place];
    let placed = &layout.placed[place];
    let inode = visited.inode;
    let (mode_type, _) = kind_numbers(&inode.kind);
    let layout_bits = placed.layout << FORMAT_LAYOUT_SHIFT;
    let xattr_count = xattr_count(placed.xattr_bytes);
    let mode = U16::new(mode_type | inode.permissions);
    let detail = U32::new(detail(&inode.kind, placed));
    let ino = U32::new(u32::try_from(place).map_or(u32::MAX, |place| place.saturating_add(1)));
    if placed.extended {
        let inode = ExtendedInode {
            format: U16::new(layout_bits | FORMAT_EXTENDED),
            xattr_count,
            mode,
            reserved: U16::ZERO,
            size: U64::new(placed.size_bytes),
            detail,
            ino,
            uid: U32::new(inode.uid),
            gid: U32::new(inode.gid),
            mtime_seconds: I64::new(inode.mtime.seconds),
            mtime_nanoseconds: U32::new(inode.mtime.nanoseconds),
            links: U32::new(visited.links),
            reserved2: [0; 16],
        };
        out.extend_from_slice(inode.as_bytes());
    } else {
        // `layout::form` chose the compact form because all of these fit.
        let short = |value: u32| U16::new(u16::try_from(value).unwrap_or(u16::MAX));
        let inode = CompactInode {
            format: U16::new(layout_bits),
            xattr_count,
            mode,
            links: short(visited.links),
            size: U32::new(u32::try_from(placed.size_bytes).unwrap_or(u32::MAX)),
            reserved: U32::ZERO,
            detail,
            ino,
            uid: short(inode.uid),
            gid: short(inode.gid),
            reserved2: U32::ZERO,
        };
        out.extend_from_slice(inode.as_bytes());
    }
}

/// The length of an inode's xattrs as the inode says it.
fn xattr_count(xattr_bytes: u32) -> U16 {
    let count = (xattr_bytes as usize)
        .checked_sub(size_of::<XattrHeader>())
        .map_or(0, |body| body / XATTR_ALIGN + 1);
    // `Shared::body_bytes` has checked the length.
    U16::new(u16::try_from(count).unwrap_or(u16::MAX))
}

fn detail(kind: &Kind, placed: &Placed) -> u32 {
    match kind {
        Kind::CharacterDevice(number) | Kind::BlockDevice(number) => encode_device(*number),
        Kind::Regular(Contents::Chunks(contents)) => {
            CHUNK_INDEXES | u32::from(contents.chunk_log2.saturating_sub(BLOCK_LOG2))
        }
        _ => placed.data_block,
    }
}

/// A device number in the kernel's wide form (`kdev_t.h`, `new_encode_dev`): the low 8 bits of the
/// minor number, 12 bits of the major number, the rest of the minor number.
fn encode_device(number: DeviceNumber) -> u32 {
    (number.minor & 0xFF) | (number.major << 8) | ((number.minor & !0xFF) << 12)
}

fn push_chunks(contents: &ChunkedContents, out: &mut Vec<u8>) {
    for chunk in &contents.chunks {
        let (device_id, start_block) = chunk.map_or((0, NULL_BLOCK), |address| {
            // Device 0 is the image itself.
            (address.device.saturating_add(1), address.start_block)
        });
        let index = ChunkIndex {
            advise: U16::ZERO,
            device_id: U16::new(device_id),
            start_block: U32::new(start_block),
        };
        out.extend_from_slice(index.as_bytes());
    }
}

/// Calls `use_bytes` with the bytes of a folder, a symlink or a file that lie in the image.
fn with_contents(layout: &Layout<'_>, place: usize, use_bytes: impl FnOnce(&[u8])) {
    let visited = &layout.walk.inodes[place];
    match &visited.inode.kind {
        Kind::Directory(entries) => {
            let target = |place: usize| Target {
                nid: layout.placed[place].nid(),
                file_type: kind_numbers(&layout.walk.inodes[place].inode.kind).1,
            };
            let names = entries
                .iter()
                .map(|(name, &id)| (&**name, target(layout.walk.place(id))));
            let parent = target(visited.parent as usize);
            use_bytes(&directory::encode(directory::with_dots(
                names,
                target(place),
                parent,
            )));
        }
        Kind::Regular(Contents::Inline(bytes)) | Kind::Symlink(bytes) => use_bytes(bytes),
        _ => {}
    }
}

/// The type in a mode, and in a folder's entry.
pub(crate) fn kind_numbers(kind: &Kind) -> (u16, u8) {
    match kind {
        Kind::Directory(_) => (MODE_DIRECTORY, FILE_TYPE_DIRECTORY),
        Kind::Regular(_) => (MODE_REGULAR, FILE_TYPE_REGULAR),
        Kind::Symlink(_) => (MODE_SYMLINK, FILE_TYPE_SYMLINK),
        Kind::CharacterDevice(_) => (MODE_CHARACTER, FILE_TYPE_CHARACTER),
        Kind::BlockDevice(_) => (MODE_BLOCK, FILE_TYPE_BLOCK),
        Kind::Fifo => (MODE_FIFO, FILE_TYPE_FIFO),
        Kind::Socket => (MODE_SOCKET, FILE_TYPE_SOCKET),
    }
}
