//! The packs that an index names, from its first blocks alone.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use uimgacc_erofs::format::{DeviceSlot, MAGIC, SUPERBLOCK_OFFSET, Superblock};
use uimgacc_erofs::tree::Device;
use uimgacc_types::PackId;
use zerocopy::FromBytes as _;

use super::{IndexError, IndexedPack, failed};

/// A block of a pack, as device tables count them.
const BLOCK_BYTES: u64 = 4096;

/// Reads the superblock and the device table of `file`; `path` is for messages.
pub(super) fn read(file: &File, path: &Path) -> Result<Vec<IndexedPack>, IndexError> {
    let damaged = || IndexError::DeviceTable {
        path: path.to_owned(),
    };
    let mut head = [0; size_of::<Superblock>()];
    file.read_exact_at(&mut head, SUPERBLOCK_OFFSET as u64)
        .map_err(failed("read", path))?;
    let head = Superblock::read_from_bytes(&head).map_err(|_| damaged())?;
    if head.magic.get() != MAGIC {
        return Err(damaged());
    }
    let slot_bytes = size_of::<DeviceSlot>();
    let mut table = vec![0; usize::from(head.extra_devices.get()) * slot_bytes];
    let offset = u64::from(head.device_table_slot.get()) * slot_bytes as u64;
    file.read_exact_at(&mut table, offset)
        .map_err(failed("read", path))?;
    table
        .chunks_exact(slot_bytes)
        .map(|slot| {
            let slot = DeviceSlot::read_from_bytes(slot).map_err(|_| damaged())?;
            Ok(IndexedPack {
                id: pack_of_tag(&slot.tag).ok_or_else(damaged)?,
                len_bytes: u64::from(slot.blocks.get()) * BLOCK_BYTES,
            })
        })
        .collect()
}

/// The packs of a tree's devices.
pub(super) fn of_devices(devices: &[Device], path: &Path) -> Result<Vec<PackId>, IndexError> {
    devices
        .iter()
        .map(|device| {
            pack_of_tag(&device.tag).ok_or_else(|| IndexError::DeviceTable {
                path: path.to_owned(),
            })
        })
        .collect()
}

fn pack_of_tag(tag: &[u8; 64]) -> Option<PackId> {
    let text = std::str::from_utf8(tag).ok()?;
    PackId::from_hex(text).ok()
}
