//! The Lease at the API server: runs an [`Election`] and keeps the [`Term`].
//!
//! Followers watch the one Lease, so a lease that is given back passes on in milliseconds and
//! nothing is asked for in between.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::{Notify, watch};

use super::election::{Election, ElectionStep, Record, Timings};
use super::term::{self, Moment, Term};

/// What an election needs.
#[derive(Debug)]
pub struct Candidacy {
    /// Where the Lease is.
    pub leases: Api<Lease>,
    /// Its name.
    pub name: String,
    /// Who we are; differs between processes.
    pub identity: String,
    /// How long what lasts.
    pub timings: Timings,
    /// Lasts while we lead.
    pub term: Term,
    /// Told whether we lead; the term ends before this turns false.
    pub leads: watch::Sender<bool>,
    /// Told to give the lease back and end.
    pub stop: watch::Receiver<bool>,
    /// Told that the work has stopped.
    pub drained: Arc<Notify>,
}

/// Runs the election until it is told to stop; then the lease is given back.
pub async fn run(candidacy: Candidacy) {
    let Candidacy {
        leases,
        name,
        identity,
        timings,
        term,
        leads,
        mut stop,
        drained,
    } = candidacy;
    let mut election = Election::new(&identity, timings);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = Box::pin(watcher(leases.clone(), config).default_backoff());
    let mut synced = false;
    let mut listed = false;
    loop {
        let step = if synced {
            election.step(term::now())
        } else {
            ElectionStep::Wait(term::now().plus(timings.retry_period))
        };
        let wait = match step {
            ElectionStep::Wait(until) => until.since(term::now()),
            ElectionStep::Lost => {
                term.end();
                leads.send_replace(false);
                tracing::warn!("the lease is lost: nothing more is written");
                continue;
            }
            ElectionStep::Take(version) => {
                if write(&leases, &name, &mut election, version, true, timings).await {
                    tracing::info!(%identity, "this process leads now");
                }
                Duration::ZERO
            }
            ElectionStep::Renew(version) => {
                write(&leases, &name, &mut election, Some(version), false, timings).await;
                Duration::ZERO
            }
        };
        if let Some(until) = election.leads_until() {
            term.extend(until);
            leads.send_if_modified(|leads| !std::mem::replace(leads, true));
        }
        if wait.is_zero() {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => break,
            event = events.next() => match event {
                Some(Ok(watcher::Event::Init)) => listed = false,
                Some(Ok(watcher::Event::InitApply(lease) | watcher::Event::Apply(lease))) => {
                    listed = true;
                    election.observe(Some(record(&lease)), term::now());
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    synced = true;
                    if !listed {
                        election.observe(None, term::now());
                    }
                }
                Some(Ok(watcher::Event::Delete(_))) => election.observe(None, term::now()),
                Some(Err(error)) => tracing::warn!(%error, "the lease cannot be watched"),
                None => break,
            },
        }
    }
    let led = election.leads_until().is_some();
    leads.send_replace(false);
    // The work has until the deadline of the lease to end; then it is stopped.
    let patience = election
        .leads_until()
        .map_or(Duration::ZERO, |until| until.since(term::now()));
    if led
        && tokio::time::timeout(patience, drained.notified())
            .await
            .is_ok()
    {
        term.end();
        give_back(&leases, &name, &identity).await;
    }
    term.end();
}

/// Writes us into the Lease. Says whether that succeeded.
async fn write(
    leases: &Api<Lease>,
    name: &str,
    election: &mut Election,
    version: Option<String>,
    new_holder: bool,
    timings: Timings,
) -> bool {
    let begun = term::now();
    let attempt = async {
        let old = match (&version, new_holder) {
            // Who takes it keeps the count of those before.
            (Some(_), true) => leases.get_opt(name).await?.and_then(|lease| lease.spec),
            _ => None,
        };
        let lease = lease(
            name,
            election.identity(),
            version.clone(),
            timings,
            new_holder,
            old,
        );
        match version {
            None => leases.create(&PostParams::default(), &lease).await,
            Some(_) => leases.replace(name, &PostParams::default(), &lease).await,
        }
    };
    let patience = timings.retry_period.max(Duration::from_secs(1));
    match tokio::time::timeout(patience, attempt).await {
        Ok(Ok(lease)) => {
            let version = lease.metadata.resource_version.unwrap_or_default();
            election.written(&version, begun);
            true
        }
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
            reread(leases, name, election, patience).await;
            false
        }
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {
            election.reread(None, term::now());
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the lease cannot be written");
            election.failed(term::now());
            false
        }
        Err(_) => {
            tracing::warn!("the API server does not answer in time for the lease");
            election.failed(term::now());
            false
        }
    }
}

async fn reread(leases: &Api<Lease>, name: &str, election: &mut Election, patience: Duration) {
    match tokio::time::timeout(patience, leases.get_opt(name)).await {
        Ok(Ok(lease)) => election.reread(lease.as_ref().map(record), term::now()),
        _ => election.failed(term::now()),
    }
}

fn lease(
    name: &str,
    identity: &str,
    version: Option<String>,
    timings: Timings,
    new_holder: bool,
    old: Option<LeaseSpec>,
) -> Lease {
    let now = MicroTime(Timestamp::now());
    let transitions = old.as_ref().and_then(|old| old.lease_transitions);
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: version,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: i32::try_from(whole_seconds(timings.lease_duration)).ok(),
            renew_time: Some(now.clone()),
            acquire_time: new_holder.then_some(now),
            lease_transitions: new_holder.then(|| transitions.map_or(0, |count| count + 1)),
            ..LeaseSpec::default()
        }),
    }
}

/// Rounded up: who waits too long does no harm.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(Duration::ZERO, Duration::from_secs),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// Empties the Lease, so that another takes it at once.
async fn give_back(leases: &Api<Lease>, name: &str, identity: &str) {
    let work = async {
        let mut lease = leases.get(name).await?;
        if record(&lease).holder.as_deref() != Some(identity) {
            return Ok(());
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        leases.replace(name, &PostParams::default(), &lease).await?;
        Ok::<_, kube::Error>(())
    };
    match tokio::time::timeout(Duration::from_secs(3), work).await {
        Ok(Ok(())) => tracing::info!("the lease was given back"),
        Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given back"),
        Err(_) => tracing::warn!("the API server did not answer when the lease was given back"),
    }
}

/// Returns when the term is over, whoever ended it.
pub async fn until_lost(term: &Term, poll: Duration) -> Moment {
    while term.lasts() {
        tokio::time::sleep(poll).await;
    }
    term::now()
}
