//! The Kubernetes types of group `uimgacc.io`, and the names that our parts share. No client.
//!
//! Four cluster-scoped kinds: [`ImageAcceleration`] (one, named `default`: how the cluster is to
//! be accelerated), [`AcceleratedImage`] (one for each image), [`AccelerationNode`] (one for
//! each node; these are the leases on the store) and [`StartRecord`] (what a start read, until a Job
//! takes it). Who writes what:
//!
//! | object | spec | status |
//! | --- | --- | --- |
//! | `ImageAcceleration` | the user | the agent |
//! | `AcceleratedImage` | the user | the agent; `progress` by the conversion's Job |
//! | `AccelerationNode` | the agent (what to give back) | the node |
//! | `StartRecord` | the node | none |

mod accelerated_image;
mod acceleration_node;
pub mod access;
mod conditions;
mod image_acceleration;
pub mod names;
mod node_settings;
pub mod nodes;
mod start_record;

pub use accelerated_image::{
    AcceleratedImage, AcceleratedImageSpec, AcceleratedImageStatus, Phase, ProfileSpec,
    ProfileSummary, Progress,
};
pub use acceleration_node::{
    AccelerationNode, AccelerationNodeSpec, AccelerationNodeStatus, HeldChain, ImageStart,
};
pub use conditions::{condition, find_condition, set_condition};
pub use image_acceleration::{
    ClaimStore, Fallback, HostPathStore, ImageAcceleration, ImageAccelerationSpec,
    ImageAccelerationStatus, MAX_UNAVAILABLE, NfsStore, NodePaths, NodeTotals, Originals,
    RestartingNode, SecretReference, StartsSpec, StoreSpec, SweepSpec,
};
pub use node_settings::NodeSettings;
pub use start_record::{StartRecord, StartRecordSpec};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The definitions of all kinds, as `enable` applies them.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        ImageAcceleration::crd(),
        AcceleratedImage::crd(),
        AccelerationNode::crd(),
        StartRecord::crd(),
    ]
}

#[cfg(test)]
mod tests;
