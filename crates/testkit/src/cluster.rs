//! A real Kubernetes cluster on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and nodes with containerd
//! and kubelet.
//!
//! Several run side by side: each has a block of addresses of its own ([`addresses`]) and a temporary folder. The control plane consists
//! of processes of the machine; a [`Node`] has mounts, processes, network and host name of its own. The machine reaches the nodes and
//! their Pods by address, and they reach the machine at [`Cluster::address`].
//!
//! All calls take `&self`, so a test can end parts in one thread while another works with the cluster.
//!
//! On drop everything ends and is removed: nodes, control plane, links, addresses, cgroups, folders.

mod addresses;
mod control;
mod forward;
mod node;
mod pki;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub use control::Component;
pub use node::{Node, Service};

use addresses::{Block, MAX_NODES};
use control::ControlPlane;
use pki::Pki;

use crate::containerd::ContainerdVersion;
use crate::{Registry, image, net, parts};

/// How long the start and a restart may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The user of [`Cluster::kubectl`].
const ADMIN: &str = "admin";

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The containerd of each node; none for a control plane alone.
    pub nodes: Vec<ContainerdVersion>,
    /// Runs kube-controller-manager, without which there are no service accounts, Jobs, DaemonSets and garbage collection.
    pub controllers: bool,
    /// Runs kube-proxy on the nodes, for Services. The API is reached without it.
    pub kube_proxy: bool,
    /// More arguments for kube-apiserver.
    pub api_server_args: Vec<String>,
}

impl Default for Options {
    /// One node with containerd 2.1, no kube-proxy.
    fn default() -> Self {
        Self::with_nodes(&[ContainerdVersion::V2_1])
    }
}

impl Options {
    /// A node for each of these.
    #[must_use]
    pub fn with_nodes(versions: &[ContainerdVersion]) -> Self {
        Self {
            nodes: versions.to_vec(),
            controllers: true,
            kube_proxy: false,
            api_server_args: Vec::new(),
        }
    }

    /// etcd, kube-apiserver and kube-controller-manager, for tests of objects. No Pod runs.
    #[must_use]
    pub fn control_plane() -> Self {
        Self::with_nodes(&[])
    }

    /// With kube-proxy.
    #[must_use]
    pub fn services(mut self) -> Self {
        self.kube_proxy = true;
        self
    }

    /// Without kube-controller-manager.
    #[must_use]
    pub fn without_controllers(mut self) -> Self {
        self.controllers = false;
        self
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // In the order of their drop.
    nodes: Vec<Node>,
    control: ControlPlane,
    registry: Option<Registry>,
    pki: Pki,
    block: Block,
    dir: TempDir,
}

impl Cluster {
    /// Starts one and waits until all nodes are Ready and Pods can be made.
    ///
    /// # Panics
    /// Where that takes longer than two minutes; logs, events and nodes are shown.
    #[must_use]
    pub fn start(options: &Options) -> Self {
        assert!(
            options.nodes.len() <= MAX_NODES,
            "at most {MAX_NODES} nodes"
        );
        let dir = tempfile::Builder::new()
            .prefix("uimgacc-k8s-")
            .tempdir()
            .expect("a temporary folder");
        let block = Block::claim();
        let mut users = vec![(ADMIN.to_owned(), "system:masters")];
        users.extend(control::users());
        users.push(("system:kube-proxy".to_owned(), ""));
        users.extend((0..MAX_NODES).map(|index| (node_user(index), "system:nodes")));
        let pki = Pki::make(&dir.path().join("pki"), block.api(), &users);
        let control = ControlPlane::new(dir.path(), &block, &options.api_server_args);
        control.spawn(Component::Etcd, &pki);
        control.spawn(Component::ApiServer, &pki);

        let mut cluster = Self {
            nodes: Vec::new(),
            control,
            registry: None,
            pki,
            block,
            dir,
        };
        cluster.start_nodes(options);
        cluster.wait_api();
        if options.controllers {
            cluster
                .control
                .spawn(Component::ControllerManager, &cluster.pki);
        }
        if !options.nodes.is_empty() {
            cluster.control.spawn(Component::Scheduler, &cluster.pki);
        }
        for node in &cluster.nodes {
            node.start(Service::Kubelet);
        }
        if options.controllers {
            cluster.wait_until("the default service account is there", PATIENCE, || {
                cluster
                    .kubectl(&["get", "serviceaccount", "default"])
                    .status
                    .success()
            });
        }
        for node in &cluster.nodes {
            cluster.wait_node(node.name());
            if options.kube_proxy {
                node.start(Service::KubeProxy);
            }
        }
        cluster
    }

    fn start_nodes(&mut self, options: &Options) {
        if options.nodes.is_empty() {
            return;
        }
        let registry = Registry::start_on(self.block.api());
        let pause = image::busybox().push(&registry, "pause:1");
        let count = u8::try_from(options.nodes.len()).expect("few nodes");
        for (index, version) in (0..count).zip(&options.nodes) {
            let plan = node::Plan {
                index,
                count,
                version: *version,
                dir: self.dir.path().join(node::name(index)),
                block: &self.block,
                pause_image: pause.reference.clone(),
                ca: self.pki.file("ca.crt"),
                kubelet_kubeconfig: self.pki.kubeconfig(&node_user(usize::from(index))),
                proxy_kubeconfig: options
                    .kube_proxy
                    .then(|| self.pki.kubeconfig("system:kube-proxy")),
            };
            let node = Node::spawn(&plan);
            node.trust(&registry);
            self.nodes.push(node);
        }
        self.registry = Some(registry);
    }

    /// The nodes, in the order they were asked for.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that place, counted from 0.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// A registry that the machine, all nodes and all Pods reach, over plain HTTP.
    ///
    /// # Panics
    /// In a control plane without nodes.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.registry.as_ref().expect("a cluster with nodes")
    }

    /// Lets all nodes use a registry over plain HTTP. Pods do not reach one that listens on loopback: see [`Self::registry`].
    pub fn trust(&self, registry: &Registry) {
        for node in &self.nodes {
            node.trust(registry);
        }
    }

    /// The address of the machine that nodes and Pods reach, e.g. for a server of the test. kube-apiserver listens there, port 443.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.block.api()
    }

    /// The folder of everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki.kubeconfig(ADMIN)
    }

    /// A `kubectl` of an administrator, to add arguments to.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(parts::dir().join("kubernetes/bin/kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl-cache"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `kubectl` and returns what came of it.
    ///
    /// # Panics
    /// Where `kubectl` cannot be started.
    #[must_use]
    pub fn kubectl(&self, args: &[&str]) -> Output {
        let output = self.kubectl_command().args(args).output();
        output.expect("kubectl can be started")
    }

    /// Runs `kubectl`, which must succeed, and returns what it printed.
    ///
    /// # Panics
    /// Where it fails; its output and the state of the cluster are shown.
    pub fn kubectl_ok(&self, args: &[&str]) -> String {
        let output = self.kubectl(args);
        self.succeeded(&format!("kubectl {args:?}"), &output)
    }

    /// Runs `kubectl get ARGS -o json`, which must succeed.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn get(&self, args: &[&str]) -> Value {
        let text = self.kubectl_ok(&[&["get", "-o", "json"], args].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Applies objects, given as YAML.
    ///
    /// # Panics
    /// Where the API refuses them.
    pub fn apply(&self, yaml: &str) -> String {
        let file = tempfile::NamedTempFile::new_in(self.dir.path()).expect("a temporary file");
        fs::write(file.path(), yaml).expect("the objects can be written");
        let mut command = self.kubectl_command();
        let command = command
            .args(["apply", "-f", "-"])
            .stdin(File::open(file.path()).expect("the file was just written"));
        let output = command.output().expect("kubectl can be started");
        self.succeeded(&format!("kubectl apply of\n{yaml}\n"), &output)
    }

    fn succeeded(&self, what: &str, output: &Output) -> String {
        assert!(
            output.status.success(),
            "{what}: {}\n{}{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.dump()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits as `kubectl wait --for=CONDITION TARGET...` does, e.g. for `condition=Ready` of `pod/a`, or
    /// `jsonpath={.status.phase}=Succeeded`.
    ///
    /// # Panics
    /// Where it does not come within that time; the state of the cluster is shown.
    pub fn wait(&self, condition: &str, target: &[&str], within: Duration) {
        let condition = format!("--for={condition}");
        let timeout = format!("--timeout={}ms", within.as_millis());
        self.kubectl_ok(&[&["wait", &condition, &timeout], target].concat());
    }

    /// Waits until a Pod of the namespace `default` has succeeded, and returns the log of its container.
    ///
    /// # Panics
    /// Where it fails, or does not end within that time; its log and the state of the cluster are shown.
    #[must_use]
    pub fn finished(&self, pod: &str, within: Duration) -> String {
        let mut phase = String::new();
        self.wait_until(&format!("Pod {pod} ends"), within, || {
            let query = ["get", "pod", pod, "-o", "jsonpath={.status.phase}"];
            phase = String::from_utf8_lossy(&self.kubectl(&query).stdout).into_owned();
            phase == "Succeeded" || phase == "Failed"
        });
        let log = self.kubectl_ok(&["logs", pod]);
        assert!(
            phase == "Succeeded",
            "Pod {pod} failed, and said\n{log}\n{}",
            self.dump()
        );
        log
    }

    /// Waits until `holds` says so, asking ten times a second.
    ///
    /// # Panics
    /// Where it does not within that time; the state of the cluster is shown.
    pub fn wait_until(&self, what: &str, within: Duration, holds: impl FnMut() -> bool) {
        wait_until(what, within, holds, || self.dump());
    }

    /// Waits until a node is Ready and takes Pods.
    ///
    /// # Panics
    /// Where that takes longer than two minutes.
    pub fn wait_node(&self, name: &str) {
        self.wait_until(&format!("{name} is Ready"), PATIENCE, || {
            let output = self.kubectl(&["get", "node", name, "-o", "json"]);
            let Ok(node) = serde_json::from_slice::<Value>(&output.stdout) else {
                return false;
            };
            let conditions = node["status"]["conditions"].as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            // The taints `not-ready` and `uninitialized` go a little later.
            ready && node["spec"]["taints"].as_array().is_none_or(Vec::is_empty)
        });
    }

    /// Waits until kube-apiserver is ready.
    ///
    /// # Panics
    /// Where it ended, or is not within two minutes.
    pub fn wait_api(&self) {
        let deadline = Instant::now() + PATIENCE;
        let ready = || {
            net::answers(self.block.api(), 443)
                && self.kubectl(&["get", "--raw=/readyz"]).status.success()
        };
        while !ready() {
            assert!(
                Instant::now() < deadline
                    && self.control.runs(Component::Etcd)
                    && self.control.runs(Component::ApiServer),
                "kube-apiserver does not start\n{}",
                self.control.log_tails()
            );
            sleep(Duration::from_millis(50));
        }
    }

    /// `SIGKILL` for a part of the control plane; it stays down until [`Self::start_component`].
    pub fn kill9(&self, component: Component) {
        self.control.kill9(component);
    }

    /// `SIGTERM` for a part of the control plane, and waits for its end; it stays down until [`Self::start_component`]. kube-apiserver
    /// takes 30 s for that while anybody watches, and is killed then.
    pub fn stop(&self, component: Component) {
        self.control.stop(component);
    }

    /// Starts a part of the control plane that was ended. For etcd and kube-apiserver, waits until the API is ready, if both run.
    pub fn start_component(&self, component: Component) {
        self.control.spawn(component, &self.pki);
        let both = [Component::Etcd, Component::ApiServer];
        if both.contains(&component) && both.iter().all(|one| self.control.runs(*one)) {
            self.wait_api();
        }
    }

    /// The process ID of a part of the control plane.
    #[must_use]
    pub fn pid(&self, component: Component) -> Option<u32> {
        self.control.pid(component)
    }

    /// What helps to see why something did not happen: objects, events, Pods in full, ends of logs.
    #[must_use]
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for args in [
            &["get", "nodes,pods", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["describe", "pods", "-A", "--show-events=false"],
        ] {
            let output = self.kubectl(&[&["--request-timeout=5s"], args].concat());
            text.push_str(&format!(
                "--- kubectl {args:?}\n{}{}\n",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        text.push_str(&self.control.log_tails());
        for node in &self.nodes {
            text.push_str(&node.log_tails());
        }
        text
    }
}

/// The user that a kubelet signs in as.
/// Waits until `holds` says so, asking ten times a second.
///
/// # Panics
/// Where it does not within that time; `state` is shown.
pub fn wait_until(
    what: &str,
    within: Duration,
    mut holds: impl FnMut() -> bool,
    state: impl Fn() -> String,
) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "not within {within:?}: {what}\n{}",
            state()
        );
        sleep(Duration::from_millis(100));
    }
}

fn node_user(index: usize) -> String {
    format!("system:node:node-{}", index + 1)
}
