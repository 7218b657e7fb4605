//! A container that runs `true`: containerd's overlayfs and the store, in turns.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use uimgacc_console::Printer;
use uimgacc_testkit::Registry;
use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::image::{Compression, ImageBuilder, busybox_layer};
use uimgacc_testkit::process::Daemon;
use uimgacc_testkit::tar::TarBuilder;

use crate::interrupt::Interrupt;
use crate::samples::Samples;

/// As images have them.
const LAYERS: usize = 8;

pub(crate) fn run(
    programs: &Path,
    rounds: u32,
    interrupt: &Interrupt,
    printer: Printer,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let registry = Registry::start();
    let image = (0..LAYERS).fold(
        ImageBuilder::new().layer(busybox_layer(), Compression::Gzip),
        |image, number| {
            let tar = TarBuilder::new().file(&format!("layer/{number}"), 0o644, "x");
            image.layer(tar.finish(), Compression::Gzip)
        },
    );
    let original = image.push(&registry, "app:1").reference;
    let target = registry.reference("app:fast");
    let store = path("store");
    for arguments in [
        vec!["store", "init"],
        vec!["create", &original, &target, "--plain-http"],
    ] {
        let output = Command::new(programs.join("uimgacc"))
            .args(&arguments)
            .env("UIMGACC_STORE", &store)
            .output()
            .context("cannot start uimgacc")?;
        if !output.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let socket = path("snapshotter.sock");
    let _mounts = Mounts(path("node"));
    let mut daemon = Daemon::spawn(
        "uimgacc-snapshotter",
        Command::new(programs.join("uimgacc-snapshotter"))
            .arg("--store")
            .arg(&store)
            .arg("--root")
            .arg(path("node"))
            .arg("--address")
            .arg(&socket),
        &path("snapshotter.log"),
    );
    daemon.wait_ready(|| socket.exists());
    let containerd = Containerd::start(ContainerdVersion::V2_1, &Options::proxy(&socket));
    let mut sides = [
        ("overlayfs", original.as_str(), Samples::default()),
        ("uimgacc", target.as_str(), Samples::default()),
    ];
    for (snapshotter, reference, _) in &sides {
        containerd.ctr_ok(&[
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            snapshotter,
            reference,
        ]);
    }
    // The first round of each side is not counted: it makes the mount and fills the caches.
    for round in 0..=rounds {
        interrupt.check()?;
        for (snapshotter, reference, samples) in &mut sides {
            let id = format!("{snapshotter}-{round}");
            let started = Instant::now();
            containerd.ctr_ok(&[
                "run",
                "--rm",
                "--snapshotter",
                snapshotter,
                reference,
                &id,
                "/bin/busybox",
                "true",
            ]);
            if round > 0 {
                samples.add(started.elapsed());
            }
        }
    }
    let [(_, _, theirs), (_, _, ours)] = &sides;
    printer.data(&format!(
        "warm `true`, {} layers, containerd 2.1\n  overlayfs  {}\n  uimgacc    {}\n  ratio      {:.3}",
        LAYERS + 1,
        theirs.text(),
        ours.text(),
        ours.percentile(50).as_secs_f64() / theirs.percentile(50).as_secs_f64()
    ))?;
    Ok(())
}

/// Takes away what the snapshotter has mounted, once it and containerd have ended.
#[derive(Debug)]
pub(crate) struct Mounts(pub(crate) PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // proc_pid_mountinfo(5): field 5 is the mount point.
        let points = table
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| Path::new(point).starts_with(&self.0)) {
            // What cannot be unmounted the removal of the folder complains about.
            let _ = Command::new("umount").arg("--lazy").arg(point).status();
        }
    }
}
