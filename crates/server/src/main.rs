//! `uimgacc-api`: reads its configuration, serves, reads it again where it changes, drains.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use uimgacc_server::{Clusters, Loaded, Log, Service, Watched, health};

/// The HTTP API of uimgacc, for many clusters.
///
/// Five signed actions, wire-compatible with UCloud's: EnableUK8SImageAccelerate, Get..., Create...,
/// Delete..., Disable.... The configuration has the keys, the projects they have rights in, and the
/// clusters. It is read again where it has changed, or at SIGHUP. The audit log goes to standard
/// output, one JSON object a line.
#[derive(Debug, Parser)]
#[command(name = "uimgacc-api", version, max_term_width = 100)]
struct Arguments {
    /// The configuration.
    #[arg(
        long,
        value_name = "FILE",
        env = "UIMGACC_API_CONFIG",
        default_value = "/etc/uimgacc/api.toml",
        global = true
    )]
    config: PathBuf,
    /// What to log to standard error: a level, or tracing's filters.
    #[arg(long, env = "UIMGACC_LOG", default_value = "info", global = true)]
    log: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the configuration and say what is wrong with it.
    CheckConfig,
    /// Print the OpenAPI description of the API.
    Openapi,
}

/// How long after a configuration that cannot be used it is read again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long connections are taken after the end was asked for.
const LEAVE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(&arguments.log)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match arguments.command {
        None => {}
        Some(Command::CheckConfig) => return check(&arguments.config),
        Some(Command::Openapi) => {
            use std::io::Write as _;
            std::io::stdout().write_all(uimgacc_api::OPENAPI.as_bytes())?;
            return Ok(());
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&arguments.config))
}

fn check(path: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let loaded = Loaded::read(path)?;
    for cluster in &loaded.config.clusters {
        if let Some(kubeconfig) = &cluster.kubeconfig {
            std::fs::read(kubeconfig).with_context(|| {
                format!(
                    "cluster {:?}: cannot read {}",
                    cluster.id,
                    kubeconfig.display()
                )
            })?;
        }
    }
    let (keys, clusters) = (loaded.config.keys.len(), loaded.config.clusters.len());
    writeln!(
        std::io::stdout(),
        "{} can be used: {keys} keys, {clusters} clusters",
        path.display()
    )?;
    Ok(())
}

async fn run(path: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let loaded = Loaded::read(path)?;
    let mut files = Watched::of(loaded.files.iter().cloned());
    let live = loaded.start(&Clusters::default());
    let config = live.config.clone();
    let service = Arc::new(Service::new(live, Log::new(std::io::stdout())?));
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(
        address = %listener.local_addr()?, tls = config.tls.is_some(), clusters = config.clusters.len(),
        "the API is served"
    );
    if config.tls.is_none() && !config.listen.ip().is_loopback() {
        tracing::warn!("without TLS: whoever can listen can send every request again");
    }
    let mut helpers = tokio::task::JoinSet::new();
    if let Some(address) = config.metrics {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        tracing::info!(address = %listener.local_addr()?, "health and metrics");
        helpers.spawn(health::serve(listener, service.clone()));
    }
    let (stop, stopped) = watch::channel(false);
    let mut limits = config.limits.clone();
    let most = uimgacc_server::raise_open_files();
    if limits.connections > most {
        tracing::warn!(
            most,
            "fewer connections than configured: the limit of open files is too low"
        );
        limits.connections = most;
    }
    let serving = tokio::spawn(uimgacc_server::serve(
        listener,
        service.clone(),
        limits,
        stopped,
    ));
    let mut hangup = signal(SignalKind::hangup())?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut has_failed = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
            () = files.changed() => {}
            // A file that the new configuration names may come a moment later.
            () = tokio::time::sleep(AGAIN), if has_failed => {}
            Some(ended) = helpers.join_next() => tracing::error!(?ended, "health and metrics ended"),
        }
        match reload(path, &service) {
            Ok(new) => (files, has_failed) = (new, false),
            Err(error) => {
                tracing::error!("the old configuration stays: {error:#}");
                (files, has_failed) = (files.again(), true);
            }
        }
    }
    tracing::info!("ending");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    service.end();
    if !config.listen.ip().is_loopback() {
        // Whoever balances between servers takes a moment to leave this one out.
        tokio::select! {
            () = tokio::time::sleep(LEAVE) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    stop.send_replace(true);
    serving.await.context("the server")?;
    uimgacc_server::finish().await;
    Ok(())
}

/// Takes the new configuration, or keeps the old one where it cannot be used.
fn reload(path: &Path, service: &Service) -> anyhow::Result<Watched> {
    let old = service.live();
    let loaded = Loaded::read(path)?;
    let (new, now) = (&loaded.config, &old.config);
    if (new.listen, new.metrics) != (now.listen, now.metrics)
        || (new.limits.connections, new.limits.active)
            != (now.limits.connections, now.limits.active)
    {
        tracing::warn!("listen, metrics and limits of connections hold from the next start on");
    }
    let files = Watched::of(loaded.files.iter().cloned());
    service.replace(loaded.start(&old.clusters));
    tracing::info!("the configuration was read again");
    Ok(files)
}
