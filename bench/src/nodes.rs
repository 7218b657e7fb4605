//! Many nodes that pull one image at the same time, from one store behind a link of a limited rate.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use uimgacc_console::Printer;

use crate::interrupt::Interrupt;
use crate::prepared::Prepared;
use crate::start::link;
use crate::start::node::{Node, Running, Side, drop_caches, read_all};
use crate::start::slow::SlowFolder;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// An OCI layout of the image
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// What is started when the profile is recorded
    #[arg(
        long,
        default_value = "import torch; print(torch.__version__)",
        value_name = "PYTHON"
    )]
    program: String,
    /// How many nodes
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// The link of the store, which all share, by name
    #[arg(long, default_value = "100MB")]
    link: String,
}

pub(crate) fn run(
    options: &Options,
    programs: &Path,
    interrupt: &Interrupt,
    printer: Printer,
) -> anyhow::Result<()> {
    let image = Prepared::new(&options.image, programs, printer)?;
    printer.say(&image.record_profile(&options.program)?);
    let shared = image.directory.path().join("shared");
    std::fs::create_dir(&shared)?;
    let link = link(&options.link)?.context("the link must be one of a rate or a delay")?;
    let slow = SlowFolder::mount(&image.store, &shared, link)?;
    let node = Node {
        programs,
        store: &shared,
        link: None,
        side: Side::Store,
        daemon: &[],
        record: false,
    };
    let nodes: Vec<Running> = (0..options.nodes)
        .map(|_| {
            interrupt.check()?;
            node.boot(&image.registry)
        })
        .collect::<anyhow::Result<_>>()?;
    drop_caches()?;
    read_all(&image.store.join("packs"))?;
    printer.say(&format!("{} nodes pull the image", nodes.len()));
    let started = Instant::now();
    let mut took = std::thread::scope(|scope| {
        let target = &image.target;
        let pulls: Vec<_> = nodes
            .iter()
            .map(|node| {
                scope.spawn(move || -> anyhow::Result<Duration> {
                    node.pull("uimgacc", target)?;
                    node.wait_for("fetchedMs")?;
                    Ok(started.elapsed())
                })
            })
            .collect();
        pulls
            .into_iter()
            .map(|pull| {
                pull.join()
                    .map_err(|_| anyhow::anyhow!("a pull panicked"))?
            })
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    took.sort_unstable();
    let (first, last) = took.first().zip(took.last()).context("no nodes")?;
    let bytes = slow
        .counters
        .bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    printer.data(&format!(
        "{} nodes, {}: the list was there on the first after {:.1} s, on the last after {:.1} s; {} MB read, {:.0} MB/s",
        nodes.len(),
        options.link,
        first.as_secs_f64(),
        last.as_secs_f64(),
        bytes / 1_000_000,
        bytes as f64 / last.as_secs_f64() / 1e6
    ))?;
    Ok(())
}
