//! `work delete`: deletes an image from the store and frees what only it needs.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::Client as Kube;
use kube::api::Api;
use uimgacc_objects::AcceleratedImage;
use uimgacc_store::{DeleteError, StoreReader};
use uimgacc_types::ImageReference;

use super::failure::Failure;
use super::{blocking, leases, report, sweep};

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
    let image = images
        .get(&options.image)
        .await
        .with_context(|| format!("cannot read the AcceleratedImage {}", options.image))
        .map_err(Failure::retried)?;
    let target: ImageReference = match image.spec.target_image.parse() {
        Ok(target) => target,
        Err(_) => {
            // What cannot be understood was never made.
            tracing::info!(target = image.spec.target_image, "nothing to delete");
            return Ok(());
        }
    };
    leases::write(kube, store).await?;
    let (reader, force) = (store.clone(), options.force);
    blocking(move || {
        match uimgacc_store::delete(&reader, &target.to_string(), force) {
            // Deleted by a Job that was cut short before it could say so, or never made.
            Ok(_) | Err(DeleteError::NoImage(_)) => {}
            Err(error) => return Err(Failure::retried(error)),
        }
        Ok(())
    })
    .await?;
    let freed = sweep::run_alone(store, Duration::ZERO).await?;
    tracing::info!(files = freed.files, bytes = freed.bytes, waiting_for = ?freed.waiting_for, "deleted");
    report::store(kube, store).await
}
