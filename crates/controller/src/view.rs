//! What the controller keeps of each object: small, owned, and what decisions are made of.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::{Resource, ResourceExt as _};
use uimgacc_objects::{
    AcceleratedImage, AcceleratedImageSpec, AcceleratedImageStatus, AccelerationNode,
    AccelerationNodeSpec, AccelerationNodeStatus, ImageAcceleration, ImageAccelerationSpec,
    ImageAccelerationStatus, names, nodes,
};
use uimgacc_types::ImageReference;

use super::wire::{WireCondition, WireDaemonSet, WireJob, WirePod};

/// Annotation of Jobs: the whole name of the image.
pub const IMAGE_ANNOTATION: &str = "uimgacc.io/image";
/// The uid of the image that a Job is for.
pub const IMAGE_UID_ANNOTATION: &str = "uimgacc.io/image-uid";
/// Annotation of Jobs and of the DaemonSet: the digest of what they were made from.
pub const INPUTS_ANNOTATION: &str = "uimgacc.io/inputs";
/// Annotation of Jobs: the digest of the store's specification.
pub const STORE_ANNOTATION: &str = "uimgacc.io/store";
/// Annotation of Jobs: which attempt it is, from 1.
pub const ATTEMPT_ANNOTATION: &str = "uimgacc.io/attempt";
/// Label of what a Job is for.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";

/// What every object has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Unique for each life of an object.
    pub uid: String,
    /// Resource version.
    pub version: String,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// When it was made.
    pub created: Timestamp,
    /// Since when it is being deleted.
    pub deleting: Option<Timestamp>,
}

impl Meta {
    /// Of an object's metadata.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation,
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting: metadata.deletion_timestamp.as_ref().map(|time| time.0),
        }
    }
}

/// What is kept in a cache: it has a key and a version.
pub trait Cached {
    /// Unique in its cache.
    fn key(&self) -> String;
    /// Resource version.
    fn version(&self) -> &str;
    /// Sets it.
    fn set_version(&mut self, version: &str);
}

macro_rules! cached_by_name {
    ($($view:ty),*) => {$(
        impl Cached for $view {
            fn key(&self) -> String {
                self.meta.name.clone()
            }
            fn version(&self) -> &str {
                &self.meta.version
            }
            fn set_version(&mut self, version: &str) {
                version.clone_into(&mut self.meta.version);
            }
        }
    )*};
}

cached_by_name!(
    ImageView,
    ClusterView,
    AccelerationNodeView,
    NodeView,
    JobView,
    InstallerView,
    MetaView
);

/// An object of which only the metadata is ever read: a Secret that images may name, a `StartRecord`.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaView {
    /// Metadata.
    pub meta: Meta,
}

impl<K> From<PartialObjectMeta<K>> for MetaView {
    fn from(object: PartialObjectMeta<K>) -> Self {
        Self {
            meta: Meta::of(&object.metadata),
        }
    }
}

/// An `AcceleratedImage`.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageView {
    /// Metadata.
    pub meta: Meta,
    /// Whether our finalizer is set.
    pub finalizer: bool,
    /// All finalizers.
    pub finalizers: Vec<String>,
    /// Whether it may be deleted although Pods use it.
    pub forced: bool,
    /// The mark of whoever wanted another attempt last.
    pub retry: Option<String>,
    /// Spec.
    pub spec: AcceleratedImageSpec,
    /// The original's normalised reference, or why it is none.
    pub original: Result<ImageReference, String>,
    /// The target's.
    pub target: Result<ImageReference, String>,
    /// Status.
    pub status: AcceleratedImageStatus,
    /// Whether the object has a status at all.
    pub has_status: bool,
}

impl From<AcceleratedImage> for ImageView {
    fn from(image: AcceleratedImage) -> Self {
        let parse = |text: &str| {
            text.parse::<ImageReference>()
                .map_err(|error| error.to_string())
        };
        Self {
            meta: Meta::of(&image.metadata),
            finalizer: image.finalizers().iter().any(|one| one == names::FINALIZER),
            finalizers: image.finalizers().to_vec(),
            forced: is_forced(&image),
            retry: annotation(&image, names::RETRY_ANNOTATION).map(str::to_owned),
            original: parse(&image.spec.original_image),
            target: parse(&image.spec.target_image),
            spec: image.spec,
            has_status: image.status.is_some(),
            status: image.status.unwrap_or_default(),
        }
    }
}

impl ImageView {
    /// Whether another attempt was asked for since the status was written.
    #[must_use]
    pub fn is_asked_again(&self) -> bool {
        self.retry.is_some() && self.retry != self.status.observed_retry
    }
}

fn annotation<'a, K: Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    let annotations = object.meta().annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

fn is_forced<K: Resource>(object: &K) -> bool {
    annotation(object, names::FORCE_ANNOTATION) == Some("true")
}

/// The `ImageAcceleration`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterView {
    /// Metadata.
    pub meta: Meta,
    /// Whether our finalizer is set.
    pub finalizer: bool,
    /// All finalizers.
    pub finalizers: Vec<String>,
    /// Whether it may be deleted although Pods use target images.
    pub forced: bool,
    /// Spec.
    pub spec: ImageAccelerationSpec,
    /// Status.
    pub status: ImageAccelerationStatus,
}

/// Keeps the `ImageAcceleration` until the nodes are as they were.
pub const CLUSTER_FINALIZER: &str = "uimgacc.io/cluster";

impl From<ImageAcceleration> for ClusterView {
    fn from(cluster: ImageAcceleration) -> Self {
        Self {
            meta: Meta::of(&cluster.metadata),
            finalizer: cluster
                .finalizers()
                .iter()
                .any(|one| one == CLUSTER_FINALIZER),
            finalizers: cluster.finalizers().to_vec(),
            forced: is_forced(&cluster),
            spec: cluster.spec,
            status: cluster.status.unwrap_or_default(),
        }
    }
}

/// An `AccelerationNode`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccelerationNodeView {
    /// Metadata.
    pub meta: Meta,
    /// Spec.
    pub spec: AccelerationNodeSpec,
    /// Status.
    pub status: AccelerationNodeStatus,
}

impl From<AccelerationNode> for AccelerationNodeView {
    fn from(mut node: AccelerationNode) -> Self {
        // Held in memory once for each node and chain.
        if let Some(status) = &mut node.status {
            status.chains.shrink_to_fit();
        }
        Self {
            meta: Meta::of(&node.metadata),
            spec: node.spec,
            status: node.status.unwrap_or_default(),
        }
    }
}

/// A `Node`.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Metadata.
    pub meta: Meta,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl NodeView {
    /// Of a Node's metadata.
    #[must_use]
    pub fn of(metadata: ObjectMeta) -> Self {
        Self {
            meta: Meta::of(&metadata),
            labels: metadata.labels.unwrap_or_default(),
        }
    }

    /// Whether the node is to be set up.
    #[must_use]
    pub fn is_selected(&self, selector: &BTreeMap<String, String>) -> bool {
        nodes::is_selected(&self.labels, selector)
    }
}

/// A Pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodView {
    /// Namespace and name.
    pub id: String,
    /// Resource version.
    pub version: String,
    /// The node it runs on.
    pub node: Option<String>,
    /// Whether it has ended for good.
    pub finished: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// The normalised references of its images.
    pub images: Vec<ImageReference>,
    /// Of a Pod of ours, more.
    pub ours: Option<Box<OurPod>>,
}

/// More of a Pod of ours.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OurPod {
    /// The Job it is of.
    pub job: Option<String>,
    /// What it is for.
    pub component: String,
    /// What its container left behind, where that has ended.
    pub ended: Option<Ended>,
    /// Why it does not run yet.
    pub waits: Option<String>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// One word, such as `OOMKilled`.
    pub reason: String,
    /// Its termination message.
    pub message: String,
}

impl Cached for PodView {
    fn key(&self) -> String {
        self.id.clone()
    }
    fn version(&self) -> &str {
        &self.version
    }
    fn set_version(&mut self, version: &str) {
        version.clone_into(&mut self.version);
    }
}

impl From<WirePod> for PodView {
    fn from(pod: WirePod) -> Self {
        let spec = &pod.spec;
        let mut images: Vec<ImageReference> = spec
            .containers
            .iter()
            .chain(&spec.init_containers)
            .chain(&spec.ephemeral_containers)
            .filter_map(|container| container.image.as_deref()?.parse().ok())
            .collect();
        images.sort_unstable();
        images.dedup();
        images.shrink_to_fit();
        let phase = pod.status.phase.as_deref().unwrap_or_default();
        Self {
            id: format!(
                "{}/{}",
                pod.metadata.namespace.as_deref().unwrap_or_default(),
                pod.metadata.name.as_deref().unwrap_or_default()
            ),
            version: pod.metadata.resource_version.clone().unwrap_or_default(),
            node: spec.node_name.clone(),
            finished: matches!(phase, "Succeeded" | "Failed"),
            ready: is_true(&pod.status.conditions, "Ready"),
            ours: our_pod(&pod).map(Box::new),
            images,
        }
    }
}

fn is_true(conditions: &[WireCondition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.kind == kind && condition.status == "True")
}

fn our_pod(pod: &WirePod) -> Option<OurPod> {
    let labels = pod.metadata.labels.as_ref()?;
    let ours = labels
        .get(names::PART_OF_LABEL)
        .is_some_and(|value| value == names::PART_OF)
        && pod.metadata.namespace.is_some();
    if !ours {
        return None;
    }
    let container = pod.status.container_statuses.first();
    let ended = container
        .and_then(|container| container.state.terminated.as_ref())
        .map(|ended| Ended {
            code: ended.exit_code.unwrap_or(-1),
            reason: ended.reason.clone().unwrap_or_default(),
            message: ended.message.clone().unwrap_or_default(),
        });
    // A Pod that was evicted, or whose node is gone, says so itself.
    let ended = ended.or_else(|| {
        (pod.status.phase.as_deref() == Some("Failed")).then(|| Ended {
            code: -1,
            reason: pod.status.reason.clone().unwrap_or_default(),
            message: pod.status.message.clone().unwrap_or_default(),
        })
    });
    let unscheduled = || {
        pod.status
            .conditions
            .iter()
            .find(|condition| condition.kind == "PodScheduled" && condition.status == "False")
            .map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    let waits = container
        .and_then(|container| container.state.waiting.as_ref())
        .map(|waiting| (waiting.reason.clone(), waiting.message.clone()))
        .or_else(unscheduled)
        .filter(|_| pod.status.phase.as_deref() == Some("Pending"))
        .map(|(reason, message)| {
            let reason = reason.unwrap_or_else(|| "Pending".to_owned());
            message.map_or(reason.clone(), |message| format!("{reason}: {message}"))
        });
    Some(OurPod {
        job: labels.get("job-name").cloned(),
        component: labels.get(COMPONENT_LABEL).cloned().unwrap_or_default(),
        ended,
        waits,
    })
}

/// How a Job stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum JobEnd {
    /// It runs or waits.
    #[default]
    Active,
    /// It did its work.
    Complete(Timestamp),
    /// It did not: when, and what Kubernetes says of it (`DeadlineExceeded`).
    Failed(Timestamp, String),
}

/// A Job of ours.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobView {
    /// Metadata.
    pub meta: Meta,
    /// What it is for: `convert`, `delete`, `sweep`, `init`.
    pub component: String,
    /// The image it is for.
    pub image: Option<String>,
    /// The uid of that image; those before did not tell.
    pub image_uid: Option<String>,
    /// What it was made from.
    pub inputs: String,
    /// The store it was made for.
    pub store: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it stands.
    pub end: JobEnd,
}

impl From<WireJob> for JobView {
    fn from(job: WireJob) -> Self {
        let annotation = |key: &str| {
            let annotations = job.metadata.annotations.as_ref();
            annotations.and_then(|all| all.get(key)).cloned()
        };
        let end = job
            .status
            .conditions
            .iter()
            .filter(|condition| condition.status == "True")
            .find_map(|condition| {
                let at = condition
                    .last_transition_time
                    .as_ref()
                    .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
                match condition.kind.as_str() {
                    "Complete" => Some(JobEnd::Complete(at)),
                    "Failed" => Some(JobEnd::Failed(
                        at,
                        condition.reason.clone().unwrap_or_default(),
                    )),
                    _ => None,
                }
            });
        Self {
            meta: Meta::of(&job.metadata),
            component: job
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(COMPONENT_LABEL).cloned())
                .unwrap_or_default(),
            image: annotation(IMAGE_ANNOTATION),
            image_uid: annotation(IMAGE_UID_ANNOTATION),
            inputs: annotation(INPUTS_ANNOTATION).unwrap_or_default(),
            store: annotation(STORE_ANNOTATION).unwrap_or_default(),
            attempt: annotation(ATTEMPT_ANNOTATION)
                .and_then(|text| text.parse().ok())
                .unwrap_or(1),
            end: end.unwrap_or_default(),
        }
    }
}

/// The DaemonSet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InstallerView {
    /// Metadata.
    pub meta: Meta,
    /// What it was made from.
    pub inputs: String,
    /// Whether its status is of its current spec.
    pub current: bool,
    /// Nodes that it is to run on.
    pub desired: i32,
    /// Nodes where it runs.
    pub ready: i32,
}

impl From<WireDaemonSet> for InstallerView {
    fn from(set: WireDaemonSet) -> Self {
        Self {
            meta: Meta::of(&set.metadata),
            inputs: set
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(INPUTS_ANNOTATION).cloned())
                .unwrap_or_default(),
            current: set.status.observed_generation == set.metadata.generation,
            desired: set.status.desired_number_scheduled,
            ready: set.status.number_ready,
        }
    }
}
