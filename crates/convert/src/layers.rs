//! The layers of one image on their way into the store, several at once.
//!
//! Each layer streams: network → digest → decompression → diff ID → tar → pack. Memory: about
//! 4 MiB of blob and 2 MiB of buffers a layer in flight, and the metadata of all layers.
//! The layers of one group ([`crate::groups`]) go into one pack, one after the other; groups run side
//! by side. At the end of a group its pack is sealed and its layers are published: only then are they
//! reported as done, and a later run finds them.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::sync::Arc;

use parking_lot::Mutex;
use uimgacc_erofs::Tree;
use uimgacc_store::{ChainLayer, PackWriter, PutError, Session};
use uimgacc_types::DiffId;

use crate::decompress::decompress;
use crate::error::LayerFailure;
use crate::fetch::{FailedLayer, Fetch, LayerJob};
use crate::layer::{
    ContentSink, LayerError, LayerLimits, MetadataBudget, Placed, read_layer, tree_bytes,
};
use crate::memory;
use crate::progress::Progress;
use crate::stream::{BlobReader, DiffReader};
use crate::tar::TarReader;

/// A layer that is through.
#[derive(Debug)]
struct Done {
    tree: Tree,
    published: Option<ChainLayer>,
}

/// The layers that are through.
pub(crate) struct Layers {
    session: Arc<Session>,
    metadata: MetadataBudget,
    progress: Arc<dyn Progress>,
    /// Where in the image each new layer stands.
    positions: HashMap<DiffId, Vec<usize>>,
    done: Mutex<HashMap<DiffId, Done>>,
}

impl Layers {
    /// The session has read its tables, so what they need is in use. `positions` are those of the new
    /// layers, for `progress`.
    pub(crate) fn new(
        session: Arc<Session>,
        jobs: usize,
        progress: Arc<dyn Progress>,
        positions: HashMap<DiffId, Vec<usize>>,
    ) -> Self {
        Self {
            session,
            metadata: MetadataBudget::of(memory::allowance(jobs)),
            progress,
            positions,
            done: Mutex::default(),
        }
    }

    /// Takes a layer that the store has.
    pub(crate) fn add_known(&self, tree: Tree, layer: ChainLayer) -> Result<(), LayerError> {
        let path = layer.diff_id.to_string();
        self.metadata
            .take(tree_bytes(&tree))
            .map_err(|limit| LayerError::TooMuchMetadata { limit, path })?;
        let diff_id = layer.diff_id;
        let published = Some(layer);
        let done = Done { tree, published };
        self.done.lock().insert(diff_id, done);
        Ok(())
    }

    /// Seals the pack of a group and publishes the layers whose packs all have their names. One of many
    /// packs waits for [`Self::stack`], which makes them few.
    pub(crate) fn finish_group(&self, writer: PackWriter) -> Result<(), LayerFailure> {
        self.session.seal(writer)?;
        Ok(self.publish_settled(uimgacc_types::MAX_PACKS_PER_IMAGE)?)
    }

    /// Publishes the layers of at most `max_packs` packs, all of which have their names.
    fn publish_settled(&self, max_packs: usize) -> Result<(), uimgacc_store::SessionError> {
        for (diff_id, done) in self.done.lock().iter_mut() {
            let is_few = done.tree.devices.len() <= max_packs;
            if done.published.is_none() && is_few && self.session.is_settled(&done.tree) {
                self.session.settle(&mut done.tree);
                done.published = Some(self.session.publish_layer(*diff_id, &done.tree)?);
                for position in self.positions.get(diff_id).into_iter().flatten() {
                    self.progress.layer_done(*position, false);
                }
            }
        }
        Ok(())
    }

    /// The trees of these layers stacked, its packs few enough; every pack sealed, every layer
    /// published.
    pub(crate) fn stack(
        &self,
        diff_ids: &[DiffId],
    ) -> Result<(Tree, Vec<ChainLayer>), crate::CreateError> {
        let mut tree = {
            let mut done = self.done.lock();
            for done in done.values_mut() {
                self.session.settle(&mut done.tree);
            }
            let trees: Vec<&Tree> = diff_ids
                .iter()
                .filter_map(|id| done.get(id).map(|done| &done.tree))
                .collect();
            uimgacc_store::flatten::flatten(&trees)?
        };
        let mut writer = self.session.pack_writer()?;
        {
            // The new layers as well, so that a node that has only a prefix of them needs few.
            let mut done = self.done.lock();
            let new = done.values_mut().filter(|done| done.published.is_none());
            let mut trees: Vec<&mut Tree> = new.map(|done| &mut done.tree).collect();
            trees.push(&mut tree);
            self.session
                .repack(&mut trees, &mut writer, uimgacc_types::MAX_PACKS_PER_IMAGE)?;
        }
        self.session.seal(writer)?;
        self.session.settle(&mut tree);
        self.publish_settled(usize::MAX)?;
        let done = self.done.lock();
        let layers = diff_ids
            .iter()
            .filter_map(|id| done.get(id)?.published.clone())
            .collect();
        Ok((tree, layers))
    }
}

/// Puts contents into one pack.
struct PackSink<'a> {
    session: &'a Session,
    writer: &'a mut PackWriter,
}

impl ContentSink for PackSink<'_> {
    fn put(&mut self, source: &mut dyn Read, len_bytes: u64) -> Result<Placed, PutError> {
        let placement = self.writer.put(source, len_bytes)?;
        Ok(Placed {
            device: self.session.device(placement.pack),
            extent: placement.extent,
        })
    }
}

/// Fetches the layers of a group, one after the other, and takes them in. The error names the layer.
pub(crate) async fn take_group(
    fetch: Fetch,
    group: Vec<LayerJob>,
    layers: Arc<Layers>,
) -> Result<(), FailedLayer> {
    let mut last = None;
    let mut writer = None;
    for job in group {
        let failed = |source| job.failed(source);
        let into = match writer.take() {
            Some(writer) => writer,
            None => layers
                .session
                .pack_writer()
                .map_err(|error| failed(error.into()))?,
        };
        let layers = Arc::clone(&layers);
        let read = move |job: &LayerJob, blob| read_blob(job, blob, &layers, into);
        writer = Some(fetch.stream(job.clone(), read).await.map_err(failed)?);
        last = Some(job);
    }
    let (Some(job), Some(writer)) = (last, writer) else {
        return Ok(());
    };
    tokio::task::spawn_blocking(move || layers.finish_group(writer))
        .await
        .unwrap_or_else(|error| Err(LayerFailure::Decompress(std::io::Error::other(error))))
        .map_err(|source| job.failed(source))
}

/// Unpacks a blob into the pack while it comes in; then checks both digests.
fn read_blob(
    job: &LayerJob,
    mut blob: BlobReader,
    layers: &Layers,
    mut writer: PackWriter,
) -> Result<PackWriter, LayerFailure> {
    let mut sink = PackSink {
        session: &layers.session,
        writer: &mut writer,
    };
    let limits = LayerLimits {
        metadata: layers.metadata.clone(),
        stored_bytes: job.max_bytes(),
    };
    let unpacked = unpack(job, &mut blob, &limits, &mut sink);
    // Bytes that are not those asked for explain whatever else went wrong with them; but a full
    // store or a bomb is no reason to fetch the rest.
    let is_about_bytes = !matches!(
        unpacked,
        Err(LayerFailure::TooLarge { .. }
            | LayerFailure::Store(_)
            | LayerFailure::Layer(
                LayerError::TooMuchMetadata { .. }
                    | LayerError::TooMany
                    | LayerError::Content {
                        source: PutError::Store(_),
                        ..
                    }
            ))
    );
    if is_about_bytes {
        job.check_digest(&mut blob)?;
    }
    let (tree, found) = unpacked?;
    job.check_diff_id(found)?;
    layers
        .session
        .record_verified(job.descriptor.digest, job.diff_id)?;
    let published = None;
    let done = Done { tree, published };
    layers.done.lock().insert(job.diff_id, done);
    Ok(writer)
}

pub(crate) fn unpack(
    job: &LayerJob,
    blob: &mut BlobReader,
    limits: &LayerLimits,
    sink: &mut dyn ContentSink,
) -> Result<(Tree, DiffId), LayerFailure> {
    let tar = decompress(blob).map_err(LayerFailure::Decompress)?;
    let mut reader = TarReader::new(BufReader::with_capacity(
        256 << 10,
        DiffReader::new(tar, limits.stored_bytes),
    ));
    let tree = read_layer(&mut reader, sink, job.is_base, limits);
    let mut tar = reader.into_inner();
    let ended = match &tree {
        // What comes after the end of the archive belongs to the diff ID as well.
        Ok(_) => finish_diff(&mut tar),
        Err(_) => Ok(DiffId::from_bytes([0; 32])),
    };
    let is_over = matches!(tree, Err(LayerError::TooMuchContent { .. }));
    if is_over || tar.get_ref().is_over() {
        return Err(job.too_large());
    }
    let tree = tree?;
    Ok((tree, ended.map_err(LayerFailure::Decompress)?))
}

fn finish_diff<R: Read>(tar: &mut BufReader<DiffReader<R>>) -> std::io::Result<DiffId> {
    // Bytes in the buffer went through the hasher when they came into it.
    tar.get_mut().finish()
}
