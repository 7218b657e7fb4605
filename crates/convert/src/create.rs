//! `create`: an image from a registry into the store, and its target image back.
//!
//! Order: the config goes to the target's repository first (whoever may not push learns it
//! before the long work), then the layers into the store, then its indexes, then layers to the
//! target's registry as far as they are not there, then the image record, and the target's
//! manifest last. Each step can be repeated; a layer that is in the store is not fetched
//! again, once a blob of this image was verified to hold it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uimgacc_erofs::Tree;
use uimgacc_registry::{Client, Descriptor, ResolvedImage};
use uimgacc_store::{
    ChainLayer, ChainRecord, ImageRecord, IndexRecord, Session, StoreReader, logical_bytes,
};
use uimgacc_types::{ChainId, DiffId, Digest, MAX_PACKS_PER_IMAGE, chain_ids};

use crate::error::CreateError;
use crate::fetch::{FailedLayer, Fetch, LayerJob};
use crate::groups::group;
use crate::layers::{Layers, take_group};
use crate::predecessor::carry_profile_over;
use crate::progress::Progress;
use crate::request::CreateRequest;
use crate::target::{Annotations, MANIFEST_TYPE, manifest};

/// So many of an image's packs are left for contents that other images have as well.
const SHARED_PACKS: usize = 4;
/// At least so many packs take new layers, so that some are converted at once.
const MIN_GROUPS: usize = 4;

/// What was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The record as it stands in the store.
    pub record: ImageRecord,
    /// How many layers the store had already.
    pub layers_reused: usize,
    /// The image's configuration, as the registry has it.
    pub config_bytes: Bytes,
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
    let fetch = Fetch {
        client: client.clone(),
        reference: request.original.clone(),
        progress: Arc::clone(&progress),
    };
    let known = verified_layers(&fetch, request, &image, &session).await?;
    let index = if known.len() == diff_ids.iter().collect::<HashSet<_>>().len() {
        find_index(&session, chain_id).await?
    } else {
        None
    };
    let converted = match index {
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
        None => convert(&fetch, request, &image, &session, known).await?,
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
    {
        // Before the record takes the place of the older image's.
        let (session, request) = (Arc::clone(&session), request.clone());
        let carry = move || carry_profile_over(&session, &request, chain_id);
        tokio::task::spawn_blocking(carry).await?;
    }
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
        config_bytes: image.config_bytes,
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

/// The layers that the store has and that this image has too, as its blobs were verified to hold
/// them: known from an earlier `create`, or fetched and hashed now.
///
/// The diff IDs of an image are claims of whoever wrote its configuration. Without this an image
/// that claims those of another one would get all of its files.
async fn verified_layers(
    fetch: &Fetch,
    request: &CreateRequest,
    image: &ResolvedImage,
    session: &Arc<Session>,
) -> Result<HashSet<DiffId>, CreateError> {
    let jobs = layer_jobs(image, request.max_expansion);
    let (mut known, unproven) = {
        let session = Arc::clone(session);
        tokio::task::spawn_blocking(move || split_by_proof(&session, jobs)).await??
    };
    if unproven.is_empty() {
        return Ok(known);
    }
    fetch.progress.stage("verifying layers that the store has");
    known.extend(unproven.iter().map(|job| job.diff_id));
    in_parallel(request.jobs, image, unproven, |job| {
        let (fetch, session) = (fetch.clone(), Arc::clone(session));
        async move {
            let proven = fetch.prove(job.clone(), session).await;
            proven.map_err(|source| job.failed(source))
        }
    })
    .await?;
    Ok(known)
}

/// Those of the image's layers that the store has, by whether their blobs are known to hold them.
/// Of blobs of one diff ID one is enough.
fn split_by_proof(
    session: &Session,
    jobs: Vec<LayerJob>,
) -> Result<(HashSet<DiffId>, Vec<LayerJob>), CreateError> {
    let mut known = HashSet::new();
    let mut unproven: Vec<LayerJob> = Vec::new();
    for job in jobs {
        if session.is_verified(job.descriptor.digest, job.diff_id)? {
            known.insert(job.diff_id);
        } else if unproven.iter().all(|other| other.diff_id != job.diff_id)
            && session.has_layer(job.diff_id)?
        {
            unproven.push(job);
        }
    }
    unproven.retain(|job| !known.contains(&job.diff_id));
    Ok((known, unproven))
}

pub(crate) fn layer_jobs(image: &ResolvedImage, max_expansion: u64) -> Vec<LayerJob> {
    let layers = image.config.diff_ids.iter().zip(&image.manifest.layers);
    let job = |(number, (diff_id, descriptor)): (usize, (&DiffId, &Descriptor))| LayerJob {
        number,
        descriptor: descriptor.clone(),
        diff_id: *diff_id,
        is_base: number == 0,
        max_expansion,
    };
    layers.enumerate().map(job).collect()
}

/// Runs `work` for each item, so many at once; the first failure ends the others.
async fn in_parallel<T, F>(
    at_once: usize,
    image: &ResolvedImage,
    items: Vec<T>,
    work: impl Fn(T) -> F,
) -> Result<(), CreateError>
where
    F: Future<Output = Result<(), FailedLayer>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(at_once.max(1)));
    let mut running = JoinSet::new();
    for item in items {
        let permits = Arc::clone(&permits);
        let work = work(item);
        running.spawn(async move {
            // The semaphore is never closed: no permit means no limit.
            let _permit = permits.acquire().await;
            work.await
        });
    }
    while let Some(done) = running.join_next().await {
        if let Err(failed) = done? {
            // The other layers end with the set.
            running.shutdown().await;
            return Err(failed.of(image));
        }
    }
    Ok(())
}

/// Brings every layer into the store and flattens them.
async fn convert(
    fetch: &Fetch,
    request: &CreateRequest,
    image: &ResolvedImage,
    session: &Arc<Session>,
    verified: HashSet<DiffId>,
) -> Result<Converted, CreateError> {
    let progress = &fetch.progress;
    let known = sound_layers(session, verified).await?;
    let mut new: Vec<LayerJob> = Vec::new();
    let mut positions: HashMap<DiffId, Vec<usize>> = HashMap::new();
    for job in layer_jobs(image, request.max_expansion) {
        if known.iter().any(|(_, layer)| layer.diff_id == job.diff_id) {
            progress.layer_done(job.number, true);
            continue;
        }
        let at = positions.entry(job.diff_id).or_default();
        at.push(job.number);
        if at.len() == 1 {
            new.push(job);
        }
    }
    let layers_reused = image.config.diff_ids.len() - new.len();
    let groups = groups(new, &known);
    let (session, jobs) = (Arc::clone(session), request.jobs);
    let layers = Arc::new(Layers::new(
        session.clone(),
        jobs,
        progress.clone(),
        positions,
    ));
    for (tree, layer) in known {
        layers.add_known(tree, layer)?;
    }
    progress.stage("converting layers");
    in_parallel(request.jobs, image, groups, |group| {
        take_group(fetch.clone(), group, Arc::clone(&layers))
    })
    .await?;
    progress.stage("writing the indexes");
    let diff_ids = image.config.diff_ids.clone();
    let (tree, index) =
        tokio::task::spawn_blocking(move || publish_indexes(&session, &layers, &diff_ids))
            .await??;
    Ok(Converted {
        tree,
        index,
        layers_reused,
    })
}

/// Splits new layers by the packs that they go to. Some of an image's packs are left for contents that the
/// store has already: those of the known layers, and of other images.
fn groups(new: Vec<LayerJob>, known: &[(Tree, ChainLayer)]) -> Vec<Vec<LayerJob>> {
    let devices = known.iter().flat_map(|(tree, _)| &tree.devices);
    let shared: HashSet<_> = devices.map(|device| device.tag).collect();
    let free = MAX_PACKS_PER_IMAGE.saturating_sub(shared.len());
    let most = free.saturating_sub(SHARED_PACKS).max(MIN_GROUPS);
    let sizes: Vec<u64> = new.iter().map(|job| job.descriptor.size).collect();
    let mut jobs: Vec<Option<LayerJob>> = new.into_iter().map(Some).collect();
    let mut take = |at: usize| jobs.get_mut(at).and_then(Option::take);
    group(&sizes, most)
        .into_iter()
        .map(|members| members.into_iter().filter_map(&mut take).collect())
        .collect()
}

/// Those of the verified layers that the store has whole.
async fn sound_layers(
    session: &Arc<Session>,
    verified: HashSet<DiffId>,
) -> Result<Vec<(Tree, ChainLayer)>, CreateError> {
    let session = Arc::clone(session);
    let task = tokio::task::spawn_blocking(move || -> Result<_, CreateError> {
        let mut known = Vec::new();
        for diff_id in verified {
            known.extend(session.layer(diff_id)?);
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
