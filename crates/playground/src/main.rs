//! A Kubernetes cluster on this machine to try things in: runs until it is told to end, and leaves nothing behind.
//!
//! `scripts/playground.sh` builds what it needs, starts it in the background and ends it.

mod settings;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use uimgacc_testkit::cluster::{Cluster, Options};
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::image::{Compression, ImageBuilder};
use uimgacc_testkit::{debian, parts, process};

/// Our own image, in the cluster's registry.
const OURS: &str = "uimgacc:playground";
/// The image to accelerate: Python with libraries, as its users have them.
const SAMPLE: &str = "pandas:1";

fn main() -> anyhow::Result<()> {
    let folder: PathBuf = std::env::args_os()
        .nth(1)
        .context("usage: uimgacc-playground FOLDER")?
        .into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before anything is started, so that a signal never ends this process without its clean-up.
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (
            watch(SignalKind::terminate())?,
            watch(SignalKind::interrupt())?,
        )
    };
    let store = folder.join("store");
    fs::create_dir(&store).with_context(|| format!("cannot make {}", store.display()))?;
    let cluster = Cluster::start(&Options::with_nodes(&[ContainerdVersion::V2_1]));
    fill(&cluster);
    settings::write(&folder, &store, &cluster)?;
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    drop(cluster);
    Ok(())
}

fn watch(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot watch signals")
}

/// Puts our own image and the one to accelerate into the cluster's registry.
fn fill(cluster: &Cluster) {
    let registry = cluster.registry();
    process::run(
        Command::new(parts::program("skopeo"))
            .args(["--insecure-policy", "copy", "--quiet", "--all"])
            .arg("--dest-tls-verify=false")
            .arg(format!("oci:{}", parts::our_image().display()))
            .arg(format!("docker://{}", registry.reference(OURS))),
    );
    let system = debian::rootfs(&["python3"]);
    let libraries = debian::python_packages(&["numpy", "scipy", "pandas"]);
    ImageBuilder::new()
        .layer(system.as_path(), Compression::Gzip)
        .layer(libraries.as_path(), Compression::Zstd)
        .push(registry, SAMPLE);
}
