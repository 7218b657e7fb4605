//! Pods on a real Kubernetes: started from the store, from an image that lies on the node, and by a pull, in turns.
//!
//! The cluster has two nodes on this machine: one that `uimgacc enable` sets up, and one that it leaves alone. Both have the same
//! containerd, disk and registry.

mod counters;
mod phases;
mod sides;
mod start;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use uimgacc_testkit::cluster::{self, Cluster};
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::parts;

use self::sides::Sides;
use crate::interrupt::Interrupt;
use crate::show::Show;

/// Both labels of a node that can run accelerated images.
const LABELS: [&str; 2] = [
    "node.uk8s.ucloud.cn/uimgacc",
    "node.uk8s.ucloud.cn/image_accel",
];
/// What tells `enable` which node is meant.
const SELECTOR: &str = "accelerate=yes";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder of the image to start, an OCI layout; its program must say something
    #[arg(long, value_name = "FOLDER")]
    image: PathBuf,
    /// What the image's program says first
    #[arg(long, value_name = "LINE")]
    expect: String,
    /// Folder of the image of our own parts, an OCI layout as scripts/image.sh makes it
    #[arg(long, value_name = "FOLDER", env = "UIMGACC_IMAGE")]
    our_image: PathBuf,
    /// The containerd of both nodes
    #[arg(long, default_value = "2.1")]
    containerd: Containerd,
    /// How often the image is removed and pulled
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pulls: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Containerd {
    #[value(name = "1.7")]
    V1_7,
    #[value(name = "2.1")]
    V2_1,
    #[value(name = "2.4")]
    V2_4,
}

impl Containerd {
    fn version(self) -> ContainerdVersion {
        match self {
            Self::V1_7 => ContainerdVersion::V1_7,
            Self::V2_1 => ContainerdVersion::V2_1,
            Self::V2_4 => ContainerdVersion::V2_4,
        }
    }
}

/// A cluster with the store that its nodes see.
struct World<'a> {
    // In the order of their drop: nodes hold mounts of the store.
    cluster: Cluster,
    folder: tempfile::TempDir,
    programs: &'a Path,
    interrupt: &'a Interrupt,
}

pub(crate) fn run(
    options: &Options,
    programs: &Path,
    rounds: u32,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let show = Show::new();
    show.heading("A bare cluster")?;
    let version = options.containerd.version();
    let world = show.task(
        "etcd, API server, scheduler, two nodes with containerd and kubelet",
        || {
            let folder = tempfile::Builder::new()
                .prefix("uimgacc-bench-")
                .tempdir()?;
            fs::create_dir(folder.path().join("store"))?;
            let cluster = Cluster::start(&cluster::Options::with_nodes(&[version, version]));
            Ok(World {
                cluster,
                folder,
                programs,
                interrupt,
            })
        },
    )?;
    interrupt.check()?;
    let original = world.cluster.registry().reference("ml:1");
    let target = world.cluster.registry().reference("ml:1-uimgacc");
    show.task("the image, into the cluster's registry", || {
        world.push(&options.image, &original)
    })?;
    let ours = world.cluster.registry().reference("uimgacc:bench");
    world.push(&options.our_image, &ours)?;
    let config = world.containerd_config()?;

    show.heading("uimgacc")?;
    let took = world.enable(&ours)?;
    show.took(
        "enable: from nothing to a ready node with both labels",
        took,
    )?;
    show.task("create, once for all nodes", || {
        world.uimgacc(&["create", &original, &target, "--wait"])
    })?;
    show.line(&indented(&world.uimgacc(&["get"])?))?;

    show.heading("Pods with imagePullPolicy: Always, from `kubectl create` to the first line; caches dropped before each")?;
    let sides = Sides::measure(&world, options, &original, &target, rounds, show)?;
    sides.tell(show)?;

    show.heading("Back to a bare cluster")?;
    show.task("disable", || {
        world.uimgacc(&["disable", "--purge", "--timeout", "300"])
    })?;
    let same = world.containerd_config()? == config;
    show.line(&format!(
        "  containerd's configuration on the node is {} the one from before",
        if same { "byte for byte" } else { "NOT" }
    ))?;
    let mounts = world.cluster.node(0).mounts();
    let left = mounts.lines().filter(|line| line.contains(" - erofs "));
    show.line(&format!("  images still mounted: {}", left.count()))
}

impl World<'_> {
    fn push(&self, layout: &Path, reference: &str) -> anyhow::Result<()> {
        let mut skopeo = Command::new(parts::program("skopeo"));
        skopeo
            .args(["--insecure-policy", "copy", "--quiet", "--all"])
            .arg("--dest-tls-verify=false")
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{reference}"));
        self.interrupt.run(&mut skopeo).map(drop)
    }

    /// Our command against this cluster, which must succeed; what it prints.
    fn uimgacc(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(self.programs.join("uimgacc"));
        command
            .args(arguments)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env_remove("UIMGACC_STORE")
            .env_remove("UIMGACC_CONFIG")
            .env_remove("UIMGACC_BASE_URL")
            .env("XDG_CONFIG_HOME", "/nonexistent");
        self.interrupt
            .run(&mut command)
            .map_err(|error| match self.interrupt.check() {
                Ok(()) => error.context(self.cluster.dump()),
                Err(_) => error,
            })
    }

    /// Sets the first node up; how long that took until it has both labels.
    fn enable(&self, image: &str) -> anyhow::Result<Duration> {
        let node = self.cluster.node(0);
        let kubectl = ["label", "node", node.name(), SELECTOR];
        self.interrupt
            .run(self.cluster.kubectl_command().args(kubectl))?;
        let store = self.folder.path().join("store");
        let store = store.to_str().context("the temporary folder is no UTF-8")?;
        let restart = node.restart_containerd_command().to_string_lossy();
        let registry = self.cluster.registry().address();
        let started = Instant::now();
        self.uimgacc(&[
            "enable",
            "--host-path",
            store,
            "--image",
            image,
            "--plain-http-registry",
            &registry,
            "--containerd-restart",
            &restart,
            "--node-selector",
            SELECTOR,
            "--timeout",
            "300",
        ])?;
        self.interrupt
            .wait("the node's labels", Duration::from_secs(60), || {
                let node = self.cluster.get(&["node", node.name()]);
                let labels = &node["metadata"]["labels"];
                let all = LABELS.iter().all(|label| labels[*label] == "true");
                Ok(all.then_some(()))
            })?;
        Ok(started.elapsed())
    }

    /// The configuration of the first node's containerd.
    fn containerd_config(&self) -> anyhow::Result<Vec<u8>> {
        let path = self.cluster.node(0).containerd_config();
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}
