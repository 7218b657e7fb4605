//! Contents of regular files: inline where small, else to the sink, holes left out.

use std::io::{self, Read};

use uimgacc_erofs::tree::{ChunkAddress, ChunkedContents, Contents, Device};
use uimgacc_store::PutError;
use uimgacc_types::Extent;

use super::budget::CHUNK_BYTES;
use super::{Layer, LayerError, refused};
use crate::tar::{Entry, Segment, TarReader};

/// Contents up to this length stand in the indexes, beside their inodes: each costs less there
/// than a block of a pack and a round trip to it.
const INLINE_BYTES: u64 = 512;
const BLOCK_LOG2: u8 = 12;
/// Largest chunk that EROFS can say (`EROFS_CHUNK_FORMAT_BLKBITS_MASK`): 31 bits of blocks.
const MAX_CHUNK_LOG2: u8 = BLOCK_LOG2 + 31;
/// A sparse file costs 8 bytes of index a chunk and whole chunks of pack; more than that is no
/// file but an attack.
const MAX_SPARSE_COST_BYTES: u64 = 16 << 30;
const MAX_CHUNKS: u64 = 8 << 20;

/// Where a content went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The pack.
    pub device: Device,
    /// The stretch of it.
    pub extent: Extent,
}

/// Takes contents.
pub trait ContentSink {
    /// Stores the next `len_bytes` (not 0) of `source`.
    ///
    /// # Errors
    /// The source's or the store's.
    fn put(&mut self, source: &mut dyn Read, len_bytes: u64) -> Result<Placed, PutError>;
}

impl Layer {
    pub(super) fn take_content<R: Read>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R>,
        sink: &mut dyn ContentSink,
    ) -> Result<Contents, LayerError> {
        let failed = |source| LayerError::Content {
            path: String::from_utf8_lossy(&entry.name).into_owned(),
            source,
        };
        let size_bytes = entry.size_bytes;
        let whole = [Segment {
            offset_bytes: 0,
            len_bytes: size_bytes,
        }];
        let segments = entry.sparse.as_deref().unwrap_or(&whole);
        if size_bytes <= INLINE_BYTES {
            self.charge(&entry.name, size_bytes)?;
            let mut bytes = Vec::new();
            Filled::new(tar, segments, 0)
                .take(size_bytes)
                .read_to_end(&mut bytes)
                .map_err(|error| failed(PutError::Source(error)))?;
            let missing = size_bytes - bytes.len() as u64;
            if missing > 0 {
                return Err(failed(PutError::Short { missing }));
            }
            return Ok(Contents::Inline(bytes.into()));
        }
        if size_bytes > 1 << MAX_CHUNK_LOG2 {
            return Err(refused(
                &entry.name,
                format!("a file of {size_bytes} bytes"),
            ));
        }
        let chunk_log2 = match &entry.sparse {
            None => whole_file_chunk(size_bytes),
            Some(segments) => sparse_chunk(size_bytes, segments)
                .ok_or_else(|| refused(&entry.name, "a sparse file with too many pieces"))?,
        };
        let chunk_bytes = 1u64 << chunk_log2;
        let count = usize::try_from(size_bytes.div_ceil(chunk_bytes)).unwrap_or(usize::MAX);
        self.charge(&entry.name, CHUNK_BYTES.saturating_mul(count as u64))?;
        let mut chunks = vec![None; count];
        for run in runs(size_bytes, chunk_log2, segments) {
            let start = run.start * chunk_bytes;
            let len_bytes = (run.end * chunk_bytes).min(size_bytes) - start;
            self.stored_bytes = self.stored_bytes.saturating_add(len_bytes);
            if self.stored_bytes > self.limits.stored_bytes {
                return Err(LayerError::TooMuchContent {
                    max_bytes: self.limits.stored_bytes,
                    path: String::from_utf8_lossy(&entry.name).into_owned(),
                });
            }
            let mut source = Filled::new(tar, run.segments, start).take(len_bytes);
            let placed = sink.put(&mut source, len_bytes).map_err(failed)?;
            let device = self.device(placed.device).ok_or(LayerError::TooMany)?;
            let first = placed.extent.offset_bytes >> BLOCK_LOG2;
            for number in run.start..run.end {
                let block = first + ((number - run.start) << (chunk_log2 - BLOCK_LOG2));
                let slot = usize::try_from(number)
                    .ok()
                    .and_then(|number| chunks.get_mut(number));
                if let (Some(slot), Ok(start_block)) = (slot, u32::try_from(block)) {
                    *slot = Some(ChunkAddress {
                        device,
                        start_block,
                    });
                }
            }
        }
        Ok(Contents::Chunks(ChunkedContents {
            size_bytes,
            chunk_log2,
            chunks,
        }))
    }

    /// The number of a device in this layer's tree.
    fn device(&mut self, device: Device) -> Option<u16> {
        if let Some(number) = self.devices.get(&device.tag) {
            return Some(*number);
        }
        let number = u16::try_from(self.tree.devices.len()).ok()?;
        self.devices.insert(device.tag, number);
        self.tree.devices.push(device);
        Some(number)
    }
}

/// The smallest chunk that holds a whole file: one chunk index an extent.
fn whole_file_chunk(size_bytes: u64) -> u8 {
    (BLOCK_LOG2..MAX_CHUNK_LOG2)
        .find(|log2| size_bytes <= 1 << log2)
        .unwrap_or(MAX_CHUNK_LOG2)
}

/// The chunk with the least cost in index and pack; `None` where each costs too much.
fn sparse_chunk(size_bytes: u64, segments: &[Segment]) -> Option<u8> {
    let cost = |log2: u8| {
        let chunks = size_bytes.div_ceil(1 << log2);
        let stored: u64 = runs(size_bytes, log2, segments)
            .map(|run| (run.end - run.start) << log2)
            .sum();
        (chunks <= MAX_CHUNKS).then_some(stored.saturating_add(8 * chunks))
    };
    // Real data may be large: only what comes on top of it is bounded.
    let data: u64 = segments.iter().map(|segment| segment.len_bytes).sum();
    (BLOCK_LOG2..=whole_file_chunk(size_bytes))
        .filter_map(|log2| Some((cost(log2)?, log2)))
        .min()
        .filter(|(cost, _)| *cost <= data.saturating_mul(2).saturating_add(MAX_SPARSE_COST_BYTES))
        .map(|(_, log2)| log2)
}

/// Neighbouring chunks that hold data.
struct Run<'a> {
    /// Number of the first chunk.
    start: u64,
    /// Number of the chunk after the last.
    end: u64,
    /// The segments in them.
    segments: &'a [Segment],
}

/// The runs of chunks that hold data, in order. No segment may be empty.
fn runs(size_bytes: u64, chunk_log2: u8, segments: &[Segment]) -> impl Iterator<Item = Run<'_>> {
    let mut rest = segments;
    let last_chunk = size_bytes.div_ceil(1 << chunk_log2);
    let span = move |segment: &Segment| {
        let end = segment.offset_bytes + segment.len_bytes;
        (
            segment.offset_bytes >> chunk_log2,
            end.div_ceil(1 << chunk_log2).min(last_chunk),
        )
    };
    std::iter::from_fn(move || {
        let (start, mut end) = span(rest.first()?);
        let mut count = 1;
        while let Some(next) = rest.get(count) {
            let (next_start, next_end) = span(next);
            if next_start > end {
                break;
            }
            end = end.max(next_end);
            count += 1;
        }
        let (segments, others) = rest.split_at(count);
        rest = others;
        Some(Run {
            start,
            end,
            segments,
        })
    })
}

/// Data of segments with zeros in between, from some place of the file on, without end.
struct Filled<'a, R> {
    data: &'a mut R,
    segments: &'a [Segment],
    at: u64,
}

impl<'a, R: Read> Filled<'a, R> {
    fn new(data: &'a mut R, segments: &'a [Segment], at: u64) -> Self {
        Self { data, segments, at }
    }
}

impl<R: Read> Read for Filled<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((first, rest)) = self.segments.split_first()
            && first.offset_bytes + first.len_bytes <= self.at
        {
            self.segments = rest;
        }
        let room = buffer.len() as u64;
        let (is_data, len) = match self.segments.first() {
            Some(next) if next.offset_bytes <= self.at => {
                (true, room.min(next.offset_bytes + next.len_bytes - self.at))
            }
            Some(next) => (false, room.min(next.offset_bytes - self.at)),
            None => (false, room),
        };
        let part = buffer
            .get_mut(..usize::try_from(len).unwrap_or_default())
            .unwrap_or_default();
        let count = if is_data {
            self.data.read(part)?
        } else {
            part.fill(0);
            part.len()
        };
        self.at += count as u64;
        Ok(count)
    }
}
