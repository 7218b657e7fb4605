//! The store as a request may use it: with a deadline.
//!
//! The store is a network file system, and a call into a dead one hangs for minutes or for ever.
//!
//! Guarantees: [`Store::run`] returns in time, whatever the store does. A call that hangs keeps
//! its thread, and [`Calls`] sees to it that they do not pile up; once one was late, the store
//! counts as down for a while, so that an image of many layers waits once and not once a layer.
//! So it does when it could not be mounted. [`Store::health`] never waits.
//!
//! Where the store is an NFS export it is mounted here, in no folder, by the first call that needs
//! it. It is mounted anew when its source was changed (a reload of the configuration), when it was
//! late (another of its addresses may answer), and when its file handles went stale (a server that
//! was made anew). Images that are mounted keep the mount that they were made from. Calls into an
//! old source that hang are none of the new one's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uimgacc_mount::index_cache::IndexError;
use uimgacc_mount::nfs::{DetachedMount, NfsError, Patience};
use uimgacc_store::{ReadError, StoreReader};
use uimgacc_types::StoreSource;

use crate::calls::{Call, Calls};
use crate::error::chain_text;

/// How often the store is looked at where nobody else asks.
const CHECK_PERIOD: Duration = Duration::from_secs(15);
/// How long a store that could not be mounted is not tried again.
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
    line: Mutex<Arc<Line>>,
    health: Mutex<Health>,
}

/// What is known of the store, from the last look at it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether it answered.
    pub reachable: bool,
    /// Why not; `None` also before the first look.
    pub error: Option<String>,
    /// Its id, once it was seen.
    pub store_id: Option<String>,
}

/// Everything that goes with one source.
#[derive(Debug)]
struct Line {
    source: StoreSource,
    calls: Calls,
    opened: Mutex<Option<Arc<Opened>>>,
    /// Held while it is mounted or opened: one call does it, the others wait.
    opening: Mutex<()>,
    failed: Mutex<Option<Failed>>,
}

/// A store that was there.
#[derive(Debug)]
struct Opened {
    reader: StoreReader,
    /// What the reader reads through, for an export.
    mount: Option<DetachedMount>,
}

/// What the store failed with last, and how long it is not to be mounted.
#[derive(Debug, Clone)]
struct Failed {
    reason: String,
    until: Option<Instant>,
}

impl Store {
    /// A store that need not be there yet. The source may change.
    #[must_use]
    pub fn new(source: watch::Receiver<StoreSource>, deadline: Duration) -> Self {
        let line = Arc::new(Line::new(source.borrow().clone()));
        Self {
            source,
            deadline,
            line: Mutex::new(line),
            health: Mutex::default(),
        }
    }

    /// Where it is now.
    #[must_use]
    pub fn source(&self) -> StoreSource {
        self.source.borrow().clone()
    }

    /// How long a request that can do without the store waits for it.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// What the last look at the store found.
    #[must_use]
    pub fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// How many calls into the store hang.
    #[must_use]
    pub fn hung_calls(&self) -> usize {
        self.line().calls.hung()
    }

    fn line(&self) -> Arc<Line> {
        let source = self.source();
        let mut line = lock(&self.line);
        if line.source != source {
            *line = Arc::new(Line::new(source));
        }
        line.clone()
    }

    /// Keeps [`Self::health`] fresh, for ever.
    pub async fn keep_checking(self: Arc<Self>) {
        loop {
            let looked = self.run(self.deadline, |store| {
                // Anew each time: it may have been unmounted.
                let store = StoreReader::open(store.layout().root())?;
                Ok(store.store_id().to_owned())
            });
            let found = looked.await;
            let mut health = lock(&self.health).clone();
            health.reachable = found.is_ok();
            match found {
                Ok(id) => {
                    health.error = None;
                    health.store_id = Some(id);
                }
                // Why it is down says more than that it is.
                Err(StoreError::Down { .. }) if health.error.is_some() => {}
                Err(error) => health.error = Some(chain_text(&error)),
            }
            let before = std::mem::replace(&mut *lock(&self.health), health.clone());
            if before.reachable != health.reachable {
                let error = health.error.unwrap_or_default();
                tracing::info!(reachable = health.reachable, error, "the store");
            }
            tokio::time::sleep(CHECK_PERIOD).await;
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
        let line = self.line();
        line.check_failed()?;
        let admitted = line.calls.admit(Instant::now());
        let admitted = admitted.map_err(|rest| line.down(rest))?;
        // A task of its own: a request that is given up must not leave its call uncounted.
        let work = tokio::spawn(async move { line.watch(admitted, deadline, call).await });
        work.await.unwrap_or(Err(StoreError::Stopping))
    }
}

impl Line {
    fn new(source: StoreSource) -> Self {
        Self {
            source,
            calls: Calls::default(),
            opened: Mutex::default(),
            opening: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// The error while the store counts as down.
    fn down(&self, rest: Duration) -> StoreError {
        let failed = lock(&self.failed).clone();
        StoreError::Down {
            reason: failed.map_or_else(
                || format!("the store {} did not answer", self.source),
                |failed| failed.reason,
            ),
            seconds: rest.as_secs() + 1,
        }
    }

    fn check_failed(&self) -> Result<(), StoreError> {
        let until = lock(&self.failed).as_ref().and_then(|failed| failed.until);
        let rest = until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        if rest.is_zero() {
            return Ok(());
        }
        Err(self.down(rest))
    }

    fn fail(&self, error: &StoreError, until: Option<Instant>) {
        *lock(&self.failed) = Some(Failed {
            reason: chain_text(error),
            until,
        });
    }

    async fn watch<T: Send + 'static>(
        self: Arc<Self>,
        admitted: Call,
        deadline: Duration,
        call: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let until = tokio::time::Instant::now() + deadline;
        let late = StoreError::Late {
            store: self.source.to_string(),
            seconds: deadline.as_secs(),
        };
        // Given back when this returns, also where the call hangs.
        let Ok(_permit) = tokio::time::timeout_at(until, self.calls.room(admitted)).await else {
            // Those that have the room are late before this one.
            self.calls.withdrawn(admitted);
            return Err(late);
        };
        let (answer, answered) = tokio::sync::oneshot::channel();
        let line = self.clone();
        // Not one of the runtime's threads: those are needed, and may not be lost to a dead store.
        let started = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let _ended = Ended(&line.calls, admitted);
                let result = line.call(call);
                // Nobody may wait any more.
                let _ = answer.send(result);
            });
        if started.is_err() {
            self.calls.withdrawn(admitted);
            return Err(StoreError::Stopping);
        }
        match tokio::time::timeout_at(until, answered).await {
            Ok(result) => result.unwrap_or(Err(StoreError::Stopping)),
            Err(_) => {
                self.calls.late(admitted, Instant::now());
                self.close();
                self.fail(&late, None);
                Err(late)
            }
        }
    }

    /// One call, on its own thread.
    fn call<T>(
        &self,
        call: impl FnOnce(&StoreReader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let opened = self.open()?;
        let result = call(&opened.reader);
        let Some(mount) = &opened.mount else {
            return result;
        };
        result.map_err(|error| {
            if is_stale(&error) {
                tracing::warn!(address = %mount.address(), "the store's handles are stale");
                self.close();
            }
            StoreError::Mounted {
                store: self.source.to_string(),
                source: Box::new(error),
            }
        })
    }

    /// Opens the store once; while that fails, each time again.
    fn open(&self) -> Result<Arc<Opened>, StoreError> {
        let _opening = lock(&self.opening);
        if let Some(opened) = lock(&self.opened).clone() {
            return Ok(opened);
        }
        // Those who waited for one that failed need not try it again.
        self.check_failed()?;
        match Opened::new(&self.source) {
            Ok(opened) => {
                let opened = Arc::new(opened);
                *lock(&self.opened) = Some(opened.clone());
                *lock(&self.failed) = None;
                Ok(opened)
            }
            Err(error) => {
                if matches!(error, StoreError::Mount(_)) {
                    self.fail(&error, Some(Instant::now() + HOLD_OFF));
                }
                Err(error)
            }
        }
    }

    /// Forgets a mount that may be of no use any more; calls under way keep it.
    fn close(&self) {
        if let StoreSource::Nfs(_) = self.source {
            *lock(&self.opened) = None;
        }
    }
}

impl Opened {
    fn new(source: &StoreSource) -> Result<Self, StoreError> {
        let (path, mount) = match source {
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
        Ok(Self { reader, mount })
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

/// Tells that a call ended, also by a panic.
struct Ended<'a>(&'a Calls, Call);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is inside is replaced whole, so a panic elsewhere leaves it sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
