//! Keeping packs few: contents of the least used packs are copied into a new one.
//!
//! Each pack is a device of the mount, so a flattened index refers to
//! [`MAX_PACKS_PER_IMAGE`](uimgacc_types::MAX_PACKS_PER_IMAGE) at most; and the layers that come
//! with it into the store refer to the same ones, so that their prefixes have few as well.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use uimgacc_erofs::tree::{ChunkAddress, ChunkedContents, Contents, Device, Kind, Tree};

use crate::commit::failed;
use crate::dedup::PackRef;
use crate::device::pack_of;
use crate::error::SessionError;
use crate::flatten::{drop_unused_devices, reachable};
use crate::format::BLOCK_BYTES;
use crate::pack::PackWriter;
use crate::session::Session;

/// What names a device in every tree.
type Tag = [u8; 64];

/// The chunks of a file that are no holes, each with its length in bytes.
pub(crate) fn pieces(contents: &ChunkedContents) -> impl Iterator<Item = (ChunkAddress, u64)> + '_ {
    let chunk_bytes = 1u64 << contents.chunk_log2;
    (0u64..)
        .zip(&contents.chunks)
        .filter_map(move |(number, chunk)| {
            let start = number.checked_mul(chunk_bytes)?;
            let len = contents.size_bytes.checked_sub(start)?.min(chunk_bytes);
            chunk.map(|chunk| (chunk, len))
        })
}

/// A stretch of a file as it was written: chunks that follow each other in the file and in the pack.
struct Stretch {
    /// Numbers of the chunks.
    chunks: Range<usize>,
    first: ChunkAddress,
    len_bytes: u64,
}

/// The stretches of a file. Each is one content, and is copied as one, so that its hash stays the same.
fn stretches(contents: &ChunkedContents) -> Vec<Stretch> {
    let chunk_bytes = 1u64 << contents.chunk_log2;
    let blocks = chunk_bytes / BLOCK_BYTES;
    let mut found: Vec<Stretch> = Vec::new();
    let mut pieces = pieces(contents);
    for (number, chunk) in contents.chunks.iter().enumerate() {
        let Some(chunk) = chunk else { continue };
        let Some((_, len_bytes)) = pieces.next() else {
            break;
        };
        match found.last_mut() {
            Some(last)
                if last.chunks.end == number
                    && last.first.device == chunk.device
                    && u64::from(last.first.start_block) + last.chunks.len() as u64 * blocks
                        == u64::from(chunk.start_block) =>
            {
                last.chunks.end += 1;
                last.len_bytes += len_bytes;
            }
            _ => found.push(Stretch {
                chunks: number..number + 1,
                first: *chunk,
                len_bytes,
            }),
        }
    }
    found
}

fn device_of(tree: &Tree, chunk: ChunkAddress) -> Option<&Device> {
    tree.devices.get(usize::from(chunk.device))
}

/// Which devices to copy from so that at most `max` remain, the new pack included: those of
/// packs of the store with the least bytes in use.
fn victims(trees: &[&mut Tree], max: usize) -> HashSet<Tag> {
    let mut used: BTreeMap<Tag, u64> = BTreeMap::new();
    let mut seen = HashSet::new();
    for tree in trees {
        for id in reachable(tree) {
            let Kind::Regular(Contents::Chunks(contents)) = &tree.inode(id).kind else {
                continue;
            };
            for (chunk, len) in pieces(contents) {
                let Some(device) = device_of(tree, chunk) else {
                    continue;
                };
                if seen.insert((device.tag, chunk.start_block)) {
                    *used.entry(device.tag).or_default() += len;
                }
            }
        }
    }
    if used.len() <= max {
        return HashSet::new();
    }
    let excess = used.len() + 1 - max;
    let is_sealed = |tag: &Tag| {
        let device = Device {
            tag: *tag,
            blocks: 0,
        };
        pack_of(&device).is_some()
    };
    let mut candidates: Vec<(u64, Tag)> = used
        .into_iter()
        .filter(|(tag, _)| is_sealed(tag))
        .map(|(tag, bytes)| (bytes, tag))
        .collect();
    candidates.sort_unstable();
    candidates
        .into_iter()
        .take(excess)
        .map(|(_, tag)| tag)
        .collect()
}

/// What was copied so far.
struct Copier<'a> {
    session: &'a Session,
    writer: &'a mut PackWriter,
    victims: HashSet<Tag>,
    open: HashMap<Tag, File>,
    /// Device, first block and length to first block in the writer's pack.
    moved: HashMap<(Tag, u32, u64), u32>,
    copied_bytes: u64,
}

impl Copier<'_> {
    /// Where the piece lies in the writer's pack, copied there if it is not yet; `None` where it
    /// may stay.
    fn place(
        &mut self,
        device: &Device,
        start_block: u32,
        len_bytes: u64,
    ) -> Result<Option<u32>, SessionError> {
        if !self.victims.contains(&device.tag) {
            return Ok(None);
        }
        let key = (device.tag, start_block, len_bytes);
        if let Some(start) = self.moved.get(&key) {
            return Ok(Some(*start));
        }
        let path = self.session.pack_path(device).ok_or(SessionError::NoPack)?;
        let file = match self.open.entry(device.tag) {
            std::collections::hash_map::Entry::Occupied(file) => file.into_mut(),
            std::collections::hash_map::Entry::Vacant(slot) => slot.insert(
                path.open()
                    .map_err(self.session.workspace().failed("open", &path))?,
            ),
        };
        file.seek(SeekFrom::Start(u64::from(start_block) * BLOCK_BYTES))
            .map_err(failed("read", &path))?;
        let placement = self
            .writer
            .copy(&mut file.take(len_bytes), len_bytes)
            .map_err(|source| SessionError::Repack {
                path: path.on_host(),
                source,
            })?;
        self.copied_bytes += len_bytes;
        // The writer holds packs below 2^32 blocks.
        let start = u32::try_from(placement.extent.offset_bytes / BLOCK_BYTES).unwrap_or(u32::MAX);
        self.moved.insert(key, start);
        Ok(Some(start))
    }

    fn apply(&mut self, tree: &mut Tree) -> Result<(), SessionError> {
        let own = self.session.device(PackRef::Open(self.writer.slot));
        let mut own_number = tree.devices.iter().position(|device| device.tag == own.tag);
        for id in reachable(tree) {
            let Kind::Regular(Contents::Chunks(contents)) = &tree.inode(id).kind else {
                continue;
            };
            let blocks = (1u64 << contents.chunk_log2) / BLOCK_BYTES;
            let mut moved = Vec::new();
            for stretch in stretches(contents) {
                let Stretch {
                    chunks,
                    first,
                    len_bytes,
                } = stretch;
                if let Some(device) = device_of(tree, first)
                    && let Some(start) = self.place(device, first.start_block, len_bytes)?
                {
                    moved.push((chunks, start));
                }
            }
            if moved.is_empty() {
                continue;
            }
            let number = *own_number.get_or_insert_with(|| {
                tree.devices.push(own.clone());
                tree.devices.len() - 1
            });
            let device = u16::try_from(number).unwrap_or(u16::MAX);
            if let Kind::Regular(Contents::Chunks(contents)) = &mut tree.inode_mut(id).kind {
                for (chunks, start) in moved {
                    let moved = contents.chunks.get_mut(chunks).into_iter().flatten();
                    for (number, chunk) in (0u64..).zip(moved) {
                        // The writer holds packs below 2^32 blocks.
                        let start_block = u64::from(start) + number * blocks;
                        *chunk = Some(ChunkAddress {
                            device,
                            start_block: u32::try_from(start_block).unwrap_or(u32::MAX),
                        });
                    }
                }
            }
        }
        drop_unused_devices(tree);
        Ok(())
    }
}

impl Session {
    /// Copies contents into `writer` until the trees together refer to `max` packs at most,
    /// counting the writer's. Gives the number of bytes copied.
    ///
    /// # Errors
    /// A pack cannot be read, or the store cannot be written.
    pub fn repack(
        &self,
        trees: &mut [&mut Tree],
        writer: &mut PackWriter,
        max: usize,
    ) -> Result<u64, SessionError> {
        let victims = victims(trees, max);
        if victims.is_empty() {
            return Ok(0);
        }
        let mut copier = Copier {
            session: self,
            writer,
            victims,
            open: HashMap::new(),
            moved: HashMap::new(),
            copied_bytes: 0,
        };
        for tree in trees {
            copier.apply(tree)?;
        }
        Ok(copier.copied_bytes)
    }
}
