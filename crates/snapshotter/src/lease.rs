//! What this node tells the store: which chains it holds, and which it is about to promise.
//!
//! `uimgacc delete` reads the lease and refuses to delete what a node still has. So it is written
//! before containerd is told that a layer is there. Where the store takes no lease, layers are taken from it
//! only if it allows readers without one; and a store that is away never delays a request longer than its
//! deadline.
//!
//! Assumptions: the machine ID is this machine's own (`machine-id(5)`).

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Mutex as AsyncMutex;
use uimgacc_store::{CommitError, Lease, StoreReader, remove_lease, write_lease};
use uimgacc_types::{ChainId, Digest, with_causes};

use crate::store::Store;

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(60);
/// Changes that come together are written together.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a chain is held that was found for a pull and not asked for after all.
const PENDING: Duration = Duration::from_secs(60);

/// Below `root`: what tells machines apart that have no machine ID.
const ID_FILE: &str = "node-id";

/// What came of a pledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pledge {
    /// The store knows that this node holds the chains.
    Written,
    /// It takes no lease, or not in time.
    Refused,
}

/// The lease of a node.
#[derive(Debug)]
pub(crate) struct Leases {
    name: String,
    id_file: PathBuf,
    /// Chains that are no snapshots yet.
    pending: Mutex<HashMap<ChainId, Instant>>,
    /// What the lease in the store says; `None` where that is not known. Held while it is written,
    /// also by a thread that hangs: an old lease must never replace a newer one.
    written: Arc<AsyncMutex<Option<BTreeSet<ChainId>>>>,
    /// Whether that was told.
    was_refused: AtomicBool,
    /// Whether the store said that nothing can be written: then no request tries it.
    is_read_only: Arc<AtomicBool>,
}

impl Leases {
    /// The lease of the snapshotter in `root`. Nothing is written yet.
    #[must_use]
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            name: lease_name(&machine_id(root), &host_name(), root),
            id_file: root.join(ID_FILE),
            pending: Mutex::default(),
            written: Arc::default(),
            was_refused: AtomicBool::new(false),
            is_read_only: Arc::default(),
        }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<ChainId, Instant>> {
        self.pending.lock()
    }

    fn wanted(&self, held: Vec<ChainId>) -> BTreeSet<ChainId> {
        let mut wanted: BTreeSet<ChainId> = held.into_iter().collect();
        let mut pending = self.pending();
        pending.retain(|_, since| since.elapsed() < PENDING);
        wanted.extend(pending.keys());
        wanted
    }

    /// Whether the lease in the store has the chain already and will go on having it.
    #[must_use]
    pub(crate) fn covers(&self, chain: ChainId) -> bool {
        let mut pending = self.pending();
        let Some(since) = pending.get_mut(&chain) else {
            return false;
        };
        *since = Instant::now();
        // Being written: then it is not known.
        let Ok(written) = self.written.try_lock() else {
            return false;
        };
        written
            .as_ref()
            .is_some_and(|chains| chains.contains(&chain))
    }

    /// Writes a lease that has `chains` beside those that are `held`. They stay in it until
    /// [`Self::release`], or for [`PENDING`].
    pub(crate) async fn pledge(
        &self,
        store: &Arc<Store>,
        held: impl Fn() -> Vec<ChainId>,
        chains: &[ChainId],
    ) -> Pledge {
        let now = Instant::now();
        self.pending()
            .extend(chains.iter().map(|chain| (*chain, now)));
        if self.is_read_only.load(Ordering::Relaxed) {
            return self.refused("it is read-only here");
        }
        let written = tokio::time::timeout(store.deadline(), self.write(store, held)).await;
        match written {
            Ok(Ok(())) => Pledge::Written,
            Ok(Err(error)) => self.refused(&error),
            Err(_) => self.refused("an earlier write hangs"),
        }
    }

    /// Told once, until a lease could be written.
    fn refused(&self, error: &str) -> Pledge {
        if !self.was_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error,
                "the store takes no lease of this node, so images are pulled unless the store allows that: make it writable here, or run `uimgacc store init --unleased-readers` where it is"
            );
        }
        Pledge::Refused
    }

    /// Chains that are held as snapshots now, or not at all.
    pub(crate) fn release(&self, chains: &[ChainId]) {
        let mut pending = self.pending();
        for chain in chains {
            pending.remove(chain);
        }
    }

    /// How long the lease can stay as it is: until it must be renewed, or a chain is pending no more.
    pub(crate) fn lasts(&self) -> Duration {
        let pending = self.pending();
        let ages = pending.values().map(Instant::elapsed);
        ages.map(|age| PENDING.saturating_sub(age))
            .fold(RENEWAL, Duration::min)
            .max(PAUSE)
    }

    /// Writes the lease of what is `held`, where that is news or was written long ago.
    pub(crate) async fn renew(&self, store: &Arc<Store>, held: impl Fn() -> Vec<ChainId>) {
        match self.write(store, held).await {
            Ok(()) => self.was_refused.store(false, Ordering::Relaxed),
            Err(error) => tracing::debug!(error, "the store takes no lease"),
        }
    }

    async fn write(
        &self,
        store: &Arc<Store>,
        held: impl Fn() -> Vec<ChainId>,
    ) -> Result<(), String> {
        let mut written = self.written.clone().lock_owned().await;
        // As it is now, not as it was before the wait.
        let wanted = self.wanted(held());
        // Also at the start, when an earlier process may have left one.
        if wanted.is_empty() && written.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(());
        }
        let (name, is_read_only) = (self.name.clone(), self.is_read_only.clone());
        let id_file = self.id_file.clone();
        // Whatever happens from here on, what is there is not known before it worked.
        *written = None;
        let write = store.run(DEADLINE, move |store| {
            // Where the store was unmounted, its folder must not be filled on the node's own disk.
            let store = StoreReader::open(store.layout().root())?;
            let result = if wanted.is_empty() {
                remove_lease(store.layout(), &name)
            } else {
                let holder = format!("node {}", host_name());
                let chains = wanted.iter().copied().collect();
                let lease = Lease::of_machine_with(holder, chains, &id_file);
                write_lease(store.layout(), &name, &lease)
            };
            // That there was nothing to take away says nothing.
            if result.is_err() || !wanted.is_empty() {
                is_read_only.store(result.as_ref().is_err_and(is_refusal), Ordering::Relaxed);
            }
            if result.is_ok() {
                *written = Some(wanted);
            }
            Ok(result.map_err(|error| with_causes(&error)))
        });
        write.await.map_err(|error| with_causes(&error))?
    }
}

fn is_refusal(error: &CommitError) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let CommitError::Io { source, .. } = error else {
        return false;
    };
    matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// One per machine and folder: two snapshotters of one machine must not share a lease, nor may two
/// machines of one name.
///
/// Copies of a machine may share its ID, so the name counts as well: a lease that is left behind by
/// another name costs a `--force`, a shared one would cost an image.
fn lease_name(machine: &str, host: &str, root: &Path) -> String {
    let parts = [
        machine.as_bytes(),
        host.as_bytes(),
        root.as_os_str().as_bytes(),
    ];
    let text = parts.join(&b"\0"[..]);
    let digest = Digest::of(&text).hex();
    format!("node-{}", digest.get(..16).unwrap_or(&digest))
}

/// What tells this machine from others: its machine ID, else a number that is kept in `root`.
fn machine_id(root: &Path) -> String {
    let system = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    // Where it is not made yet systemd has "uninitialized" there.
    let is_id = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id(system.trim()) {
        return system.trim().to_owned();
    }
    kept_id(root).unwrap_or_else(|error| {
        tracing::warn!(%error, "there is no machine ID, and none can be kept");
        host_name()
    })
}

fn host_name() -> String {
    let host = rustix::system::uname();
    host.nodename().to_string_lossy().into_owned()
}

fn kept_id(root: &Path) -> io::Result<String> {
    let path = root.join(ID_FILE);
    match fs::read_to_string(&path) {
        Ok(text) if !text.is_empty() => return Ok(text),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let new = path.with_extension("new");
    let id = id.trim().replace('-', "");
    fs::write(&new, &id)?;
    fs::rename(&new, &path)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_as_long_as_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::new(folder.path());
        assert_eq!(leases.lasts(), RENEWAL);
        let Some(since) = Instant::now().checked_sub(PENDING - Duration::from_secs(20)) else {
            panic!("the machine has only just started");
        };
        let chain = ChainId::from_bytes([1; 32]);
        leases.pending().insert(chain, since);
        assert!(leases.lasts() <= Duration::from_secs(20));
        assert!(leases.lasts() > Duration::from_secs(10));
        leases.release(&[chain]);
        assert_eq!(leases.lasts(), RENEWAL);
    }

    #[test]
    fn a_lease_belongs_to_one_folder_of_one_machine() {
        let name = |machine, host, root| lease_name(machine, host, Path::new(root));
        let one = name("m1", "h1", "/a");
        assert_eq!(one, name("m1", "h1", "/a"));
        for other in [
            name("m2", "h1", "/a"),
            name("m1", "h2", "/a"),
            name("m1", "h1", "/b"),
        ] {
            assert_ne!(one, other);
        }
        let folder = tempfile::tempdir().unwrap();
        let id = kept_id(folder.path()).unwrap();
        assert_eq!(id.len(), 32);
        assert_eq!(kept_id(folder.path()).unwrap(), id);
        assert_eq!(machine_id(folder.path()), machine_id(folder.path()));
    }
}
