//! The store as a request may use it: with a deadline.
//!
//! The store is a network file system, and a call into a dead one hangs for minutes or for ever.
//!
//! Guarantees: [`Store::run`] returns in time, whatever the store does. A call that hangs keeps
//! its thread, so at most [`MAX_CALLS`] are under way; and once one was late, the store counts as
//! down for [`HOLD_OFF`], so that an image of many layers waits once and not once a layer. So it
//! does when it could not be mounted.
//!
//! Where the store is an NFS export it is mounted here, in no folder, by the first call that needs
//! it. It is mounted anew when its source was changed (a reload of the configuration), when it was
//! late (another of its addresses may answer), and when its file handles went stale (a server that
//! was made anew). Images that are mounted keep the mount that they were made from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use uimgacc_mount::index_cache::{self, IndexError};
use uimgacc_mount::nfs::{DetachedMount, NfsError, Patience};
use uimgacc_store::{ChainRecord, ReadError, StoreReader};
use uimgacc_types::{ChainId, StoreSource};

use crate::error::chain_text;

/// How many calls into the store may be under way.
const MAX_CALLS: usize = 16;
/// How long a store that was late counts as down.
const HOLD_OFF: Duration = Duration::from_secs(15);

/// Why the store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer in time.
    #[error("the store {store} did not answer in {seconds} s")]
    Late {
        /// The store.
        store: String,
        /// The deadline.
        seconds: u64,
    },
    /// It was late a moment ago, or could not be mounted.
    #[error("{reason} (that was a moment ago; it is tried again in {seconds} s)")]
    Down {
        /// What it failed with then.
        reason: String,
        /// The rest of the wait.
        seconds: u64,
    },
    /// It cannot be mounted.
    #[error(transparent)]
    Mount(#[from] NfsError),
    /// A call into a store that was mounted here failed: its paths say little.
    #[error("the store {store}, mounted in no folder, failed")]
    Mounted {
        /// The store.
        store: String,
        /// What failed in it.
        source: Box<StoreError>,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An index or pack is missing or damaged.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The runtime stops.
    #[error("the snapshotter is stopping")]
    Stopping,
}

/// A store behind a deadline.
#[derive(Debug)]
pub struct Store {
    source: watch::Receiver<StoreSource>,
    deadline: Duration,
    opened: Mutex<Option<Arc<Opened>>>,
    /// Held while that source is mounted or opened: one call does it, the others wait. A new source
    /// has a new lock, so that it need not wait for an old one that hangs.
    opening: Mutex<Option<(StoreSource, Arc<Mutex<()>>)>>,
    down_until: Mutex<Option<Down>>,
    calls: Arc<Semaphore>,
}

/// A store that was there.
#[derive(Debug)]
struct Opened {
    source: StoreSource,
    reader: StoreReader,
    /// What the reader reads through, for an export.
    mount: Option<DetachedMount>,
}

/// Which store is not to be asked, and how long.
#[derive(Debug, Clone)]
struct Down {
    source: StoreSource,
    reason: String,
    until: Instant,
}

impl Store {
    /// A store that need not be there yet. The source may change.
    #[must_use]
    pub fn new(source: watch::Receiver<StoreSource>, deadline: Duration) -> Self {
        Self {
            source,
            deadline,
            opened: Mutex::new(None),
            opening: Mutex::new(None),
            down_until: Mutex::new(None),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        }
    }

    /// Where it is now.
    #[must_use]
    pub fn source(&self) -> StoreSource {
        self.source.borrow().clone()
    }

    /// The record of a chain all of whose layers can be mounted from the store; `None` where the
    /// store does not have it, or cannot say so in time (which is logged).
    pub async fn find(self: &Arc<Self>, chain: ChainId) -> Option<ChainRecord> {
        let found = self
            .run(self.deadline, move |store| {
                let record = store.chain(chain)?;
                if let Some(record) = &record {
                    index_cache::probe(store, record)?;
                }
                Ok(record)
            })
            .await;
        match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%chain, error = chain_text(&error), "not taken from the store");
                None
            }
        }
    }

    /// Runs `call` on a thread of its own, and waits for it until the deadline.
    ///
    /// # Errors
    /// The call's, or that it was late. A late call goes on by itself; its result is dropped.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Duration,
        call: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let source = self.source();
        self.check_down(&source)?;
        let store = self.clone();
        let work = async move {
            let calls = self.calls.clone();
            let permit = calls.acquire_owned().await;
            let work = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                store.call(call)
            });
            work.await.unwrap_or(Err(StoreError::Stopping))
        };
        if let Ok(result) = tokio::time::timeout(deadline, work).await {
            return result;
        }
        let late = StoreError::Late {
            store: source.to_string(),
            seconds: deadline.as_secs(),
        };
        self.close(&source);
        self.hold_off(source, &late);
        Err(late)
    }

    /// One call, on its own thread.
    fn call<T>(
        &self,
        call: impl FnOnce(&StoreReader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let opened = self.open()?;
        let result = call(&opened.reader);
        // It answered, so it is there, however late.
        *lock(&self.down_until) = None;
        let Some(mount) = &opened.mount else {
            return result;
        };
        result.map_err(|error| {
            if is_stale(&error) {
                tracing::warn!(address = %mount.address(), "the store's handles are stale");
                self.close(&opened.source);
            }
            StoreError::Mounted {
                store: opened.source.to_string(),
                source: Box::new(error),
            }
        })
    }

    fn check_down(&self, source: &StoreSource) -> Result<(), StoreError> {
        let Some(down) = lock(&self.down_until).clone() else {
            return Ok(());
        };
        let rest = down.until.saturating_duration_since(Instant::now());
        // Another source is another store.
        if rest.is_zero() || down.source != *source {
            return Ok(());
        }
        Err(StoreError::Down {
            reason: down.reason,
            seconds: rest.as_secs() + 1,
        })
    }

    fn hold_off(&self, source: StoreSource, error: &StoreError) {
        *lock(&self.down_until) = Some(Down {
            source,
            reason: chain_text(error),
            until: Instant::now() + HOLD_OFF,
        });
    }

    fn opening(&self, source: &StoreSource) -> Arc<Mutex<()>> {
        let mut opening = lock(&self.opening);
        if let Some((known, opening)) = &*opening
            && known == source
        {
            return opening.clone();
        }
        let new = Arc::default();
        *opening = Some((source.clone(), Arc::clone(&new)));
        new
    }

    /// Opens the store once; while that fails, each time again.
    fn open(&self) -> Result<Arc<Opened>, StoreError> {
        let source = self.source();
        let opening = self.opening(&source);
        let _opening = lock(&opening);
        let known = lock(&self.opened).clone();
        if let Some(opened) = known.filter(|opened| opened.source == source) {
            return Ok(opened);
        }
        // Those who waited for one that failed need not try it again.
        self.check_down(&source)?;
        let opened = match Opened::new(source.clone()) {
            Ok(opened) => Arc::new(opened),
            Err(error) => {
                if matches!(error, StoreError::Mount(_)) {
                    self.hold_off(source, &error);
                }
                return Err(error);
            }
        };
        // A source that was changed meanwhile must not take the place of the new one.
        if self.source() == opened.source {
            *lock(&self.opened) = Some(opened.clone());
        }
        Ok(opened)
    }

    /// Forgets a mount that may be of no use any more; calls under way keep it.
    fn close(&self, source: &StoreSource) {
        let mut opened = lock(&self.opened);
        if let StoreSource::Nfs(_) = source
            && opened
                .as_ref()
                .is_some_and(|opened| opened.source == *source)
        {
            *opened = None;
        }
    }
}

impl Opened {
    fn new(source: StoreSource) -> Result<Self, StoreError> {
        let (path, mount) = match &source {
            StoreSource::Folder(path) => (path.clone(), None),
            StoreSource::Nfs(nfs) => {
                let started = Instant::now();
                let mount = DetachedMount::make(nfs, Patience::default())?;
                tracing::info!(
                    store = %nfs,
                    address = %mount.address(),
                    version = %mount.version(),
                    took = ?started.elapsed(),
                    "store mounted"
                );
                (mount.path(), Some(mount))
            }
        };
        let reader = StoreReader::open(path).map_err(|error| match &mount {
            None => error.into(),
            Some(_) => StoreError::Mounted {
                store: source.to_string(),
                source: Box::new(error.into()),
            },
        })?;
        Ok(Self {
            source,
            reader,
            mount,
        })
    }
}

/// Whether the file system below says that its files are not the ones it gave out.
fn is_stale(error: &StoreError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let code = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        if code == Some(rustix::io::Errno::STALE.raw_os_error()) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is inside is replaced whole, so a panic elsewhere leaves it sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
