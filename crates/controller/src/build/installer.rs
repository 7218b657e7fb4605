//! The DaemonSet that sets up nodes.

use serde_json::{Value, json};
use uimgacc_objects::{ImageAccelerationSpec, NodeSettings, names, nodes};

use super::super::view::{COMPONENT_LABEL, INPUTS_ANNOTATION};
use super::{inputs, store};

/// The DaemonSet without a namespace, and the digest of what it is made from.
///
/// It has no owner: a deletion of the `ImageAcceleration` in the foreground would remove it before
/// the nodes are as they were. The controller removes it.
#[must_use]
pub fn installer(spec: &ImageAccelerationSpec) -> (Value, String) {
    let labels = json!({
        "app.kubernetes.io/name": names::PART_OF,
        (names::PART_OF_LABEL): names::PART_OF,
        "app.kubernetes.io/managed-by": names::AGENT,
        COMPONENT_LABEL: "node",
    });
    let selector = json!({(names::PART_OF_LABEL): names::PART_OF, COMPONENT_LABEL: "node"});
    let body = json!({
        "selector": {"matchLabels": selector},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
        "template": {"metadata": {"labels": labels}, "spec": pod(spec)},
    });
    let digest = inputs(&body);
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": names::NODE,
            "labels": labels,
            "annotations": {INPUTS_ANNOTATION: digest},
        },
        "spec": body,
    });
    (object, digest)
}

fn pod(spec: &ImageAccelerationSpec) -> Value {
    // Mounts of the claim are handed to the host; nothing else is mounted there by the Pod.
    let claim = spec.store.persistent_volume_claim.is_some();
    let propagation = if claim {
        "Bidirectional"
    } else {
        "HostToContainer"
    };
    let mut volumes = vec![json!({"name": "host", "hostPath": {"path": "/", "type": "Directory"}})];
    let mut mounts = vec![json!({
        "name": "host",
        "mountPath": "/host",
        "mountPropagation": propagation,
    })];
    if claim {
        volumes.extend(store::volume(&spec.store, ""));
        mounts.push(json!({"name": "store", "mountPath": store::FOLDER}));
    }
    json!({
        "serviceAccountName": names::NODE,
        "hostPID": true,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 30,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": node_affinity(spec)}},
        "tolerations": [{"operator": "Exists"}],
        "containers": [{
            "name": "node",
            "image": spec.image,
            "command": ["/bin/uimgacc-agent"],
            "args": args(spec),
            "env": [
                {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            ],
            // No limit of memory: what this starts on a host without systemd counts as this Pod's.
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "securityContext": {"privileged": true, "runAsUser": 0},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    })
}

/// The selected nodes, and those that something must still be taken off.
fn node_affinity(spec: &ImageAccelerationSpec) -> Value {
    let linux = json!({"key": nodes::OS_LABEL, "operator": "In", "values": ["linux"]});
    let real = json!({"key": nodes::TYPE_LABEL, "operator": "NotIn", "values": [nodes::VIRTUAL]});
    let mut selected = vec![linux.clone(), real];
    for (key, value) in &spec.node_selector {
        selected.push(json!({"key": key, "operator": "In", "values": [value]}));
    }
    let installed = json!({"key": names::INSTALLED_LABEL, "operator": "Exists"});
    json!({"nodeSelectorTerms": [
        {"matchExpressions": selected},
        {"matchExpressions": [linux, installed]},
    ]})
}

fn args(spec: &ImageAccelerationSpec) -> Vec<String> {
    let settings = json!(NodeSettings::from(spec)).to_string();
    let mut args = ["node", "--host", "/host", "--settings", &settings]
        .map(str::to_owned)
        .to_vec();
    if spec.store.persistent_volume_claim.is_some() {
        args.extend(["--store-volume".to_owned(), store::FOLDER.to_owned()]);
    }
    args
}
