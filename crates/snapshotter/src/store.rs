//! The store as a request may use it: with a deadline.
//!
//! The store is a network file system, and a call into a dead one hangs for minutes or for ever.
//!
//! Guarantees: [`Store::run`] returns in time, whatever the store does. A call that hangs keeps
//! its thread, and [`CircuitBreaker`] sees to it that they do not pile up; once one was late, the store
//! counts as down for a while, so that an image of many layers waits once and not once a layer. So
//! it does when it could not be mounted. [`Store::health`] never waits.
//!
//! Where the store is an NFS export it is mounted here, in no folder, by the first call that needs
//! it. It is mounted anew when its source was changed (a reload of the configuration), when it was
//! late (another of its addresses may answer), and when its file handles went stale (a server that
//! was made anew). Images that are mounted keep the mount that they were made from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use uimgacc_mount::index_cache::IndexError;
use uimgacc_mount::nfs::{DetachedMount, MountTimeouts, NfsError};
use uimgacc_store::{ReadError, StoreReader};
use uimgacc_types::{StoreSource, with_causes};

use crate::circuit_breaker::{Call, CircuitBreaker, CircuitOpen};

/// How often the store is looked at where nobody else asks.
const CHECK_PERIOD: Duration = Duration::from_secs(15);

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
pub(crate) struct Store {
    source: watch::Receiver<StoreSource>,
    deadline: Duration,
    opened: Mutex<Option<Arc<Opened>>>,
    /// Held while that source is mounted or opened: one call does it, the others wait. A new source
    /// has a new lock, so that it need not wait for an old one that hangs.
    opening: Mutex<Option<(StoreSource, Arc<Mutex<()>>)>>,
    /// Of that source. Another source is another store: what hangs in the old one is no matter.
    breaker: Mutex<(StoreSource, Arc<CircuitBreaker>)>,
    health: Mutex<Health>,
}

/// What is known of the store, from the last look at it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Health {
    /// Whether it answered.
    pub reachable: bool,
    /// Why not; `None` also before the first look.
    pub error: Option<String>,
    /// Its id, once it was seen.
    pub store_id: Option<String>,
}

/// A store that was there.
#[derive(Debug)]
struct Opened {
    source: StoreSource,
    reader: StoreReader,
    /// What the reader reads through, for an export.
    mount: Option<DetachedMount>,
}

impl Store {
    /// A store that need not be there yet. The source may change.
    #[must_use]
    pub(crate) fn new(source: watch::Receiver<StoreSource>, deadline: Duration) -> Self {
        let breaker = (source.borrow().clone(), Arc::default());
        Self {
            source,
            deadline,
            opened: Mutex::new(None),
            opening: Mutex::new(None),
            breaker: Mutex::new(breaker),
            health: Mutex::default(),
        }
    }

    /// How long a request that can do without the store waits for it.
    #[must_use]
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// What the last look at the store found.
    #[must_use]
    pub(crate) fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// How many calls into the store hang.
    #[must_use]
    pub(crate) fn hung_calls(&self) -> usize {
        self.breaker(&self.source()).hung()
    }

    fn breaker(&self, source: &StoreSource) -> Arc<CircuitBreaker> {
        let mut breaker = self.breaker.lock();
        if breaker.0 != *source {
            *breaker = (source.clone(), Arc::default());
        }
        breaker.1.clone()
    }

    /// Keeps [`Self::health`] fresh, for ever.
    pub(crate) async fn keep_checking(self: Arc<Self>) {
        let mut source = self.source.clone();
        loop {
            let looked = self.run(self.deadline, |store| {
                // Anew each time: it may have been unmounted.
                let store = StoreReader::open(store.layout().root())?;
                Ok(store.store_id().to_owned())
            });
            self.looked(looked.await);
            tokio::select! {
                () = tokio::time::sleep(CHECK_PERIOD) => {}
                Ok(()) = source.changed() => *self.health.lock() = Health::default(),
            }
        }
    }

    fn looked(&self, found: Result<String, StoreError>) {
        let mut health = self.health.lock();
        let was_reachable = health.reachable;
        health.reachable = found.is_ok();
        match found {
            Ok(id) => {
                health.error = None;
                health.store_id = Some(id);
            }
            // Why it is down says more than that it is.
            Err(StoreError::Down { .. }) if health.error.is_some() => {}
            Err(error) => health.error = Some(with_causes(&error)),
        }
        if was_reachable != health.reachable {
            let error = health.error.as_deref().unwrap_or("none");
            tracing::info!(reachable = health.reachable, error, "the store");
        }
    }

    /// Where it is now.
    #[must_use]
    pub(crate) fn source(&self) -> StoreSource {
        self.source.borrow().clone()
    }

    /// Runs `call` on a thread of its own, and waits for it until the deadline.
    ///
    /// # Errors
    /// The call's, or that it was late. A late call goes on by itself; its result is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: Duration,
        call: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let source = self.source();
        let breaker = self.breaker(&source);
        let admitted = breaker.admit(Instant::now())?;
        let store = self.clone();
        // A task of its own: a request that is given up must not leave its call uncounted.
        let work = tokio::spawn(async move {
            let until = tokio::time::Instant::now() + deadline;
            let late = StoreError::Late {
                store: source.to_string(),
                seconds: deadline.as_secs(),
            };
            // Given back when this returns, also where the call hangs.
            let Ok(_permit) = tokio::time::timeout_at(until, breaker.room(admitted)).await else {
                // Those that have the room are late before this one.
                breaker.ended(admitted);
                return Err(late);
            };
            let answered = match store.start(&breaker, admitted, call) {
                Ok(answered) => answered,
                Err(error) => {
                    breaker.ended(admitted);
                    return Err(error);
                }
            };
            match tokio::time::timeout_at(until, answered).await {
                Ok(result) => result.unwrap_or(Err(StoreError::Stopping)),
                Err(_) => {
                    store.close(&source);
                    breaker.late(admitted, with_causes(&late), Instant::now());
                    Err(late)
                }
            }
        });
        work.await.unwrap_or(Err(StoreError::Stopping))
    }

    /// Starts a call on a thread that is not the runtime's: those are needed, and may not be lost to
    /// a dead store.
    fn start<T: Send + 'static>(
        self: &Arc<Self>,
        breaker: &Arc<CircuitBreaker>,
        admitted: Call,
        call: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let (store, breaker) = (self.clone(), breaker.clone());
        let started = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let _ended = Ended(&breaker, admitted);
                // Nobody may wait any more.
                let _ = answer.send(store.call(&breaker, call));
            });
        match started {
            Ok(_) => Ok(answered),
            Err(error) => {
                tracing::error!(%error, "cannot start a thread for the store");
                Err(StoreError::Stopping)
            }
        }
    }

    /// One call, on its own thread.
    fn call<T>(
        &self,
        breaker: &CircuitBreaker,
        call: impl FnOnce(&StoreReader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let opened = match self.open() {
            Err(error @ (StoreError::Mount(_) | StoreError::Down { .. })) => return Err(error),
            other => other,
        };
        let result = opened.and_then(|opened| {
            let result = call(&opened.reader);
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
        });
        breaker.answered();
        result
    }

    fn opening(&self, source: &StoreSource) -> Arc<Mutex<()>> {
        let mut opening = self.opening.lock();
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
        let _opening = opening.lock();
        let known = self.opened.lock().clone();
        if let Some(opened) = known.filter(|opened| opened.source == source) {
            return Ok(opened);
        }
        // Those who waited for one that failed need not try it again.
        let breaker = self.breaker(&source);
        if let Some(held_off) = breaker.held_off(Instant::now()) {
            return Err(held_off.into());
        }
        let opened = match Opened::new(source.clone()) {
            Ok(opened) => Arc::new(opened),
            Err(error) => {
                if matches!(error, StoreError::Mount(_)) {
                    breaker.failed(with_causes(&error), Instant::now());
                }
                return Err(error);
            }
        };
        // A source that was changed meanwhile must not take the place of the new one.
        if self.source() == opened.source {
            *self.opened.lock() = Some(opened.clone());
        }
        Ok(opened)
    }

    /// Forgets a mount that may be of no use any more; calls under way keep it.
    fn close(&self, source: &StoreSource) {
        let mut opened = self.opened.lock();
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
                let mount = DetachedMount::make(nfs, MountTimeouts::default())?;
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

/// Tells that a call ended, also by a panic.
struct Ended<'a>(&'a CircuitBreaker, Call);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

impl From<CircuitOpen> for StoreError {
    fn from(held_off: CircuitOpen) -> Self {
        Self::Down {
            reason: held_off.reason,
            seconds: held_off.rest.as_secs() + 1,
        }
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
