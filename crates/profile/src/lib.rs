//! Profiles: which pages of which files a start reads.
//!
//! Owns the format (JSON, compressed by zstd), its bounds, and how several starts become one profile.
//! Pure: recording and reading ahead are in `uimgacc-mount`, the file in the store is in
//! `uimgacc-store`.
//!
//! Guarantees: what [`Profile::decode`] returns is within all bounds, its paths lead nowhere but
//! down, and the runs of each file are ascending and apart. So whoever uses a profile need not
//! distrust it any more, whoever wrote it.

mod format;
mod merge;
mod record;
#[cfg(test)]
mod tests;

pub use format::{
    DecodeError, FileReads, MAX_BYTES, MAX_ENCODED_BYTES, MAX_RUNS, PAGE_BYTES, Profile, Run,
    VERSION,
};
pub use merge::REWRITTEN_EVERY;
pub use record::{MAX_RECORD_BYTES, Record};
