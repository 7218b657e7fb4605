//! `AccelerationNode`: what one node can and what it holds of the store.
//!
//! The object is named as the node and owned by it, so it goes with the node. What it holds is
//! a lease: nothing of it may be swept while the node exists, however silent it is.

#![allow(
    clippy::duplicated_attributes,
    unreachable_pub,
    reason = "columns repeat their types; kube's derive names types that lib.rs exports anew"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the agent asks of a node.
#[derive(
    CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq,
)]
#[kube(
    group = "uimgacc.io",
    version = "v1",
    kind = "AccelerationNode",
    plural = "accelerationnodes",
    shortname = "accnode",
    category = "uimgacc",
    status = "AccelerationNodeStatus",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Kernel", type_ = "string", json_path = ".status.kernel"),
    printcolumn(name = "Mount", type_ = "string", json_path = ".status.mountMethod"),
    printcolumn(
        name = "Containerd",
        type_ = "string",
        json_path = ".status.containerd",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AccelerationNodeSpec {
    /// Tokens of chains that the node is to give back: it removes images that lie on them where no
    /// container uses them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub release: Vec<String>,
    /// The node is not selected any more: no new Pods are to come, and everything is taken off it
    /// once none uses the store.
    #[serde(default)]
    pub leaving: bool,
    /// Everything is to be removed from the node, once the status of the `ImageAcceleration` lists it as
    /// one that may restart containerd.
    #[serde(default)]
    pub uninstall: bool,
}

/// What a node says of itself. Conditions: `Ready` (it can run accelerated images), `Installed`
/// (containerd knows the snapshotter), `StoreReachable`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccelerationNodeStatus {
    /// Version of the snapshotter that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Version of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Version of containerd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containerd: Option<String>,
    /// How images are mounted: `file-directio`, `file` or `loop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_method: Option<String>,
    /// containerd must be restarted: the node waits until the `ImageAcceleration` lists it.
    #[serde(default)]
    pub needs_restart: bool,
    /// Chains of the store that the node has as images, and those that containers use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<HeldChain>,
    /// Why the node is not ready, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As Kubernetes' API conventions have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A chain that a node holds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HeldChain {
    /// Token of the chain: `chain:` and 64 hex digits. It does not reveal the chain ID.
    pub token: String,
    /// Containers (and other active snapshots) that lie on it.
    pub containers: u32,
    /// How the image was started there, once that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<ImageStart>,
}

/// How an image was started on a node. Times are milliseconds since it was mounted, but for the first.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ImageStart {
    /// Whether what it reads was known, and read ahead.
    pub profile: bool,
    /// Milliseconds from the request to the mount.
    pub mounted_ms: u64,
    /// The first file was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_open_ms: Option<u64>,
    /// Bytes that were read ahead.
    pub fetched_bytes: u64,
    /// They were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_ms: Option<u64>,
    /// The start was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_ms: Option<u64>,
}
