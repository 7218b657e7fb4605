//! Runs an image of the store in a container of its own, and records what the start reads.
//!
//! The image is mounted for this alone, without read-ahead, so that nothing but what is touched gets into
//! the page cache. runc runs the command in it, without a network and with a throw-away layer on top. The
//! start is over when the command ends, when nothing was opened for a while, or at the latest after a
//! minute; then the container is ended. All that is done twice: page by page a store that is not on this
//! machine would take minutes, so a first run, which is forgotten, has the packs in the page cache.
//!
//! Guarantees: whatever happens, container, mounts and folder go. The store is only read.
//!
//! Assumptions: root; runc; memory for what the start reads.

mod error;
mod run;
mod spec;
mod users;

use std::path::{Path, PathBuf};
use std::time::Duration;

use uimgacc_mount::index_cache::CachedIndex;
use uimgacc_mount::{Method, Methods, MountRequest, Opens, OverlayRequest, index_cache};
use uimgacc_profile::{FileReads, Profile, VERSION};
use uimgacc_store::{ImageRecord, StoreReader};

pub use error::RecordError;

/// The read-ahead in KiB at which nothing but what is touched is read.
pub const READ_AHEAD_KB: u32 = 0;
/// That of the first of two runs, which brings near what the second one reads in small steps.
const WARM_UP_READ_AHEAD_KB: u32 = 128;

/// How an image is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What to run; `None` for the image's own command.
    pub command: Option<Vec<String>>,
    /// The start is over when nothing was opened for so long.
    pub silence: Duration,
    /// It is over after that time in any case.
    pub limit: Duration,
    /// Read-ahead in KiB meanwhile.
    pub read_ahead_kb: u32,
    /// The runtime.
    pub runc: PathBuf,
    /// Where the throw-away folder is made: a local disk.
    pub folder: PathBuf,
}

/// A start that was recorded.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// What it read. Contents are not known yet: see `Session::with_contents`.
    pub profile: Profile,
    /// How the command ended: its exit status; `None` where it still ran and was ended.
    pub status: Option<i32>,
    /// The last of what it said.
    pub output: String,
    /// From the start of the container to the end of the start.
    pub took: Duration,
}

/// Runs `image` once and records what the start reads. `config` is the image's configuration as the
/// registry has it, `now` the time as RFC 3339.
///
/// # Errors
/// The image cannot be mounted, the configuration makes no container, or runc fails.
pub fn record(
    store: &StoreReader,
    image: &ImageRecord,
    config: &[u8],
    settings: &Settings,
    now: String,
) -> Result<Recorded, RecordError> {
    let folder = tempfile::Builder::new()
        .prefix("uimgacc-record-")
        .tempdir_in(&settings.folder)
        .map_err(RecordError::io("make a folder in", &settings.folder))?;
    let chain = store
        .chain(image.chain_id)?
        .ok_or_else(|| RecordError::Gone(image.target.clone()))?;
    let index = index_cache::fetch(store, &chain, folder.path())?;
    // Each in a directory of its own: what the first one wrote would change what the second reads.
    let run = |name: &str, read_ahead_kb| {
        let paths = Paths::make(&folder.path().join(name))?;
        run_once(store, &index, config, settings, &paths, read_ahead_kb)
    };
    if settings.read_ahead_kb < WARM_UP_READ_AHEAD_KB {
        run("warm-up", WARM_UP_READ_AHEAD_KB)?;
    }
    let Run {
        command,
        ended,
        pages,
    } = run("run", settings.read_ahead_kb)?;
    let profile = Profile {
        version: VERSION,
        chain_id: image.chain_id,
        platform: image.platform.clone(),
        recorded: now,
        origin: command,
        read_ahead_kb: settings.read_ahead_kb,
        starts: 1,
        files: pages,
    };
    Ok(Recorded {
        profile: profile.within_bounds(),
        status: ended.status,
        output: ended.output,
        took: ended.took,
    })
}

/// What came of a run.
struct Run {
    command: String,
    ended: run::Ended,
    pages: Vec<FileReads>,
}

fn run_once(
    store: &StoreReader,
    index: &CachedIndex,
    config: &[u8],
    settings: &Settings,
    paths: &Paths,
    read_ahead_kb: u32,
) -> Result<Run, RecordError> {
    // All is undone when this goes.
    let _mounts = Mounts(paths);
    uimgacc_mount::mount_image(&MountRequest {
        packs: index.open_packs(store.layout())?,
        index: index.path.clone(),
        target: paths.image.clone(),
        // Through the page cache of the store's file system, for the second run.
        methods: Methods::new([Method::File, Method::Loop, Method::FileDirectio]),
        read_ahead_kb: Some(read_ahead_kb),
    })?;
    uimgacc_mount::mount_overlay(&OverlayRequest {
        lower: paths.image.clone(),
        upper: paths.upper.clone(),
        work: paths.work.clone(),
        target: paths.root.clone(),
    })?;
    let spec = spec::make(config, settings.command.as_deref(), &paths.root)?;
    let mut opens =
        Opens::listen(&paths.image).map_err(RecordError::io("listen to", &paths.image))?;
    let ended = run::run(&spec, &paths.bundle, settings, &mut opens)?;
    let pages = opens
        .pages()
        .map_err(RecordError::io("look at the pages of", &paths.image))?;
    Ok(Run {
        command: spec::command(&spec),
        ended,
        pages,
    })
}

/// The folders of a run.
#[derive(Debug)]
struct Paths {
    image: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    root: PathBuf,
    bundle: PathBuf,
}

impl Paths {
    fn make(folder: &Path) -> Result<Self, RecordError> {
        let make = |name: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(RecordError::io("make", &path))?;
            Ok::<_, RecordError>(path)
        };
        Ok(Self {
            image: make("image")?,
            upper: make("upper")?,
            work: make("work")?,
            root: make("root")?,
            bundle: make("bundle")?,
        })
    }
}

/// Takes the mounts away.
struct Mounts<'a>(&'a Paths);

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        for path in [&self.0.root, &self.0.image] {
            // Detached: what still uses it goes soon.
            if let Err(error) = uimgacc_mount::unmount(path, true) {
                tracing::warn!(path = %path.display(), %error, "cannot unmount");
            }
        }
    }
}
