//! `uimgacc-agent node`: the program of the DaemonSet `uimgacc-node`. Sets up the node that it runs
//! on, and tells the cluster what that node can.
//!
//! The Pod only installs and reports. What serves containers is the snapshotter, a service of the
//! host that has nothing to do with this Pod: it goes on while the Pod ends, is replaced or is never
//! started again, and so do containers. The Pod's own image starts without the snapshotter.
//!
//! What the Pod needs: `privileged`, `hostPID`, user 0, `NODE_NAME` by the downward API, the
//! [`Options`], a grace period of 90 s (a restart of containerd is waited for), and where a claim is
//! the store, its volume. The host's files are reached by way of `/proc/1/root`, so no mount of the
//! host is needed, nor kept busy by the Pod. What its service account may do: `nodes` get, list,
//! watch, patch; `imageaccelerations` get; `accelerationnodes` get, list, watch, create; `accelerationnodes/status` patch;
//! `startrecords` create.
//!
//! Flow, one piece of work at a time ([`decide`] says which):
//! 1. everything is installed but what needs a restart of containerd; where one is needed, the
//!    AccelerationNode says `needsRestart`
//! 2. once the status of the ImageAcceleration lists the node under `restarting`, containerd's
//!    configuration is changed and containerd restarted; where it does not come back, it gets its
//!    former configuration, and this is not tried again. The list is read right before that.
//! 3. the snapshotter is asked every other second; the node has its labels while it can run
//!    accelerated images, and what lasts less than `--patience` does not count
//! 4. what the first start of an image read is sent as a StartRecord
//! 5. `spec.release`: images on these chains that no container uses are removed
//! 6. `spec.leaving`: the labels go; `spec.uninstall`: then, once the node is listed as in 2,
//!    everything else, last the label that keeps this Pod on a node that is not selected any more
//!
//! Guarantees: chains that were told as held stay so until the snapshotter itself says otherwise.
//! `SIGTERM` ends this at once, except during a restart of containerd, which is waited for. Whatever
//! ends it, the next one goes on where it was.

mod cgroups;
mod cluster;
mod cri;
mod daemon;
mod decide;
mod host;
pub mod host_task;
mod installer;
pub mod on_host;
pub mod options;
mod records;
mod release;
mod status;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::PartialObjectMeta;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use uimgacc_objects::{AccelerationNode, names};

use cluster::{Known, Objects};
use cri::Cri;
use daemon::DaemonStatus;
use decide::{Fitness, HostWork, Observed, Outcome};
use host::Host;
use installer::Installer;
pub use options::Options;
use records::Records;

/// Between two looks.
const TICK: Duration = Duration::from_secs(2);
/// Between two tries to give chains back.
const RELEASE_PAUSE: Duration = Duration::from_secs(5);
/// How long the work of the moment may take once we are to stop.
const LAST_WORK: Duration = Duration::from_secs(80);

/// Runs until it is told to stop.
///
/// # Errors
/// The cluster's API cannot be used at all.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = Client::try_default()
        .await
        .context("cannot find the cluster")?;
    let mut agent = Agent::new(&client, options)?;
    tracing::info!(
        node = agent.options.node_name,
        "the node is being looked after"
    );
    tokio::select! {
        result = agent.look_after() => result?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    agent.finish().await;
    Ok(())
}

struct Agent {
    options: Options,
    host: Host,
    installer: Installer,
    objects: Objects,
    records: Records,
    start: Instant,
    /// The work of the moment.
    work: Option<(HostWork, JoinHandle<Outcome>)>,
    outcome: Outcome,
    outcome_at: Duration,
    failures: u32,
    daemon: Result<DaemonStatus, String>,
    silent_since: Option<Duration>,
    fitness: Option<Fitness>,
    released_at: Option<Duration>,
    /// When it may next be asked whether containerd may be restarted.
    restart_look_at: Duration,
}

impl Agent {
    fn new(client: &Client, options: Options) -> anyhow::Result<Self> {
        let host = Host::new(&options.host);
        Ok(Self {
            installer: Installer::new(&options, &host).context("cannot find our own program")?,
            objects: Objects::watch(client, &options.node_name),
            records: Records::new(client, &options.node_name),
            host,
            options,
            start: Instant::now(),
            work: None,
            outcome: Outcome::None,
            outcome_at: Duration::ZERO,
            failures: 0,
            daemon: Err("it was not asked yet".to_owned()),
            silent_since: None,
            fitness: None,
            released_at: None,
            restart_look_at: Duration::ZERO,
        })
    }

    async fn look_after(&mut self) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut acceleration, mut node) =
            (self.objects.acceleration.clone(), self.objects.node.clone());
        loop {
            tokio::select! {
                _ = tick.tick() => self.ask_daemon().await,
                outcome = finished(&mut self.work) => {
                    self.take(outcome);
                    self.ask_daemon().await;
                }
                changed = acceleration.changed() => changed?,
                changed = node.changed() => changed?,
            }
            if let Err(error) = self.step().await {
                // The next tick tries again.
                tracing::warn!(error = format!("{error:#}"), "not done");
            }
        }
    }

    /// Waits for the work of the moment, so that containerd is not left half restarted.
    async fn finish(&mut self) {
        // What only prepares goes on without us, or is done again.
        let Some((work @ (HostWork::Install | HostWork::Uninstall), _)) = self.work else {
            return;
        };
        tracing::info!(?work, "stopping; what is under way is waited for");
        let finished = tokio::time::timeout(LAST_WORK, finished(&mut self.work)).await;
        if finished.is_err() {
            tracing::warn!(?work, "it does not end; the next start goes on with it");
        }
    }

    async fn ask_daemon(&mut self) {
        self.daemon = daemon::ask(self.daemon_socket()).await;
        match self.daemon {
            Ok(_) => self.silent_since = None,
            Err(_) => {
                self.silent_since.get_or_insert(self.start.elapsed());
            }
        }
    }

    fn daemon_socket(&self) -> std::io::Result<OwnedFd> {
        let path = Path::new(&self.options.settings.paths.run_dir).join("status.sock");
        self.host.socket(&path)
    }

    /// Sends what a first start read. A record that is lost does no harm.
    async fn send_record(&mut self) -> anyhow::Result<()> {
        let chain = self.daemon.iter().flat_map(|one| &one.recorded).next();
        let Some(chain) = chain.copied().filter(|_| self.records.may_send()) else {
            return Ok(());
        };
        let failed = |error: String| anyhow::anyhow!("the snapshotter gives no record: {error}");
        if let Some(record) = daemon::record(self.daemon_socket(), chain)
            .await
            .map_err(failed)?
        {
            let sent = self.records.send(chain, &record).await;
            sent.context("what a first start read cannot be sent")?;
        }
        daemon::drop_record(self.daemon_socket(), chain)
            .await
            .map_err(failed)
    }

    fn take(&mut self, outcome: Outcome) {
        tracing::info!(?outcome, "done");
        self.failures = match outcome {
            Outcome::Failed(_) | Outcome::UninstallFailed(_) => self.failures.saturating_add(1),
            _ => 0,
        };
        self.outcome = outcome;
        self.outcome_at = self.start.elapsed();
    }

    /// Does what is to be done now.
    async fn step(&mut self) -> anyhow::Result<()> {
        let Known::Is(node) = self.objects.node.borrow().clone() else {
            return Ok(());
        };
        let acceleration = match self.objects.acceleration.borrow().clone() {
            Known::Unknown => return Ok(()),
            Known::Missing => None,
            Known::Is(acceleration) => Some(acceleration),
        };
        let Some(acceleration) = acceleration else {
            return self.objects.create(&node).await;
        };
        let (_, labelled) = cluster::labels(&node);
        let spec = acceleration.spec.clone();
        let outcome = self.outcome.clone();
        let keeps = decide::keeps_installer(&spec, &outcome);
        let kept = cluster::keeps_installer(&node);
        if keeps == Some(true) && !kept {
            self.objects.label(&[names::INSTALLED_LABEL], true).await?;
        }
        let daemon = self.daemon.clone();
        let mut seen = Observed {
            now: self.start.elapsed(),
            spec: &spec,
            outcome: &outcome,
            outcome_at: self.outcome_at,
            failures: self.failures,
            daemon: daemon.as_ref().map_err(String::as_str),
            silent_since: self.silent_since,
            labelled,
            may_restart: false,
        };
        if self.work.is_none()
            && decide::waits_for_restart(&seen)
            && seen.now >= self.restart_look_at
        {
            match self.objects.cluster_status().await {
                Ok(cluster) => {
                    let uid = node.metadata.uid.as_deref().unwrap_or_default();
                    seen.may_restart = cluster.may_restart(uid);
                    let pause = decide::restart_look_pause(cluster.nodes.total);
                    self.restart_look_at = seen.now.saturating_add(pause);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "not known whether containerd may be restarted");
                }
            }
        }
        if self.work.is_none()
            && let Some(work) = decide::work(&seen)
        {
            tracing::info!(?work, "begun");
            let installer = self.installer.clone();
            let told = acceleration.status.iter().flat_map(|one| &one.chains);
            let held = daemon.iter().flat_map(|one| &one.chains);
            let chains = told.chain(held).map(|held| held.token.clone());
            let chains: Vec<String> = chains.collect();
            let task = tokio::spawn(async move { installer.run(work, &chains).await });
            self.work = Some((work, task));
        }
        self.tell(&seen, &node, &acceleration).await?;
        if keeps == Some(false) && kept {
            // The last that is done: this Pod may end by it.
            self.objects.label(&[names::INSTALLED_LABEL], false).await?;
        }
        self.release(&seen).await?;
        self.send_record().await
    }

    /// Labels and status.
    async fn tell(
        &mut self,
        seen: &Observed<'_>,
        node: &PartialObjectMeta<Node>,
        acceleration: &AccelerationNode,
    ) -> anyhow::Result<()> {
        let (all, any) = cluster::labels(node);
        let patience = self.options.patience();
        let fitness = self
            .fitness
            .get_or_insert_with(|| Fitness::new(all, patience));
        let unfit = decide::unfit(seen);
        let is_fit = fitness.feed(seen.now, unfit.as_ref());
        if (is_fit && !all) || (!is_fit && any) {
            self.objects.label(&names::NODE_LABELS, is_fit).await?;
            tracing::info!(is_fit, "the node's labels follow");
        }
        // Until the first look at the installation there is nothing new to say.
        if *seen.outcome == Outcome::None {
            return Ok(());
        }
        let before = acceleration.status.clone().unwrap_or_default();
        let generation = acceleration.metadata.generation;
        let now = Time(Timestamp::now());
        let status = status::status(seen, unfit.as_ref(), is_fit, &before, generation, &now);
        if acceleration.status.as_ref() != Some(&status) {
            self.objects.say(&status).await?;
        }
        Ok(())
    }

    async fn release(&mut self, seen: &Observed<'_>) -> anyhow::Result<()> {
        let Ok(daemon) = seen.daemon else {
            return Ok(());
        };
        let chains = decide::to_release(seen.spec, &daemon.chains);
        let was_now = self
            .released_at
            .is_some_and(|at| seen.now.saturating_sub(at) < RELEASE_PAUSE);
        if chains.is_empty() || was_now {
            return Ok(());
        }
        self.released_at = Some(seen.now);
        let socket = Path::new(&self.options.settings.paths.containerd_socket);
        let cri = Cri::connect(self.host.socket(socket))
            .await
            .context("containerd does not answer")?;
        for image in release::release(&cri, &chains, &daemon.chains).await? {
            tracing::info!(image, "removed, because its chain is to be given back");
        }
        Ok(())
    }
}

/// Waits for the work of the moment, for ever where there is none.
async fn finished(work: &mut Option<(HostWork, JoinHandle<Outcome>)>) -> Outcome {
    let Some((kind, task)) = work else {
        return std::future::pending().await;
    };
    let outcome = task.await.unwrap_or_else(|lost| match kind {
        HostWork::Uninstall => Outcome::UninstallFailed(lost.to_string()),
        HostWork::Prepare | HostWork::Install => Outcome::Failed(lost.to_string()),
    });
    *work = None;
    outcome
}
