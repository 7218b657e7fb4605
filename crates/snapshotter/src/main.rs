//! The node daemon: reads its options, serves, drains; or keeps another one running.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use uimgacc_snapshotter::{
    Config, DEFAULT_ADDRESS, DEFAULT_PATH, NodeSettings, Options, Settings, Supervised, inherited,
    serve,
};
use uimgacc_types::StoreSource;

/// containerd snapshotter that takes the layers of accelerated images from a shared store.
///
/// Layers that the store has are neither downloaded nor unpacked; every other image is handled as
/// containerd's overlayfs snapshotter does. Mounts and containers stay when this process stops.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read a configuration file and say what is wrong with it
    CheckConfig {
        /// The file
        #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
        file: PathBuf,
    },
    /// Keep a daemon running and hold its socket, on hosts without systemd
    ///
    /// Calls that come while no daemon runs wait for the next one. SIGTERM ends both, SIGHUP is
    /// handed on, SIGUSR1 replaces the daemon (with a newer program, where there is one).
    Supervise {
        /// Socket for containerd's proxy plugin
        #[arg(long, value_name = "SOCKET", default_value = DEFAULT_ADDRESS)]
        address: PathBuf,
        /// Where the supervisor is killed, the daemon starts another before it ends
        #[arg(long)]
        succeeded: bool,
        /// The daemon's own options, after `--`
        #[arg(last = true, value_name = "OPTIONS")]
        arguments: Vec<OsString>,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::CheckConfig { file }) => check_config(&file),
        Some(Command::Supervise {
            address,
            succeeded,
            arguments,
        }) => keep_running(&address, arguments, succeeded),
        None => run_daemon(arguments.options),
    }
}

fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter:?} is no filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// `supervise`: the daemon's program is this one, by the name that it was called by, so that a
/// newer program under that name is used once it is there.
fn keep_running(address: &Path, arguments: Vec<OsString>, succeeded: bool) -> anyhow::Result<()> {
    log_to_stderr("info")?;
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
    let mut all = arguments;
    if !all.iter().any(|argument| argument == "--address") {
        all.extend([OsString::from("--address"), address.clone().into()]);
    }
    runtime.block_on(uimgacc_snapshotter::supervise(
        &address, &program, &all, succeeded,
    ))?;
    Ok(())
}

fn run_daemon(options: Options) -> anyhow::Result<()> {
    let inherited = inherited().context("the socket that was handed down")?;
    let supervised = Supervised::by_environment();
    let result = daemon(options, inherited, supervised.as_ref());
    if let Some(supervised) = supervised {
        let succession = supervised.succeed();
        succession.context("cannot start another supervisor")?;
    }
    result
}

fn daemon(
    options: Options,
    inherited: Option<UnixListener>,
    supervised: Option<&Supervised>,
) -> anyhow::Result<()> {
    let Settings {
        node,
        address,
        status_address,
        log,
        source,
    } = options.settings()?;
    log_to_stderr(&log)?;
    // The modes of snapshot folders must not depend on who starts us.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let _reloads = reload_on_hangup(options, source)?;
        run(node, &address, inherited, &status_address, supervised).await
    });
    // Threads that hang in a dead store must not keep the process.
    runtime.shutdown_background();
    result
}

async fn run(
    settings: NodeSettings,
    address: &Path,
    inherited: Option<UnixListener>,
    status: &Path,
    supervised: Option<&Supervised>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if let Some(supervised) = supervised {
        supervised.end_together()?;
    }
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
    serve(settings, address, inherited, status, stop, ready).await?;
    Ok(())
}

/// Reads the configuration again at each `SIGHUP`; ends with the runtime.
fn reload_on_hangup(
    options: Options,
    source: tokio::sync::watch::Sender<StoreSource>,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            options.reload(&source);
        }
    }))
}

fn check_config(file: &Path) -> anyhow::Result<()> {
    let config = Config::read(file)?;
    let store = config
        .store
        .map_or("none: give it by --store".to_owned(), |store| {
            store.to_string()
        });
    writeln!(
        std::io::stdout(),
        "{} is right; store: {store}",
        file.display()
    )?;
    Ok(())
}
