//! `uimgacc-agent controller`: runs the controller until a signal stops it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uimgacc_controller::context::{Shared, WORKERS};
use uimgacc_controller::election::Timings;
use uimgacc_controller::execute::Executor;
use uimgacc_controller::lease::Candidacy;
use uimgacc_controller::term::Term;
use uimgacc_controller::{health, lease, reconcile, term, watch};
use uimgacc_objects::names;

/// How long connecting to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a leader that does nothing else looks whether its term still lasts.
const LOOK: Duration = Duration::from_millis(100);

/// Options of the controller.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Namespace of all our parts
    #[arg(long, env = "UIMGACC_NAMESPACE", default_value = names::NAMESPACE)]
    pub namespace: String,
    /// Who this replica is; a part that differs with each start is added
    #[arg(long, env = "POD_NAME", default_value = names::AGENT)]
    pub identity: String,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "UIMGACC_HEALTH_ADDRESS", default_value = "0.0.0.0:8080")]
    pub health_address: SocketAddr,
    /// Seconds for which a lease holds without renewal
    #[arg(long, env = "UIMGACC_LEASE_SECONDS", default_value_t = 15.0)]
    pub lease_seconds: f64,
    /// Seconds for which the leader leads without renewal; at least 1 less than the lease's
    #[arg(long, env = "UIMGACC_RENEW_SECONDS", default_value_t = 10.0)]
    pub renew_seconds: f64,
    /// Seconds between renewals of the lease
    #[arg(long, env = "UIMGACC_RETRY_SECONDS", default_value_t = 3.0)]
    pub retry_seconds: f64,
}

impl Options {
    fn timings(&self) -> anyhow::Result<Timings> {
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value).map_err(|_| anyhow!("--{name}: {value} is no time"))
        };
        let timings = Timings {
            lease_duration: seconds("lease-seconds", self.lease_seconds)?,
            renew_deadline: seconds("renew-seconds", self.renew_seconds)?,
            retry_period: seconds("retry-seconds", self.retry_seconds)?,
        };
        timings.check().map_err(|why| anyhow!(why))?;
        Ok(timings)
    }
}

/// Runs until it is told to stop by `SIGTERM` or `SIGINT`.
///
/// # Errors
/// The options are wrong, there is no configuration for the API server, or the health address
/// cannot be listened on. An API server that does not answer is no error: it is waited for.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let timings = options.timings()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut config = Config::infer().await.context("no way to the API server")?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let client = Client::try_from(config)?;
    let term = Term::default();
    let identity = format!("{}_{}", options.identity, unique());
    let shared = Arc::new(Shared::new(&options.namespace, term.clone()));

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (leads, mut leading) = tokio::sync::watch::channel(false);
    let drained = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    watch::start(&client, &shared, &mut watches);
    let mut health = tokio::spawn(health::serve(
        options.health_address,
        shared.clone(),
        stopped.clone(),
    ));
    let election = tokio::spawn(lease::run(Candidacy {
        leases: Api::<Lease>::namespaced(client.clone(), &options.namespace),
        name: names::AGENT.to_owned(),
        identity: identity.clone(),
        timings,
        term,
        leads,
        stop: stopped.clone(),
        drained: drained.clone(),
    }));

    let executor = Executor::new(client, &identity, shared.clone());
    let mut workers = JoinSet::new();
    let end = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            served = &mut health => break Err(match served {
                Ok(Err(error)) => anyhow!(error).context("health address"),
                _ => anyhow!("the health server ended"),
            }),
            Some(_) = watches.join_next() => break Err(anyhow!("a watch ended")),
            () = lead(&shared, &executor, &mut workers, &stopped, &mut leading) => {}
        }
    };
    // What a worker has begun it ends; then the lease may pass on.
    stop.send_replace(true);
    while workers.join_next().await.is_some() {}
    shared.set_leads(false);
    drained.notify_one();
    election.await.context("the election")?;
    if !health.is_finished() {
        health.abort();
    }
    end
}

/// Waits until this process leads and knows everything, and works until it does not lead any more.
async fn lead(
    shared: &Arc<Shared>,
    executor: &Executor,
    workers: &mut JoinSet<()>,
    stopped: &tokio::sync::watch::Receiver<bool>,
    leading: &mut tokio::sync::watch::Receiver<bool>,
) {
    if leading.wait_for(|leads| *leads).await.is_err() {
        return std::future::pending().await;
    }
    while !shared.world().unsynced().is_empty() {
        tokio::time::sleep(LOOK).await;
    }
    shared.set_leads(true);
    for _ in 0..WORKERS {
        let work = reconcile::work(shared.clone(), executor.clone(), stopped.clone());
        workers.spawn(work);
    }
    tokio::select! {
        _ = leading.wait_for(|leads| !*leads) => {}
        _ = lease::until_lost(&shared.term, LOOK) => {}
        _ = workers.join_next() => tracing::error!("a worker ended"),
    }
    shared.set_leads(false);
    workers.shutdown().await;
    tracing::warn!("this process leads no more: its work has stopped");
    // The term may be over some moments before the election says so.
    while *leading.borrow() && !shared.term.lasts() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Differs between two starts of one Pod.
fn unique() -> String {
    format!("{:x}-{:x}", std::process::id(), term::now().0.as_nanos())
}
