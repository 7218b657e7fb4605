//! The image's frame: superblock, device table, and access to bytes within bounds.

use zerocopy::FromBytes;

use crate::error::ReadError;
use crate::format::{
    BLOCK_BYTES, BLOCK_BYTES_U64, BLOCK_LOG2, COMPAT_SUPERBLOCK_CHECKSUM, DeviceSlot,
    INCOMPAT_CHUNKED_FILE, INCOMPAT_DEVICE_TABLE, INCOMPAT_KNOWN, MAGIC, NID_BYTES,
    SUPERBLOCK_OFFSET, Superblock, superblock_checksum,
};
use crate::tree::{Device, Timestamp};

/// An image whose superblock has been checked.
pub(super) struct Image<'bytes> {
    bytes: &'bytes [u8],
    pub(super) root_nid: u16,
    pub(super) build_time: Timestamp,
    pub(super) devices: Vec<Device>,
    /// Whether the superblock allows chunked inodes.
    pub(super) may_chunk: bool,
    meta_offset: u64,
    xattr_offset: u64,
}

impl<'bytes> Image<'bytes> {
    pub(super) fn new(bytes: &'bytes [u8]) -> Result<Self, ReadError> {
        let checked = bytes
            .get(SUPERBLOCK_OFFSET..BLOCK_BYTES)
            .ok_or(ReadError::NoSuperblock)?;
        let (superblock, _) =
            Superblock::read_from_prefix(checked).map_err(|_| ReadError::NoSuperblock)?;
        if superblock.magic.get() != MAGIC {
            return Err(ReadError::NoSuperblock);
        }
        check_checksum(&superblock, checked)?;
        check_features(&superblock)?;
        let incompat = superblock.feature_incompat.get();
        let mut image = Self {
            bytes,
            root_nid: superblock.root_nid.get(),
            build_time: Timestamp {
                seconds: superblock.build_seconds.get(),
                nanoseconds: superblock.build_nanoseconds.get(),
            },
            devices: Vec::new(),
            may_chunk: incompat & INCOMPAT_CHUNKED_FILE != 0,
            meta_offset: u64::from(superblock.meta_block.get()) * BLOCK_BYTES_U64,
            xattr_offset: u64::from(superblock.xattr_block.get()) * BLOCK_BYTES_U64,
        };
        if incompat & INCOMPAT_DEVICE_TABLE != 0 {
            image.devices = image.device_table(&superblock)?;
        }
        Ok(image)
    }

    fn device_table(&self, superblock: &Superblock) -> Result<Vec<Device>, ReadError> {
        let slot_bytes = size_of::<DeviceSlot>() as u64;
        let offset = u64::from(superblock.device_table_slot.get()) * slot_bytes;
        let length = u64::from(superblock.extra_devices.get()) * slot_bytes;
        let table = self.slice("the device table", offset, length)?;
        let slots = table.chunks_exact(size_of::<DeviceSlot>());
        let slots = slots.filter_map(|slot| DeviceSlot::read_from_bytes(slot).ok());
        Ok(slots
            .map(|slot| Device {
                tag: slot.tag,
                blocks: slot.blocks.get(),
            })
            .collect())
    }

    /// Bytes of the image.
    pub(super) fn slice(
        &self,
        what: &'static str,
        offset: u64,
        length: u64,
    ) -> Result<&'bytes [u8], ReadError> {
        let end = offset.checked_add(length);
        let range = usize::try_from(offset)
            .ok()
            .zip(end.and_then(|end| end.try_into().ok()));
        range
            .and_then(|(begin, end): (usize, usize)| self.bytes.get(begin..end))
            .ok_or(ReadError::OutOfBounds {
                what,
                offset,
                length,
            })
    }

    /// Bytes from `offset` to the end of the image, or none.
    pub(super) fn rest(&self, offset: u64) -> &'bytes [u8] {
        let offset = usize::try_from(offset).ok();
        offset
            .and_then(|offset| self.bytes.get(offset..))
            .unwrap_or_default()
    }

    /// Where an inode begins.
    pub(super) fn inode_offset(&self, nid: u64) -> Result<u64, ReadError> {
        let offset = nid.checked_mul(NID_BYTES);
        let offset = offset.and_then(|offset| offset.checked_add(self.meta_offset));
        offset.ok_or(ReadError::Malformed {
            nid,
            what: "its number",
            found: nid,
        })
    }

    /// Where a shared xattr begins. Ids have 32 bits, so this does not overflow.
    pub(super) fn shared_xattr_offset(&self, id: u32) -> u64 {
        self.xattr_offset + u64::from(id) * 4
    }
}

fn check_checksum(superblock: &Superblock, checked: &[u8]) -> Result<(), ReadError> {
    if superblock.feature_compat.get() & COMPAT_SUPERBLOCK_CHECKSUM == 0 {
        return Ok(());
    }
    let mut block = checked.to_vec();
    let field = std::mem::offset_of!(Superblock, checksum);
    block[field..field + 4].fill(0);
    let expected = superblock_checksum(&block);
    let found = superblock.checksum.get();
    if found != expected {
        return Err(ReadError::Checksum { found, expected });
    }
    Ok(())
}

fn check_features(superblock: &Superblock) -> Result<(), ReadError> {
    let unknown = superblock.feature_incompat.get() & !INCOMPAT_KNOWN;
    for (what, found, wanted) in [
        ("unknown incompatible features", u64::from(unknown), 0),
        (
            "a block of a power of two",
            superblock.block_log2.into(),
            u64::from(BLOCK_LOG2),
        ),
        (
            "folder blocks of another size",
            superblock.directory_block_log2.into(),
            0,
        ),
        ("long xattr prefixes", superblock.xattr_prefixes.into(), 0),
    ] {
        if found != wanted {
            return Err(ReadError::Unsupported { what, found });
        }
    }
    Ok(())
}
