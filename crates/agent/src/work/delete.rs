//! `work delete`: deletes an image from the store and frees what only it needs.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use kube::Client as Kube;
use kube::api::{Api, ObjectMeta};
use uimgacc_objects::AcceleratedImage;
use uimgacc_store::{DeleteError, StoreReader};
use uimgacc_types::ImageReference;

use super::failure::Failure;
use super::retry::retrying;
use super::{blocking, leases, report, sweep};

/// How long a node's own lease in the store may last after it has given a chain back: a pull that
/// began and did not end holds it for a minute.
const LEASES_LAG: Duration = Duration::from_secs(75);
const LEASES_PAUSE: Duration = Duration::from_secs(3);
/// How long what the nodes of this cluster hold is not asked for again.
const LEASES_FRESH: Duration = Duration::from_secs(12);

/// Options.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the AcceleratedImage
    #[arg(long, value_name = "NAME")]
    image: String,
    /// Only if that object has this uid
    #[arg(long, env = "UIMGACC_IMAGE_UID", value_name = "UID")]
    uid: Option<String>,
    /// Delete although somebody holds it
    #[arg(long)]
    force: bool,
}

/// Whether an image is the one to be deleted.
fn is_meant(image: &ObjectMeta, uid: Option<&str>) -> bool {
    let same = uid.is_none_or(|uid| image.uid.as_deref() == Some(uid));
    same && image.deletion_timestamp.is_some()
}

pub(super) async fn run(
    kube: &Kube,
    store: &StoreReader,
    options: &Options,
) -> Result<(), Failure> {
    let images: Api<AcceleratedImage> = Api::all(kube.clone());
    let found = retrying(|| images.get_opt(&options.image)).await;
    let found = found
        .with_context(|| format!("cannot read the AcceleratedImage {}", options.image))
        .map_err(Failure::retried)?;
    let Some(image) = found.filter(|image| is_meant(&image.metadata, options.uid.as_deref()))
    else {
        // This Job came too late: what it was made for is gone, and another of the name is to stay.
        tracing::info!(image = options.image, "it is not to be deleted");
        return Ok(());
    };
    let target: ImageReference = match image.spec.target_image.parse() {
        Ok(target) => target,
        Err(_) => {
            // What cannot be understood was never made.
            tracing::info!(target = image.spec.target_image, "nothing to delete");
            return Ok(());
        }
    };
    let until = Instant::now() + LEASES_LAG;
    let mut written: Option<Instant> = None;
    loop {
        // Again and again: nodes give chains back while this waits.
        if written.is_none_or(|written| written.elapsed() > LEASES_FRESH) {
            leases::write(kube, store).await?;
            written = Some(Instant::now());
        }
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
    match sweep::run_alone(store, Duration::ZERO).await {
        Ok(freed) => {
            tracing::info!(files = freed.files, bytes = freed.bytes, waiting_for = ?freed.waiting_for, "deleted");
        }
        // The image is gone, as was asked. What keeps its space, a lease that cannot be read perhaps,
        // is reported by the sweep on schedule as well.
        Err(failure) if options.force => {
            tracing::warn!(failure = %failure.message(), "deleted, but the space is not freed");
        }
        Err(failure) => return Err(failure),
    }
    report::store(kube, store).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_is_to_go_is_deleted() {
        let image = |value: serde_json::Value| serde_json::from_value::<ObjectMeta>(value).unwrap();
        let going =
            image(serde_json::json!({"uid": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let staying = image(serde_json::json!({"uid": "a"}));
        assert!(is_meant(&going, Some("a")) && is_meant(&going, None));
        assert!(!is_meant(&going, Some("b")));
        assert!(!is_meant(&staying, Some("a")) && !is_meant(&staying, None));
    }
}
