//! Why a start could not be recorded.

use std::io;
use std::path::{Path, PathBuf};

/// Why a start could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system failed.
    #[error("cannot {action} {path}")]
    Io {
        /// In a word or two.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] uimgacc_store::ReadError),
    /// The image's index or packs cannot be read.
    #[error(transparent)]
    Index(#[from] uimgacc_mount::index_cache::IndexError),
    /// The image cannot be mounted.
    #[error(transparent)]
    Mount(#[from] uimgacc_mount::MountError),
    /// The chain of the image is not in the store.
    #[error("the chain of {0} is gone from the store: create the image again")]
    Gone(String),
    /// The image's configuration is none.
    #[error("the configuration of the image cannot be understood")]
    Config(#[source] oci_spec::OciSpecError),
    /// There is nothing to run.
    #[error("the image has no command of its own: name one")]
    NoCommand,
    /// The image's user is not in its own list.
    #[error("the image runs as {user:?}, which its {file} does not have")]
    NoUser {
        /// The user or group.
        user: String,
        /// Where it should be.
        file: &'static str,
    },
    /// runc is not there.
    #[error("cannot start {runc}: install runc, or name the program with --runc")]
    NoRunc {
        /// The program.
        runc: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The container could not be started.
    #[error("the container did not start: {output}")]
    NotStarted {
        /// What runc said.
        output: String,
    },
}

impl RecordError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
