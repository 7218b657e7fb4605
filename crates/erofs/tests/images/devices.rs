//! The extra devices of a tree as real files.

use std::fs;
use std::path::{Path, PathBuf};

use uimgacc_erofs::tree::{Contents, Kind, Tree};

pub(crate) const BLOCK_BYTES: usize = 4096;

/// The bytes of device number `device`: no two blocks alike.
pub(crate) fn block(device: u16, block: u32) -> Vec<u8> {
    let seed = format!("device {device} block {block} ");
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    while bytes.len() < BLOCK_BYTES {
        bytes.extend_from_slice(seed.as_bytes());
    }
    bytes.truncate(BLOCK_BYTES);
    bytes
}

/// Writes every device of a tree into a folder.
pub(crate) fn write_all(tree: &Tree, folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (number, device) in (0_u16..).zip(&tree.devices) {
        let bytes: Vec<u8> = (0..device.blocks)
            .flat_map(|index| block(number, index))
            .collect();
        let path = folder.join(format!("device{number}"));
        fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    paths
}

/// What a reader must see in a file, from `offset` on, at most `length` bytes.
pub(crate) fn contents(kind: &Kind, offset: u64, length: usize) -> Vec<u8> {
    match kind {
        Kind::Regular(Contents::Inline(bytes)) => {
            let offset = usize::try_from(offset).unwrap().min(bytes.len());
            bytes[offset..].iter().copied().take(length).collect()
        }
        Kind::Regular(Contents::Chunks(chunks)) => {
            let left = chunks.size_bytes.saturating_sub(offset);
            let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut out = Vec::with_capacity(length);
            while out.len() < length {
                let at = offset + out.len() as u64;
                let chunk = chunks.chunks[usize::try_from(at >> chunks.chunk_log2).unwrap()];
                let in_chunk = at & ((1 << chunks.chunk_log2) - 1);
                let bytes = chunk.map_or_else(
                    || vec![0; BLOCK_BYTES],
                    |address| {
                        let index = u32::try_from(in_chunk / BLOCK_BYTES as u64).unwrap();
                        block(address.device, address.start_block + index)
                    },
                );
                let begin = usize::try_from(in_chunk).unwrap() % BLOCK_BYTES;
                out.extend_from_slice(&bytes[begin..]);
                out.truncate(length);
            }
            out
        }
        _ => Vec::new(),
    }
}
