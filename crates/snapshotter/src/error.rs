//! What can go wrong, and what containerd is told.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tonic::{Code, Status};
use uimgacc_mount::MountError;
use uimgacc_mount::index_cache::IndexError;
use uimgacc_types::{ChainId, Digest, with_causes};

use crate::filter::ParseFilterError;
use crate::state::StateError;
use crate::store::StoreError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// The rules forbid it.
    #[error(transparent)]
    State(#[from] StateError),
    /// A filter cannot be parsed.
    #[error(transparent)]
    Filter(#[from] ParseFilterError),
    /// The request misses something or has it wrong.
    #[error("{0}")]
    Invalid(String),
    /// The layer is there, from the store: containerd's word for "do not download it".
    #[error("layer {0} is in the store")]
    InStore(ChainId),
    /// The node's file system failed.
    #[error("cannot {action} {path}")]
    Io {
        /// In a word.
        action: &'static str,
        /// On what.
        path: PathBuf,
        source: io::Error,
    },
    /// The database failed.
    #[error("cannot {action} the database of snapshots")]
    Database {
        /// In a word.
        action: &'static str,
        source: Box<redb::Error>,
    },
    /// The database failed and could not be opened again.
    #[error("the database of snapshots is closed after a failure; the snapshotter restarts")]
    DatabaseClosed,
    /// The store failed.
    #[error("cannot use chain {chain} of the store")]
    Store {
        /// What was wanted.
        chain: ChainId,
        source: Box<StoreError>,
    },
    /// The store is away, and the image is not to be pulled instead.
    #[error(
        "chain {chain} cannot be taken from the store ({reason}), and `fallback` says not to pull it instead"
    )]
    Away {
        /// What was wanted.
        chain: ChainId,
        /// Why the store does not answer.
        reason: String,
    },
    /// The store lacks what a snapshot lies on.
    #[error("chain {0} is no longer in the store; remove the image and pull it again")]
    Gone(ChainId),
    /// The local index cannot be removed.
    #[error("cannot remove the index of chain {chain}")]
    Index {
        /// The chain.
        chain: ChainId,
        source: Box<IndexError>,
    },
    /// The mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The mount that other requests wait for as well failed.
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
    /// A mount of this chain is still under way after the time that a request waits for one.
    #[error(
        "the store did not answer in {seconds} s; chain {chain} goes on being mounted, try again"
    )]
    Mounting {
        /// The chain.
        chain: ChainId,
        /// Since when.
        seconds: u64,
    },
    /// The store's index is not the one that the image was pulled with.
    #[error(
        "the index of chain {chain} is {found}, the image promises {expected}; remove the image and pull it again"
    )]
    OtherIndex {
        /// The chain.
        chain: ChainId,
        /// What the store has.
        found: Digest,
        /// What the annotation of the image says.
        expected: Digest,
    },
    /// The work was lost: the runtime stops.
    #[error("the snapshotter is stopping; try again")]
    Stopping,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn store<E: Into<StoreError>>(chain: ChainId) -> impl FnOnce(E) -> Self {
        move |source| Self::Store {
            chain,
            source: Box::new(source.into()),
        }
    }

    pub(crate) fn database<E: Into<redb::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Database {
            action,
            source: Box::new(source.into()),
        }
    }

    /// The code by which containerd knows what to do (its `errdefs`).
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::State(state) => match state {
                StateError::NotFound(_) | StateError::ParentNotFound(_) => Code::NotFound,
                StateError::AlreadyExists(_) => Code::AlreadyExists,
                StateError::NotActive(_)
                | StateError::NotMountable(_)
                | StateError::HasChildren(_) => Code::FailedPrecondition,
                StateError::ParentNotCommitted(_)
                | StateError::Immutable { .. }
                | StateError::NoName => Code::InvalidArgument,
            },
            Self::InStore(_) => Code::AlreadyExists,
            Self::Filter(_) | Self::Invalid(_) => Code::InvalidArgument,
            Self::Store { .. }
            | Self::Away { .. }
            | Self::Mounting { .. }
            | Self::Stopping
            | Self::DatabaseClosed => Code::Unavailable,
            Self::Gone(_) | Self::OtherIndex { .. } => Code::FailedPrecondition,
            Self::Shared(error) => error.code(),
            Self::Io { .. } | Self::Database { .. } | Self::Index { .. } | Self::Mount(_) => {
                Code::Internal
            }
        }
    }
}

/// Whether a failed write may succeed once there is room.
pub(crate) fn is_disk_full(error: &Error) -> bool {
    let io = match error {
        Error::Io { source, .. } => source,
        Error::Database { source, .. } => match source.as_ref() {
            redb::Error::Io(error) => error,
            _ => return false,
        },
        _ => return false,
    };
    matches!(
        io.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), with_causes(&error))
    }
}
