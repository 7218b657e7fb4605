//! The node daemon: reads its options, serves, drains; or keeps another one running.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use uimgacc_mount::Methods;
use uimgacc_snapshotter::chains::MountSettings;
use uimgacc_snapshotter::node::NodeSettings;
use uimgacc_snapshotter::server::serve;

/// containerd snapshotter that takes the layers of accelerated images from a shared store.
///
/// Layers that the store has are neither downloaded nor unpacked; every other image is handled as
/// containerd's overlayfs snapshotter does. Mounts and containers stay when this process stops.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Options {
    #[command(subcommand)]
    command: Option<Verb>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Keep a daemon running and hold its socket, on hosts without systemd
    ///
    /// Calls that come while no daemon runs wait for the next one. SIGTERM ends both, SIGHUP is
    /// handed on, SIGUSR1 replaces the daemon (with a newer program, where there is one).
    Supervise {
        /// Socket for containerd's proxy plugin
        #[arg(
            long,
            value_name = "SOCKET",
            default_value = "/run/uimgacc-snapshotter/snapshotter.sock"
        )]
        address: PathBuf,
        /// The daemon's own options, after `--`
        #[arg(last = true, value_name = "OPTIONS")]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// The store's folder; it need not be mounted yet
    #[arg(long, env = "UIMGACC_STORE", value_name = "DIR", required = true)]
    store: Option<PathBuf>,

    /// Folder of this snapshotter, on a local disk
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/uimgacc-snapshotter"
    )]
    root: PathBuf,

    /// Socket for containerd's proxy plugin
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/uimgacc-snapshotter/snapshotter.sock"
    )]
    address: PathBuf,

    /// What to log: a level, or tracing's filters
    #[arg(
        long,
        env = "UIMGACC_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    log: String,

    /// How to mount images: what to try, in this order
    #[arg(long, value_name = "LIST", default_value_t)]
    methods: Methods,

    /// Read-ahead of mounted images in KiB; without it the kernel's own choice
    #[arg(long, value_name = "KIB")]
    read_ahead_kb: Option<u32>,

    /// Seconds to wait for the store before a layer is pulled from its registry instead
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    store_timeout: u64,

    /// Seconds to wait for the mount of an image before a request fails
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    mount_timeout: u64,
}

fn main() -> anyhow::Result<()> {
    let Options { command, serve } = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&serve.log)
        .with_context(|| format!("--log {:?} is no filter", serve.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match command {
        Some(Verb::Supervise { address, arguments }) => keep_running(&address, arguments),
        None => run_daemon(serve),
    }
}

/// `supervise`: the daemon's program is this one, by the name that it was called by, so that a
/// newer program under that name is used once it is there.
fn keep_running(address: &Path, arguments: Vec<OsString>) -> anyhow::Result<()> {
    let called = std::env::args_os().next().map(PathBuf::from);
    let program = match called.filter(|path| path.components().count() > 1) {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_exe().context("cannot find the own program")?,
    };
    let address = std::path::absolute(address).context("--address")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut all = vec![OsString::from("--address"), address.clone().into()];
    all.extend(arguments);
    runtime.block_on(uimgacc_snapshotter::supervise::supervise(
        &address, &program, &all,
    ))?;
    Ok(())
}

fn run_daemon(options: Serve) -> anyhow::Result<()> {
    uimgacc_snapshotter::supervise::end_with_supervisor()?;
    // The modes of snapshot folders must not depend on who starts us.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let store = options.store.context("--store is missing")?;
    let settings = NodeSettings {
        root: std::path::absolute(&options.root).context("--root")?,
        store: std::path::absolute(store).context("--store")?,
        store_deadline: Duration::from_secs(options.store_timeout),
        mounts: MountSettings {
            methods: options.methods,
            read_ahead_kb: options.read_ahead_kb,
            deadline: Duration::from_secs(options.mount_timeout),
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(run(settings, options.address));
    // Threads that hang in a dead store must not keep the process.
    runtime.shutdown_background();
    result
}

async fn run(settings: NodeSettings, address: PathBuf) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ready = || {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            address = %address.display(),
            "ready"
        );
        // Without systemd nobody listens.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    };
    serve(settings, &address, stop, ready).await?;
    Ok(())
}
