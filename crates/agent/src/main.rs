//! The programs of the cluster, one a subcommand: parses the command line and starts one of them.

use std::io::IsTerminal as _;

use clap::{Parser, Subcommand};
use uimgacc_agent::digests::ShortDigests;
use uimgacc_agent::{controller, node, work};

/// What uimgacc runs inside a cluster.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    program: Program,
    /// What to log: a level, or tracing's filters
    #[arg(long, global = true, env = "UIMGACC_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// Reconcile the objects of uimgacc.io (the Deployment)
    Controller(controller::Options),
    /// Work on the store: one Job's work
    Work(work::Options),
    /// Set up and watch the node that this runs on (the DaemonSet)
    Node(Box<node::Options>),
    /// Run a program as a process of the host
    #[command(hide = true)]
    OnHost(node::on_host::Options),
    /// Do on the host what standard input says
    #[command(hide = true)]
    HostTask,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(&options.log)?)
        .with_writer(|| ShortDigests(std::io::stderr()))
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // A process with more than one thread cannot change over to the host.
    let program = match options.program {
        Program::OnHost(options) => return node::on_host::run(options),
        // What it calls waits for each step, and needs no runtime.
        Program::HostTask => return node::host_task::run(),
        program => program,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match program {
            Program::Controller(options) => controller::run(options).await,
            Program::Work(options) => work::run(options).await,
            Program::Node(options) => node::run(*options).await,
            Program::OnHost(options) => node::on_host::run(options),
            Program::HostTask => node::host_task::run(),
        }
    })
}
