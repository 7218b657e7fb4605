//! A control plane and the command to drive it.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use uimgacc_testkit::Need;
use uimgacc_testkit::cluster::{Cluster, Options};

/// How long anything may take on a busy machine.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Whether the real parts are here; says loudly what is missing.
pub(crate) fn ready() -> bool {
    uimgacc_testkit::ready(&[Need::Root, Need::Parts, Need::Kubernetes])
}

/// A control plane without controllers: nobody but the test writes the status of a Deployment.
pub(crate) fn control_plane() -> Cluster {
    Cluster::start(&Options::control_plane().without_controllers())
}

/// The command, of the cluster's administrator.
pub(crate) fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = uimgacc_testkit::programs::uimgacc(arguments);
    command
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdin(Stdio::null());
    command
}

pub(crate) fn uimgacc(cluster: &Cluster, arguments: &[&str]) -> Output {
    command(cluster, arguments)
        .output()
        .expect("the command starts")
}

/// Starts the command; its output is taken by [`Running::finish`].
pub(crate) fn start(cluster: &Cluster, arguments: &[&str]) -> Running {
    let output = [(); 2].map(|()| NamedTempFile::new().expect("a file"));
    let [stdout, stderr] = output.each_ref().map(|file| file.reopen().expect("a file"));
    let child = command(cluster, arguments)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .expect("the command starts");
    Running { child, output }
}

/// A command that runs; killed where the test fails first.
pub(crate) struct Running {
    child: Child,
    output: [NamedTempFile; 2],
}

impl Running {
    pub(crate) fn finish(mut self) -> Output {
        let status = self.child.wait().expect("the command ends");
        let [stdout, stderr] = self.said();
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// What it wrote so far: to standard output, to standard error.
    pub(crate) fn said(&self) -> [Vec<u8>; 2] {
        let read = |file: &NamedTempFile| std::fs::read(file.path()).expect("its output");
        self.output.each_ref().map(read)
    }

    /// Waits until it wrote so many lines in all.
    pub(crate) fn wait_lines(&self, count: usize) {
        wait_for("the command's output", || {
            let said = self.said().concat();
            said.iter().filter(|byte| **byte == b'\n').count() >= count
        });
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the command can be asked")
            .is_some()
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command with something on standard input.
pub(crate) fn with_input(cluster: &Cluster, arguments: &[&str], input: &str) -> Output {
    let mut child = command(cluster, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard output of a command that must succeed.
pub(crate) fn ok(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout(output)
}

/// Standard error of a command that must fail with `code`.
pub(crate) fn failed(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}\n{text}",
        stdout(output)
    );
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// JSON that a command prints.
pub(crate) fn json_of(cluster: &Cluster, arguments: &[&str]) -> Value {
    let text = ok(&uimgacc(cluster, &[arguments, &["-o", "json"]].concat()));
    serde_json::from_str(&text).expect("JSON")
}

/// Writes into a status, as the agent does.
pub(crate) fn patch_status(cluster: &Cluster, target: &[&str], status: &Value) {
    let patch = json!({ "status": status }).to_string();
    let arguments = [
        &["patch"],
        target,
        &["--subresource=status", "--type=merge", "-p", &patch],
    ]
    .concat();
    cluster.kubectl_ok(&arguments);
}

pub(crate) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// Plays an agent for which all is well with `nodes` nodes.
pub(crate) fn all_is_well(cluster: &Cluster, nodes: u32) {
    patch_status(
        cluster,
        &["-n", "kube-system", "deployment", "uimgacc-agent"],
        &json!({"observedGeneration": 99, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}),
    );
    let object = cluster.get(&["imageacceleration", "default"]);
    patch_status(
        cluster,
        &["imageacceleration", "default"],
        &json!({"observedGeneration": object["metadata"]["generation"],
            "conditions": [condition("NfsReady", "True", "Written", ""), condition("AgentReady", "True", "Runs", ""),
                condition("Ready", "True", "Ready", "")],
            "nodes": {"ready": nodes, "total": nodes}, "storeBytes": 1_210_000}),
    );
}

/// A cluster that is enabled and well, without nodes.
pub(crate) fn enabled() -> Cluster {
    let cluster = control_plane();
    ok(&uimgacc(
        &cluster,
        &["enable", "--nfs", "10.0.0.1:/x", "--no-wait"],
    ));
    all_is_well(&cluster, 0);
    cluster
}

/// A node of the cluster that is up, as its kubelet would tell.
pub(crate) fn machine(cluster: &Cluster, name: &str) {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{kubernetes.io/os: linux}}}}}}"
    ));
    patch_status(
        cluster,
        &["node", name],
        &json!({"conditions": [condition("Ready", "True", "KubeletReady", "")],
            "nodeInfo": {"kernelVersion": "6.18.44", "containerRuntimeVersion": "containerd://2.1.9",
                "architecture": "amd64", "bootID": "", "kubeProxyVersion": "", "kubeletVersion": "v1.37.2",
                "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": ""}}),
    );
}

/// Waits until `holds`.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + MINUTE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
