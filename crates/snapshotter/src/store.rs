//! The store as a request may use it: with a deadline.
//!
//! The store is a network file system, and a call into a dead one hangs for minutes or for ever.
//!
//! Guarantees: [`Store::run`] returns in time, whatever the store does. A call that hangs keeps
//! its thread, and [`Calls`] sees to it that they do not pile up; once one was late, the store
//! counts as down for a while, so that an image of many layers waits once and not once a layer.
//! [`Store::health`] never waits.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uimgacc_mount::index_cache::IndexError;
use uimgacc_store::{ReadError, StoreReader};

use crate::calls::{Call, Calls};
use crate::error::chain_text;

/// How often the store is looked at where nobody else asks.
const CHECK_PERIOD: Duration = Duration::from_secs(15);

/// Why the store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer in time.
    #[error("the store {path} did not answer in {seconds} s")]
    Late {
        /// The store's folder.
        path: PathBuf,
        /// The deadline.
        seconds: u64,
    },
    /// It was late a moment ago.
    #[error("the store {path} did not answer a moment ago; it is asked again in {seconds} s")]
    Down {
        /// The store's folder.
        path: PathBuf,
        /// The rest of the wait.
        seconds: u64,
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
    path: PathBuf,
    deadline: Duration,
    reader: Mutex<Option<Arc<StoreReader>>>,
    calls: Calls,
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

impl Store {
    /// A store that need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf, deadline: Duration) -> Self {
        Self {
            path,
            deadline,
            reader: Mutex::new(None),
            calls: Calls::default(),
            health: Mutex::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn source(&self) -> String {
        self.path.display().to_string()
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
        self.calls.hung()
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
        let admitted = self.calls.admit(Instant::now());
        let admitted = admitted.map_err(|rest| StoreError::Down {
            path: self.path.clone(),
            seconds: rest.as_secs() + 1,
        })?;
        let store = self.clone();
        // A task of its own: a request that is given up must not leave its call uncounted.
        let work = tokio::spawn(async move { store.watch(admitted, deadline, call).await });
        work.await.unwrap_or(Err(StoreError::Stopping))
    }

    async fn watch<T: Send + 'static>(
        self: Arc<Self>,
        admitted: Call,
        deadline: Duration,
        call: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let until = tokio::time::Instant::now() + deadline;
        let late = StoreError::Late {
            path: self.path.clone(),
            seconds: deadline.as_secs(),
        };
        // Given back when this returns, also where the call hangs.
        let Ok(_permit) = tokio::time::timeout_at(until, self.calls.room(admitted)).await else {
            // Those that have the room are late before this one.
            self.calls.withdrawn(admitted);
            return Err(late);
        };
        let (answer, answered) = tokio::sync::oneshot::channel();
        let store = self.clone();
        // Not one of the runtime's threads: those are needed, and may not be lost to a dead store.
        let started = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let _ended = Ended(&store.calls, admitted);
                let result = store.open().and_then(|reader| call(&reader));
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
                Err(late)
            }
        }
    }

    /// Opens the store once; while that fails, each time again.
    fn open(&self) -> Result<Arc<StoreReader>, StoreError> {
        if let Some(reader) = lock(&self.reader).clone() {
            return Ok(reader);
        }
        let reader = Arc::new(StoreReader::open(&self.path)?);
        *lock(&self.reader) = Some(reader.clone());
        Ok(reader)
    }
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
