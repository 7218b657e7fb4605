//! `work delete`: deletes an image from the store and frees what only it needs.

use std::time::{Duration, Instant};

use clap::Args;
use kube::Client as Kube;
use kube::api::Api;
use uimgacc_objects::AcceleratedImage;
use uimgacc_store::{DeleteError, StoreReader};
use uimgacc_types::ImageReference;

use super::failure::Failure;
use super::patience::read;
use super::{blocking, leases, report, sweep};

/// How long a node's own lease in the store may last after it has given a chain back: a pull that
/// began and did not end holds it for a minute.
const LEASES_LAG: Duration = Duration::from_secs(75);
const LEASES_PAUSE: Duration = Duration::from_secs(3);

/// Options.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the AcceleratedImage
    #[arg(long, value_name = "NAME")]
    image: String,
    /// Delete although somebody holds it
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(
    kube: &Kube,
    store: &StoreReader,
    options: &Options,
) -> Result<(), Failure> {
    let images: Api<AcceleratedImage> = Api::all(kube.clone());
    let image = read(&images, &options.image).await?;
    let target: ImageReference = match image.spec.target_image.parse() {
        Ok(target) => target,
        Err(_) => {
            // What cannot be understood was never made.
            tracing::info!(target = image.spec.target_image, "nothing to delete");
            return Ok(());
        }
    };
    leases::write(kube, store).await?;
    let until = Instant::now() + LEASES_LAG;
    loop {
        let (reader, name, force) = (store.clone(), target.to_string(), options.force);
        let deleted = blocking(move || Ok(uimgacc_store::delete(&reader, &name, force)));
        match deleted.await? {
            // Deleted by a Job that was cut short before it could say so, or never made.
            Ok(_) | Err(DeleteError::NoImage(_)) => break,
            Err(DeleteError::InUse { holders, .. }) if Instant::now() < until => {
                tracing::info!(?holders, "waiting for leases in the store");
                tokio::time::sleep(LEASES_PAUSE).await;
            }
            Err(error) => return Err(Failure::retried(error)),
        }
    }
    let freed = sweep::run_alone(store, Duration::ZERO).await?;
    tracing::info!(files = freed.files, bytes = freed.bytes, waiting_for = ?freed.waiting_for, "deleted");
    report::store(kube, store).await
}
