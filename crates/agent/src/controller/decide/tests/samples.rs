//! Objects to decide on.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use uimgacc_objects::{AcceleratedImage, AccelerationNode, ImageAcceleration};

use super::super::super::view::{ClusterView, ImageView, LeaseView};
use super::super::job::{Failure, JobState};

/// So many seconds after the samples were made.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn text(second: i64) -> Value {
    json!(at(second).to_string())
}

pub(super) fn condition(kind: &str, status: &str, reason: &str, second: i64) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": text(second)})
}

/// An image with our finalizer, changed by a merge of `with`.
pub(super) fn image(name: &str, with: &Value) -> ImageView {
    let mut object = json!({
        "apiVersion": "uimgacc.io/v1", "kind": "AcceleratedImage",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1, "resourceVersion": "1",
            "creationTimestamp": text(0), "finalizers": ["uimgacc.io/store"]},
        "spec": {"originalImage": "r.example/app:1", "targetImage": format!("r.example/{name}:fast")},
    });
    merge(&mut object, with);
    serde_json::from_value::<AcceleratedImage>(object)
        .unwrap()
        .into()
}

/// An image that is being deleted, and was made before.
pub(super) fn leaving(with: &Value) -> ImageView {
    let mut object = json!({
        "metadata": {"deletionTimestamp": text(100)},
        "status": {"phase": "Ready", "job": "j", "chainToken": "sha256:c"},
    });
    merge(&mut object, with);
    image("app", &object)
}

/// The `ImageAcceleration`, whose store is ready.
pub(super) fn cluster(with: &Value) -> ClusterView {
    let mut object = json!({
        "apiVersion": "uimgacc.io/v1", "kind": "ImageAcceleration",
        "metadata": {"name": "default", "uid": "uid", "generation": 1, "resourceVersion": "1",
            "creationTimestamp": text(0), "finalizers": ["uimgacc.io/cluster"]},
        "spec": {"store": {"nfs": {"servers": ["10.0.0.1"]}}, "image": "r.example/uimgacc:1"},
        "status": {"observedGeneration": 1, "conditions": [condition("NfsReady", "True", "StoreReady", 0)]},
    });
    merge(&mut object, with);
    serde_json::from_value::<ImageAcceleration>(object)
        .unwrap()
        .into()
}

pub(super) fn node(name: &str, with: &Value) -> LeaseView {
    let mut object = json!({
        "apiVersion": "uimgacc.io/v1", "kind": "AccelerationNode",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "creationTimestamp": text(0)},
        "spec": {},
    });
    merge(&mut object, with);
    serde_json::from_value::<AccelerationNode>(object)
        .unwrap()
        .into()
}

fn merge(object: &mut Value, with: &Value) {
    match (object, with) {
        (Value::Object(object), Value::Object(with)) => {
            for (key, value) in with {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, with) => *object = with.clone(),
    }
}

pub(super) fn running() -> JobState {
    JobState::Running {
        waits: None,
        attempt: 1,
    }
}

/// A Job that failed at second 50.
pub(super) fn failed(attempt: u32, died: bool, retry: bool) -> JobState {
    JobState::Failed(Failure {
        at: at(50),
        attempt,
        died,
        retry,
        message: "why, and what to do".to_owned(),
        outdated: false,
    })
}
