//! What is read of objects that are not ours: only the fields that are needed are ever parsed.

#![allow(
    missing_docs,
    reason = "the fields are those of the Kubernetes API, described there"
)]

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

/// A Pod.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "Pod")]
pub struct WirePod {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: WirePodSpec,
    #[serde(default)]
    pub status: WirePodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WirePodSpec {
    pub node_name: Option<String>,
    pub containers: Vec<WireContainer>,
    pub init_containers: Vec<WireContainer>,
    pub ephemeral_containers: Vec<WireContainer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WireContainer {
    pub image: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WirePodStatus {
    pub phase: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub conditions: Vec<WireCondition>,
    pub container_statuses: Vec<WireContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WireContainerStatus {
    pub state: WireState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WireState {
    pub waiting: Option<WireReason>,
    pub terminated: Option<WireReason>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireReason {
    pub reason: Option<String>,
    pub message: Option<String>,
    pub exit_code: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub last_transition_time: Option<Time>,
}

/// A Job.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "Job")]
pub struct WireJob {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub status: WireJobStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireJobStatus {
    pub conditions: Vec<WireCondition>,
}

/// A DaemonSet.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "DaemonSet")]
pub struct WireDaemonSet {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub status: WireDaemonSetStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireDaemonSetStatus {
    pub observed_generation: Option<i64>,
    pub desired_number_scheduled: i32,
    pub number_ready: i32,
}
