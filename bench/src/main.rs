//! Benchmarks against the real alternatives, side by side in one run: prints medians and ratios.
//!
//! `scripts/bench.sh` builds what is measured and calls this. The parts (containerd, runc, registry)
//! are those of the tests.

mod api;
mod interrupt;
mod kubernetes;
mod nodes;
mod prepared;
mod read;
mod samples;
mod show;
mod start;
mod warm_true;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use uimgacc_console::Printer;

use interrupt::{Interrupt, Interrupted};

#[derive(Debug, Parser)]
#[command(about, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    bench: Bench,
    /// Folder of the programs to measure
    #[arg(long, global = true, default_value = "target/release")]
    programs: PathBuf,
    /// How often each side is measured
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// A container that runs `true`, everything warm: containerd's overlayfs and the store
    WarmTrue,
    /// The HTTP API: Get requests against many clusters
    Api(api::Options),
    /// The first start of a large image, by the link to the store
    Start(start::Options),
    /// Many nodes that pull one image at the same time, from one store
    Nodes(nodes::Options),
    /// Images read from end to end, against the packs themselves
    Read(read::Options),
    /// Pods on a real cluster: from the store, from an image on the node, and by a pull
    Kubernetes(kubernetes::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let interrupt = Interrupt::watch()?;
    // A guard of the test kit may panic because a part was interrupted too.
    let result = catch_unwind(AssertUnwindSafe(|| run(&options, &interrupt)));
    if let Err(Interrupted(signal)) = interrupt.check() {
        Printer::new(false).complain(&format!("interrupted by signal {signal}; cleaned up"));
        return Ok(ExitCode::from(128 + signal));
    }
    match result {
        Ok(result) => result.map(|()| ExitCode::SUCCESS),
        Err(panic) => resume_unwind(panic),
    }
}

fn run(options: &Options, interrupt: &Interrupt) -> anyhow::Result<()> {
    let programs = std::path::absolute(&options.programs)?;
    match &options.bench {
        Bench::WarmTrue => {
            let rounds = options.rounds.unwrap_or(40);
            warm_true::run(&programs, rounds, interrupt, Printer::new(false))
        }
        Bench::Start(start) => start::run(
            start,
            &programs,
            options.rounds.unwrap_or(5),
            interrupt,
            Printer::new(false),
        ),
        Bench::Nodes(nodes) => nodes::run(nodes, &programs, interrupt, Printer::new(false)),
        Bench::Read(read) => read::run(
            read,
            &programs,
            options.rounds.unwrap_or(3),
            interrupt,
            Printer::new(false),
        ),
        Bench::Api(api) => api::run(api, &programs, interrupt),
        Bench::Kubernetes(kubernetes) => kubernetes::run(
            kubernetes,
            &programs,
            options.rounds.unwrap_or(5),
            interrupt,
        ),
    }
}
