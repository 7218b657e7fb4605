//! Making a store.

use std::path::Path;

use crate::commit::{CommitError, failed, make_directory, replace_json, write_synced};
use crate::error::SessionError;
use crate::path::StorePath;
use crate::reader::{ReadError, StoreReader, list};
use crate::record::{Features, UNLEASED_READERS};
use crate::{FORMAT_VERSION, Layout, StoreRecord, machine};

/// The folders of a store.
const FOLDERS: [&str; 11] = [
    "packs", "copies", "filters", "layers", "blobs", "chains", "indexes", "images", "profiles",
    "leases", "tmp",
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
    create_root(root)?;
    let layout = Layout::new(root);
    let top = layout.directory("");
    // An earlier init that was cut short leaves only our own folders; a fresh ext4 its own.
    let ours = |path: &StorePath| {
        path.name()
            .is_some_and(|name| FOLDERS.contains(&name) || name == "lost+found")
    };
    if !list(&top)?.iter().all(ours) {
        return Err(InitError::NotEmpty(root.to_owned()));
    }
    for folder in FOLDERS {
        make_directory(&layout.directory(folder))?;
    }
    let record = StoreRecord {
        format_version: FORMAT_VERSION,
        features: Features::default(),
        store_id: machine::random_id().map_err(failed("name the store", &top))?,
        created: machine::rfc3339_now(),
    };
    replace_json(&layout, &layout.store_json(), &record)?;
    Ok((StoreReader::open(root)?, true))
}

/// Lets nodes read the store without a lease, or no longer: see [`StoreReader::allows_unleased_readers`].
///
/// # Errors
/// The store cannot be written.
pub fn allow_unleased_readers(reader: &StoreReader, allow: bool) -> Result<(), SessionError> {
    reader.check_writable()?;
    let mut record = reader.record().clone();
    let features = &mut record.features.compatible;
    features.retain(|name| name != UNLEASED_READERS);
    if allow {
        features.push(UNLEASED_READERS.to_owned());
    }
    if record != *reader.record() {
        replace_json(reader.layout(), &reader.layout().store_json(), &record)?;
    }
    Ok(())
}

/// Writes, syncs and removes a file: a store that is there may be read-only or full.
///
/// # Errors
/// The file system's error.
pub fn prove_writable(layout: &Layout) -> Result<(), CommitError> {
    let id = machine::random_id().map_err(failed("name a file in", &layout.tmp()))?;
    let path = layout.tmp().join(format!("probe-{id}"));
    let written = write_synced(&path, &[1; 4096]);
    // Left over only where it could not be written whole: the next sweep takes it.
    let _ = path.remove_file();
    written.map(|_| ())
}

/// Makes the store's own directory and those above it: the operator's, not yet the store's.
#[expect(
    clippy::disallowed_methods,
    reason = "the way to the root is the operator's"
)]
fn create_root(root: &Path) -> Result<(), CommitError> {
    let failed = |source| CommitError::Io {
        action: "make the directory",
        path: root.to_owned(),
        source,
    };
    let missing = root.ancestors().take_while(|path| !path.exists()).count();
    std::fs::create_dir_all(root).map_err(failed)?;
    for parent in root.ancestors().skip(1).take(missing) {
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        std::fs::File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(failed)?;
    }
    Ok(())
}
