//! The first start of a large image on a node, by the link to the store.

pub(crate) mod node;
pub(crate) mod slow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use uimgacc_console::Printer;

use crate::interrupt::Interrupt;
use crate::prepared::Prepared;
use node::{Measured, Node, Side};
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
    let image = Prepared::new(&options.image, programs, printer)?;
    let cache = image.directory.path().join("erofs-cache");
    if options.sides.iter().any(|side| side == "erofs") {
        printer.say("converting its layers for containerd's EROFS snapshotter");
        image.build_erofs_cache(&cache)?;
    }
    let mut profiles = Vec::new();
    for name in ["fine", "coarse"] {
        if !options.sides.iter().any(|side| side == name) {
            continue;
        }
        printer.say(&format!("recording the {name} profile"));
        let file = image.directory.path().join(name);
        if name == "fine" {
            printer.say(&image.record_profile(&options.program)?);
            std::fs::write(&file, image.uimgacc(&["profile", "export", &image.target])?)?;
        } else {
            // As a node records the first start of an image over a slow link.
            let node = Node {
                programs,
                store: &image.store,
                link: link("1ms")?,
                side: Side::Store,
                daemon: &options.daemon,
                record: true,
            };
            let shown: serde_json::Value =
                serde_json::from_str(&image.uimgacc(&["get", &image.target, "-o", "json"])?)?;
            let chain = shown["Images"][0]["ChainId"].as_str();
            let chain = chain.context("no chain")?.parse()?;
            image.uimgacc(&["profile", "drop", &image.target])?;
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
                    image.uimgacc(&["profile", "drop", &image.target])?;
                    if let Some((_, file)) = profiles.iter().find(|(known, _)| known == side) {
                        let file = file.to_str().context("a path of UTF-8")?;
                        image.uimgacc(&["profile", "import", &image.target, file])?;
                    }
                }
                let mut all: Vec<Measured> = Vec::new();
                let node = Node {
                    programs,
                    store: if kind == Side::ErofsCache {
                        &cache
                    } else {
                        &image.store
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
