//! The clusters: a mirror of each, connected by itself and again after its kubeconfig has changed.
//!
//! A task of its own keeps each, so that one that does not answer, or whose kubeconfig is broken,
//! holds up nobody else. It also ends every `disable` that was asked for, by whichever server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use uimgacc_control::{Cluster, ClusterImages, Connect, Mirror, Snapshot};

use crate::config::ClusterConfig;
use crate::files::Watched;

/// How long the first attempt to connect is waited for; it needs no network.
const FIRST: Duration = Duration::from_secs(2);
/// How long a broken kubeconfig is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the end of a `disable` may take before it is begun again.
const END: Duration = Duration::from_secs(60);
/// Changes of one cluster at once; more are throttled.
const CHANGES: usize = 16;

/// All clusters, by ID.
#[derive(Debug, Default)]
pub struct Clusters(BTreeMap<String, Arc<Managed>>);

/// One cluster.
#[derive(Debug)]
pub struct Managed {
    /// How to reach it.
    pub config: ClusterConfig,
    /// Permits for changes.
    pub changes: Arc<Semaphore>,
    /// Held while the cluster is enabled or disabled: one after the other.
    pub setting_up: Arc<tokio::sync::Mutex<()>>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Whether it was tried to connect.
    is_tried: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    mirror: Option<Mirror>,
    /// Why there is none.
    problem: String,
    /// The last answer that was written, and of what.
    answer: Option<(Arc<ClusterImages>, Bytes)>,
    is_reachable: bool,
}

impl Clusters {
    /// These clusters; those of `old` that are configured the same go on.
    #[must_use]
    pub fn new(configs: &[ClusterConfig], old: &Self) -> Self {
        let managed = configs.iter().map(|config| {
            let kept = old.get(&config.id).filter(|old| old.config == *config);
            let cluster = kept.cloned().unwrap_or_else(|| Managed::start(config));
            (config.id.clone(), cluster)
        });
        Self(managed.collect())
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Managed>> {
        self.0.get(id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Managed)> {
        self.0.iter().map(|(id, one)| (id.as_str(), one.as_ref()))
    }
}

impl Managed {
    fn start(config: &ClusterConfig) -> Arc<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            is_tried: watch::Sender::new(false),
        });
        shared.with(|state| "it is being connected".clone_into(&mut state.problem));
        Arc::new(Self {
            config: config.clone(),
            changes: Arc::new(Semaphore::new(CHANGES)),
            setting_up: Arc::default(),
            task: tokio::spawn(keep(config.clone(), shared.clone())),
            shared,
        })
    }

    /// The cluster's mirror. Just after the start it is waited for, a moment.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub async fn mirror(&self) -> Result<Mirror, String> {
        let mut tried = self.shared.is_tried.subscribe();
        let _ = tokio::time::timeout(FIRST, tried.wait_for(|is_tried| *is_tried)).await;
        self.shared
            .with(|state| state.mirror.clone().ok_or_else(|| state.problem.clone()))
    }

    /// What `write` makes of a snapshot; written once for each.
    pub fn answer(&self, snapshot: &Snapshot, write: impl FnOnce() -> Bytes) -> Bytes {
        let known = self.shared.with(|state| {
            let answer = state.answer.as_ref();
            let same = answer.filter(|(images, _)| Arc::ptr_eq(images, &snapshot.images));
            same.map(|(_, bytes)| bytes.clone())
        });
        if let Some(bytes) = known {
            return bytes;
        }
        let bytes = write();
        let answer = (snapshot.images.clone(), bytes.clone());
        self.shared.with(|state| state.answer = Some(answer));
        bytes
    }

    /// Keeps whether it answered.
    pub fn set_reachable(&self, is_reachable: bool) {
        self.shared.with(|state| state.is_reachable = is_reachable);
    }

    /// Whether it answered when it was last asked.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.shared.with(|state| state.is_reachable)
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock())
    }
}

/// Connects and keeps the mirror, and again each time that the kubeconfig changes.
async fn keep(config: ClusterConfig, shared: Arc<Shared>) {
    let connect = Connect {
        kubeconfig: config.kubeconfig.clone(),
        context: config.context.clone(),
    };
    let mut current: Option<Mirror> = None;
    loop {
        let files = Watched::of(config.kubeconfig.iter().cloned());
        match Cluster::connect(&connect).await {
            Ok(cluster) => {
                tracing::info!(cluster = config.id, server = cluster.server(), "connected");
                let mirror = Mirror::new(cluster);
                shared.with(|state| state.mirror = Some(mirror.clone()));
                current = Some(mirror);
            }
            // What works goes on.
            Err(error) if current.is_some() => {
                tracing::error!(cluster = config.id, %error, "the old kubeconfig stays");
            }
            Err(error) => {
                let source = std::error::Error::source(&error);
                let why = source.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"));
                tracing::error!(cluster = config.id, error = why, "cannot connect");
                shared.with(|state| {
                    state.problem = why;
                });
            }
        }
        shared.is_tried.send_replace(true);
        let Some(mirror) = &current else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        tokio::select! {
            () = mirror.clone().follow() => {}
            () = end_disables(&config.id, mirror) => {}
            () = files.changed() => {
                tracing::info!(cluster = config.id, "the kubeconfig has changed");
            }
        }
    }
}

/// Takes away what a `disable` has left, whoever asked for it. Several servers may do so at once.
async fn end_disables(id: &str, mirror: &Mirror) {
    let mut changes = mirror.changes();
    loop {
        if mirror.last().is_some_and(|snapshot| snapshot.is_removing) {
            match tokio::time::timeout(END, mirror.cluster().finish_disable()).await {
                Ok(Ok(true)) => tracing::info!(cluster = id, "image acceleration is disabled"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(cluster = id, %error, "cannot end a disable yet"),
                Err(_) => tracing::warn!(cluster = id, "the end of a disable takes too long"),
            }
            // The mirror tells a little later; and what failed is tried again.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
