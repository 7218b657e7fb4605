//! What can go wrong while something is written.

use std::io;
use std::path::PathBuf;

use uimgacc_types::PackId;

use crate::commit::CommitError;
use crate::format::MAX_INDEX_BYTES;
use crate::reader::ReadError;

/// Why a content could not be put into a pack.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The reader that gives the content failed.
    #[error("cannot read the content")]
    Source(#[source] io::Error),
    /// The reader ended early.
    #[error("the content ends {missing} bytes early")]
    Short {
        /// How many bytes were still to come.
        missing: u64,
    },
    /// The store could not be written.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum SessionError {
    /// Something could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A profile cannot be written.
    #[error("cannot write the profile of an image")]
    Profile(#[source] uimgacc_profile::DecodeError),
    /// A tree cannot be written as an index.
    #[error("cannot write the index {path}")]
    Index {
        /// Where it was to go.
        path: PathBuf,
        source: uimgacc_erofs::WriteError,
    },
    /// An index of the store cannot be parsed.
    #[error("the index {path} is damaged: run `uimgacc create` for its image again")]
    DamagedIndex {
        path: PathBuf,
        source: uimgacc_erofs::ReadError,
    },
    /// A content could not be copied from one pack into another.
    #[error("cannot repack a content of {path}")]
    Repack {
        /// The pack.
        path: PathBuf,
        source: PutError,
    },
    /// A tree refers to a device that is not a pack.
    #[error("an index refers to a device that is not a pack: run `uimgacc store verify`")]
    NoPack,
    /// A pack that the session counts on is gone.
    #[error(
        "the pack {0} vanished while the image was made (was the store swept from elsewhere?): run create again"
    )]
    PackGone(PackId),
    /// A file that the session counts on is gone or has changed.
    #[error(
        "{path} vanished or changed while the image was made (was the store changed by other means?): run create again"
    )]
    Vanished { path: PathBuf },
    /// An index would be longer than what is ever read.
    #[error("the index {path} would have {found_bytes} bytes, {MAX_INDEX_BYTES} at most are read")]
    IndexTooLarge {
        /// Where it was to go.
        path: PathBuf,
        /// How long it is.
        found_bytes: u64,
    },
    /// A gc does not end.
    #[error(
        "`store gc` or `delete` is still at work on the store ({who}): try again when it has ended"
    )]
    GcRuns {
        /// Who.
        who: String,
    },
}
