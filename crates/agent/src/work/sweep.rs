//! `work sweep`: frees the space of what nothing refers to, and counts the store.

use std::time::Duration;

use clap::Args;
use kube::Client as Kube;
use tokio::time::Instant;
use uimgacc_store::{StoreReader, SweepOptions, Swept};

use super::failure::Failure;
use super::{blocking, leases, report};

/// How long a sweep waits for conversions: until what killed ones left is cleared away.
const PATIENCE: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_secs(2);
/// Options.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Minutes that files to which nothing refers are kept
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    grace_minutes: u64,
}

pub(super) async fn run(
    kube: &Kube,
    store: &StoreReader,
    options: &Options,
) -> Result<(), Failure> {
    let grace = Duration::from_secs(options.grace_minutes.saturating_mul(60));
    leases::write(kube, store).await?;
    let swept = run_alone(store, grace).await?;
    tracing::info!(files = swept.files, bytes = swept.bytes, waiting_for = ?swept.waiting_for, kept_for = ?swept.kept_for, "swept");
    report::store(kube, store).await?;
    let now = k8s_openapi::jiff::Timestamp::now();
    report::swept(kube, &now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).await
}

/// Sweeps once nobody else works on the store, or gives up after a while: conversions may take
/// hours, and what is left is swept on schedule.
pub(super) async fn run_alone(store: &StoreReader, grace: Duration) -> Result<Swept, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reader = store.clone();
        let swept = blocking(move || {
            let options = SweepOptions::older_than(grace);
            uimgacc_store::sweep(&reader, &options).map_err(Failure::retried)
        })
        .await?;
        if swept.waiting_for.is_empty() || Instant::now() >= deadline {
            return Ok(swept);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
