//! The snapshotter of a node: what containerd's calls do.
//!
//! Order of every change: first the folder, then the database, then the memory; a removal the
//! other way round. A crash in between leaves a folder that nothing names, which [`Node::cleanup`]
//! deletes. One lock is held over all of a change, as containerd's own snapshotters do.
//!
//! Cancel: a request that is dropped while a change is under way does not stop it.

mod change;
mod taking;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use uimgacc_types::{ChainId, StoreSource, with_causes};

use crate::chains::{Busy, Chains, MountSettings};
use crate::database::Database;
use crate::disk::{self, Disk, Owner};
use crate::error::Error;
use crate::filter::Filters;
use crate::lease::{self, Leases, Pledge};
use crate::metrics::{Levels, Metrics};
use crate::mounts::{Folders, mounts, overlay_options};
use crate::promise::{Broken, Claim, Labels};
use crate::starts::Starts;
use crate::state::{Kind, Lower, Snapshot, State, StateError, Time, Usage};
use crate::store::Store;
use crate::trial::Trial;
use crate::usage;
use uimgacc_containerd_api::types::Mount;

/// Names the snapshot that containerd wants to have (its `core/snapshots`).
pub(crate) const TARGET_LABEL: &str = "containerd.io/snapshot.ref";
const UID_MAPPING_LABEL: &str = "containerd.io/snapshot/uidmapping";
const GID_MAPPING_LABEL: &str = "containerd.io/snapshot/gidmapping";

/// How long the daemon before this one may take to end: it starts another supervisor, and so its
/// successor, as its last act.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(5);
/// How many removed folders may wait for their deletion in the background.
const MAX_DELETIONS: usize = 1024;
/// How long a request to clean up waits for unmounts.
const SWEEP_DEADLINE: Duration = Duration::from_secs(1);

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The snapshotter's folder, on a local disk.
    pub root: PathBuf,
    /// Where the store is; may change while the node runs.
    pub store: watch::Receiver<StoreSource>,
    /// How long a look into the store may take before a layer counts as missing.
    pub store_deadline: Duration,
    /// How images are mounted.
    pub mounts: MountSettings,
    /// Which images are taken from the store.
    pub original_images: OriginalImages,
    /// Who says what this node uses.
    pub leases: LeaseKeeper,
    /// What is done with target images while the store cannot be reached.
    pub fallback: Fallback,
}

/// Who says what a node uses, so that nobody gives back the space of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseKeeper {
    /// The node itself, by a lease in the store: without one it takes nothing from the store, unless that allows it.
    #[default]
    Node,
    /// The agent of a cluster, which knows what its nodes use; a lease of the node itself comes on top of that.
    Cluster,
}

/// What is done with target images while the store cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// They are pulled and unpacked as ever.
    #[default]
    Registry,
    /// Their pull fails, so that it is tried again later.
    Fail,
}

/// What is done with images that are in the store but were pulled by their original name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OriginalImages {
    /// Layers whose blobs were verified when their image was created start from the store.
    #[default]
    Accelerate,
    /// Whatever an image claims to consist of starts from the store: everybody who can have an image
    /// pulled can read every image of the store.
    AccelerateWithoutProof,
    /// They are pulled and unpacked, as without uimgacc.
    Unpack,
}

impl OriginalImages {
    /// Whether the store is asked at all about what makes this claim.
    fn wants(self, claim: &Claim) -> bool {
        match claim {
            Claim::Target(_) => true,
            Claim::Original(Some(_)) => self != Self::Unpack,
            Claim::Original(None) => self == Self::AccelerateWithoutProof,
        }
    }
}

/// A snapshot with its name.
pub(crate) type Named = (String, Arc<Snapshot>);

/// The snapshotter of a node.
#[derive(Debug)]
pub(crate) struct Node {
    disk: Disk,
    /// Also the lock over changes.
    database: Mutex<Database>,
    state: RwLock<State>,
    store: Arc<Store>,
    chains: Arc<Chains>,
    mounts: MountSettings,
    trial: Trial,
    leases: Leases,
    overlay_options: Vec<String>,
    original_images: OriginalImages,
    lease_keeper: LeaseKeeper,
    fallback: Fallback,
    /// Whether it was logged that a client shows no blobs.
    was_unproven: AtomicBool,
    trash: std::sync::mpsc::SyncSender<PathBuf>,
    chains_changed: Notify,
    broken: Notify,
}

impl Node {
    /// Opens (or makes) the snapshotter's folder. Nothing is mounted yet: that comes with the
    /// first request that needs it.
    ///
    /// # Errors
    /// The folder or its database cannot be used.
    pub(crate) fn open(settings: NodeSettings) -> Result<Self, Error> {
        let disk = Disk::open(&settings.root)?;
        let path = settings.root.join("snapshots.redb");
        let (database, state) = Database::open_after(&path, PREDECESSOR_ENDS)?;
        let store = Arc::new(Store::new(settings.store, settings.store_deadline));
        let chains = Chains::open(&settings.root, store.clone(), settings.mounts.clone())?;
        let (trash, deletions) = std::sync::mpsc::sync_channel::<PathBuf>(MAX_DELETIONS);
        // Ends when the sender does, with the node; what it misses the next sweep finds.
        std::thread::Builder::new()
            .name("delete".to_owned())
            .spawn(move || deletions.iter().for_each(|path| disk::delete(&path)))
            .map_err(Error::io("start a thread for", &settings.root))?;
        Ok(Self {
            disk,
            database: Mutex::new(database),
            state: RwLock::new(state),
            store,
            chains: Arc::new(chains),
            mounts: settings.mounts,
            trial: Trial::default(),
            leases: Leases::new(&settings.root),
            overlay_options: overlay_options(),
            original_images: settings.original_images,
            lease_keeper: settings.leases,
            fallback: settings.fallback,
            was_unproven: AtomicBool::new(false),
            trash,
            chains_changed: Notify::new(),
            broken: Notify::new(),
        })
    }

    /// The store.
    #[must_use]
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Finds out how images can be mounted here; until then, and while they cannot, none is taken
    /// from the store.
    pub(crate) async fn try_mounting(&self) {
        let trial = self.trial.keep_trying(self.root(), &self.mounts.methods);
        trial.await;
    }

    /// How images are mounted; `None` where they cannot be, or where it is not known yet.
    #[must_use]
    pub(crate) fn mount_method(&self) -> Option<uimgacc_mount::Method> {
        self.chains.last_method().or_else(|| self.trial.method())
    }

    /// Every chain of the store that is here, with the number of its active snapshots and views.
    #[must_use]
    pub(crate) fn chains_in_use(&self) -> BTreeMap<ChainId, u32> {
        self.read(State::chains_in_use)
    }

    /// How images were started.
    #[must_use]
    pub(crate) fn starts(&self) -> &Starts {
        self.chains.starts()
    }

    /// What is counted.
    #[must_use]
    pub(crate) fn metrics(&self) -> &Metrics {
        self.chains.metrics()
    }

    /// All metrics in Prometheus' form.
    ///
    /// # Errors
    /// None comes from a string.
    pub(crate) fn metrics_text(&self) -> Result<String, fmt::Error> {
        self.metrics().text(Levels {
            chains: self.held_chains().len(),
            store_reachable: self.store.health().reachable,
            hung_calls: self.store.hung_calls(),
        })
    }

    /// The snapshotter's folder.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        self.disk.root()
    }

    /// The chains of the store that this node holds.
    #[must_use]
    pub(crate) fn held_chains(&self) -> Vec<ChainId> {
        self.read(State::chains).into_iter().collect()
    }

    /// Keeps the lease of this node as it should be, for ever.
    pub(crate) async fn keep_lease(self: Arc<Self>) {
        loop {
            self.leases.renew(&self.store, || self.held_chains()).await;
            tokio::select! {
                () = self.chains_changed.notified() => tokio::time::sleep(lease::PAUSE).await,
                () = tokio::time::sleep(self.leases.lasts()) => {}
            }
        }
    }

    async fn pledge(&self, chains: &[ChainId]) -> Pledge {
        let held = || self.held_chains();
        self.leases.pledge(&self.store, held, chains).await
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read())
    }

    /// A new active snapshot; or the error [`Error::InStore`], when containerd asks whether a
    /// layer is there and it is in the store.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        key: String,
        parent: Option<String>,
        labels: Labels,
    ) -> Result<Vec<Mount>, Error> {
        let claim = Claim::of(&labels);
        let is_layer = labels.contains_key(TARGET_LABEL);
        if is_layer
            && claim == Claim::Original(None)
            && self.original_images == OriginalImages::Accelerate
            && !self.was_unproven.swap(true, Ordering::Relaxed)
        {
            tracing::info!(reason = %Broken::NoBlob, "pulled");
        }
        if self.original_images.wants(&claim)
            && let Some(target) = labels.get(TARGET_LABEL)
            && let Ok(chain) = target.parse::<ChainId>()
        {
            let parent = parent.as_deref();
            if self.take_from_store(chain, parent, &claim, &labels).await? {
                return Err(Error::InStore(chain));
            }
            let health = self.store.health();
            if self.fallback == Fallback::Fail
                && !health.reachable
                && matches!(claim, Claim::Target(_))
            {
                return Err(Error::Away {
                    chain,
                    reason: health.error.unwrap_or_else(|| "no answer yet".to_owned()),
                });
            }
        }
        self.create(Kind::Active, key, parent, labels).await
    }

    /// A new view.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn view(
        self: &Arc<Self>,
        key: String,
        parent: Option<String>,
        labels: Labels,
    ) -> Result<Vec<Mount>, Error> {
        self.create(Kind::View, key, parent, labels).await
    }

    async fn create(
        self: &Arc<Self>,
        kind: Kind,
        key: String,
        parent: Option<String>,
        labels: Labels,
    ) -> Result<Vec<Mount>, Error> {
        let lower = self.read(|state| state.lower(parent.as_deref()))?;
        // Mounts first, and outside of the lock: that may take a while.
        let paths = self.lower_paths(&lower).await?;
        let mapped = mapped_owner(&labels)?;
        let this = self.clone();
        blocking(move || {
            let plan = |state: &State| {
                let (change, snapshot) =
                    state.create(kind, &key, parent.as_deref(), labels, now())?;
                if state.lower(parent.as_deref())? != lower {
                    // It was removed and made anew in between.
                    let name = parent.clone().unwrap_or_default();
                    return Err(StateError::ParentNotFound(name).into());
                }
                Ok((change, snapshot))
            };
            let before = |snapshot: &Arc<Snapshot>| {
                let owner = match (mapped, paths.first()) {
                    (Some(owner), _) => Some(owner),
                    (None, Some(parent)) => Some(disk::owner_of(parent)?),
                    (None, None) => None,
                };
                this.disk.create(snapshot.id, kind == Kind::Active, owner)
            };
            let undo = |snapshot: &Arc<Snapshot>| {
                if let Ok(Some(path)) = this.disk.set_aside(snapshot.id) {
                    disk::delete(&path);
                }
            };
            let snapshot = this.change(plan, before, undo)?;
            Ok(this.mounts_of(&snapshot, paths))
        })
        .await
    }

    /// The mounts of an active snapshot or view.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn mounts(self: &Arc<Self>, key: &str) -> Result<Vec<Mount>, Error> {
        let (snapshot, lower) = self.read(|state| {
            let snapshot = state.mountable(key)?.clone();
            let lower = state.lower(snapshot.parent.as_deref())?;
            Ok::<_, StateError>((snapshot, lower))
        })?;
        let paths = self.lower_paths(&lower).await?;
        Ok(self.mounts_of(&snapshot, paths))
    }

    /// The folders below a snapshot, top first; mounts the image that it lies on.
    async fn lower_paths(&self, lower: &Lower) -> Result<Vec<PathBuf>, Error> {
        let local = lower.local.iter().map(|id| self.disk.upper(*id));
        let mut paths: Vec<PathBuf> = local.collect();
        if let Some(chain) = lower.chain {
            paths.push(self.chains.ensure(chain, lower.index).await?);
        }
        Ok(paths)
    }

    fn mounts_of(&self, snapshot: &Snapshot, lower: Vec<PathBuf>) -> Vec<Mount> {
        let folders = Folders {
            upper: self.disk.upper(snapshot.id),
            work: self.disk.work(snapshot.id),
            lower,
        };
        mounts(snapshot.kind, &folders, &self.overlay_options)
    }

    /// Turns the active snapshot `key` into the committed one `name`.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn commit(
        self: &Arc<Self>,
        name: String,
        key: String,
        labels: Labels,
    ) -> Result<(), Error> {
        let this = self.clone();
        blocking(move || {
            let active = this.read(|state| state.get(&key).cloned())?;
            // A committed key is refused below; only active ones have something to count.
            let usage = match active.kind {
                Kind::Active => usage::of_folder(&this.disk.upper(active.id))?,
                _ => Usage::default(),
            };
            this.simple_change(|state| {
                let change = state.commit(&name, &key, usage, labels, now())?;
                Ok((change, ()))
            })
        })
        .await
    }

    /// Removes a snapshot; its folder is deleted in the background.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn remove(self: &Arc<Self>, key: String) -> Result<(), Error> {
        let this = self.clone();
        let removed = blocking(move || {
            let removed = this.simple_change(|state| state.remove(&key))?;
            if removed.chain.is_none() {
                // The snapshot is gone, whatever becomes of its folder.
                match this.disk.set_aside(removed.id) {
                    Ok(aside) => aside.into_iter().for_each(|path| {
                        // Where the thread is far behind, the next cleanup does it.
                        let _ = this.trash.try_send(path);
                    }),
                    Err(error) => tracing::warn!(error = with_causes(&error), "left for cleanup"),
                }
            }
            Ok(removed)
        })
        .await?;
        if let Some(chain) = removed.chain {
            let this = self.clone();
            tokio::spawn(async move { this.release(chain, Busy::Wait).await });
        }
        Ok(())
    }

    async fn release(self: &Arc<Self>, chain: ChainId, busy: Busy) {
        let this = self.clone();
        let needed = move || this.read(|state| state.has_chain(chain));
        if !needed() {
            self.chains.release(chain, busy, needed).await;
            self.chains_changed.notify_one();
        }
    }

    /// A snapshot.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn stat(&self, key: &str) -> Result<Arc<Snapshot>, Error> {
        Ok(self.read(|state| state.get(key).cloned())?)
    }

    /// Changes labels, see [`State::update`].
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn update(
        self: &Arc<Self>,
        name: String,
        labels: Labels,
        fields: Vec<String>,
    ) -> Result<Arc<Snapshot>, Error> {
        let this = self.clone();
        blocking(move || this.simple_change(|state| state.update(&name, &labels, &fields, now())))
            .await
    }

    /// The snapshots that filters let through, in the order of their names.
    ///
    /// # Errors
    /// A filter cannot be parsed.
    pub(crate) fn list(&self, filters: &[String]) -> Result<Vec<Named>, Error> {
        let filters = Filters::parse(filters)?;
        Ok(self.read(|state| {
            let all = state.iter();
            all.filter(|(name, snapshot)| filters.matches(&(name.as_str(), snapshot.as_ref())))
                .map(|(name, snapshot)| (name.clone(), snapshot.clone()))
                .collect()
        }))
    }

    /// What a snapshot takes on this disk: counted now while it is active, nothing where its
    /// content is in the store.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn usage(self: &Arc<Self>, key: &str) -> Result<Usage, Error> {
        let snapshot = self.stat(key)?;
        if snapshot.kind != Kind::Active {
            return Ok(snapshot.usage);
        }
        let upper = self.disk.upper(snapshot.id);
        blocking(move || usage::of_folder(&upper)).await
    }

    /// Deletes folders and unmounts images that no snapshot has.
    ///
    /// With [`Busy::Skip`] images that are being mounted are left alone, and others are unmounted
    /// for [`SWEEP_DEADLINE`]: containerd removes nothing at all while it waits for this.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) async fn cleanup(self: &Arc<Self>, busy: Busy) -> Result<(), Error> {
        let this = self.clone();
        let chains = blocking(move || {
            let aside = {
                let _lock = this.database.lock();
                let known = this.read(State::folders);
                this.disk.set_aside_unknown(|id| known.contains(&id))?
            };
            aside.iter().for_each(|path| disk::delete(path));
            this.chains.list()
        })
        .await?;
        let this = self.clone();
        let sweep = tokio::spawn(async move {
            for chain in chains {
                this.release(chain, busy).await;
            }
        });
        // What is not done in time goes on by itself; it only fails when the runtime stops.
        match busy {
            Busy::Wait => drop(sweep.await),
            Busy::Skip => drop(tokio::time::timeout(SWEEP_DEADLINE, sweep).await),
        }
        Ok(())
    }
}

/// Whom the root of a snapshot for a user namespace belongs to: what its id 0 is outside.
fn mapped_owner(labels: &Labels) -> Result<Option<Owner>, Error> {
    let root = |label: &str| -> Result<Option<u32>, Error> {
        let Some(text) = labels.get(label) else {
            return Ok(None);
        };
        let invalid = || Error::Invalid(format!("label {label} is no id mapping: {text:?}"));
        for entry in text.split(',') {
            let numbers: Result<Vec<u32>, _> = entry.split(':').map(str::parse).collect();
            match numbers.map_err(|_| invalid())?.as_slice() {
                [0, outside, size] if *size > 0 => return Ok(Some(*outside)),
                [_, _, _] => {}
                _ => return Err(invalid()),
            }
        }
        Err(invalid())
    };
    match (root(UID_MAPPING_LABEL)?, root(GID_MAPPING_LABEL)?) {
        (None, None) => Ok(None),
        (Some(uid), Some(gid)) => Ok(Some(Owner { uid, gid })),
        _ => Err(Error::Invalid(
            "a snapshot needs both id mappings or none".to_owned(),
        )),
    }
}

/// Runs disk work on a thread where it may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(Error::Stopping))
}

fn now() -> Time {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: i32::try_from(now.subsec_nanos()).unwrap_or_default(),
    }
}
