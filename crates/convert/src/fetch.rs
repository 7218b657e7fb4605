//! A layer's blob from the registry to the thread that reads it, and the proof of what it is.

use std::sync::Arc;

use tokio::sync::mpsc;
use uimgacc_registry::{Client, Descriptor, ResolvedImage};
use uimgacc_store::Session;
use uimgacc_types::{DiffId, Digest, ImageReference};

use crate::decompress::decompress;
use crate::error::{CreateError, LayerFailure};
use crate::progress::Progress;
use crate::stream::{BlobReader, CHUNKS_IN_FLIGHT, Chunk, DiffReader};

/// A layer may always unpack to this much.
const EXPANSION_FLOOR_BYTES: u64 = 1 << 30;

/// A layer to fetch.
#[derive(Debug, Clone)]
pub(crate) struct LayerJob {
    pub(crate) number: usize,
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: DiffId,
    /// The bottom layer.
    pub(crate) is_base: bool,
    /// How often longer than its blob a layer may be.
    pub(crate) max_expansion: u64,
}

/// What failed with which layer.
#[derive(Debug)]
pub(crate) struct FailedLayer {
    pub(crate) number: usize,
    pub(crate) digest: Digest,
    pub(crate) source: LayerFailure,
}

impl FailedLayer {
    /// The same of a layer of that image.
    pub(crate) fn of(self, image: &ResolvedImage) -> CreateError {
        CreateError::Layer {
            number: self.number + 1,
            count: image.manifest.layers.len(),
            digest: self.digest,
            source: Box::new(self.source),
        }
    }
}

impl LayerJob {
    pub(crate) fn failed(&self, source: LayerFailure) -> FailedLayer {
        FailedLayer {
            number: self.number,
            digest: self.descriptor.digest,
            source,
        }
    }

    /// How much the layer may unpack to.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.descriptor
            .size
            .saturating_mul(self.max_expansion)
            .max(EXPANSION_FLOOR_BYTES)
    }

    /// It unpacks to more.
    pub(crate) fn too_large(&self) -> LayerFailure {
        LayerFailure::TooLarge {
            max_bytes: self.max_bytes(),
            compressed_bytes: self.descriptor.size,
        }
    }

    /// Reads what is left of the blob and checks its digest.
    pub(crate) fn check_digest(&self, blob: &mut BlobReader) -> Result<(), LayerFailure> {
        let (read_bytes, found) = match blob.finish() {
            Ok(ended) => ended,
            Err(error) => {
                let cause = blob.take_failure().unwrap_or(error);
                return Err(LayerFailure::Decompress(cause));
            }
        };
        if found == self.descriptor.digest {
            return Ok(());
        }
        Err(LayerFailure::WrongDigest { found, read_bytes })
    }

    pub(crate) fn check_diff_id(&self, found: DiffId) -> Result<(), LayerFailure> {
        if found == self.diff_id {
            return Ok(());
        }
        Err(LayerFailure::WrongDiffId {
            found,
            expected: self.diff_id,
        })
    }
}

/// Where the layers of one image come from.
#[derive(Clone)]
pub(crate) struct Fetch {
    pub(crate) client: Client,
    pub(crate) reference: ImageReference,
    pub(crate) progress: Arc<dyn Progress>,
}

impl Fetch {
    /// Streams a blob to `read`, which runs on a thread of its own; gives what that gives.
    pub(crate) async fn stream<T: Send + 'static>(
        &self,
        job: LayerJob,
        read: impl FnOnce(&LayerJob, BlobReader) -> Result<T, LayerFailure> + Send + 'static,
    ) -> Result<T, LayerFailure> {
        let (sender, receiver) = mpsc::channel::<Chunk>(CHUNKS_IN_FLIGHT);
        let worker = tokio::task::spawn_blocking({
            let job = job.clone();
            move || read(&job, BlobReader::new(receiver))
        });
        let fetched = self.feed(&job, &sender).await;
        if fetched.is_err() {
            // Tells the worker that this is no regular end.
            let _ = sender
                .send(Err(std::io::Error::other("the download failed")))
                .await;
        }
        drop(sender);
        let read = worker.await;
        match (fetched, read) {
            // A failed download explains what the worker saw, unless the worker stopped it.
            (Err(error), _) => Err(LayerFailure::Fetch(error)),
            (Ok(()), Ok(result)) => result,
            (Ok(()), Err(error)) => Err(LayerFailure::Decompress(std::io::Error::other(error))),
        }
    }

    async fn feed(
        &self,
        job: &LayerJob,
        sender: &mpsc::Sender<Chunk>,
    ) -> Result<(), uimgacc_registry::Error> {
        let mut blob = self
            .client
            .blob(&self.reference, &job.descriptor, 0)
            .await?;
        while let Some(chunk) = blob.next_chunk().await? {
            self.progress.layer_bytes(job.number, chunk.len() as u64);
            if sender.send(Ok(chunk)).await.is_err() {
                // The worker gave up; it says why.
                break;
            }
        }
        Ok(())
    }

    /// Fetches a layer that the store has already, only to verify that this blob holds it: the
    /// image's configuration may claim any diff ID.
    pub(crate) async fn prove(
        &self,
        job: LayerJob,
        session: Arc<Session>,
    ) -> Result<(), LayerFailure> {
        self.stream(job, move |job, mut blob| {
            let found = diff_id_of(job, &mut blob);
            if !matches!(found, Err(LayerFailure::TooLarge { .. })) {
                job.check_digest(&mut blob)?;
            }
            job.check_diff_id(found?)?;
            Ok(session.record_verified(job.descriptor.digest, job.diff_id)?)
        })
        .await
    }
}

fn diff_id_of(job: &LayerJob, blob: &mut BlobReader) -> Result<DiffId, LayerFailure> {
    let tar = decompress(blob).map_err(LayerFailure::Decompress)?;
    let mut tar = DiffReader::new(tar, job.max_bytes());
    let found = tar.finish();
    if tar.is_over() {
        return Err(job.too_large());
    }
    found.map_err(LayerFailure::Decompress)
}
