//! The layers of one image on their way into the store, several at once.
//!
//! Each layer streams: network → digest → decompression → diff ID → tar → pack. Memory: about
//! 4 MiB of blob and 2 MiB of buffers a layer in flight, and the metadata of all layers.
//! Contents of at most as many packs as layers are in flight are being written at a time; a
//! large pack is sealed as soon as a layer is through, so that a later run finds its contents.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use uimgacc_erofs::Tree;
use uimgacc_store::{ChainLayer, PackWriter, PutError, Session};
use uimgacc_types::DiffId;

use crate::decompress::decompress;
use crate::error::LayerFailure;
use crate::fetch::{Fetch, LayerJob};
use crate::layer::{
    ContentSink, LayerError, LayerLimits, MetadataBudget, Placed, read_layer, tree_bytes,
};
use crate::memory;
use crate::stream::{BlobReader, DiffReader};
use crate::tar::TarReader;

/// A pack this long is sealed once the layer that is being written to it is through.
const SEAL_BYTES: u64 = 1 << 30;
/// So many packs are sealed early; the rest of an image's 16 is for those it shares.
const MAX_SEALED_EARLY: usize = 6;

/// A layer that is through.
#[derive(Debug)]
struct Done {
    tree: Tree,
    published: Option<ChainLayer>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<PackWriter>,
    sealed_early: usize,
    done: HashMap<DiffId, Done>,
}

/// Packs being written and layers that are through.
#[derive(Debug)]
pub(crate) struct Layers {
    session: Arc<Session>,
    metadata: MetadataBudget,
    state: Mutex<State>,
}

impl Layers {
    /// The session has read its tables, so what they need is in use.
    pub(crate) fn new(session: Arc<Session>, jobs: usize) -> Self {
        Self {
            session,
            metadata: MetadataBudget::of(memory::allowance(jobs)),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Under this lock only whole steps are taken.
        self.state.lock()
    }

    /// Takes a layer that the store has.
    pub(crate) fn add_known(&self, tree: Tree, layer: ChainLayer) -> Result<(), LayerError> {
        let path = layer.diff_id.to_string();
        self.metadata
            .take(tree_bytes(&tree))
            .map_err(|limit| LayerError::TooMuchMetadata { limit, path })?;
        self.state().done.insert(
            layer.diff_id,
            Done {
                tree,
                published: Some(layer),
            },
        );
        Ok(())
    }

    fn writer(&self) -> Result<PackWriter, LayerFailure> {
        match self.state().idle.pop() {
            Some(writer) => Ok(writer),
            None => Ok(self.session.pack_writer()?),
        }
    }

    /// Takes a layer in; its pack goes back to the idle ones or is sealed.
    fn finish(&self, job: &LayerJob, tree: Tree, writer: PackWriter) -> Result<(), LayerFailure> {
        let mut state = self.state();
        state.done.insert(
            job.diff_id,
            Done {
                tree,
                published: None,
            },
        );
        if writer.len_bytes() < SEAL_BYTES || state.sealed_early >= MAX_SEALED_EARLY {
            state.idle.push(writer);
            return Ok(());
        }
        state.sealed_early += 1;
        drop(state);
        self.session.seal(writer)?;
        // One of many packs waits for `stack`, which makes them few.
        Ok(self.publish_settled(uimgacc_types::MAX_PACKS_PER_IMAGE)?)
    }

    /// Publishes the layers of at most `max_packs` packs, all of which have their names.
    fn publish_settled(&self, max_packs: usize) -> Result<(), uimgacc_store::SessionError> {
        for (diff_id, done) in &mut self.state().done {
            let is_few = done.tree.devices.len() <= max_packs;
            if done.published.is_none() && is_few && self.session.is_settled(&done.tree) {
                self.session.settle(&mut done.tree);
                done.published = Some(self.session.publish_layer(*diff_id, &done.tree)?);
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
            let mut state = self.state();
            for done in state.done.values_mut() {
                self.session.settle(&mut done.tree);
            }
            let trees: Vec<&Tree> = diff_ids
                .iter()
                .filter_map(|id| state.done.get(id).map(|done| &done.tree))
                .collect();
            uimgacc_store::flatten::flatten(&trees)?
        };
        let idle = std::mem::take(&mut self.state().idle);
        let mut writers = idle.into_iter();
        let mut first = match writers.next() {
            Some(writer) => writer,
            None => self.session.pack_writer()?,
        };
        {
            // The new layers as well, so that a node that has only a prefix of them needs few.
            let mut state = self.state();
            let new = state
                .done
                .values_mut()
                .filter(|done| done.published.is_none());
            let mut trees: Vec<&mut Tree> = new.map(|done| &mut done.tree).collect();
            trees.push(&mut tree);
            self.session
                .repack(&mut trees, &mut first, uimgacc_types::MAX_PACKS_PER_IMAGE)?;
        }
        for writer in [first].into_iter().chain(writers) {
            self.session.seal(writer)?;
        }
        self.session.settle(&mut tree);
        self.publish_settled(usize::MAX)?;
        let state = self.state();
        let layers = diff_ids
            .iter()
            .filter_map(|id| state.done.get(id)?.published.clone())
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

/// Fetches a layer and takes it in.
pub(crate) async fn take_layer(
    fetch: &Fetch,
    job: LayerJob,
    layers: Arc<Layers>,
) -> Result<(), LayerFailure> {
    fetch
        .stream(job, move |job, blob| read_blob(job, blob, &layers))
        .await
}

/// Unpacks a blob while it comes in; then checks both digests.
fn read_blob(job: &LayerJob, mut blob: BlobReader, layers: &Layers) -> Result<(), LayerFailure> {
    let mut writer = layers.writer()?;
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
    layers.finish(job, tree, writer)
}

fn unpack(
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
