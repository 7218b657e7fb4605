//! `create`: an image from a registry into the store, and its target image back.
//!
//! Order: the config goes to the target's repository first (whoever may not push learns it
//! before the long work), then the layers into the store, then its indexes, then layers to the
//! target's registry as far as they are not there, then the image record, and the target's
//! manifest last. Each step can be repeated; a layer that is in the store is not fetched again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uimgacc_erofs::Tree;
use uimgacc_registry::{Client, Platform, ResolvedImage};
use uimgacc_store::{
    ChainLayer, ChainRecord, ImageRecord, IndexRecord, Session, StoreReader, logical_bytes,
};
use uimgacc_types::{ChainId, DiffId, Digest, ImageReference, chain_ids};

use crate::error::{CreateError, LayerFailure};
use crate::layers::{LayerJob, Layers, take_layer};
use crate::progress::Progress;
use crate::target::{Annotations, MANIFEST_TYPE, manifest};

/// What to create.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The image to accelerate.
    pub original: ImageReference,
    /// What the accelerated image is to be called.
    pub target: ImageReference,
    /// Which platform of it.
    pub platform: Platform,
    /// Whether to push the target image.
    pub push: bool,
    /// How many layers at once, 1 at least.
    pub jobs: usize,
    /// How often longer than its blob a layer may be (at least 1 GiB is always allowed).
    pub max_expansion: u64,
}

/// What was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The record as it stands in the store.
    pub record: ImageRecord,
    /// How many layers the store had already.
    pub layers_reused: usize,
}

/// Creates an accelerated image.
///
/// # Errors
/// What the registry, a layer or the store said; the store is clean in any case.
pub async fn create(
    client: &Client,
    store: &StoreReader,
    request: &CreateRequest,
    progress: Arc<dyn Progress>,
) -> Result<Created, CreateError> {
    progress.stage("resolving");
    let image = client.resolve(&request.original, &request.platform).await?;
    let diff_ids = image.config.diff_ids.clone();
    let Some(chain_id) = chain_ids(&diff_ids).last().copied() else {
        return Err(CreateError::NoLayers);
    };
    if request.push {
        let config = &image.manifest.config;
        client
            .push_blob_bytes(&request.target, config.digest, image.config_bytes.clone())
            .await?;
    }
    let session = {
        let store = store.clone();
        Arc::new(tokio::task::spawn_blocking(move || Session::begin(store)).await??)
    };
    let sizes: Vec<(String, u64)> = diff_ids
        .iter()
        .zip(&image.manifest.layers)
        .map(|(diff_id, layer)| (diff_id.to_string(), layer.size))
        .collect();
    progress.layers(&sizes);
    let converted = match find_index(&session, chain_id).await? {
        Some((tree, index)) => {
            for number in 0..diff_ids.len() {
                progress.layer_done(number, true);
            }
            Converted {
                tree,
                index,
                layers_reused: diff_ids.len(),
            }
        }
        None => convert(client, request, &image, &session, &progress).await?,
    };
    let annotations = Annotations {
        chain_id,
        index_digest: converted.index.digest,
        store_id: session.reader().store_id().to_owned(),
    };
    let target = manifest(&image.manifest_bytes, &annotations).map_err(CreateError::Manifest)?;
    if request.push {
        progress.stage("bringing layers to the target's registry");
        for layer in &image.manifest.layers {
            client
                .copy_blob(&request.original, &request.target, layer)
                .await?;
        }
    }
    let layers_reused = converted.layers_reused;
    let mut record = image_record(request, &image, &session, &diff_ids, chain_id, &converted);
    progress.stage("recording");
    record = publish(&session, record).await?;
    if request.push {
        progress.stage("pushing the target image");
        let pushed = client
            .push_manifest(&request.target, MANIFEST_TYPE, Bytes::from(target))
            .await?;
        record.target_digest = Some(pushed);
        record = publish(&session, record).await?;
    }
    Ok(Created {
        record,
        layers_reused,
    })
}

/// A flattened image in the store.
struct Converted {
    tree: Tree,
    index: IndexRecord,
    layers_reused: usize,
}

async fn publish(session: &Arc<Session>, record: ImageRecord) -> Result<ImageRecord, CreateError> {
    let session = Arc::clone(session);
    let task = tokio::task::spawn_blocking(move || {
        session.publish_image(&record)?;
        Ok(record)
    });
    task.await?
}

async fn find_index(
    session: &Arc<Session>,
    chain_id: ChainId,
) -> Result<Option<(Tree, IndexRecord)>, CreateError> {
    let session = Arc::clone(session);
    Ok(tokio::task::spawn_blocking(move || session.index(chain_id)).await??)
}

/// Brings every layer into the store and flattens them.
async fn convert(
    client: &Client,
    request: &CreateRequest,
    image: &ResolvedImage,
    session: &Arc<Session>,
    progress: &Arc<dyn Progress>,
) -> Result<Converted, CreateError> {
    let diff_ids = image.config.diff_ids.clone();
    let layers = Arc::new(Layers::new(Arc::clone(session), request.jobs));
    let known = add_known_layers(session, &layers, &diff_ids).await?;
    let mut seen = HashSet::new();
    let mut layers_reused = 0;
    let permits = Arc::new(Semaphore::new(request.jobs.max(1)));
    let mut jobs = JoinSet::new();
    progress.stage("converting layers");
    for (number, (diff_id, descriptor)) in diff_ids.iter().zip(&image.manifest.layers).enumerate() {
        if known.contains(diff_id) || !seen.insert(*diff_id) {
            progress.layer_done(number, true);
            layers_reused += 1;
            continue;
        }
        let job = LayerJob {
            number,
            descriptor: descriptor.clone(),
            diff_id: *diff_id,
            is_base: number == 0,
            max_expansion: request.max_expansion,
        };
        let (client, reference) = (client.clone(), request.original.clone());
        let (layers, permits) = (Arc::clone(&layers), Arc::clone(&permits));
        let progress = Arc::clone(progress);
        jobs.spawn(async move {
            // The semaphore is never closed: no permit means no limit.
            let _permit = permits.acquire().await;
            let digest = job.descriptor.digest;
            let taken = take_layer(client, reference, job, layers, Arc::clone(&progress)).await;
            if taken.is_ok() {
                progress.layer_done(number, false);
            }
            taken.map_err(|source| (number, digest, source))
        });
    }
    let count = diff_ids.len();
    while let Some(done) = jobs.join_next().await {
        if let Err((number, digest, source)) = done? {
            // The other layers end with the set.
            jobs.shutdown().await;
            return Err(layer_error(number, count, digest, source));
        }
    }
    progress.stage("writing the indexes");
    let session = Arc::clone(session);
    let (tree, index) =
        tokio::task::spawn_blocking(move || publish_indexes(&session, &layers, &diff_ids))
            .await??;
    Ok(Converted {
        tree,
        index,
        layers_reused,
    })
}

fn layer_error(number: usize, count: usize, digest: Digest, source: LayerFailure) -> CreateError {
    CreateError::Layer {
        number: number + 1,
        count,
        digest,
        source: Box::new(source),
    }
}

async fn add_known_layers(
    session: &Arc<Session>,
    layers: &Arc<Layers>,
    diff_ids: &[DiffId],
) -> Result<HashSet<DiffId>, CreateError> {
    let (session, layers, diff_ids) = (Arc::clone(session), Arc::clone(layers), diff_ids.to_vec());
    let task = tokio::task::spawn_blocking(move || -> Result<_, CreateError> {
        let mut known = HashSet::new();
        for diff_id in diff_ids {
            if known.contains(&diff_id) {
                continue;
            }
            if let Some((tree, layer)) = session.layer(diff_id)? {
                layers.add_known(tree, layer)?;
                known.insert(diff_id);
            }
        }
        Ok(known)
    });
    task.await?
}

/// Seals packs, publishes layers, every prefix of the chain and the flattened index.
fn publish_indexes(
    session: &Session,
    layers: &Layers,
    diff_ids: &[DiffId],
) -> Result<(Tree, IndexRecord), CreateError> {
    let (tree, chain_layers) = layers.stack(diff_ids)?;
    let chains = chain_ids(diff_ids);
    let record = |length: usize, index: Option<IndexRecord>| -> Option<ChainRecord> {
        Some(ChainRecord {
            chain_id: *chains.get(length - 1)?,
            layers: chain_layers.get(..length).map(<[ChainLayer]>::to_vec)?,
            index,
        })
    };
    for length in 1..chains.len() {
        if let Some(record) = record(length, None) {
            session.publish_chain(&record)?;
        }
    }
    let Some(top) = chains.last() else {
        return Err(CreateError::NoLayers);
    };
    let index = session.publish_index(*top, &tree)?;
    if let Some(record) = record(chains.len(), Some(index.clone())) {
        session.publish_chain(&record)?;
    }
    Ok((tree, index))
}

fn image_record(
    request: &CreateRequest,
    image: &ResolvedImage,
    session: &Session,
    diff_ids: &[DiffId],
    chain_id: ChainId,
    converted: &Converted,
) -> ImageRecord {
    let blobs: HashMap<Digest, u64> = image
        .manifest
        .layers
        .iter()
        .map(|layer| (layer.digest, layer.size))
        .collect();
    ImageRecord {
        original: request.original.to_string(),
        target: request.target.to_string(),
        platform: request.platform.to_string(),
        original_digest: image.manifest_digest,
        target_digest: None,
        config_digest: image.manifest.config.digest,
        chain_id,
        index: converted.index.clone(),
        diff_ids: diff_ids.to_vec(),
        compressed_size: blobs.values().sum(),
        size: logical_bytes(&converted.tree),
        inodes: uimgacc_store::flatten::reachable(&converted.tree).len() as u64,
        created: session.now(),
    }
}
