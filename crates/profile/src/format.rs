//! A profile as data, to bytes and back.

use std::io::Read as _;

use serde::{Deserialize, Serialize};
use uimgacc_types::{ChainId, ContentHash};

/// The only version so far.
pub const VERSION: u32 = 1;
/// Length of a page in bytes. Kernels with larger pages round outwards.
pub const PAGE_BYTES: u64 = 4096;
/// No profile has more runs, all files together.
pub const MAX_RUNS: usize = 65_536;
/// No profile has more bytes in its runs.
pub const MAX_BYTES: u64 = 1 << 30;
/// No profile is longer once it is compressed: more than 65,536 runs of as many files take.
pub const MAX_ENCODED_BYTES: u64 = 4 << 20;

/// No profile is longer before.
const MAX_TEXT_BYTES: u64 = 32 << 20;
/// `PATH_MAX`.
const MAX_PATH_BYTES: usize = 4096;
const MAX_NOTE_BYTES: usize = 4096;
const LEVEL: i32 = 9;

/// Why bytes are no profile.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not zstd, or damaged.
    #[error("it is not compressed by zstd")]
    Compression(#[source] std::io::Error),
    /// Too long.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
    /// No JSON of this shape.
    #[error("it is not a profile")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("it has version {0}, this program understands {VERSION}")]
    Version(u32),
    /// Beyond a bound, or impossible.
    #[error("{0}")]
    Bounds(String),
}

/// What starts of an image read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// [`VERSION`].
    pub version: u32,
    /// The top chain of the image.
    pub chain_id: ChainId,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// When the newest of its starts was recorded, RFC 3339.
    pub recorded: String,
    /// Which start was recorded last, in words: a command, a node, a file.
    pub origin: String,
    /// The read-ahead in KiB at which it was recorded: the larger, the more was read around what was
    /// touched.
    pub read_ahead_kb: u32,
    /// How many starts it merges.
    pub starts: u32,
    /// What they read: first what most of them read, then by first open.
    pub files: Vec<FileReads>,
}

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileReads {
    /// From the root of the image, without a slash in front, without symbolic links.
    pub path: String,
    /// BLAKE3 of the whole file, where it is known: an image that has the same file may use this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentHash>,
    /// How many of the starts read it.
    pub starts: u32,
    /// The pages, ascending and apart.
    pub runs: Vec<Run>,
}

/// Pages that follow each other: the first one and how many, in pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct Run {
    /// Number of the first page.
    pub first: u32,
    /// How many.
    pub pages: u32,
}

impl From<(u32, u32)> for Run {
    fn from((first, pages): (u32, u32)) -> Self {
        Self { first, pages }
    }
}

impl From<Run> for (u32, u32) {
    fn from(run: Run) -> Self {
        (run.first, run.pages)
    }
}

impl Run {
    /// The page after the last.
    #[must_use]
    pub fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.pages)
    }

    /// Where it starts in the file.
    #[must_use]
    pub fn offset_bytes(self) -> u64 {
        u64::from(self.first) * PAGE_BYTES
    }

    /// Its length.
    #[must_use]
    pub fn len_bytes(self) -> u64 {
        u64::from(self.pages) * PAGE_BYTES
    }

    /// Drops the pages that a file of that length does not have; says whether any is left.
    pub fn cut(&mut self, file_bytes: u64) -> bool {
        let end = self.end().min(file_bytes.div_ceil(PAGE_BYTES));
        let pages = end.saturating_sub(u64::from(self.first));
        self.pages = u32::try_from(pages).unwrap_or(self.pages);
        self.pages > 0
    }
}

impl FileReads {
    /// Length of all runs.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.len_bytes()).sum()
    }
}

impl Profile {
    /// Length of all runs in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.files.iter().map(FileReads::len_bytes).sum()
    }

    /// How many runs there are.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.files.iter().map(|file| file.runs.len()).sum()
    }

    /// Drops what is beyond the bounds: of what is read by the fewest starts, the last.
    #[must_use]
    pub fn within_bounds(self) -> Self {
        Self {
            files: within_bounds(self.files),
            ..self
        }
    }

    /// As it is stored: JSON, compressed by zstd.
    ///
    /// # Errors
    /// A bound is passed: see [`Self::within_bounds`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        self.check()?;
        compress(self, MAX_ENCODED_BYTES)
    }

    /// Reads what [`Self::encode`] made, or somebody else did.
    ///
    /// # Errors
    /// See [`DecodeError`]. Takes 32 MiB of memory at most for the text, whatever the bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_json(&decompress(bytes, MAX_ENCODED_BYTES)?)
    }

    /// Reads a profile that is not compressed.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn from_json(text: &[u8]) -> Result<Self, DecodeError> {
        if text.len() as u64 > MAX_TEXT_BYTES {
            return Err(DecodeError::TooLong(MAX_TEXT_BYTES));
        }
        let profile: Self = serde_json::from_slice(text)?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), DecodeError> {
        check(
            self.version,
            &[&self.platform, &self.recorded, &self.origin],
            &self.files,
        )
    }
}

/// Drops the last files and runs that are beyond the bounds.
pub(crate) fn within_bounds(mut files: Vec<FileReads>) -> Vec<FileReads> {
    let (mut runs, mut bytes) = (MAX_RUNS, MAX_BYTES);
    let mut is_full = false;
    files.retain_mut(|file| {
        file.runs.retain(|run| {
            is_full = is_full || runs == 0 || run.len_bytes() > bytes;
            if !is_full {
                runs -= 1;
                bytes -= run.len_bytes();
            }
            !is_full
        });
        !file.runs.is_empty()
    });
    files
}

/// JSON, compressed by zstd.
pub(crate) fn compress(data: &impl Serialize, max_bytes: u64) -> Result<Vec<u8>, DecodeError> {
    let text = serde_json::to_vec(data)?;
    let bytes = zstd::encode_all(text.as_slice(), LEVEL).map_err(DecodeError::Compression)?;
    if bytes.len() as u64 > max_bytes {
        return Err(DecodeError::TooLong(max_bytes));
    }
    Ok(bytes)
}

/// What [`compress`] was given, as JSON.
pub(crate) fn decompress(bytes: &[u8], max_bytes: u64) -> Result<Vec<u8>, DecodeError> {
    if bytes.len() as u64 > max_bytes {
        return Err(DecodeError::TooLong(max_bytes));
    }
    let mut text = Vec::new();
    zstd::Decoder::with_buffer(bytes)
        .map_err(DecodeError::Compression)?
        .take(MAX_TEXT_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(DecodeError::Compression)?;
    if text.len() as u64 > MAX_TEXT_BYTES {
        return Err(DecodeError::TooLong(MAX_TEXT_BYTES));
    }
    Ok(text)
}

/// Checks what profiles and records have in common.
pub(crate) fn check(
    version: u32,
    notes: &[&String],
    files: &[FileReads],
) -> Result<(), DecodeError> {
    let wrong = |text: String| Err(DecodeError::Bounds(text));
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    if files.iter().map(|file| file.runs.len()).sum::<usize>() > MAX_RUNS {
        return wrong(format!("it has more than {MAX_RUNS} runs"));
    }
    if files.iter().map(FileReads::len_bytes).sum::<u64>() > MAX_BYTES {
        return wrong(format!("its runs have more than {MAX_BYTES} bytes"));
    }
    if notes.iter().any(|note| note.len() > MAX_NOTE_BYTES) {
        return wrong(format!(
            "a text in it is longer than {MAX_NOTE_BYTES} bytes"
        ));
    }
    for file in files {
        if !is_below_root(&file.path) {
            return wrong(format!("{:?} is not a path inside an image", file.path));
        }
        if !are_apart(&file.runs) {
            return wrong(format!(
                "the runs of {:?} are empty or not ascending",
                file.path
            ));
        }
    }
    Ok(())
}

fn is_below_root(path: &str) -> bool {
    path.len() < MAX_PATH_BYTES
        && !path.contains('\0')
        && path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

/// Whether there are runs, none of them empty, each behind the one before with a page between.
fn are_apart(runs: &[Run]) -> bool {
    let apart = |pair: &[Run]| matches!(pair, [a, b] if a.end() < u64::from(b.first));
    !runs.is_empty() && runs.iter().all(|run| run.pages > 0) && runs.windows(2).all(apart)
}
