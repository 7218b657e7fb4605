//! A cluster with our kinds and rights, and the parts that the tests play.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use uimgacc_testkit::Need;
use uimgacc_testkit::cluster::{Cluster, Options};
use uimgacc_testkit::process::Daemon;

pub(crate) const NEEDS: [Need; 3] = [Need::Root, Need::Parts, Need::Kubernetes];
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// A control plane with our kinds and service accounts.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
}

/// A controller that runs.
pub(crate) struct Agent {
    pub(crate) process: Daemon,
    pub(crate) port: u16,
}

impl Stage {
    pub(crate) fn start() -> Self {
        Self::start_with(Vec::new())
    }

    /// With more arguments for kube-apiserver.
    pub(crate) fn start_with(api_server_args: Vec<String>) -> Self {
        let cluster = Cluster::start(&Options {
            api_server_args,
            ..Options::control_plane()
        });
        let kinds = json!({
            "apiVersion": "v1",
            "kind": "List",
            "items": uimgacc_objects::definitions(),
        });
        cluster.apply(&kinds.to_string());
        cluster.apply(include_str!("rbac.yaml"));
        for kind in [
            "imageaccelerations",
            "acceleratedimages",
            "accelerationnodes",
            "startrecords",
        ] {
            let target = format!("crd/{kind}.uimgacc.io");
            cluster.wait("condition=Established", &[&target], SOON);
        }
        Self { cluster }
    }

    /// Starts a controller as the service account `uimgacc-agent`.
    pub(crate) fn agent(&self, name: &str) -> Agent {
        let port = free_port();
        let log = self.cluster.dir().join(format!("{name}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_uimgacc-agent"));
        command
            .args(["controller", "--identity", name])
            .args([
                "--lease-seconds",
                "4",
                "--renew-seconds",
                "2.5",
                "--retry-seconds",
                "0.5",
            ])
            .arg(format!("--health-address=127.0.0.1:{port}"))
            .env("KUBECONFIG", self.service_account(name))
            .env("UIMGACC_LOG", "info,uimgacc_controller=debug");
        let process = Daemon::spawn(name, &mut command, &log);
        Agent { process, port }
    }

    /// A kubeconfig of the service account `uimgacc-agent`, with a token of its own.
    pub(crate) fn service_account(&self, agent: &str) -> PathBuf {
        let token = self.cluster.kubectl_ok(&[
            "create",
            "token",
            "uimgacc-agent",
            "-n",
            "kube-system",
            "--duration=2h",
        ]);
        let text = self
            .cluster
            .kubectl_ok(&["config", "view", "--raw", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&text).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token.trim()});
        }
        let path = self.cluster.dir().join(format!("{agent}.kubeconfig"));
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.cluster.dir().join(format!("{name}.log"))).unwrap()
    }

    pub(crate) fn wait(&self, agent: &str, what: &str, holds: impl FnMut() -> bool) {
        self.wait_for(agent, what, SOON, holds);
    }

    pub(crate) fn wait_for(
        &self,
        agent: &str,
        what: &str,
        within: Duration,
        mut holds: impl FnMut() -> bool,
    ) {
        let deadline = std::time::Instant::now() + within;
        while !holds() {
            if std::time::Instant::now() > deadline {
                let objects = self.cluster.kubectl(&[
                    "get",
                    "imgaccel,accimg,accnode,jobs,pods,ds",
                    "-A",
                    "-o",
                    "yaml",
                ]);
                let log = self.log(agent);
                let tail: String = log
                    .chars()
                    .skip(log.chars().count().saturating_sub(6000))
                    .collect();
                panic!(
                    "not within {within:?}: {what}\n{}\n{tail}",
                    String::from_utf8_lossy(&objects.stdout)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The object as JSON; null where it is not there.
    pub(crate) fn object(&self, args: &[&str]) -> Value {
        let output = self
            .cluster
            .kubectl(&[&["get", "-o", "json", "--ignore-not-found"], args].concat());
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub(crate) fn image(&self, name: &str) -> Value {
        self.object(&["accimg", name])
    }

    pub(crate) fn patch_status(&self, kind: &str, name: &str, namespace: &str, status: &Value) {
        let patch = json!({"status": status}).to_string();
        self.cluster.kubectl_ok(&[
            "patch",
            kind,
            name,
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "--field-manager=uimgacc-convert",
            "-p",
            &patch,
        ]);
    }

    /// The Pod of a Job, once its controller made it.
    pub(crate) fn pod_of(&self, agent: &str, job: &str) -> String {
        let mut name = None;
        self.wait(agent, &format!("the Pod of {job}"), || {
            let uid = self.object(&["job", "-n", "kube-system", job])["metadata"]["uid"].clone();
            let Some(uid) = uid.as_str() else {
                return false;
            };
            let selector = format!("controller-uid={uid}");
            let pods = self.object(&["pods", "-n", "kube-system", "-l", &selector]);
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            name = pods
                .iter()
                .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
                .find(|pod| {
                    !matches!(
                        pod["status"]["phase"].as_str(),
                        Some("Failed" | "Succeeded")
                    )
                })
                .and_then(|pod| pod["metadata"]["name"].as_str().map(ToOwned::to_owned));
            name.is_some()
        });
        name.unwrap()
    }

    /// Ends the Pod of a Job as the kubelet would.
    pub(crate) fn end_job(&self, agent: &str, job: &str, code: i32, reason: &str, message: &str) {
        let pod = self.pod_of(agent, job);
        let container = job.split('-').nth(1).unwrap().to_owned();
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let status = json!({
            "phase": phase,
            "containerStatuses": [{
                "name": container, "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}},
            }],
        });
        self.patch_status("pod", &pod, "kube-system", &status);
    }

    /// Enables acceleration and plays the Job that makes the store.
    pub(crate) fn enable(&self, agent: &str) {
        self.cluster.apply(
            "{apiVersion: uimgacc.io/v1, kind: ImageAcceleration, metadata: {name: default},
              spec: {store: {nfs: {servers: [10.0.0.1]}}, image: 'registry.example/uimgacc:1'}}",
        );
        // Not one that was made for an address before.
        self.wait(agent, "the Job for this store", || {
            let job = self.object(&["job", "-n", "kube-system", "uimgacc-init"]);
            let args = &job["spec"]["template"]["spec"]["containers"][0]["args"];
            args.to_string().contains("10.0.0.1") && job["metadata"]["deletionTimestamp"].is_null()
        });
        self.end_job(agent, "uimgacc-init", 0, "Completed", "");
        self.wait(agent, "NfsReady", || {
            condition(&self.object(&["imgaccel", "default"]), "NfsReady").0 == "True"
        });
    }

    pub(crate) fn create_image(&self, name: &str, target: &str) {
        self.cluster.apply(&format!(
            "{{apiVersion: uimgacc.io/v1, kind: AcceleratedImage, metadata: {{name: {name}}},
              spec: {{originalImage: 'registry.example/app:1', targetImage: '{target}'}}}}"
        ));
    }

    /// Plays a conversion that succeeds.
    pub(crate) fn convert(&self, agent: &str, name: &str, chain: &str) {
        let job = format!("uimgacc-convert-{name}");
        self.pod_of(agent, &job);
        self.patch_status("accimg", name, "", &result(chain));
        self.end_job(agent, &job, 0, "Completed", "");
        self.wait(agent, &format!("{name} is Ready"), || {
            self.image(name)["status"]["phase"] == "Ready"
        });
    }

    /// A node with what it says of itself.
    pub(crate) fn node(&self, name: &str, status: &Value) {
        self.cluster.apply(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{kubernetes.io/os: linux}}}}}}"
        ));
        self.cluster.apply(&format!(
            "{{apiVersion: uimgacc.io/v1, kind: AccelerationNode, metadata: {{name: {name}}}, spec: {{}}}}"
        ));
        self.patch_status("accnode", name, "", status);
    }

    pub(crate) fn node_spec(&self, name: &str) -> Value {
        self.object(&["accnode", name])["spec"].clone()
    }

    pub(crate) fn events(&self, object: &str) -> Vec<(String, String)> {
        let selector = format!("involvedObject.name={object}");
        let events = self.object(&["events", "-n", "default", "--field-selector", &selector]);
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events
            .iter()
            .map(|event| (text(&event["reason"]), text(&event["message"])))
            .collect()
    }
}

/// What a conversion writes at its end.
pub(crate) fn result(chain: &str) -> Value {
    json!({
        "progress": {"doneBytes": 100, "totalBytes": 100, "percent": 100, "stage": "done"},
        "size": 12345, "layers": 3, "uniqueBytes": 99,
        "originalDigest": format!("sha256:{}", "1".repeat(64)),
        "targetDigest": format!("sha256:{}", "2".repeat(64)),
        "chainToken": chain,
    })
}

/// Status and reason of a condition, and its message.
pub(crate) fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let all = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let one = all
        .into_iter()
        .find(|one| one["type"] == kind)
        .unwrap_or_default();
    let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// A condition as a node writes it.
pub(crate) fn node_condition(kind: &str, is_true: bool, reason: &str) -> Value {
    json!({
        "type": kind, "status": if is_true { "True" } else { "False" }, "reason": reason,
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// The answer to a GET of an address of this machine: status and body.
pub(crate) fn http(port: u16, path: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        return (0, String::new());
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    if stream.read_to_string(&mut text).is_err() {
        return (0, String::new());
    }
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (code.unwrap_or_default(), body.to_owned())
}

/// A port of loopback that nobody listens on now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
