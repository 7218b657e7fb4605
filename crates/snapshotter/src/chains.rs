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
//! Cancel: a request that gives up leaves the work to its thread, which keeps the chain's lock.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use uimgacc_mount::index_cache::{self, CachedIndex};
use uimgacc_mount::{Methods, MountRequest, is_mounted, mount_image, unmount};
use uimgacc_store::Layout;
use uimgacc_types::ChainId;

use crate::error::{Error, chain_text};
use crate::store::{Store, StoreError};

/// How images are mounted.
#[derive(Debug, Clone)]
pub struct MountSettings {
    /// What to try, in this order.
    pub methods: Methods,
    /// Read-ahead in KiB; `None` for the kernel's.
    pub read_ahead_kb: Option<u32>,
    /// How long one request waits for a mount.
    pub deadline: Duration,
}

/// The mounted images below `root/chains`.
#[derive(Debug)]
pub struct Chains {
    folder: PathBuf,
    store: Arc<Store>,
    settings: MountSettings,
    locks: Mutex<HashMap<ChainId, Arc<AsyncMutex<()>>>>,
}

impl Chains {
    /// The images below `root`, from `store`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(root: &Path, store: Arc<Store>, settings: MountSettings) -> Result<Self, Error> {
        let folder = root.join("chains");
        fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        Ok(Self {
            folder,
            store,
            settings,
            locks: Mutex::new(HashMap::new()),
        })
    }

    fn folder(&self, chain: ChainId) -> PathBuf {
        self.folder.join(chain.hex())
    }

    /// Where the chain is mounted, or would be.
    #[must_use]
    pub fn mount_point(&self, chain: ChainId) -> PathBuf {
        self.folder(chain).join("mnt")
    }

    async fn lock(&self, chain: ChainId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Locks that nobody holds or waits for are forgotten.
            locks.retain(|known, lock| *known == chain || Arc::strong_count(lock) > 1);
            locks.entry(chain).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Mounts the chain if it is not, and says where.
    ///
    /// # Errors
    /// The store lacks the chain or gives no answer, or the mount fails.
    pub async fn ensure(self: &Arc<Self>, chain: ChainId) -> Result<PathBuf, Error> {
        let work = async {
            // Also where it is mounted: a release under way may be about to unmount it.
            let guard = self.lock(chain).await;
            let target = self.mount_point(chain);
            if !is_mounted(&target)? {
                self.clone().mount(chain, guard).await?;
            }
            Ok(target)
        };
        match tokio::time::timeout(self.settings.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::Store {
                chain,
                source: Box::new(StoreError::Late {
                    store: self.store.source().to_string(),
                    seconds: self.settings.deadline.as_secs(),
                }),
            }),
        }
    }

    async fn mount(
        self: Arc<Self>,
        chain: ChainId,
        guard: OwnedMutexGuard<()>,
    ) -> Result<(), Error> {
        let store = self.store.clone();
        // The packs are files of the store: opening them can hang as any of its calls.
        let done = store.run(self.settings.deadline, move |store| {
            let _guard = guard;
            let folder = self.folder(chain);
            let index = match index_cache::load(&folder)? {
                Some(index) => index,
                None => match store.chain(chain)? {
                    Some(record) => index_cache::fetch(store, &record, &folder)?,
                    None => return Ok(Err(Error::Gone(chain))),
                },
            };
            Ok(self.mount_now(chain, index, store.layout()))
        });
        done.await.map_err(|error| Error::Store {
            chain,
            source: Box::new(error),
        })?
    }

    fn mount_now(&self, chain: ChainId, index: CachedIndex, store: &Layout) -> Result<(), Error> {
        let target = self.mount_point(chain);
        fs::create_dir_all(&target).map_err(Error::io("make", &target))?;
        let packs = index.packs.iter().map(|pack| store.pack(*pack));
        let started = std::time::Instant::now();
        let mounted = mount_image(&MountRequest {
            packs: packs.collect(),
            index: index.path,
            target,
            methods: self.settings.methods.clone(),
            read_ahead_kb: self.settings.read_ahead_kb,
        })?;
        let took = started.elapsed();
        tracing::info!(%chain, method = %mounted.method, ?took, "mounted");
        Ok(())
    }

    /// Unmounts the chain and forgets its index, unless `needed` says otherwise.
    ///
    /// `needed` is asked while no mount can be made. What is in use is left for the next sweep.
    pub async fn release(
        self: &Arc<Self>,
        chain: ChainId,
        needed: impl Fn() -> bool + Send + 'static,
    ) {
        let guard = self.lock(chain).await;
        let this = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            if needed() {
                return;
            }
            match this.remove(chain) {
                Ok(()) => tracing::info!(%chain, "unmounted"),
                Err(error) => {
                    tracing::warn!(%chain, error = chain_text(&error), "cannot unmount yet");
                }
            }
        });
        // It only fails when the runtime stops; the next sweep goes on.
        let _ = work.await;
    }

    fn remove(&self, chain: ChainId) -> Result<(), Error> {
        let folder = self.folder(chain);
        unmount(&self.mount_point(chain), false)?;
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
    pub fn list(&self) -> Result<Vec<ChainId>, Error> {
        let failed = || Error::io("list", &self.folder);
        let mut chains = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            chains.extend(name.to_str().and_then(|hex| ChainId::from_hex(hex).ok()));
        }
        Ok(chains)
    }
}
