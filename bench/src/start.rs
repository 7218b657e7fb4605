//! The first start of a large image on a node, by the link to the store.

pub(crate) mod node;
pub(crate) mod slow;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use uimgacc_console::Printer;
use uimgacc_testkit::containerd::{self, Containerd, ContainerdVersion};
use uimgacc_testkit::{Registry, parts};

use crate::interrupt::Interrupt;
use node::{Image, Measured, Node, Side};
use slow::Link;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// An OCI layout of the image
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// What is started; the first line that it prints ends the measurement
    #[arg(
        long,
        default_value = "import torch; print(torch.__version__)",
        value_name = "PYTHON"
    )]
    program: String,
    /// Another program, which no profile was recorded with: measured with and without the profile
    #[arg(long, value_name = "PYTHON")]
    other: Vec<String>,
    /// Links to measure, by name
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "local,1ms,5ms,100MB,15MB"
    )]
    links: Vec<String>,
    /// Sides to measure, by name
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "overlayfs,pull,erofs,none,coarse,fine"
    )]
    sides: Vec<String>,
    /// More arguments for the snapshotter
    #[arg(long, allow_hyphen_values = true, value_name = "ARGUMENT")]
    daemon: Vec<String>,
}

pub(crate) fn link(name: &str) -> anyhow::Result<Option<Link>> {
    let delay = |milliseconds| {
        Some(Link {
            delay: Duration::from_millis(milliseconds),
            rate: None,
        })
    };
    let rate = |mb: u64| {
        Some(Link {
            delay: Duration::ZERO,
            rate: Some(mb * 1_000_000),
        })
    };
    Ok(match name {
        "local" => None,
        "fuse" => Some(Link::default()),
        "1ms" => delay(1),
        "5ms" => delay(5),
        "100MB" => rate(100),
        "15MB" => rate(15),
        other => bail!("no link {other}: known are local, fuse, 1ms, 5ms, 100MB and 15MB"),
    })
}

pub(crate) fn run(
    options: &Options,
    programs: &Path,
    rounds: u32,
    interrupt: &Interrupt,
    printer: Printer,
) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("uimgacc-bench-")
        .tempdir_in("/var/tmp")?;
    let registry = Registry::start();
    let original = push(&registry, &options.image, "app:1", printer)?;
    let target = registry.reference("app:fast");
    let store = folder.path().join("store");
    let uimgacc = |arguments: &[&str]| -> anyhow::Result<String> {
        run_program(
            Command::new(programs.join("uimgacc"))
                .args(arguments)
                .env("UIMGACC_STORE", &store),
        )
    };
    printer.say("creating the accelerated image");
    uimgacc(&["store", "init"])?;
    uimgacc(&["create", &original, &target, "--plain-http"])?;
    let cache = folder.path().join("erofs-cache");
    if options.sides.iter().any(|side| side == "erofs") {
        printer.say("converting its layers for containerd's EROFS snapshotter");
        build_erofs_cache(&registry, &original, &cache)?;
    }
    let mut profiles = Vec::new();
    let image = Image {
        registry: &registry,
        original,
        target: target.clone(),
    };
    for name in ["fine", "coarse"] {
        if !options.sides.iter().any(|side| side == name) {
            continue;
        }
        printer.say(&format!("recording the {name} profile"));
        let file = folder.path().join(name);
        if name == "fine" {
            printer.say(&record_fine(&uimgacc, &target, &options.program)?);
            std::fs::write(&file, uimgacc(&["profile", "export", &target])?)?;
        } else {
            // As a node records the first start of an image over a slow link.
            let node = Node {
                programs,
                store: &store,
                link: link("1ms")?,
                side: Side::Store,
                daemon: &options.daemon,
                record: true,
            };
            let shown: serde_json::Value =
                serde_json::from_str(&uimgacc(&["get", &target, "-o", "json"])?)?;
            let chain = shown["Images"][0]["ChainId"].as_str();
            let chain = chain.context("no chain")?.parse()?;
            uimgacc(&["profile", "drop", &target])?;
            let start = node.measure(&image, &options.program)?;
            let record = start.record.context("no record")?;
            let profile = record.into_profile(
                chain,
                "linux/amd64".to_owned(),
                name.to_owned(),
                String::new(),
            );
            printer.say(&format!("it has {} MB", profile.len_bytes() / 1_000_000));
            std::fs::write(&file, serde_json::to_vec(&profile)?)?;
        }
        profiles.push((name, file));
    }
    printer.data(&format!(
        "{:<10} {:<10} {:<28} {:>8} {:>8} {:>8} {:>9} {:>9} {:>7} {:>8} {:>7}",
        "link",
        "side",
        "program",
        "seconds",
        "pull",
        "run",
        "MB read",
        "reads",
        "CPU s",
        "cache MB",
        "list s"
    ))?;
    let programs_to_run = std::iter::once(&options.program).chain(&options.other);
    for program in programs_to_run {
        for name in &options.links {
            let link = link(name)?;
            for side in &options.sides {
                let kind = match side.as_str() {
                    "overlayfs" | "pull" if link.is_some() => continue,
                    "overlayfs" => Side::OverlayLocal,
                    "pull" => Side::OverlayPull,
                    "warm" => Side::Warm,
                    "erofs" => Side::ErofsCache,
                    _ => Side::Store,
                };
                if kind.is_store() {
                    uimgacc(&["profile", "drop", &target])?;
                    if let Some((_, file)) = profiles.iter().find(|(known, _)| known == side) {
                        let file = file.to_str().context("a path of UTF-8")?;
                        uimgacc(&["profile", "import", &target, file])?;
                    }
                }
                let mut all: Vec<Measured> = Vec::new();
                let node = Node {
                    programs,
                    store: if kind == Side::ErofsCache {
                        &cache
                    } else {
                        &store
                    },
                    link,
                    side: kind,
                    daemon: &options.daemon,
                    record: false,
                };
                for _ in 0..rounds {
                    interrupt.check()?;
                    all.push(node.measure(&image, program)?);
                }
                all.sort_by_key(Measured::total);
                let Some(median) = all.get(all.len() / 2) else {
                    continue;
                };
                let short: String = program.chars().take(28).collect();
                printer.data(&format!(
                    "{name:<10} {side:<10} {short:<28} {}",
                    median.text()
                ))?;
            }
        }
    }
    Ok(())
}

/// Pushes an OCI layout to the registry.
pub(crate) fn push(
    registry: &Registry,
    layout: &Path,
    name: &str,
    printer: Printer,
) -> anyhow::Result<String> {
    printer.say("pushing the image to a registry on loopback");
    let reference = registry.reference(name);
    run_program(
        Command::new(parts::program("skopeo"))
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
            ])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{reference}")),
    )?;
    Ok(reference)
}

/// Records a profile where the data is, by the command.
pub(crate) fn record_fine(
    uimgacc: &dyn Fn(&[&str]) -> anyhow::Result<String>,
    target: &str,
    program: &str,
) -> anyhow::Result<String> {
    let runc = parts::program("runc");
    let runc = runc.to_str().context("a path of UTF-8")?;
    let record = ["profile", "record", target, "--plain-http", "--replace"];
    let run = ["--runc", runc, "--", "python3", "-c", program];
    uimgacc(&[&record[..], &run].concat())
}

/// Converts the layers of an image as containerd does it for a cache that nodes share.
fn build_erofs_cache(registry: &Registry, reference: &str, cache: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(cache)?;
    let cache = cache.to_str().context("a path of UTF-8")?;
    let containerd = Containerd::start(ContainerdVersion::V2_4, &containerd::Options::default());
    containerd.trust(registry);
    let hosts = containerd.hosts_dir();
    let hosts = hosts.to_str().context("a path of UTF-8")?;
    containerd.ctr_ok(&["content", "fetch", "--hosts-dir", hosts, reference]);
    containerd.ctr_ok(&["images", "build-erofs-cache", reference, cache]);
    Ok(())
}

pub(crate) fn run_program(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
