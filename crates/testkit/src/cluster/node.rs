//! A node: containerd and kubelet with mounts, processes, network and host name of their own, as a small machine has them.
//!
//! The node sees the machine's files. What it changes below `/etc`, `/opt` and `/usr/local` stays with the node (overlays); `/run`,
//! `/var/lib` and `/var/log` are its own from the start, plain folders that can be looked at from outside. All mounts are shared, as
//! systemd has it, so a Pod with `mountPropagation: Bidirectional` can mount something on the node. Anything else (`/tmp` above all) is
//! the machine's, so a test can give a folder to the node as a `hostPath`. Only mounts do not pass: what a test mounts below the
//! temporary folder, before or after, the node does not see, and what the node mounts is seen by [`Node::path`] and [`Node::mounts`].
//!
//! There is no systemd: process 1 starts containerd and kubelet again whenever they end, and `/usr/local/sbin/restart-containerd` on the
//! node restarts containerd. A Pod can call it that has `privileged`, `hostPID`, and has changed its root to the node's `/`.
//!
//! What a Pod starts ends with the Pod, as everywhere, whatever its namespaces: a daemon that shall stay must leave the Pod's cgroup, for
//! that of process 1 in each hierarchy.
//!
//! On drop process 1 is killed, and with it the kernel ends all processes and mounts of the node; its cgroups are removed.

mod cgroups;
mod files;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::addresses::Block;
use super::forward::Forward;
use crate::containerd::ContainerdVersion;
use crate::process::{Daemon, run};
use crate::{Registry, parts};

/// What a node keeps running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// containerd.
    Containerd,
    /// kubelet.
    Kubelet,
    /// kube-proxy, where the cluster was asked for it.
    KubeProxy,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Containerd, Self::Kubelet, Self::KubeProxy];

    /// Its name, which is its program's too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// What a node is made of.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) index: u8,
    pub(super) count: u8,
    pub(super) version: ContainerdVersion,
    pub(super) dir: PathBuf,
    pub(super) block: &'a Block,
    pub(super) pause_image: String,
    pub(super) ca: PathBuf,
    pub(super) kubelet_kubeconfig: PathBuf,
    pub(super) proxy_kubeconfig: Option<PathBuf>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    name: String,
    address: Ipv4Addr,
    version: ContainerdVersion,
    dir: PathBuf,
    cgroup: String,
    // Before `init`: the sockets' threads end first.
    forwards: Mutex<Vec<Forward>>,
    init: Daemon,
    pid_namespace: PathBuf,
}

/// The name of a node, counted from 0: `node-1` is the first.
pub(super) fn name(index: u8) -> String {
    format!("node-{}", index + 1)
}

impl Node {
    /// Starts process 1 and containerd. kubelet waits for [`Self::start`].
    pub(super) fn spawn(plan: &Plan<'_>) -> Self {
        let dir = plan.dir.clone();
        assert!(
            !["/etc", "/opt", "/usr/local", "/run", "/var/lib", "/var/log"]
                .iter()
                .any(|hidden| dir.starts_with(hidden) || parts::dir().starts_with(hidden)),
            "the parts ({}) and the temporary folder ({}) must lie where a node sees the machine's files: set UIMGACC_PARTS, TMPDIR",
            parts::dir().display(),
            dir.display(),
        );
        files::write(plan);
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--net",
                "--uts",
                "--fork",
                "--kill-child",
            ])
            .arg("bash")
            .arg(dir.join("files/init.sh"))
            .arg(&dir)
            .current_dir("/")
            .env("PATH", search_path(plan.version))
            .env_remove("NOTIFY_SOCKET");
        let init = Daemon::spawn(&name(plan.index), &mut command, &dir.join("init.log"));
        let mut node = Self {
            name: name(plan.index),
            address: plan.block.node(plan.index),
            version: plan.version,
            dir,
            cgroup: files::cgroup(plan),
            forwards: Mutex::default(),
            init,
            pid_namespace: PathBuf::new(),
        };
        node.wait_unshared();
        plan.block.connect(plan.index, node.init.pid());
        let ready = node.dir.join("run/node/ready");
        let up = node.init.wait_ready(|| ready.exists());
        assert!(up, "the node ended at once\n{}", node.init.log_tail());
        node
    }

    /// Waits until process 1 has its namespaces.
    fn wait_unshared(&mut self) {
        let namespaces = PathBuf::from(format!("/proc/{}/ns", self.init.pid()));
        // The link for children cannot be read before the first child is there.
        let unshared = |name: &str, own: &str| {
            fs::read_link(namespaces.join(name)).is_ok_and(|link| {
                fs::read_link(format!("/proc/self/ns/{own}")).is_ok_and(|own| own != link)
            })
        };
        let up = self
            .init
            .wait_ready(|| unshared("net", "net") && unshared("pid_for_children", "pid"));
        assert!(up, "unshare failed\n{}", self.init.log_tail());
        self.pid_namespace = fs::read_link(namespaces.join("pid_for_children"))
            .expect("the node's process namespace");
    }

    /// Its name in Kubernetes, which is its host name too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, which the machine and the other nodes reach.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The version of its containerd.
    #[must_use]
    pub fn containerd_version(&self) -> ContainerdVersion {
        self.version
    }

    /// The node's `/etc/containerd/config.toml`, as a path of the machine.
    #[must_use]
    pub fn containerd_config(&self) -> PathBuf {
        self.dir.join("containerd/config.toml")
    }

    /// The node's `/run/containerd/containerd.sock`, as a path of the machine.
    #[must_use]
    pub fn containerd_socket(&self) -> PathBuf {
        self.dir.join("run/containerd/containerd.sock")
    }

    /// A path on the node that restarts its containerd, waits until it answers and fails where it does not. Takes no arguments.
    #[must_use]
    pub fn restart_containerd_command(&self) -> &'static Path {
        Path::new("/usr/local/sbin/restart-containerd")
    }

    /// A path of the node as a path of the machine, through the node's own mounts. Good as long as the node runs.
    #[must_use]
    pub fn path(&self, on_node: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{on_node}", self.init.pid()))
    }

    /// A command that runs on the node, to add arguments to.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let namespaces = format!("/proc/{}/ns", self.init.pid());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={namespaces}/mnt"))
            .arg(format!("--net={namespaces}/net"))
            .arg(format!("--uts={namespaces}/uts"))
            .arg(format!("--pid={namespaces}/pid_for_children"))
            .args(["--", program])
            .current_dir("/")
            .env("PATH", search_path(self.version))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command on the node, which must succeed, and returns what it printed.
    ///
    /// # Panics
    /// Where it fails; its output is shown.
    pub fn run(&self, args: &[&str]) -> String {
        let output = run(self.command(args[0]).args(&args[1..]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The mount table of the node (proc_pid_mountinfo(5)).
    ///
    /// # Panics
    /// Where the node has ended.
    #[must_use]
    pub fn mounts(&self) -> String {
        fs::read_to_string(format!("/proc/{}/mountinfo", self.init.pid()))
            .expect("the node's mount table")
    }

    /// Starts a service that was stopped, and waits until it answers.
    ///
    /// # Panics
    /// Where it does not within 30 s; the end of its log is shown.
    pub fn start(&self, service: Service) {
        self.service("start", service);
    }

    /// `SIGTERM`, and keeps it down until [`Self::start`].
    pub fn stop(&self, service: Service) {
        self.service("stop", service);
    }

    /// `SIGTERM`, then starts it again and waits until it answers. Containers go on.
    pub fn restart(&self, service: Service) {
        self.service("restart", service);
    }

    /// `SIGKILL`. It comes back by itself after 0.1 s; containers go on.
    pub fn kill9(&self, service: Service) {
        self.service("kill9", service);
    }

    /// Tries a restart, which may fail where the configuration is bad.
    #[must_use]
    pub fn try_restart(&self, service: Service) -> Output {
        self.command("/usr/local/sbin/node-service")
            .args(["restart", service.name()])
            .output()
            .expect("nsenter starts")
    }

    /// The process ID of a service as the node's processes see it, or `None` while it does not run.
    #[must_use]
    pub fn pid(&self, service: Service) -> Option<u32> {
        let file = self.dir.join(format!("run/node/{}.pid", service.name()));
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// The whole log of a service.
    #[must_use]
    pub fn log(&self, service: Service) -> String {
        let file = self.dir.join(format!("{}.log", service.name()));
        String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
    }

    /// Lets containerd use a registry over plain HTTP. One that listens on the machine's loopback only gets the same port on the node's.
    ///
    /// # Panics
    /// Where the file cannot be written or the port is taken on the node.
    pub fn trust(&self, registry: &Registry) {
        let dir = self.dir.join("containerd/certs.d").join(registry.address());
        fs::create_dir_all(&dir).expect("a new folder");
        let url = registry.url();
        let hosts = format!(
            "server = \"{url}\"\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::write(dir.join("hosts.toml"), hosts).expect("hosts.toml can be written");
        if registry.ip().is_loopback() {
            let mut forwards = self.forwards.lock();
            if forwards.iter().all(|one| one.port() != registry.port()) {
                forwards.push(Forward::start(self.init.pid(), registry.port()));
            }
        }
    }

    /// The ends of all its logs.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let tails = Service::ALL.iter().map(|service| {
            let log = self.log(*service);
            let start = log.floor_char_boundary(log.len().saturating_sub(4096));
            format!(
                "--- {} of {}\n{}\n",
                service.name(),
                self.name,
                &log[start..]
            )
        });
        tails.collect()
    }

    fn service(&self, action: &str, service: Service) {
        self.run(&["/usr/local/sbin/node-service", action, service.name()]);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
        }
        self.forwards.lock().clear();
        self.init.kill();
        let deadline = Instant::now() + Duration::from_secs(20);
        while anyone_in(&self.pid_namespace) {
            if Instant::now() > deadline {
                eprintln!("processes of {} do not end", self.name);
                return;
            }
            sleep(Duration::from_millis(10));
        }
        cgroups::remove(&self.cgroup);
    }
}

/// Whether a process that is no zombie is in that process namespace.
fn anyone_in(pid_namespace: &Path) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .any(|entry| {
            fs::read_link(entry.path().join("ns/pid")).is_ok_and(|link| link == pid_namespace)
        })
}

fn search_path(version: ContainerdVersion) -> std::ffi::OsString {
    parts::search_path(&[version.bin(), parts::dir().join("kubernetes/bin")])
}
