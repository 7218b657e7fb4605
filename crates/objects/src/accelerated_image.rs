//! `AcceleratedImage`: one image that is, or is to be, in the store.

#![allow(
    clippy::duplicated_attributes,
    unreachable_pub,
    reason = "columns repeat their types; kube's derive names types that lib.rs exports anew"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretReference;

/// An image to accelerate.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "uimgacc.io",
    version = "v1",
    kind = "AcceleratedImage",
    plural = "acceleratedimages",
    shortname = "accimg",
    category = "uimgacc",
    status = "AcceleratedImageStatus",
    printcolumn(name = "Original", type_ = "string", json_path = ".spec.originalImage"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetImage"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress.percent",
        priority = 0
    ),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.size"),
    printcolumn(name = "Layers", type_ = "integer", json_path = ".status.layers"),
    printcolumn(
        name = "Profile",
        type_ = "integer",
        json_path = ".status.profile.bytes",
        priority = 1
    ),
    printcolumn(
        name = "Error",
        type_ = "string",
        json_path = ".status.error",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.originalImage == oldSelf.originalImage && self.targetImage == oldSelf.targetImage && self.platform == oldSelf.platform")
    .message("images cannot be changed; delete the object and create another"))]
#[x_kube(validation = Rule::new("has(self.pullSecret) == has(oldSelf.pullSecret) && (!has(self.pullSecret) || self.pullSecret == oldSelf.pullSecret)")
    .message("pullSecret cannot be changed; delete the object and create another"))]
#[x_kube(validation = Rule::new("self.originalImage != self.targetImage")
    .message("the target image must have another name than the original"))]
pub struct AcceleratedImageSpec {
    /// Reference of the image to accelerate; short names mean Docker Hub.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^\s]+$"))]
    pub original_image: String,
    /// Reference of the accelerated image, with a tag and without a digest.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^\s@]+$"))]
    pub target_image: String,
    /// Which platform of an image of several, `os/arch[/variant]`. Empty: that of the nodes.
    #[serde(default)]
    #[schemars(regex(pattern = r"^([a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?)?$"))]
    pub platform: String,
    /// Secret of type kubernetes.io/dockerconfigjson for both images, in the namespace
    /// kube-system; without it the cluster's registry credentials are used. The Secret must carry
    /// the label `uimgacc.io/pull-secret: "true"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<SecretReference>,
    /// Start the image once when it is ready, on a node that reads it from the store, so that what its
    /// start reads is known before the first Pod. Nothing is done where that is known already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileSpec>,
}

/// How an image is started to be recorded. Its Pod is in the namespace kube-system, without rights at
/// the API server; the start ends with its command, or after three minutes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSpec {
    /// What is run. Empty: the image's own command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub command: Vec<String>,
}

/// Where an image stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Asked for or being made. Also where nothing was done yet, so that an image just asked for
    /// never looks finished.
    #[default]
    Creating,
    /// In the store and in the registry.
    Ready,
    /// It could not be made; `error` says why. It is tried again with growing pauses where that
    /// may help.
    CreateError,
    /// Being deleted.
    Deleting,
    /// It cannot be deleted yet; `error` says why.
    DeleteError,
}

/// How it goes. Conditions: `Ready`, `Progressing`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratedImageStatus {
    /// The generation of the spec that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands.
    #[serde(default)]
    pub phase: Phase,
    /// How far the conversion is; written by its Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Bytes of all files of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Layers of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u32>,
    /// Bytes in the store that only this image needs, when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_bytes: Option<u64>,
    /// Digest of the original's manifest when the image was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_digest: Option<String>,
    /// Digest of the target's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_digest: Option<String>,
    /// Token of the chain of the image's top layer: what nodes hold. A token shows which chains are
    /// equal and does not reveal the chain ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_token: Option<String>,
    /// Tokens of the chains of the layers below that, the lowest first: an image that is one of
    /// these can be deleted at once, because its space stays needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base_chain_tokens: Vec<String>,
    /// What is known of its starts, so that nodes read it ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileSummary>,
    /// Why it does not go on, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often the conversion has failed in a row.
    #[serde(default)]
    pub failures: u32,
    /// The value of the annotation `uimgacc.io/retry` that was last acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_retry: Option<String>,
    /// The Job that converts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// As Kubernetes' API conventions have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// An image's profile, in short.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSummary {
    /// When the newest of its starts was recorded, RFC 3339.
    pub recorded: String,
    /// Which start that was.
    pub origin: String,
    /// How many starts it merges.
    pub starts: u32,
    /// Files of which something is read.
    pub files: u64,
    /// Bytes that are read of them.
    pub bytes: u64,
    /// The read-ahead in KiB with which it was recorded: the larger, the more was read around what was
    /// needed.
    pub read_ahead_kb: u32,
}

/// How far a conversion is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Compressed bytes that were read.
    pub done_bytes: u64,
    /// Compressed bytes of all layers that must be read.
    pub total_bytes: u64,
    /// 0 to 100.
    pub percent: u32,
    /// What is being done, in a few words.
    pub stage: String,
}
