//! `status`: components, nodes, images and what is wrong, at one look.

use kube::ResourceExt as _;
use serde::Serialize;
use uimgacc_objects::{AcceleratedImage, Phase, names};

use crate::Cluster;
use crate::cluster_state::{ClusterState, node_problem, replicas};
use crate::enable::plan::describe;
use crate::error::Error;
use crate::get::holds;
use crate::images::{ImageView, phase};

/// The state of everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// Version of Kubernetes.
    pub kubernetes: String,
    /// Address of the API server.
    pub server: String,
    /// The cluster is enabled.
    pub enable: bool,
    /// It is being disabled.
    pub disabling: bool,
    /// All is well: agent, store, and every node that is up.
    pub ready: bool,
    /// Where the store is, in a few words; empty where nothing is enabled.
    pub store: String,
    /// The store can be written.
    pub store_ready: bool,
    /// The store's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// Bytes of packs and metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_bytes: Option<u64>,
    /// When it was last swept, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sweep: Option<String>,
    /// Agent and node installer.
    pub components: Vec<ComponentStatus>,
    /// Nodes, by name.
    pub nodes: Vec<NodeStatus>,
    /// Counts of images.
    pub images: ImageTotals,
    /// What is wrong, one line each.
    pub errors: Vec<String>,
}

/// A part that runs in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ComponentStatus {
    /// `agent` or `nodes`.
    pub name: String,
    /// How many are ready.
    pub ready: u32,
    /// How many are wanted.
    pub wanted: u32,
    /// The image it runs from.
    pub image: String,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// It can run accelerated images.
    pub ready: bool,
    /// Version of the snapshotter.
    pub version: String,
    /// Version of the kernel.
    pub kernel: String,
    /// Version of containerd.
    pub containerd: String,
    /// How images are mounted.
    pub mount_method: String,
    /// Images of the store that it has.
    pub images: usize,
    /// Containers that run from the store.
    pub containers: u32,
    /// Why it is not ready; empty where it is.
    pub error: String,
}

/// Counts of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageTotals {
    /// All.
    pub total: usize,
    /// That can be used.
    pub ready: usize,
    /// That are being made.
    pub creating: usize,
    /// That are being deleted.
    pub deleting: usize,
    /// That could not be made or deleted.
    pub failed: usize,
}

impl ImageTotals {
    fn of(images: &[AcceleratedImage]) -> Self {
        let mut totals = Self {
            total: images.len(),
            ..Self::default()
        };
        for image in images {
            *match phase(image) {
                Phase::Ready => &mut totals.ready,
                Phase::Creating => &mut totals.creating,
                Phase::Deleting => &mut totals.deleting,
                Phase::CreateError | Phase::DeleteError => &mut totals.failed,
            } += 1;
        }
        totals
    }
}

fn nodes(state: &ClusterState) -> Vec<NodeStatus> {
    let mut all: Vec<NodeStatus> = state
        .nodes
        .iter()
        .map(|node| {
            let status = node.status.clone().unwrap_or_default();
            let problem = node_problem(node);
            NodeStatus {
                name: node.name_any(),
                ready: problem.is_none(),
                version: status.version.unwrap_or_default(),
                kernel: status.kernel.unwrap_or_default(),
                containerd: status.containerd.unwrap_or_default(),
                mount_method: status.mount_method.unwrap_or_default(),
                images: status.chains.len(),
                containers: status.chains.iter().map(|chain| chain.containers).sum(),
                error: problem.unwrap_or_default(),
            }
        })
        .collect();
    for name in state.expected_nodes() {
        if state.nodes.get(&name).is_none() {
            all.push(NodeStatus {
                name,
                ready: false,
                version: String::new(),
                kernel: String::new(),
                containerd: String::new(),
                mount_method: String::new(),
                images: 0,
                containers: 0,
                error: "the node installer has not reported yet".to_owned(),
            });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

pub(crate) fn status(
    kubernetes: String,
    server: String,
    state: &ClusterState,
    images: &[AcceleratedImage],
) -> Status {
    let acceleration = state.enabled();
    let conditions = state.status();
    let nodes = nodes(state);
    let mut components = Vec::new();
    if let Some(agent) = state.agent.get(names::AGENT) {
        let (ready, wanted) = replicas(agent);
        let containers = agent
            .spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref())
            .map(|spec| spec.containers.as_slice());
        components.push(ComponentStatus {
            name: "agent".to_owned(),
            ready: u32::try_from(ready).unwrap_or(0),
            wanted: u32::try_from(wanted).unwrap_or(0),
            image: containers
                .and_then(|containers| containers.first())
                .and_then(|container| container.image.clone())
                .unwrap_or_default(),
        });
    }
    if let Some(acceleration) = acceleration {
        components.push(ComponentStatus {
            name: "nodes".to_owned(),
            ready: u32::try_from(nodes.iter().filter(|node| node.ready).count()).unwrap_or(0),
            wanted: u32::try_from(nodes.len()).unwrap_or(0),
            image: acceleration.spec.image.clone(),
        });
    }
    let mut errors = if acceleration.is_some() {
        state.missing()
    } else {
        Vec::new()
    };
    let ready = acceleration.is_some() && errors.is_empty();
    for image in images.iter().map(ImageView::new) {
        if matches!(image.status, Phase::CreateError | Phase::DeleteError) {
            errors.push(format!("image {}: {}", image.target_image, image.error));
        }
    }
    Status {
        kubernetes,
        server,
        enable: acceleration.is_some(),
        disabling: acceleration
            .is_some_and(|acceleration| acceleration.metadata.deletion_timestamp.is_some()),
        ready,
        store: acceleration
            .map(|acceleration| describe(&acceleration.spec.store))
            .unwrap_or_default(),
        store_ready: holds(&conditions, "NfsReady"),
        store_id: conditions.store_id,
        store_bytes: conditions.store_bytes,
        last_sweep: conditions.last_sweep,
        components,
        nodes,
        images: ImageTotals::of(images),
        errors,
    }
}

impl Cluster {
    /// The state of everything, at this moment.
    ///
    /// # Errors
    /// The API does not answer or refuses.
    pub async fn status(&self) -> Result<Status, Error> {
        let (version, state, images) =
            tokio::join!(self.version(), ClusterState::load(self), self.list_images());
        let images = match images {
            Err(Error::NotEnabled) => Vec::new(),
            other => other?,
        };
        Ok(status(
            version?.text,
            self.server().to_owned(),
            &state?,
            &images,
        ))
    }
}
