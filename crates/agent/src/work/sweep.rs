//! `work sweep`: frees the space of what nothing refers to, and counts the store.

use std::time::Duration;

use clap::Args;
use kube::Client as Kube;
use uimgacc_store::StoreReader;

use super::failure::Failure;
use super::{blocking, leases, report};

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
    leases::write(kube, store).await?;
    let grace = Duration::from_secs(options.grace_minutes.saturating_mul(60));
    let reader = store.clone();
    let swept =
        blocking(move || uimgacc_store::sweep(&reader, grace, false).map_err(Failure::retried))
            .await?;
    tracing::info!(files = swept.files, bytes = swept.bytes, waiting_for = ?swept.waiting_for, "swept");
    report::store(kube, store).await?;
    let now = k8s_openapi::jiff::Timestamp::now();
    report::swept(kube, &now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).await
}
