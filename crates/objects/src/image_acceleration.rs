//! `ImageAcceleration`: how a cluster is accelerated. One, named `default`.

#![allow(
    clippy::duplicated_attributes,
    unreachable_pub,
    reason = "columns repeat their types; kube's derive names types that lib.rs exports anew"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uimgacc_types::NfsAddress;

/// How image acceleration is set up in this cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "uimgacc.io",
    version = "v1",
    kind = "ImageAcceleration",
    plural = "imageaccelerations",
    shortname = "imgaccel",
    category = "uimgacc",
    status = "ImageAccelerationStatus",
    validation = Rule::new("self.metadata.name == 'default'")
        .message("there is one ImageAcceleration, and it must be named default"),
    printcolumn(name = "NFS", type_ = "string", json_path = ".status.conditions[?(@.type=='NfsReady')].status"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.conditions[?(@.type=='AgentReady')].status"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.nodes.ready"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.total"),
    printcolumn(name = "Images", type_ = "integer", json_path = ".status.images"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.storeBytes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ImageAccelerationSpec {
    /// Where the data of accelerated images lies: exactly one of its fields.
    #[x_kube(validation = Rule::new(
        "[has(self.nfs), has(self.persistentVolumeClaim), has(self.hostPath)].filter(x, x).size() == 1"
    ).message("exactly one of nfs, persistentVolumeClaim and hostPath must be set"))]
    pub store: StoreSpec,

    /// Secret of type kubernetes.io/dockerconfigjson with the credentials of registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_credentials: Option<SecretReference>,

    /// Where target images may be pushed: registries and paths in them, such as
    /// `registry.example.com` or `registry.example.com/team`, each with everything below it. Docker
    /// Hub is `docker.io`. Without this list images may be pushed anywhere, but only without
    /// credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 512),
            regex(pattern = r"^[A-Za-z0-9.:\[\]-]+(/[a-z0-9._-]+)*$")
        )
    )]
    pub allowed_targets: Option<Vec<String>>,

    /// For which originals the credentials are used, written in the same way. Others are pulled
    /// without. Without this list it is that of `allowedTargets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 512),
            regex(pattern = r"^[A-Za-z0-9.:\[\]-]+(/[a-z0-9._-]+)*$")
        )
    )]
    pub credentials_for: Option<Vec<String>>,

    /// Registries (host or host:port) that are spoken to by HTTP without TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plain_http_registries: Vec<String>,

    /// Labels that a node must have to be set up. Without any, every Linux node is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// What a node does with an accelerated image when the store cannot be reached.
    #[serde(default)]
    pub fallback: Fallback,

    /// Whether nodes start images that were not created, but whose layers are all in the store,
    /// from the store too.
    #[serde(default)]
    pub originals: Originals,

    /// How images are read ahead while they start.
    #[serde(default)]
    pub starts: StartsSpec,

    /// How many conversions run at once.
    #[serde(default = "default_max_conversions")]
    #[schemars(range(min = 1, max = 100))]
    pub max_conversions: u32,

    /// How many nodes may have their containerd restarted at the same time. Installations, updates and
    /// uninstallations share this number.
    #[serde(default = "default_max_unavailable")]
    #[schemars(range(min = 1, max = 100))]
    pub max_unavailable: u32,

    /// When space is freed.
    #[serde(default)]
    pub sweep: SweepSpec,

    /// Where things are on nodes.
    #[serde(default)]
    pub node_paths: NodePaths,

    /// Our own image; the agent, the node installer and the conversions run from it.
    #[schemars(length(min = 1))]
    pub image: String,
}

fn default_max_conversions() -> u32 {
    2
}

fn default_max_unavailable() -> u32 {
    1
}

/// The most nodes that may restart containerd at the same time.
pub const MAX_UNAVAILABLE: u32 = 100;

/// Where the data lies: exactly one field is set.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StoreSpec {
    /// An NFS export, which nodes mount by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<NfsStore>,
    /// A claim in the namespace kube-system that many nodes can mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimStore>,
    /// A folder that is mounted on every node already (CephFS, JuiceFS, Lustre, UPFS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPathStore>,
}

/// An NFS export.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NfsStore {
    /// Addresses of the server, all of the same export: the first that answers is used.
    #[schemars(length(min = 1, max = 16))]
    pub servers: Vec<String>,
    /// Path of the export, absolute: the store's own folder.
    #[serde(default = "default_export")]
    pub path: String,
    /// Mount options as in `mount -o`; without them version 3 with the options that UFS advises.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
}

impl NfsStore {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> NfsAddress {
        NfsAddress {
            servers: self.servers.clone(),
            path: self.path.clone(),
            options: self.options.clone(),
        }
    }
}

impl From<NfsAddress> for NfsStore {
    fn from(address: NfsAddress) -> Self {
        Self {
            servers: address.servers,
            path: address.path,
            options: address.options,
        }
    }
}

fn default_export() -> String {
    "/".to_owned()
}

/// A claim.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStore {
    /// Its name, in the namespace kube-system.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// A folder of every node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HostPathStore {
    /// Absolute.
    #[schemars(length(min = 2), regex(pattern = r"^/[^/]"))]
    pub path: String,
}

/// A Secret.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Its name, in the namespace kube-system.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a node does when the store cannot be reached.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Pull and unpack from the registry, as without acceleration.
    #[default]
    Registry,
    /// Refuse, so that Kubernetes tries again later.
    Fail,
}

/// What is done with images that were not created but whose layers are in the store.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Originals {
    /// They start from the store too.
    #[default]
    Accelerate,
    /// Only target images start from the store.
    TargetsOnly,
}

/// How images are read ahead. What is left out is as the snapshotter has it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StartsSpec {
    /// Whether what the first start of an image reads is recorded, for those that follow.
    #[serde(default = "yes")]
    pub record: bool,
    /// Read-ahead in KiB while an image with a profile starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65536))]
    pub start_read_ahead_kb: Option<u32>,
    /// Read-ahead in KiB afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65536))]
    pub read_ahead_kb: Option<u32>,
    /// How many reads at once fetch what a profile lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub fetch_readers: Option<u16>,
    /// MB a second at which a node fetches what one image's profile lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub fetch_rate_mb: Option<u32>,
}

fn yes() -> bool {
    true
}

impl Default for StartsSpec {
    fn default() -> Self {
        Self {
            record: yes(),
            start_read_ahead_kb: None,
            read_ahead_kb: None,
            fetch_readers: None,
            fetch_rate_mb: None,
        }
    }
}

impl StartsSpec {
    /// The snapshotter's keys and their values.
    #[must_use]
    pub fn keys(&self) -> Vec<(&'static str, String)> {
        let number =
            |key: &'static str, value: Option<u32>| value.map(|value| (key, value.to_string()));
        [
            self.record.then(|| ("record_starts", "true".to_owned())),
            number("start_read_ahead_kb", self.start_read_ahead_kb),
            number("read_ahead_kb", self.read_ahead_kb),
            number("fetch_readers", self.fetch_readers.map(u32::from)),
            number("fetch_rate_mb", self.fetch_rate_mb),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// When space is freed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SweepSpec {
    /// Minutes between sweeps.
    #[serde(default = "default_sweep_interval")]
    #[schemars(range(min = 1, max = 10080))]
    pub interval_minutes: u32,
    /// Minutes that files to which nothing refers are kept.
    #[serde(default = "default_sweep_grace")]
    #[schemars(range(min = 0, max = 10080))]
    pub grace_minutes: u32,
}

fn default_sweep_interval() -> u32 {
    60
}

fn default_sweep_grace() -> u32 {
    60
}

impl Default for SweepSpec {
    fn default() -> Self {
        Self {
            interval_minutes: default_sweep_interval(),
            grace_minutes: default_sweep_grace(),
        }
    }
}

/// Where things are on nodes; the defaults fit containerd as distributions package it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodePaths {
    /// containerd's configuration.
    pub containerd_config: String,
    /// containerd's socket.
    pub containerd_socket: String,
    /// containerd's program; looked up in PATH where it has no slash.
    pub containerd_binary: String,
    /// What restarts containerd, as words. Empty: `systemctl restart containerd`.
    pub containerd_restart: Vec<String>,
    /// Where our programs go.
    pub bin_dir: String,
    /// Folder of the snapshotter, on a local disk.
    pub root_dir: String,
    /// Folder of sockets.
    pub run_dir: String,
    /// Folder of our configuration.
    pub config_dir: String,
}

impl Default for NodePaths {
    fn default() -> Self {
        Self {
            containerd_config: "/etc/containerd/config.toml".to_owned(),
            containerd_socket: "/run/containerd/containerd.sock".to_owned(),
            containerd_binary: "containerd".to_owned(),
            containerd_restart: Vec::new(),
            bin_dir: "/usr/local/bin".to_owned(),
            root_dir: "/var/lib/uimgacc".to_owned(),
            run_dir: "/run/uimgacc".to_owned(),
            config_dir: "/etc/uimgacc".to_owned(),
        }
    }
}

/// How it goes. Conditions: `NfsReady` (the store can be written), `AgentReady` (the agent and the
/// node installer run), `Ready` (both, and at least one node).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageAccelerationStatus {
    /// The generation of the spec that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// As Kubernetes' API conventions have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Nodes.
    #[serde(default)]
    pub nodes: NodeTotals,
    /// Images that are ready.
    #[serde(default)]
    pub images: u32,
    /// The nodes that may restart containerd now, at most `maxUnavailable`. A node reads this right
    /// before it restarts containerd, and does not restart it without being listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub restarting: Vec<RestartingNode>,
    /// The store's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// Bytes of packs and metadata in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_bytes: Option<u64>,
    /// When the store was last swept, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sweep: Option<String>,
}

/// A node that may restart containerd.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestartingNode {
    /// Name of the Node.
    pub name: String,
    /// Its uid: a Node that was deleted and came back under the same name is another.
    pub uid: String,
    /// Since when, RFC 3339.
    pub since: String,
}

impl ImageAccelerationStatus {
    /// Whether the Node of that uid may restart containerd.
    #[must_use]
    pub fn may_restart(&self, uid: &str) -> bool {
        self.restarting.iter().any(|one| one.uid == uid)
    }
}

/// Counts of nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeTotals {
    /// Nodes that can run accelerated images.
    pub ready: u32,
    /// Nodes that are to.
    pub total: u32,
}
