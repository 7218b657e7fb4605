//! `StartRecord`: what the first start of an image read, on its way from a node to the store.
//!
//! Named by the token of the image's chain, so that one node at a time sends one. A Job takes it: it
//! checks it, writes the image's profile and deletes the object. Nobody watches its content.

#![allow(
    clippy::duplicated_attributes,
    unreachable_pub,
    reason = "columns repeat their types; kube's derive names types that lib.rs exports anew"
)]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// What a start read.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "uimgacc.io",
    version = "v1",
    kind = "StartRecord",
    plural = "startrecords",
    shortname = "accrec",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("records cannot be changed"))]
pub struct StartRecordSpec {
    /// The node on which the image was started.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Token of the image's chain: `chain:` and 64 hex digits.
    #[schemars(regex(pattern = r"^chain:[0-9a-f]{64}$"))]
    pub chain_token: String,
    /// Files and pages that were read: JSON, compressed by zstd (256 KiB at most), in base64.
    #[schemars(length(min = 1, max = 349_528))]
    pub reads: String,
}
