//! An image in a registry of its own, and its accelerated image in a store of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use uimgacc_console::Printer;
use uimgacc_testkit::containerd::{self, Containerd, ContainerdVersion};
use uimgacc_testkit::{Registry, parts};

/// What is measured. It all goes with this.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) registry: Registry,
    /// Reference of the original image.
    pub(crate) original: String,
    /// Reference of the accelerated image.
    pub(crate) target: String,
    pub(crate) store: PathBuf,
    /// For whatever else a benchmark needs.
    pub(crate) directory: TempDir,
    program: PathBuf,
}

impl Prepared {
    /// Pushes an OCI layout and creates its accelerated image, by `uimgacc` of these programs.
    pub(crate) fn new(layout: &Path, programs: &Path, printer: Printer) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("uimgacc-bench-")
            .tempdir_in("/var/tmp")?;
        let registry = Registry::start();
        let prepared = Self {
            original: registry.reference("app:1"),
            target: registry.reference("app:fast"),
            registry,
            store: directory.path().join("store"),
            directory,
            program: programs.join("uimgacc"),
        };
        printer.say("pushing the image to a registry on loopback");
        let skopeo = ["--insecure-policy", "copy", "--quiet"];
        run_program(
            Command::new(parts::program("skopeo"))
                .args(skopeo)
                .arg("--dest-tls-verify=false")
                .arg(format!("oci:{}", layout.display()))
                .arg(format!("docker://{}", prepared.original)),
        )?;
        printer.say("creating the accelerated image");
        prepared.uimgacc(&["store", "init"])?;
        let create = ["create", &prepared.original, &prepared.target];
        prepared.uimgacc(&[&create[..], &["--plain-http"]].concat())?;
        Ok(prepared)
    }

    /// Runs `uimgacc` on the store; returns what it printed.
    pub(crate) fn uimgacc(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run_program(
            Command::new(&self.program)
                .args(arguments)
                .env("UIMGACC_STORE", &self.store),
        )
    }

    /// Records a profile of a Python program on this machine, where the data is.
    pub(crate) fn record_profile(&self, program: &str) -> anyhow::Result<String> {
        let runc = parts::program("runc");
        let runc = runc.to_str().context("a path of UTF-8")?;
        let record = ["profile", "record", &self.target, "--plain-http"];
        let run = ["--replace", "--runc", runc, "--", "python3", "-c", program];
        self.uimgacc(&[&record[..], &run].concat())
    }

    /// Converts the layers of the original for containerd's EROFS snapshotter, to be shared by nodes.
    pub(crate) fn build_erofs_cache(&self, cache: &Path) -> anyhow::Result<()> {
        std::fs::create_dir(cache)?;
        let cache = cache.to_str().context("a path of UTF-8")?;
        let containerd =
            Containerd::start(ContainerdVersion::V2_4, &containerd::Options::default());
        containerd.trust(&self.registry);
        let hosts = containerd.hosts_dir();
        let hosts = hosts.to_str().context("a path of UTF-8")?;
        containerd.ctr_ok(&["content", "fetch", "--hosts-dir", hosts, &self.original]);
        containerd.ctr_ok(&["images", "build-erofs-cache", &self.original, cache]);
        Ok(())
    }
}

fn run_program(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
