//! The node's own objects in the cluster: its AccelerationNode and its Node.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ObjectMeta, PartialObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uimgacc_objects::{
    AccelerationNode, AccelerationNodeSpec, AccelerationNodeStatus, ImageAcceleration,
    ImageAccelerationStatus, names,
};

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// An object as it was last seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Known<K> {
    /// Nothing came yet.
    Unknown,
    Missing,
    Is(Box<K>),
}

/// The objects of one node.
pub(super) struct Objects {
    name: String,
    clusters: Api<ImageAcceleration>,
    accelerations: Api<AccelerationNode>,
    nodes: Api<Node>,
    pub(super) acceleration: watch::Receiver<Known<AccelerationNode>>,
    pub(super) node: watch::Receiver<Known<PartialObjectMeta<Node>>>,
    // They end with this.
    _watches: JoinSet<()>,
}

impl Objects {
    /// Watches them.
    pub(super) fn watch(client: &Client, name: &str) -> Self {
        let accelerations: Api<AccelerationNode> = Api::all(client.clone());
        let nodes: Api<Node> = Api::all(client.clone());
        let mut watches = JoinSet::new();
        let only = || watcher::Config::default().fields(&format!("metadata.name={name}"));
        let (send, acceleration) = watch::channel(Known::Unknown);
        let events = watcher::watcher(accelerations.clone(), only()).default_backoff();
        watches.spawn(follow(events, send));
        let (send, node) = watch::channel(Known::Unknown);
        // Of the node only its labels: its status is long, and changes often.
        let labels: Api<PartialObjectMeta<Node>> = Api::all(client.clone());
        let events = watcher::watcher(labels, only()).default_backoff();
        watches.spawn(follow(events, send));
        Self {
            name: name.to_owned(),
            clusters: Api::all(client.clone()),
            accelerations,
            nodes,
            acceleration,
            node,
            _watches: watches,
        }
    }

    /// Makes the AccelerationNode, owned by the node, so that it goes with that.
    pub(super) async fn create(&self, node: &PartialObjectMeta<Node>) -> anyhow::Result<()> {
        let owner = json!({
            "apiVersion": Node::api_version(&()),
            "kind": Node::kind(&()),
            "name": self.name,
            "uid": node.metadata.uid,
        });
        let metadata: ObjectMeta = serde_json::from_value(json!({
            "name": self.name,
            "labels": {"app.kubernetes.io/part-of": names::PART_OF},
            "ownerReferences": [owner],
        }))?;
        let mut object = AccelerationNode::new(&self.name, AccelerationNodeSpec::default());
        object.metadata = metadata;
        let made = deadline(self.accelerations.create(&PostParams::default(), &object)).await;
        match made {
            Err(Refusal::Said(kube::Error::Api(status))) if status.code == 409 => Ok(()),
            other => {
                other.context("cannot make the AccelerationNode")?;
                Ok(())
            }
        }
    }

    /// The status of the `ImageAcceleration` as the API server has it now; an empty one where there is
    /// none.
    pub(super) async fn cluster_status(&self) -> anyhow::Result<ImageAccelerationStatus> {
        let found = deadline(self.clusters.get_opt(names::DEFAULT)).await;
        let found = found.context("cannot read the ImageAcceleration")?;
        Ok(found.and_then(|one| one.status).unwrap_or_default())
    }

    /// Says how it is.
    pub(super) async fn say(&self, status: &AccelerationNodeStatus) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": AccelerationNode::api_version(&()),
            "kind": AccelerationNode::kind(&()),
            "metadata": {"name": self.name},
            "status": status,
        });
        let parameters = PatchParams::apply(names::NODE).force();
        let patch = Patch::Apply(&object);
        let said = self
            .accelerations
            .patch_status(&self.name, &parameters, &patch);
        deadline(said)
            .await
            .context("cannot write the status of the AccelerationNode")?;
        Ok(())
    }

    /// Sets labels of the node, or takes them away.
    pub(super) async fn label(&self, names: &[&str], is_set: bool) -> anyhow::Result<()> {
        let value = if is_set { json!("true") } else { Value::Null };
        let labels: serde_json::Map<String, Value> = names
            .iter()
            .map(|name| ((*name).to_owned(), value.clone()))
            .collect();
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        let parameters = PatchParams {
            field_manager: Some(names::NODE.to_owned()),
            ..PatchParams::default()
        };
        let done = self.nodes.patch_metadata(&self.name, &parameters, &patch);
        deadline(done)
            .await
            .context("cannot change the labels of the node")?;
        Ok(())
    }
}

/// Which of our labels a node has with their value: all, any.
pub(super) fn labels(node: &PartialObjectMeta<Node>) -> (bool, bool) {
    let labels = node.metadata.labels.as_ref();
    let value = |name: &str| labels.and_then(|labels| labels.get(name));
    let all = names::NODE_LABELS
        .iter()
        .all(|name| value(name).is_some_and(|value| value == "true"));
    let any = names::NODE_LABELS.iter().any(|name| value(name).is_some());
    (all, any)
}

/// Whether a node has the label that keeps the installer on it.
pub(super) fn keeps_installer(node: &PartialObjectMeta<Node>) -> bool {
    let labels = node.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(names::INSTALLED_LABEL))
}

/// Why the API server did not do as it was asked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    #[error(transparent)]
    Said(#[from] kube::Error),
}

async fn deadline<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Refusal::Late),
    }
}

/// Keeps the newest state of the one object of a watch.
async fn follow<K: Debug>(
    events: impl futures_util::Stream<Item = watcher::Result<Event<K>>>,
    send: watch::Sender<Known<K>>,
) {
    let mut events = std::pin::pin!(events);
    let mut is_seen = false;
    while let Some(event) = events.next().await {
        let known = match event {
            Ok(Event::Init) => {
                is_seen = false;
                continue;
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                is_seen = true;
                Known::Is(Box::new(object))
            }
            Ok(Event::InitDone) if is_seen => continue,
            Ok(Event::InitDone | Event::Delete(_)) => Known::Missing,
            Err(error) => {
                tracing::warn!(%error, "the API server does not let us watch; it is asked again");
                continue;
            }
        };
        send.send_replace(known);
    }
}
