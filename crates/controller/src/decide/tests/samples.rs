//! Objects to decide on.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use uimgacc_objects::{AcceleratedImage, AccelerationNode, ImageAcceleration};

use super::super::super::build::JobTask;
use super::super::super::view::{AccelerationNodeView, ClusterView, ImageView, JobView, Meta};
use super::super::Action;
use super::super::job::{Failure, FoundJob, JobState};

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

pub(super) fn node(name: &str, with: &Value) -> AccelerationNodeView {
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

/// A Job of that name.
pub(super) fn job(name: &str) -> JobView {
    let meta = Meta {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        version: "7".to_owned(),
        ..Meta::default()
    };
    JobView {
        meta,
        ..JobView::default()
    }
}

pub(super) fn found(job: &JobView, state: JobState) -> FoundJob<'_> {
    FoundJob {
        job: (state != JobState::None).then_some(job),
        state,
    }
}

/// The deletion of the Job of that name.
pub(super) fn deletion(name: &str) -> Action {
    Action::DeleteJob(job(name).meta)
}

/// The work for which Jobs are created.
pub(super) fn created(actions: &[Action]) -> Vec<JobTask> {
    let work = |action: &Action| match action {
        Action::CreateJob(job) => Some(job.work.clone()),
        _ => None,
    };
    actions.iter().filter_map(work).collect()
}
