//! The mounts of images: one a chain, shared by all its containers.
//!
//! Owns `chains/<chain>/`: the local index with its record and the folder `mnt`.
//!
//! A chain is mounted when the first active snapshot or view needs it. It stays mounted as long as
//! the node has the image, that is some committed snapshot of the chain: so a second container
//! finds its files in the page cache, which is the mount's. It goes with the last such snapshot.
//!
//! Guarantees: whether a chain is mounted is asked of the kernel each time and never remembered,
//! so a mount of an earlier process is taken over as it is, and one that was lost (a reboot) is
//! made again at the next request. Nothing is unmounted when the process stops. Overlays hold
//! their lower file systems themselves, so an unmount never hurts a running container.
//!
//! One mount of a chain is under way at a time, in a task of its own, and all requests for the chain
//! wait for that one, but for a short time only: containerd holds up other requests meanwhile. Once
//! a mount took longer, requests for its chain fail at once until it has ended.
//!
//! Cancel: a request that gives up leaves the work to its thread, which keeps the chain's lock.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
use uimgacc_mount::index_cache::{self, CachedIndex, Checked, IndexedPack};
use uimgacc_mount::{Method, Methods, MountRequest, is_mounted, mount_image, unmount};
use uimgacc_profile::Profile;
use uimgacc_store::{Layout, StoreReader};
use uimgacc_types::{ChainId, Digest, with_causes};

use crate::error::Error;
use crate::metrics::Metrics;
use crate::starts::{NewMount, StartSettings, Starts};
use crate::store::Store;

/// How long a mount may take, in the background, before the store counts as down.
const MOUNT_DEADLINE: Duration = Duration::from_secs(60);

/// How images are mounted.
#[derive(Debug, Clone)]
pub struct MountSettings {
    /// What to try, in this order.
    pub methods: Methods,
    /// How far the kernel reads ahead, and what is read ahead on purpose.
    pub start: StartSettings,
    /// How long one request waits for a mount, which goes on by itself then.
    pub deadline: Duration,
}

/// The mounted images below `root/chains`.
#[derive(Debug)]
pub(crate) struct Chains {
    folder: PathBuf,
    store: Arc<Store>,
    settings: MountSettings,
    locks: Mutex<HashMap<ChainId, Arc<AsyncMutex<()>>>>,
    attempts: Mutex<HashMap<ChainId, Attempt>>,
    last_method: Mutex<Option<Method>>,
    starts: Arc<Starts>,
    seen: Arc<Checked>,
    metrics: Arc<Metrics>,
}

/// A mount under way, and how it ended.
#[derive(Debug, Clone)]
struct Attempt {
    started: Instant,
    done: watch::Receiver<Option<Result<(), Arc<Error>>>>,
}

/// What [`Chains::release`] does about a chain that is being mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Waits, for ever where the store hangs.
    Wait,
    /// Leaves it for the next time.
    Skip,
}

impl Chains {
    /// The images below `root`, from `store`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(crate) fn open(
        root: &Path,
        store: Arc<Store>,
        settings: MountSettings,
    ) -> Result<Self, Error> {
        let folder = root.join("chains");
        fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        let metrics: Arc<Metrics> = Arc::default();
        let chains = Self {
            folder,
            store,
            starts: Arc::new(Starts::new(settings.start, metrics.clone())),
            settings,
            seen: Arc::default(),
            locks: Mutex::new(HashMap::new()),
            attempts: Mutex::new(HashMap::new()),
            last_method: Mutex::new(None),
            metrics,
        };
        for chain in chains.list()? {
            chains.starts.take_over(&chains.folder(chain));
        }
        Ok(chains)
    }

    /// What was found in the store a moment ago; forgotten where a mount fails.
    #[must_use]
    pub(crate) fn seen(&self) -> &Arc<Checked> {
        &self.seen
    }

    /// How the images were started.
    #[must_use]
    pub(crate) fn starts(&self) -> &Starts {
        &self.starts
    }

    /// What is counted.
    #[must_use]
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How the last image was mounted.
    #[must_use]
    pub(crate) fn last_method(&self) -> Option<Method> {
        *self.last_method.lock()
    }

    fn folder(&self, chain: ChainId) -> PathBuf {
        self.folder.join(chain.hex())
    }

    /// Where the chain is mounted, or would be.
    #[must_use]
    pub(crate) fn mount_point(&self, chain: ChainId) -> PathBuf {
        self.folder(chain).join("mnt")
    }

    fn lock_of(&self, chain: ChainId) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock();
        // Locks that nobody holds or waits for are forgotten.
        locks.retain(|known, lock| *known == chain || Arc::strong_count(lock) > 1);
        locks.entry(chain).or_default().clone()
    }

    async fn lock(&self, chain: ChainId) -> OwnedMutexGuard<()> {
        self.lock_of(chain).lock_owned().await
    }

    /// The digest of the local copy of the chain's index, where there is one.
    #[must_use]
    pub(crate) fn local_index(&self, chain: ChainId) -> Option<Digest> {
        index_cache::recorded(&self.folder(chain))
    }

    /// Mounts the chain if it is not, and says where. `expected` is the digest of its index, where
    /// the image promised one.
    ///
    /// # Errors
    /// The store lacks the chain or gives no answer, the mount fails or takes too long, or the
    /// index is another one.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        chain: ChainId,
        expected: Option<Digest>,
    ) -> Result<PathBuf, Error> {
        let mut attempt = self.attempt(chain, expected);
        let left = self
            .settings
            .deadline
            .saturating_sub(attempt.started.elapsed());
        let done = tokio::time::timeout(left, attempt.done.wait_for(Option::is_some)).await;
        let Ok(done) = done else {
            return Err(Error::Mounting {
                chain,
                seconds: attempt.started.elapsed().as_secs(),
            });
        };
        if let Some(Err(error)) = &*done.map_err(|_| Error::Stopping)? {
            return Err(Error::Shared(error.clone()));
        }
        check_index(chain, self.local_index(chain), expected)?;
        Ok(self.mount_point(chain))
    }

    /// Whether what starts of the chain read is known; not where the store gives no answer.
    pub(crate) async fn has_profile(&self, chain: ChainId) -> bool {
        let look = move |store: &StoreReader| Ok(store.has_profile(chain));
        let found = self.store.run(self.store.deadline(), look).await;
        found.unwrap_or_default()
    }

    /// The attempt under way, or a new one.
    fn attempt(self: &Arc<Self>, chain: ChainId, expected: Option<Digest>) -> Attempt {
        let mut attempts = self.attempts.lock();
        if let Some(attempt) = attempts.get(&chain) {
            return attempt.clone();
        }
        let (tell, done) = watch::channel(None);
        let started = Instant::now();
        let attempt = Attempt { started, done };
        attempts.insert(chain, attempt.clone());
        let this = self.clone();
        tokio::spawn(async move {
            let result = this.mount_once(chain, expected).await;
            let over = || {
                let mut attempts = this.attempts.lock();
                attempts.remove(&chain);
            };
            if result.is_ok() {
                // First: who comes later must ask the kernel again.
                over();
                tell.send_replace(Some(Ok(())));
                return;
            }
            tell.send_replace(Some(result.map_err(Arc::new)));
            // A call that hangs keeps the lock. Until it ends there is no use in another one.
            drop(this.lock(chain).await);
            over();
        });
        attempt
    }

    async fn mount_once(
        self: &Arc<Self>,
        chain: ChainId,
        expected: Option<Digest>,
    ) -> Result<(), Error> {
        // Also where it is mounted: a release under way may be about to unmount it.
        let guard = self.lock(chain).await;
        if is_mounted(&self.mount_point(chain))? {
            return Ok(());
        }
        let (this, asked) = (self.clone(), Instant::now());
        // The packs are files of the store: opening them can hang as any of its calls.
        let done = self.store.run(MOUNT_DEADLINE, move |store| {
            let _guard = guard;
            match this.mount_from(store, chain, expected, asked) {
                // What the store failed with is for the store to look at.
                Err(Error::Store { source, .. }) => Err(*source),
                other => Ok(other),
            }
        });
        let mounted = done
            .await
            .map_err(Error::store(chain))
            .and_then(|done| done);
        if mounted.is_err() {
            self.seen.forget();
        }
        mounted
    }

    fn mount_from(
        &self,
        store: &StoreReader,
        chain: ChainId,
        expected: Option<Digest>,
        asked: Instant,
    ) -> Result<(), Error> {
        let folder = self.folder(chain);
        if let Some(index) = index_cache::load(&folder).map_err(Error::store(chain))?
            && expected.is_none_or(|expected| expected == index.digest)
            && index.is_kept(store, chain).map_err(Error::store(chain))?
        {
            let packs = index.packs.clone();
            match self.mount_now(chain, index, store, asked) {
                // The image was made anew with other packs: its index is another one now.
                Err(error) if lacks_a_pack(store.layout(), &packs) => {
                    let error = with_causes(&error);
                    tracing::warn!(%chain, error, "the local index is out of date");
                }
                other => return other,
            }
        }
        let Some(record) = store.chain(chain).map_err(Error::store(chain))? else {
            // An empty folder where the store was mounted says nothing about the chain.
            StoreReader::open(store.layout().root()).map_err(Error::store(chain))?;
            return Err(Error::Gone(chain));
        };
        check_index(
            chain,
            record.index.as_ref().map(|index| index.digest),
            expected,
        )?;
        let index = index_cache::fetch(store, &record, &folder).map_err(Error::store(chain))?;
        check_index(chain, Some(index.digest), expected)?;
        self.mount_now(chain, index, store, asked)
    }

    fn mount_now(
        &self,
        chain: ChainId,
        index: CachedIndex,
        store: &StoreReader,
        asked: Instant,
    ) -> Result<(), Error> {
        let target = self.mount_point(chain);
        fs::create_dir_all(&target).map_err(Error::io("make", &target))?;
        let packs = index
            .open_packs(store.layout())
            .map_err(Error::store(chain))?;
        let started = Instant::now();
        let mounted = mount_image(&MountRequest {
            packs,
            index: index.path,
            target: target.clone(),
            methods: self.settings.methods.clone(),
            read_ahead_kb: None,
        })?;
        let took = started.elapsed();
        *self.last_method.lock() = Some(mounted.method);
        self.metrics.mounted(mounted.method);
        tracing::info!(%chain, method = %mounted.method, ?took, "mounted");
        self.starts.begin(NewMount {
            chain,
            folder: &self.folder(chain),
            target,
            read_ahead: mounted.read_ahead,
            profile: profile(store, chain),
            asked,
        });
        Ok(())
    }

    /// Unmounts the chain and forgets its index, unless `needed` says otherwise.
    ///
    /// `needed` is asked while no mount can be made. What is in use is left for the next sweep.
    pub(crate) async fn release(
        self: &Arc<Self>,
        chain: ChainId,
        busy: Busy,
        needed: impl Fn() -> bool + Send + 'static,
    ) {
        let guard = match (self.lock_of(chain).try_lock_owned(), busy) {
            (Ok(guard), _) => guard,
            (Err(_), Busy::Skip) => return,
            (Err(_), Busy::Wait) => self.lock(chain).await,
        };
        let this = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            if needed() {
                return;
            }
            match this.remove(chain) {
                Ok(()) => tracing::info!(%chain, "unmounted"),
                Err(error) => {
                    tracing::warn!(%chain, error = with_causes(&error), "cannot unmount yet");
                }
            }
        });
        // It only fails when the runtime stops; the next sweep goes on.
        let _ = work.await;
    }

    fn remove(&self, chain: ChainId) -> Result<(), Error> {
        let folder = self.folder(chain);
        self.starts.stop(chain);
        unmount(&self.mount_point(chain), false)?;
        self.starts.forget(&folder)?;
        index_cache::remove(&folder).map_err(|error| Error::Index {
            chain,
            source: Box::new(error),
        })?;
        // Folder by folder: nothing below a mount can ever be deleted by this.
        for path in [self.mount_point(chain), folder] {
            match fs::remove_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The chains that have a folder here.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) fn list(&self) -> Result<Vec<ChainId>, Error> {
        let failed = || Error::io("list", &self.folder);
        let mut chains = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            chains.extend(name.to_str().and_then(|hex| ChainId::from_hex(hex).ok()));
        }
        Ok(chains)
    }
}

/// Whether an index is the promised one. Where none is known it was checked when it was mounted.
fn check_index(
    chain: ChainId,
    found: Option<Digest>,
    expected: Option<Digest>,
) -> Result<(), Error> {
    match (found, expected) {
        (Some(found), Some(expected)) if found != expected => Err(Error::OtherIndex {
            chain,
            found,
            expected,
        }),
        _ => Ok(()),
    }
}

/// What starts of the chain read. Without it the image starts as well.
fn profile(store: &StoreReader, chain: ChainId) -> Option<Profile> {
    store
        .profile(chain)
        .inspect_err(|error| {
            tracing::warn!(%chain, error = with_causes(error), "its profile is not used");
        })
        .ok()
        .flatten()
}

fn lacks_a_pack(store: &Layout, packs: &[IndexedPack]) -> bool {
    packs
        .iter()
        .any(|pack| matches!(store.pack(pack.id).exists(), Ok(false)))
}
