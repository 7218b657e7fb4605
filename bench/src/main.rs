//! Benchmarks against the real alternatives, side by side in one run: prints medians and ratios.
//!
//! `scripts/bench.sh` builds what is measured and calls this. The parts (containerd, runc, registry)
//! are those of the tests.

mod samples;
mod warm_true;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use uimgacc_console::Printer;

#[derive(Debug, Parser)]
#[command(about, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    bench: Bench,
    /// Folder of the programs to measure
    #[arg(long, global = true, default_value = "target/release")]
    programs: PathBuf,
    /// How often each side is measured
    #[arg(long, global = true, default_value_t = 40)]
    rounds: usize,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// A container that runs `true`, everything warm: containerd's overlayfs and the store
    WarmTrue,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let programs = std::path::absolute(&options.programs)?;
    match options.bench {
        Bench::WarmTrue => warm_true::run(&programs, options.rounds, Printer::new(false)),
    }
}
