//! Keeping an image's packs few: contents of the least used packs are copied into a new one.
//!
//! Each pack is a device of the mount, so a flattened index refers to
//! [`MAX_PACKS_PER_IMAGE`](uimgacc_types::MAX_PACKS_PER_IMAGE) at most.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use uimgacc_erofs::tree::{ChunkAddress, ChunkedContents, Contents, InodeId, Kind, Tree};

use crate::commit::failed;
use crate::dedup::PackRef;
use crate::flatten::{drop_unused_devices, reachable};
use crate::format::BLOCK_BYTES;
use crate::pack::PackWriter;
use crate::session::{Session, SessionError, pack_of};

/// A chunk's place and its length in bytes.
type Piece = (ChunkAddress, u64);

/// The chunks of a file that are no holes.
fn pieces(contents: &ChunkedContents) -> impl Iterator<Item = Piece> + '_ {
    let chunk_bytes = 1u64 << contents.chunk_log2;
    (0u64..)
        .zip(&contents.chunks)
        .filter_map(move |(number, chunk)| {
            let start = number.checked_mul(chunk_bytes)?;
            let len = contents.size_bytes.checked_sub(start)?.min(chunk_bytes);
            chunk.map(|chunk| (chunk, len))
        })
}

/// Which devices to copy from so that at most `max` remain, the new pack included: those of
/// packs of the store with the least bytes in use.
fn victims(tree: &Tree, files: &[InodeId], max: usize) -> HashSet<u16> {
    let mut used: BTreeMap<u16, u64> = BTreeMap::new();
    let mut seen = HashSet::new();
    for id in files {
        if let Kind::Regular(Contents::Chunks(contents)) = &tree.inode(*id).kind {
            for (chunk, len) in pieces(contents) {
                if seen.insert(chunk) {
                    *used.entry(chunk.device).or_default() += len;
                }
            }
        }
    }
    if used.len() <= max {
        return HashSet::new();
    }
    let excess = used.len() + 1 - max;
    let mut candidates: Vec<(u64, u16)> = used
        .into_iter()
        .filter(|(device, _)| {
            tree.devices
                .get(usize::from(*device))
                .is_some_and(|device| pack_of(device).is_some())
        })
        .map(|(device, bytes)| (bytes, device))
        .collect();
    candidates.sort_unstable();
    candidates
        .into_iter()
        .take(excess)
        .map(|(_, device)| device)
        .collect()
}

impl Session {
    /// Copies contents into `writer` until the tree refers to `max` packs at most, counting the
    /// writer's. Gives the number of bytes copied.
    ///
    /// # Errors
    /// A pack cannot be read, or the store cannot be written.
    pub fn repack(
        &self,
        tree: &mut Tree,
        writer: &mut PackWriter,
        max: usize,
    ) -> Result<u64, SessionError> {
        let files = reachable(tree);
        let victims = victims(tree, &files, max);
        if victims.is_empty() {
            return Ok(0);
        }
        let own = self.device(PackRef::Open(writer.slot));
        let own_number = match tree.devices.iter().position(|device| device.tag == own.tag) {
            Some(number) => number,
            None => {
                tree.devices.push(own);
                tree.devices.len() - 1
            }
        };
        let own_number = u16::try_from(own_number).unwrap_or(u16::MAX);
        let mut open: HashMap<u16, File> = HashMap::new();
        let mut moved: HashMap<Piece, u32> = HashMap::new();
        let mut copied_bytes = 0;
        for id in files {
            let devices = &tree.devices;
            let mut new_starts = Vec::new();
            if let Kind::Regular(Contents::Chunks(contents)) = &tree.inode(id).kind {
                for piece in pieces(contents).filter(|(chunk, _)| victims.contains(&chunk.device)) {
                    if let std::collections::hash_map::Entry::Vacant(slot) = moved.entry(piece) {
                        let path = devices
                            .get(usize::from(piece.0.device))
                            .and_then(|device| self.pack_path(device))
                            .unwrap_or_default();
                        let file = match open.entry(piece.0.device) {
                            std::collections::hash_map::Entry::Occupied(file) => file.into_mut(),
                            std::collections::hash_map::Entry::Vacant(slot) => {
                                slot.insert(File::open(&path).map_err(failed("open", &path))?)
                            }
                        };
                        file.seek(SeekFrom::Start(
                            u64::from(piece.0.start_block) * BLOCK_BYTES,
                        ))
                        .map_err(failed("read", &path))?;
                        let placement = writer
                            .copy(&mut file.take(piece.1), piece.1)
                            .map_err(|source| SessionError::Repack { path, source })?;
                        copied_bytes += piece.1;
                        // The writer holds packs below 2^32 blocks.
                        slot.insert(
                            u32::try_from(placement.extent.offset_bytes / BLOCK_BYTES)
                                .unwrap_or(u32::MAX),
                        );
                    }
                    new_starts.extend(moved.get(&piece).map(|start| (piece.0, *start)));
                }
            }
            if let Kind::Regular(Contents::Chunks(contents)) = &mut tree.inode_mut(id).kind {
                let mut new_starts = new_starts.into_iter().peekable();
                for chunk in contents.chunks.iter_mut().flatten() {
                    if let Some((_, start_block)) = new_starts.next_if(|(old, _)| old == chunk) {
                        *chunk = ChunkAddress {
                            device: own_number,
                            start_block,
                        };
                    }
                }
            }
        }
        drop_unused_devices(tree);
        Ok(copied_bytes)
    }
}
