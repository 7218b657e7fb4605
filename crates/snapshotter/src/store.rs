//! The store as a request may use it: with a deadline.
//!
//! The store is a network file system, and a call into a dead one hangs for minutes or for ever.
//!
//! Guarantees: [`Store::run`] returns in time, whatever the store does. A call that hangs keeps
//! its thread, so at most [`MAX_CALLS`] are under way; and once one was late, the store counts as
//! down for [`HOLD_OFF`], so that an image of many layers waits once and not once a layer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use uimgacc_mount::index_cache::{self, IndexError};
use uimgacc_store::{ChainRecord, ReadError, StoreReader};
use uimgacc_types::ChainId;

use crate::error::chain_text;

/// How many calls into the store may be under way.
const MAX_CALLS: usize = 16;
/// How long a store that was late counts as down.
const HOLD_OFF: Duration = Duration::from_secs(15);

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
    down_until: Mutex<Option<Instant>>,
    calls: Arc<Semaphore>,
}

impl Store {
    /// A store that need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf, deadline: Duration) -> Self {
        Self {
            path,
            deadline,
            reader: Mutex::new(None),
            down_until: Mutex::new(None),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        }
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
        self.check_down()?;
        let store = self.clone();
        let work = async move {
            let calls = self.calls.clone();
            let permit = calls.acquire_owned().await;
            let work = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let result = store.open().and_then(|reader| call(&reader));
                // It answered, so it is there, however late.
                *lock(&store.down_until) = None;
                result
            });
            work.await.unwrap_or(Err(StoreError::Stopping))
        };
        if let Ok(result) = tokio::time::timeout(deadline, work).await {
            return result;
        }
        *lock(&self.down_until) = Some(Instant::now() + HOLD_OFF);
        Err(StoreError::Late {
            path: self.path.clone(),
            seconds: deadline.as_secs(),
        })
    }

    fn check_down(&self) -> Result<(), StoreError> {
        let Some(until) = *lock(&self.down_until) else {
            return Ok(());
        };
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(());
        }
        Err(StoreError::Down {
            path: self.path.clone(),
            seconds: rest.as_secs() + 1,
        })
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is inside is replaced whole, so a panic elsewhere leaves it sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
