//! A cluster with a store, an accelerated image, and the DaemonSet; the test plays the controller.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use uimgacc_controller::build::installer;
use uimgacc_objects::{ImageAccelerationSpec, names};
use uimgacc_testkit::cluster::{Cluster, Node, Options};
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::image::{self, Compression, Pushed};
use uimgacc_testkit::process::run;
use uimgacc_testkit::programs;
use uimgacc_testkit::tar::TarBuilder;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// The Pods of the DaemonSet.
pub(crate) const SELECTOR: &str = "app.kubernetes.io/component=node";
/// How long the node may be unfit before its labels go.
pub(crate) const PATIENCE: Duration = Duration::from_secs(6);

/// The folder of all that cargo builds.
fn target() -> PathBuf {
    // .../target/debug/deps/node-…
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().to_owned()
}

/// Our own image as an OCI layout, built once.
fn our_image() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // Built by whoever calls the tests, or now.
        let ready = uimgacc_testkit::parts::our_image();
        if ready.join("index.json").exists() {
            return ready;
        }
        let folder = target().join("image-dev");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/image.sh");
        run(Command::new(script)
            .args(["--profile", "dev"])
            .arg(&folder)
            .env("CARGO_TARGET_DIR", target()));
        folder
    })
}

fn uimgacc(arguments: &[&str]) {
    run(&mut programs::uimgacc(arguments));
}

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    /// The reference of our own image.
    image: String,
    /// The image before it was accelerated.
    pub(crate) original: Pushed,
    /// The reference of the target image.
    pub(crate) target: String,
    /// An image that is not accelerated.
    pub(crate) plain: String,
}

impl Stage {
    pub(crate) fn build(version: ContainerdVersion) -> Self {
        let layout = our_image();
        let cluster = Cluster::start(&Options::with_nodes(&[version]));
        let registry = cluster.registry();
        let image = registry.reference("uimgacc:dev");
        run(Command::new("skopeo")
            .args(["copy", "--quiet", "--all", "--dest-tls-verify=false"])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{image}")));
        let plain = image::busybox().push(registry, "plain:1").reference;
        let data = TarBuilder::new().file("data", 0o644, "accelerated\n".repeat(100_000));
        let original = image::busybox()
            .layer(data.finish(), Compression::Gzip)
            .push(registry, "app:1");
        let target = registry.reference("app:fast");
        let stage = Self {
            image,
            original,
            target,
            plain,
            cluster,
        };
        let store = stage.store().display().to_string();
        uimgacc(&["store", "init", "--store", &store]);
        let words = ["create", &stage.original.reference, &stage.target];
        uimgacc(&[&words[..], &["--store", &store, "--plain-http"]].concat());
        stage.apply_objects();
        stage
    }

    /// Kinds and rights, of the static manifests.
    fn apply_objects(&self) {
        let definitions: Vec<String> = uimgacc_objects::definitions()
            .iter()
            .map(|one| serde_json::to_string(one).unwrap())
            .collect();
        self.cluster.apply(&definitions.join("\n---\n"));
        let kind = "crd/accelerationnodes.uimgacc.io";
        self.cluster.wait("condition=Established", &[kind], MINUTE);
        self.cluster
            .apply(include_str!("../../../../deploy/base/rbac.yaml"));
    }

    /// The DaemonSet as the controller makes it, with this command to restart containerd.
    pub(crate) fn apply_daemon_set(&self, restart: &str) {
        let containerd = self.node().containerd_version().bin().join("containerd");
        let spec = json!({
            "image": self.image,
            "store": {"hostPath": {"path": self.store()}},
            "fallback": "Fail",
            "originals": "TargetsOnly",
            "nodePaths": {"containerdBinary": containerd, "containerdRestart": [restart]},
        });
        self.cluster.apply(
            &json!({
                "apiVersion": "uimgacc.io/v1",
                "kind": "ImageAcceleration",
                "metadata": {"name": names::DEFAULT},
                "spec": spec,
            })
            .to_string(),
        );
        let spec: ImageAccelerationSpec = serde_json::from_value(spec).unwrap();
        let (mut object, _) = installer(&spec);
        object["metadata"]["namespace"] = json!(names::NAMESPACE);
        let arguments = &mut object["spec"]["template"]["spec"]["containers"][0]["args"];
        let more = [json!("--patience"), json!(PATIENCE.as_secs().to_string())];
        arguments.as_array_mut().unwrap().extend(more);
        self.cluster.apply(&object.to_string());
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.cluster.dir().join("store")
    }

    pub(crate) fn node(&self) -> &Node {
        self.cluster.node(0)
    }

    /// What the controller asks of the node.
    pub(crate) fn ask(&self, spec: &Value) {
        let patch = json!({"spec": spec}).to_string();
        let words = ["patch", "accelerationnode", self.node().name()];
        self.cluster
            .kubectl_ok(&[&words[..], &["--type=merge", "-p", &patch]].concat());
    }

    /// Lists the node as one that may restart containerd, or nobody.
    pub(crate) fn may_restart(&self, is_listed: bool) {
        let node = self.cluster.get(&["node", self.node().name()]);
        let uid = [node["metadata"]["uid"].as_str().unwrap()];
        self.list_restarting(if is_listed { &uid } else { &[] });
    }

    /// Lists Nodes of the node's name with these uids.
    pub(crate) fn list_restarting(&self, uids: &[&str]) {
        let name = self.node().name();
        let listed = uids
            .iter()
            .map(|uid| json!({"name": name, "uid": uid, "since": "2026-01-01T00:00:00Z"}));
        let status = json!({"restarting": listed.collect::<Vec<_>>()});
        let patch = json!({"status": status}).to_string();
        let words = ["patch", "imageacceleration", names::DEFAULT];
        let how = ["--subresource=status", "--type=merge", "-p", &patch];
        self.cluster.kubectl_ok(&[&words[..], &how].concat());
    }

    /// What the node says; null where it has not said anything.
    pub(crate) fn said(&self) -> Value {
        let words = ["get", "-o", "json", "accelerationnode", self.node().name()];
        let output = self.cluster.kubectl(&words);
        let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        object["status"].clone()
    }

    /// Status and reason of a condition.
    pub(crate) fn condition(&self, kind: &str) -> (String, String) {
        let said = self.said();
        let conditions = said["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|one| one["type"] == kind);
        let field = |name: &str| {
            let value = found.and_then(|one| one[name].as_str());
            value.unwrap_or_default().to_owned()
        };
        (field("status"), field("reason"))
    }

    /// Waits until a condition has this status and reason.
    pub(crate) fn wait_said(&self, kind: &str, status: &str, reason: &str) {
        let wanted = (status.to_owned(), reason.to_owned());
        let deadline = std::time::Instant::now() + MINUTE;
        while self.condition(kind) != wanted {
            assert!(
                std::time::Instant::now() < deadline,
                "not {kind} {status} {reason}, but {:#}\n{}\n{}",
                self.said(),
                self.agent_log(),
                self.cluster.dump()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn agent_log(&self) -> String {
        let words = ["logs", "-n", names::NAMESPACE, "-l", SELECTOR, "--tail=200"];
        let output = self.cluster.kubectl(&words);
        let daemon = self.node().path("/var/log/uimgacc-snapshotter.log");
        let daemon = std::fs::read_to_string(daemon).unwrap_or_default();
        let pods = String::from_utf8_lossy(&output.stdout);
        format!("--- agent\n{pods}\n--- snapshotter\n{daemon}")
    }

    /// The labels of the node that are ours.
    pub(crate) fn labels(&self) -> Vec<Value> {
        let node = self.cluster.get(&["node", self.node().name()]);
        let value = |name: &&str| node["metadata"]["labels"].get(*name).cloned();
        names::NODE_LABELS.iter().filter_map(value).collect()
    }

    pub(crate) fn wait_labels(&self, count: usize) {
        self.cluster
            .wait_until(&format!("{count} labels"), MINUTE, || {
                self.labels().len() == count
            });
    }

    /// Starts a Pod that sleeps, and waits until it runs.
    pub(crate) fn run_pod(&self, name: &str, image: &str) {
        self.start_pod(name, image);
        self.wait_pod(name);
    }

    pub(crate) fn wait_pod(&self, name: &str) {
        let target = format!("pod/{name}");
        self.cluster.wait("condition=Ready", &[&target], MINUTE);
    }

    pub(crate) fn start_pod(&self, name: &str, image: &str) {
        self.apply_pod(name, image, "Always");
    }

    /// With the image that the node has, where it has it.
    pub(crate) fn run_pod_if_not_present(&self, name: &str, image: &str) {
        self.apply_pod(name, image, "IfNotPresent");
        self.wait_pod(name);
    }

    fn apply_pod(&self, name: &str, image: &str, policy: &str) {
        self.cluster.apply(
            &json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "main", "image": image, "imagePullPolicy": policy}],
                },
            })
            .to_string(),
        );
    }

    /// Runs a script by `uimgacc-agent on-host`, in a Pod with a volume at `/store` that is gone with it.
    pub(crate) fn run_on_host(&self, name: &str, options: &[&str], script: &str) {
        let words = [&["on-host"], options, &["--", "/bin/sh", "-c", script]].concat();
        self.cluster.apply(
            &json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "spec": {
                    "restartPolicy": "Never",
                    "hostPID": true,
                    "volumes": [{"name": "store", "emptyDir": {"medium": "Memory"}}],
                    "containers": [{
                        "name": "main",
                        "image": self.image,
                        "args": words,
                        "securityContext": {"privileged": true, "runAsUser": 0},
                        "volumeMounts": [{"name": "store", "mountPath": "/store"}],
                    }],
                },
            })
            .to_string(),
        );
        assert_eq!(self.cluster.finished(name, MINUTE), "");
        self.delete_pod(name);
    }

    pub(crate) fn delete_pod(&self, name: &str) {
        self.cluster.kubectl_ok(&["delete", "pod", name]);
    }

    /// The container of a Pod, which must run and never have been started again.
    pub(crate) fn container(&self, pod: &str) -> String {
        let said = self
            .cluster
            .kubectl_ok(&["exec", pod, "--", "/bin/echo", "here"]);
        assert_eq!(said, "here\n");
        let status = &self.cluster.get(&["pod", pod])["status"]["containerStatuses"][0];
        assert_eq!(status["restartCount"], 0, "{status}");
        status["containerID"].as_str().unwrap().to_owned()
    }

    /// Requests of layers of the accelerated image that the registry has seen.
    pub(crate) fn layer_downloads(&self) -> usize {
        let log = self.cluster.registry().log();
        let is_download = |line: &&str| {
            let mut layers = self.original.layers.iter();
            line.contains("GET /v2/") && layers.any(|layer| line.contains(&layer.digest))
        };
        log.lines().filter(is_download).count()
    }

    /// The node's chains and how many containers lie on each, as the node tells.
    pub(crate) fn held(&self) -> Vec<(String, u64)> {
        let said = self.said();
        let chains = said["chains"].as_array().cloned().unwrap_or_default();
        chains
            .iter()
            .map(|one| {
                let chain = one["token"].as_str().unwrap().to_owned();
                (chain, one["containers"].as_u64().unwrap_or_default())
            })
            .collect()
    }

    /// The supervisor's process ID on the node.
    pub(crate) fn supervisor(&self) -> u64 {
        let text = std::fs::read(self.node().path("/run/uimgacc/supervisor.json")).unwrap();
        let record: Value = serde_json::from_slice(&text).unwrap();
        record["pid"].as_u64().unwrap()
    }
}
