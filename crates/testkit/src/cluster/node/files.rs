//! The files of a node, as text and on the disk.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::Plan;
use crate::containerd::ContainerdVersion;
use crate::parts;

/// The cgroup of the node, from the root of each hierarchy.
pub(super) fn cgroup(plan: &Plan<'_>) -> String {
    plan.block.link(plan.index)
}

pub(super) fn write(plan: &Plan<'_>) {
    let dir = &plan.dir;
    for name in [
        "run/node",
        "run/lock",
        "var/lib",
        "var/log",
        "containerd/certs.d",
        "files",
    ] {
        fs::create_dir_all(dir.join(name)).expect("a new folder");
    }
    let write = |name: &str, text: &str| {
        fs::write(dir.join(name), text).expect("a file of the node can be written");
    };
    write("files/init.sh", include_str!("init.sh"));
    write("files/service.sh", include_str!("service.sh"));
    write(
        "files/restart-containerd.sh",
        include_str!("restart-containerd.sh"),
    );
    write("files/pods.conflist", &network(plan));
    write("files/kubelet.yaml", &kubelet(plan));
    if let Some(kubeconfig) = &plan.proxy_kubeconfig {
        write("files/kube-proxy.yaml", &kube_proxy(plan, kubeconfig));
    }
    write(
        "containerd/config.toml",
        &containerd(plan.version, &plan.pause_image),
    );
    write("run/node/env", &environment(plan));
    write("run/node/kubelet.hold", "");
    write("run/node/kube-proxy.hold", "");
}

/// What the scripts need to know.
fn environment(plan: &Plan<'_>) -> String {
    let others = (0..plan.count).filter(|other| *other != plan.index);
    let routes: Vec<String> = others
        .map(|other| format!("{}@{}", plan.block.pods(other), plan.block.node(other)))
        .collect();
    format!(
        "NODE_DIR='{}'\nNODE_NAME='{}'\nNODE_CGROUP='{}'\nNODE_IP='{}'\nNODE_GATEWAY='{}'\nNODE_ROUTES='{}'\nCNI='{}'\nKUBELET_KUBECONFIG='{}'\nexport PATH='{}'\n",
        plan.dir.display(),
        super::name(plan.index),
        cgroup(plan),
        plan.block.node(plan.index),
        plan.block.gateway(),
        routes.join(" "),
        parts::dir().join("cni/bin").display(),
        plan.kubelet_kubeconfig.display(),
        Path::new(&super::search_path(plan.version)).display(),
    )
}

fn network(plan: &Plan<'_>) -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isDefaultGateway": true,
                "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": plan.block.pods(plan.index)}]]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// YAML, by way of JSON, which is a part of it.
fn kubelet(plan: &Plan<'_>) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.block.node(plan.index).to_string(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": plan.ca},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": "",
        "cgroupDriver": "cgroupfs",
        // Machines with a tree of cgroups for each controller, with swap, or without the right to set limits will do.
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        // A full disk or a busy machine must not take a test's Pods away.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": false,
        "shutdownGracePeriod": "0s",
    })
    .to_string()
}

fn kube_proxy(plan: &Plan<'_>, kubeconfig: &Path) -> String {
    let address = plan.block.node(plan.index);
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "mode": "iptables",
        "healthzBindAddress": format!("{address}:10256"),
        "metricsBindAddress": format!("{address}:10249"),
        // These are the machine's, not the node's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
    .to_string()
}

/// A containerd that starts kills the containers whose shims do not answer in time, by its defaults 5 s and 2 s: a
/// machine with little to give must not take a test's Pods away.
const PATIENT: &str = r#"
[timeouts]
  "io.containerd.timeout.shim.load" = "60s"
  "io.containerd.timeout.task.state" = "60s"
"#;

/// As somebody would write it who runs a node: what is not said here has containerd's own default.
fn containerd(version: ContainerdVersion, pause: &str) -> String {
    let config = match version {
        ContainerdVersion::V1_6 | ContainerdVersion::V1_7 => format!(
            r#"# containerd of this node.
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE a sandbox cannot lower its OOM score.
  restrict_oom_score_adj = true
  disable_apparmor = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"

  # One folder with a hosts.toml for each registry.
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
"#
        ),
        ContainerdVersion::V2_1 | ContainerdVersion::V2_4 => format!(
            r#"# containerd of this node.
version = 3

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"

  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"

  # One folder with a hosts.toml for each registry.
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE a sandbox cannot lower its OOM score.
  restrict_oom_score_adj = true
  disable_apparmor = true
"#
        ),
    };
    config + PATIENT
}
