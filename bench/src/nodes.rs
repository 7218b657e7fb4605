//! Many nodes that pull one image at the same time, from one store behind a link of a limited rate.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use uimgacc_console::Printer;
use uimgacc_testkit::Registry;

use crate::interrupt::Interrupt;
use crate::start::node::{Node, Running, Side, chains, drop_caches, read_all};
use crate::start::slow::SlowFolder;
use crate::start::{link, push, record_fine, run_program};

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
    uimgacc(&["store", "init"])?;
    uimgacc(&["create", &original, &target, "--plain-http"])?;
    printer.say(&record_fine(&uimgacc, &target, &options.program)?);
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared)?;
    let link = link(&options.link)?.context("the link must be one of a rate or a delay")?;
    let slow = SlowFolder::mount(&store, &shared, link)?;
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
            node.boot(&registry)
        })
        .collect::<anyhow::Result<_>>()?;
    drop_caches()?;
    read_all(&store.join("packs"))?;
    printer.say(&format!("{} nodes pull the image", nodes.len()));
    let started = Instant::now();
    let mut took = std::thread::scope(|scope| {
        let target = &target;
        let pulls: Vec<_> = nodes
            .iter()
            .map(|node| {
                scope.spawn(move || -> anyhow::Result<Duration> {
                    node.pull("uimgacc", target)?;
                    wait_until_fetched(node)?;
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

fn wait_until_fetched(node: &Running) -> anyhow::Result<()> {
    for _ in 0..6000 {
        let chains = chains(&node.status_socket())?;
        if chains
            .iter()
            .any(|chain| chain["start"]["fetchedMs"].is_u64())
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("the list was not fetched")
}
