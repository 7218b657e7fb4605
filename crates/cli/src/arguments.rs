//! Arguments that several verbs share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use uimgacc_store::{ReadError, StoreReader};

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgument {
    /// Folder of the store, on a file system that all nodes mount.
    #[arg(long = "store", value_name = "DIR", env = "UIMGACC_STORE")]
    pub(crate) root: PathBuf,
}

impl StoreArgument {
    pub(crate) fn open(&self) -> Result<StoreReader, ReadError> {
        StoreReader::open(&self.root)
    }
}

/// Output for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Output for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableOrJson {
    /// For people.
    Table,
    /// For machines.
    Json,
}
