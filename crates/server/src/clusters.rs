//! The clusters: a connection to each, replaced after its kubeconfig has changed.
//!
//! Each has a task of its own, so that one that does not answer, or whose kubeconfig is broken,
//! delays no other. The task also completes every `disable`, whichever server accepted it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use uimgacc_control::{Cluster, ClusterImages, Connect};
use uimgacc_types::with_causes;

use crate::cached::Cached;
use crate::config::ClusterConfig;
use crate::files::Watched;

/// How long the first attempt to connect is waited for; it needs no network.
const FIRST: Duration = Duration::from_secs(2);
/// How long a broken kubeconfig is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// How old an answer may be that says what a cluster holds. A writer that waits this long after its
/// write can be sure that no server anywhere answers with the time before it.
pub(crate) const AGE: Duration = Duration::from_millis(500);
/// How long a cluster that did not answer is not asked again.
const UNREACHABLE: Duration = Duration::from_secs(1);
/// How often it is checked whether a `disable` is to be completed.
const CHECK: Duration = Duration::from_secs(5);
/// How long the end of a `disable` may take before it is begun again.
const END: Duration = Duration::from_secs(60);
/// Changes of one cluster at once; more are throttled.
const CHANGES: usize = 16;

/// A cluster that can be asked, and what it answered last.
#[derive(Debug)]
pub struct Connection {
    /// The cluster.
    pub cluster: Cluster,
    images: Cached<ClusterImages>,
}

impl Connection {
    /// What the cluster holds, at most [`AGE`] old.
    ///
    /// # Errors
    /// It does not answer `within` this time, or refuses; for the log.
    pub async fn images(&self, within: Duration) -> Result<Arc<ClusterImages>, String> {
        let read = || async {
            let all = self.cluster.get_all().await;
            all.map_err(|error| with_causes(&error))
        };
        self.images.fresh(within, read).await
    }

    /// What the cluster held when it answered last.
    pub fn last_images(&self) -> Option<Arc<ClusterImages>> {
        self.images.last()
    }
}

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
    connection: Option<Arc<Connection>>,
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

    /// The connection. Just after the start the first attempt is waited for.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub async fn connection(&self) -> Result<Arc<Connection>, String> {
        let mut tried = self.shared.is_tried.subscribe();
        let _ = tokio::time::timeout(FIRST, tried.wait_for(|is_tried| *is_tried)).await;
        self.shared.with(|state| {
            let connection = state.connection.clone();
            connection.ok_or_else(|| state.problem.clone())
        })
    }

    /// What `write` makes of these images; called once for each value.
    pub fn answer(&self, images: &Arc<ClusterImages>, write: impl FnOnce() -> Bytes) -> Bytes {
        let known = self.shared.with(|state| {
            let answer = state.answer.as_ref();
            let same = answer.filter(|(of, _)| Arc::ptr_eq(of, images));
            same.map(|(_, bytes)| bytes.clone())
        });
        if let Some(bytes) = known {
            return bytes;
        }
        let bytes = write();
        let answer = (images.clone(), bytes.clone());
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

/// Connects, and again each time that the kubeconfig changes.
async fn keep(config: ClusterConfig, shared: Arc<Shared>) {
    let connect = Connect {
        kubeconfig: config.kubeconfig.clone(),
        context: config.context.clone(),
    };
    let mut current: Option<Arc<Connection>> = None;
    loop {
        let files = Watched::of(config.kubeconfig.iter().cloned());
        match Cluster::connect(&connect).await {
            Ok(cluster) => {
                tracing::info!(cluster = config.id, server = cluster.server(), "connected");
                let connection = Arc::new(Connection {
                    cluster,
                    images: Cached::new(AGE, UNREACHABLE),
                });
                shared.with(|state| state.connection = Some(connection.clone()));
                current = Some(connection);
            }
            // The old connection stays in use.
            Err(error) if current.is_some() => {
                tracing::error!(cluster = config.id, %error, "the old kubeconfig stays");
            }
            Err(error) => {
                let why = with_causes(&error);
                tracing::error!(cluster = config.id, error = why, "cannot connect");
                shared.with(|state| state.problem = why);
            }
        }
        shared.is_tried.send_replace(true);
        let Some(connection) = &current else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        tokio::select! {
            () = complete_disables(&config.id, &connection.cluster) => {}
            () = files.changed() => {
                tracing::info!(cluster = config.id, "the kubeconfig has changed");
            }
        }
    }
}

/// Removes what a `disable` has left, whoever asked for it. Several servers may do so at once.
async fn complete_disables(id: &str, cluster: &Cluster) {
    let mut last = None;
    loop {
        let problem = match tokio::time::timeout(END, cluster.finish_disable()).await {
            Ok(Ok(is_done)) => {
                if is_done {
                    tracing::info!(cluster = id, "image acceleration is disabled");
                }
                None
            }
            Ok(Err(error)) => Some(with_causes(&error)),
            Err(_) => Some(format!("it takes longer than {} s", END.as_secs())),
        };
        if let Some(error) = problem.as_ref().filter(|_| problem != last) {
            tracing::warn!(
                cluster = id,
                error,
                "cannot complete pending disables; trying again"
            );
        }
        last = problem;
        tokio::time::sleep(CHECK).await;
    }
}
