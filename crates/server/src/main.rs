//! `uimgacc-api`: reads its configuration, serves, reads it again where it changes, drains.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use uimgacc_server::audit::Log;
use uimgacc_server::clusters::Clusters;
use uimgacc_server::files::Watched;
use uimgacc_server::live::Loaded;
use uimgacc_server::service::Service;
use uimgacc_server::{health, serve};

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
    let serving = tokio::spawn(serve::serve(
        listener,
        service.clone(),
        config.limits.clone(),
        stopped,
    ));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
            () = files.changed() => {}
        }
        files = reload(path, &service).unwrap_or(files);
    }
    tracing::info!("ending");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    service.end();
    stop.send_replace(true);
    serving.await.context("the server")?;
    Ok(())
}

/// Takes the new configuration, or keeps the old one where it cannot be used.
fn reload(path: &Path, service: &Service) -> Option<Watched> {
    let old = service.live();
    let loaded = match Loaded::read(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!("the old configuration stays: {error:#}");
            // As they are now, so that this is said once.
            let keys = old
                .config
                .keys
                .iter()
                .filter_map(|key| key.private_key_file.clone());
            return Some(Watched::of(std::iter::once(path.to_owned()).chain(keys)));
        }
    };
    if (loaded.config.listen, loaded.config.metrics) != (old.config.listen, old.config.metrics) {
        tracing::warn!("listen and metrics hold from the next start on");
    }
    let files = Watched::of(loaded.files.iter().cloned());
    service.replace(loaded.start(&old.clusters));
    tracing::info!("the configuration was read again");
    Some(files)
}
