//! Making a store.

use std::path::Path;

use crate::commit::{CommitError, failed, make_folder, replace_json};
use crate::reader::{ReadError, StoreReader, list};
use crate::session::SessionError;
use crate::{FORMAT_VERSION, Layout, StoreRecord, machine};

/// The folders of a store.
const FOLDERS: [&str; 8] = [
    "packs", "layers", "chains", "indexes", "images", "profiles", "leases", "tmp",
];

/// Why a store could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder holds other things.
    #[error("{0} is not empty and no store: give a folder of its own")]
    NotEmpty(std::path::PathBuf),
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<InitError> for SessionError {
    fn from(error: InitError) -> Self {
        match error {
            InitError::Read(error) => error.into(),
            InitError::Commit(error) => error.into(),
            InitError::NotEmpty(root) => ReadError::NoStore { root }.into(),
        }
    }
}

/// Makes a store in `root`, or opens the one that is there. Says whether it is new.
///
/// # Errors
/// The folder holds other things, or cannot be written.
pub fn init(root: &Path) -> Result<(StoreReader, bool), InitError> {
    match StoreReader::open(root) {
        Ok(reader) => return Ok((reader, false)),
        Err(ReadError::NoStore { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    make_folder(root)?;
    // An earlier init that was cut short leaves only our own folders; a fresh ext4 its own.
    let ours = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| FOLDERS.contains(&name) || name == "lost+found")
    };
    if !list(root)?.iter().all(|path| ours(path)) {
        return Err(InitError::NotEmpty(root.to_owned()));
    }
    for folder in FOLDERS {
        make_folder(&root.join(folder))?;
    }
    let layout = Layout::new(root);
    let record = StoreRecord {
        format_version: FORMAT_VERSION,
        store_id: machine::random_id().map_err(failed("name the store", root))?,
        created: machine::rfc3339_now(),
    };
    replace_json(&layout, &layout.store_json(), &record)?;
    Ok((StoreReader::open(root)?, true))
}
