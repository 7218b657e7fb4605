//! The Pod of the DaemonSet `uimgacc-node`: what [`super::run`] needs, and nothing else.
//!
//! It works on the host as the host's own process 1 does, so it is privileged and sees the host's
//! processes (`hostPID`). The host's files are reached by way of `/proc/1/root`, so no mount of the
//! host is kept busy by the Pod. Its network is the host's, so it does not wait for the network of
//! Pods.

use serde_json::{Value, json};
use uimgacc_objects::{ImageAccelerationSpec, names};

use super::options::{CLAIM_FOLDER, arguments};

/// The Pod's spec, as JSON of `core/v1.PodSpec`.
#[must_use]
pub fn pod_spec(spec: &ImageAccelerationSpec) -> Value {
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    if let Some(claim) = &spec.store.persistent_volume_claim {
        volumes.push(json!({
            "name": "store",
            "persistentVolumeClaim": {"claimName": claim.claim_name},
        }));
        mounts.push(json!({"name": "store", "mountPath": CLAIM_FOLDER}));
    }
    let mut selector = json!({"kubernetes.io/os": "linux"});
    for (key, value) in &spec.node_selector {
        selector[key] = json!(value);
    }
    json!({
        "serviceAccountName": names::NODE,
        "priorityClassName": "system-node-critical",
        "hostPID": true,
        "hostNetwork": true,
        "nodeSelector": selector,
        // A node that takes no Pods for now is to be set up like others.
        "tolerations": [{"operator": "Exists"}],
        // A restart of containerd that is under way is waited for.
        "terminationGracePeriodSeconds": 90,
        "securityContext": {"runAsUser": 0, "runAsGroup": 0},
        "containers": [{
            "name": "node",
            "image": spec.image,
            "args": arguments(spec),
            "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "securityContext": {"privileged": true, "readOnlyRootFilesystem": true},
            "resources": {
                "requests": {"cpu": "10m", "memory": "32Mi"},
                "limits": {"memory": "256Mi"},
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    })
}

/// The rules that the service account needs, as JSON of a list of `rbac/v1.PolicyRule`, for a
/// ClusterRole.
#[must_use]
pub fn rules() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [names::GROUP], "resources": ["accelerationnodes"],
         "verbs": ["get", "list", "watch", "create", "patch"]},
        {"apiGroups": [names::GROUP], "resources": ["accelerationnodes/status"], "verbs": ["patch"]},
    ])
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use k8s_openapi::api::rbac::v1::PolicyRule;

    use super::*;

    #[test]
    fn is_a_pod_of_kubernetes() {
        let spec: ImageAccelerationSpec = serde_json::from_value(json!({
            "image": "registry/uimgacc:1",
            "store": {"persistentVolumeClaim": {"claimName": "c"}},
            "nodeSelector": {"pool": "fast"},
        }))
        .unwrap();
        let pod: PodSpec = serde_json::from_value(pod_spec(&spec)).unwrap();
        assert_eq!(pod.host_pid, Some(true));
        let selector = pod.node_selector.unwrap();
        assert_eq!(selector["pool"], "fast");
        assert_eq!(selector["kubernetes.io/os"], "linux");
        let volume = &pod.volumes.unwrap()[0];
        let claim = volume.persistent_volume_claim.as_ref().unwrap();
        assert_eq!(claim.claim_name, "c");
        let container = &pod.containers[0];
        assert_eq!(container.args.as_ref().unwrap()[0], "node");
        assert_eq!(
            container.volume_mounts.as_ref().unwrap()[0].mount_path,
            "/store"
        );
        let rules: Vec<PolicyRule> = serde_json::from_value(rules()).unwrap();
        assert_eq!(rules.len(), 3);
    }
}
