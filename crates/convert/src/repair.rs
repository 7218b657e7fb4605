//! `store repair`: damaged contents come back from the layers that they were made of.

use std::io::Read;
use std::sync::Arc;

use uimgacc_erofs::tree::Device;
use uimgacc_registry::Client;
use uimgacc_store::{ImageRecord, PutError, Repair, Repairs, StoreReader, VerifyOptions};
use uimgacc_types::{DiffId, Digest, Extent, ImageReference, with_causes};

use crate::create::layer_jobs;
use crate::error::{CreateError, LayerFailure};
use crate::fetch::Fetch;
use crate::layer::{ContentSink, LayerLimits, MetadataBudget, Placed};
use crate::layers::unpack;
use crate::memory;
use crate::progress::Progress;

/// Repairs a store. `progress` gets the stages, and `checked` the bytes that were read of packs.
///
/// A layer is read from its original image, or else from the target image. Where no registry has it any more,
/// the answer names what is left.
///
/// # Errors
/// The store cannot be read or written.
pub async fn repair(
    client: &Client,
    store: &StoreReader,
    progress: Arc<dyn Progress>,
    mut checked: impl FnMut(u64) + Send + 'static,
) -> Result<Repairs, CreateError> {
    progress.stage("reading the store");
    let store = store.clone();
    let begin = {
        let store = store.clone();
        move || Repair::begin(&store, &mut checked)
    };
    let repair = Arc::new(tokio::task::spawn_blocking(begin).await??);
    while let Some(diff_id) = repair.next_layer() {
        read_layer_again(client, &repair, diff_id, &progress).await?;
    }
    progress.stage("checking what was repaired");
    let finish = move || -> Result<Repairs, CreateError> {
        let mut repairs = repair.finish()?;
        drop(repair);
        let options = VerifyOptions {
            metadata_only: true,
            ..VerifyOptions::default()
        };
        let report = uimgacc_store::verify(&store, &options, &mut |_| {})?;
        repairs.add_problems(report.problems);
        Ok(repairs)
    };
    tokio::task::spawn_blocking(finish).await?
}

/// Reads a layer from wherever it is to be had. That it is nowhere is only logged.
async fn read_layer_again(
    client: &Client,
    repair: &Arc<Repair>,
    diff_id: DiffId,
    progress: &Arc<dyn Progress>,
) -> Result<(), CreateError> {
    let images = repair.images().iter();
    let images = images.filter(|image| image.diff_ids.contains(&diff_id));
    for (image, reference, digest) in images.flat_map(places) {
        let Ok(reference) = reference.parse::<ImageReference>() else {
            continue;
        };
        let reference = reference.with_digest(digest);
        progress.stage(&format!("reading layer {diff_id} of {reference}"));
        let fetch = Fetch {
            client: client.clone(),
            reference,
            progress: Arc::clone(progress),
        };
        match fetch_layer(&fetch, image, repair, diff_id).await {
            Ok(()) => return Ok(()),
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Layer(why)) => {
                tracing::warn!(
                    "layer {diff_id} cannot be had from {}: {why}",
                    fetch.reference
                );
            }
        }
    }
    Ok(())
}

/// Where the layers of an image may be.
fn places(image: &ImageRecord) -> impl Iterator<Item = (&ImageRecord, &str, Digest)> {
    let original = (image, image.original.as_str(), image.original_digest);
    let target = image.target_digest;
    let target = target.map(|digest| (image, image.target.as_str(), digest));
    std::iter::once(original).chain(target)
}

/// Why a layer was not read.
enum Failure {
    /// The store failed: nothing else would do better.
    Store(CreateError),
    /// It is not to be had there.
    Layer(String),
}

async fn fetch_layer(
    fetch: &Fetch,
    image: &ImageRecord,
    repair: &Arc<Repair>,
    diff_id: DiffId,
) -> Result<(), Failure> {
    let broken = |why: &dyn std::error::Error| Failure::Layer(with_causes(why));
    let platform = image.platform.parse().map_err(|why| broken(&why))?;
    let resolved = fetch.client.resolve(&fetch.reference, &platform).await;
    let resolved = resolved.map_err(|why| broken(&why))?;
    // It was accepted once, and nothing is written but what the store lacks.
    let mut jobs = layer_jobs(&resolved, u64::MAX).into_iter();
    let Some(job) = jobs.find(|job| job.diff_id == diff_id) else {
        return Err(Failure::Layer("it has no such layer".to_owned()));
    };
    let repair = Arc::clone(repair);
    let read = fetch.stream(job.clone(), move |job, mut blob| {
        let limits = LayerLimits {
            metadata: MetadataBudget::of(memory::allowance(1)),
            stored_bytes: job.max_bytes(),
        };
        let mut sink = RepairSink(&repair);
        let (_, found) = unpack(job, &mut blob, &limits, &mut sink)?;
        job.check_digest(&mut blob)?;
        job.check_diff_id(found)
    });
    match read.await {
        Err(failure) if failure.is_of_store() => {
            Err(Failure::Store(job.failed(failure).of(&resolved)))
        }
        read => read.map_err(|failure: LayerFailure| broken(&failure)),
    }
}

/// Hands contents to a repair, which takes what is missing.
struct RepairSink<'a>(&'a Repair);

impl ContentSink for RepairSink<'_> {
    fn put(&mut self, source: &mut dyn Read, len_bytes: u64) -> Result<Placed, PutError> {
        self.0.put(source, len_bytes)?;
        // The tree that comes of it is not used.
        let device = Device {
            tag: [0; 64],
            blocks: 0,
        };
        let extent = Extent {
            offset_bytes: 0,
            len_bytes,
        };
        Ok(Placed { device, extent })
    }
}
