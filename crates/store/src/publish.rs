//! What a session reads of layers and indexes, and how it brings its own ones into the store.
//!
//! Guarantees: names of layers and indexes stay with the first to come, unless what has the name
//! is damaged or names packs that are gone: that is replaced, never removed, so others' work is
//! whole at each moment.

use std::io::BufWriter;

use uimgacc_erofs::tree::{ChunkAddress, Contents, Device, Kind, Tree};
use uimgacc_types::{ChainId, DiffId, Digest, Extent, chain_ids};

use crate::clock::server_time;
use crate::commit::failed;
use crate::copies::write_copy;
use crate::device::pack_of;
use crate::error::SessionError;
use crate::format::{BLOCK_BYTES, MAX_INDEX_BYTES};
use crate::hashing::Hashing;
use crate::index_file::{digest_of, read_sound_index};
use crate::path::StorePath;
use crate::reader::{ReadError, sound, unreadable};
use crate::record::FormerRecord;
use crate::repack::pieces;
use crate::session::Session;
use crate::workspace::Workspace;
use crate::{
    ChainLayer, ChainRecord, ImageRecord, IndexRecord, Layout, Published, known_chains, machine,
};

impl Session {
    /// The tree of a layer that is in the store with all of its packs.
    ///
    /// # Errors
    /// The file system's error.
    pub fn layer(&self, diff_id: DiffId) -> Result<Option<(Tree, ChainLayer)>, SessionError> {
        let path = self.reader().layout().layer(diff_id);
        let Some((tree, index_digest, _)) = read_sound_index(&path)? else {
            return Ok(None);
        };
        if !self.is_whole(&tree)? {
            // A layer whose packs were lost is converted again and then takes this one's place.
            return Ok(None);
        }
        Ok(Some((
            tree,
            ChainLayer {
                diff_id,
                index_digest,
            },
        )))
    }

    /// The flattened index of a chain that is in the store with all that it needs.
    ///
    /// # Errors
    /// The file system's error.
    pub fn index(&self, chain_id: ChainId) -> Result<Option<(Tree, IndexRecord)>, SessionError> {
        let layout = self.reader().layout();
        let Some(chain) = self.sound_chain(chain_id)? else {
            return Ok(None);
        };
        let Some(record) = chain.index else {
            return Ok(None);
        };
        let path = layout.index(chain_id);
        let Some((tree, digest, _)) = read_sound_index(&path)? else {
            return Ok(None);
        };
        if digest != record.digest {
            tracing::warn!(
                "{} has the digest {digest} instead of {}: it is made again",
                path,
                record.digest
            );
            return Ok(None);
        }
        for layer in &chain.layers {
            let digest = digest_of(&layout.layer(layer.diff_id))?.map(|(digest, _)| digest);
            if digest != Some(layer.index_digest) {
                return Ok(None);
            }
        }
        if !self.is_whole(&tree)? {
            return Ok(None);
        }
        Ok(Some((tree, record)))
    }

    /// Whether every pack of an index of the store is there, and nothing that it names is given up.
    fn is_whole(&self, tree: &Tree) -> Result<bool, ReadError> {
        let mut tables = Vec::new();
        for device in &tree.devices {
            let table = match pack_of(device) {
                Some(id) => self.shared.tables.get(id)?,
                None => None,
            };
            match table {
                Some(table) => tables.push(table),
                None => return Ok(false),
            }
        }
        let is_dead = |chunk: ChunkAddress, len_bytes: u64| {
            let offset_bytes = u64::from(chunk.start_block) * BLOCK_BYTES;
            let extent = Extent {
                offset_bytes,
                len_bytes,
            };
            let table = tables.get(usize::from(chunk.device));
            table.is_none_or(|table| table.is_dead(extent))
        };
        for (_, inode) in tree.iter() {
            let Kind::Regular(Contents::Chunks(contents)) = &inode.kind else {
                continue;
            };
            if pieces(contents).any(|(chunk, len_bytes)| is_dead(chunk, len_bytes)) {
                tracing::warn!(
                    "an index names contents that are given up (run `uimgacc store verify`)"
                );
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A chain's record; a damaged one is told and counts as not there.
    fn sound_chain(&self, chain_id: ChainId) -> Result<Option<ChainRecord>, ReadError> {
        match self.reader().chain(chain_id) {
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::warn!("{error}");
                Ok(None)
            }
            other => other,
        }
    }

    /// Writes a layer's index. All packs must be sealed and the tree settled.
    ///
    /// # Errors
    /// The tree cannot be written, or the store cannot.
    pub fn publish_layer(&self, diff_id: DiffId, tree: &Tree) -> Result<ChainLayer, SessionError> {
        let path = self.reader().layout().layer(diff_id);
        let (_, index_digest, _) = self.publish_index_file(&path, tree, &|| {
            // Nodes stack layers themselves where they have but a prefix of an image.
            for chain in known_chains(self.reader().layout())? {
                let record = sound(self.reader().chain(chain))?.flatten();
                let layers = record.iter().flat_map(|record| &record.layers);
                if layers.into_iter().any(|layer| layer.diff_id == diff_id) {
                    note_former(self.reader().layout(), self.workspace(), chain)?;
                }
            }
            Ok(())
        })?;
        Ok(ChainLayer {
            diff_id,
            index_digest,
        })
    }

    /// Writes the flattened index of a chain.
    ///
    /// # Errors
    /// The tree cannot be written, or the store cannot.
    pub fn publish_index(
        &self,
        chain_id: ChainId,
        tree: &Tree,
    ) -> Result<IndexRecord, SessionError> {
        let path = self.reader().layout().index(chain_id);
        let note = || note_former(self.reader().layout(), self.workspace(), chain_id);
        let (devices, digest, size) = self.publish_index_file(&path, tree, &note)?;
        Ok(IndexRecord {
            digest,
            size,
            packs: devices.iter().filter_map(pack_of).collect(),
        })
    }

    /// Writes an index unless its name is taken by a whole one; gives the devices, digest and
    /// length of the one that has the name in the end. `before_replacing` is called before another one goes.
    fn publish_index_file(
        &self,
        path: &StorePath,
        tree: &Tree,
        before_replacing: &dyn Fn() -> Result<(), SessionError>,
    ) -> Result<(Vec<Device>, Digest, u64), SessionError> {
        let unfit = |source| SessionError::Index {
            path: path.on_host(),
            source,
        };
        uimgacc_erofs::check(tree, &self.limits).map_err(unfit)?;
        let id = machine::random_id().map_err(failed("name a temporary file for", path))?;
        let workspace = self.workspace();
        let write = |name: &str| -> Result<(StorePath, Digest, u64), SessionError> {
            let (temporary, file) = workspace.create(name)?;
            let mut out = Hashing::of(BufWriter::with_capacity(1 << 20, file));
            uimgacc_erofs::write(tree, &mut out).map_err(unfit)?;
            let (digest, length) = (out.digest(), out.written);
            let file = out
                .inner
                .into_inner()
                .map_err(|error| workspace.failed("write", &temporary)(error.into_error()))?;
            file.sync_all()
                .map_err(workspace.failed("sync", &temporary))?;
            if length > MAX_INDEX_BYTES {
                return Err(SessionError::IndexTooLarge {
                    path: path.on_host(),
                    found_bytes: length,
                });
            }
            let copy = self.reader().layout().index_copy(digest);
            let mut written = temporary
                .open()
                .map_err(workspace.failed("open", &temporary))?;
            write_copy(workspace, &mut written, &copy)?;
            Ok((temporary, digest, length))
        };
        let (temporary, digest, written) = write(&format!("index-{id}"))?;
        if workspace.publish(&temporary, path)? == Published::New {
            return Ok((tree.devices.clone(), digest, written));
        }
        if let Some((there, digest, size)) = read_sound_index(path)?
            && self.is_whole(&there)?
        {
            return Ok((there.devices, digest, size));
        }
        before_replacing()?;
        let (temporary, digest, written) = write(&format!("index-{id}-again"))?;
        workspace.replace(&temporary, path)?;
        Ok((tree.devices.clone(), digest, written))
    }

    /// Writes a chain record. One without an index never takes the place of one with the same
    /// layers.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn publish_chain(&self, record: &ChainRecord) -> Result<(), SessionError> {
        let layout = self.reader().layout();
        let path = layout.chain(record.chain_id);
        let mut before = None;
        // A second look where somebody else was faster; what stands then is replaced.
        for _ in 0..2 {
            let is_free = !path.exists().map_err(unreadable(&path))?;
            before = self.sound_chain(record.chain_id)?;
            match &before {
                None if is_free => {
                    if self.workspace().publish_json(&path, record)? == Published::New {
                        return Ok(());
                    }
                }
                Some(there) if there == record => return Ok(()),
                Some(there) if record.index.is_none() && there.layers == record.layers => {
                    return Ok(());
                }
                _ => break,
            }
        }
        let mut record = record.clone();
        if let Some(there) = &before {
            record.index = record.index.or_else(|| there.index.clone());
        }
        let is_more = before.is_some_and(|there| {
            let index_stays = there.index.is_none() || there.index == record.index;
            there.layers == record.layers && index_stays
        });
        if !is_more {
            // Others may have mounted what it named before.
            note_former(layout, self.workspace(), record.chain_id)?;
        }
        Ok(self.workspace().replace_json(&path, &record)?)
    }

    /// Writes the image record: the commit point. What it leads to must be there; chain records
    /// that are not are written again.
    ///
    /// # Errors
    /// Something it needs is gone, or the store cannot be written.
    pub fn publish_image(&self, record: &ImageRecord) -> Result<(), SessionError> {
        // After a standstill gc may have taken away what is looked for here.
        self.record_image(record)
            .map_err(|error| self.workspace().explain(error))
    }

    fn record_image(&self, record: &ImageRecord) -> Result<(), SessionError> {
        let layout = self.reader().layout();
        for id in &record.index.packs {
            let pack = layout.pack(*id);
            if !pack.exists().map_err(unreadable(&pack))? {
                return Err(SessionError::PackGone(*id));
            }
        }
        let path = layout.index(record.chain_id);
        if digest_of(&path)? != Some((record.index.digest, record.index.size)) {
            return Err(vanished(&path));
        }
        for id in &record.diff_ids {
            let path = layout.layer(*id);
            if !path.exists().map_err(unreadable(&path))? {
                return Err(vanished(&path));
            }
        }
        self.complete_chains(record)?;
        self.publish_filters()?;
        let path = layout.image(&record.target);
        Ok(self.workspace().replace_json(&path, record)?)
    }

    /// Writes the chain records of an image that are missing.
    fn complete_chains(&self, image: &ImageRecord) -> Result<(), SessionError> {
        let layout = self.reader().layout();
        let mut layers: Vec<ChainLayer> = Vec::new();
        for (length, chain_id) in (1..).zip(chain_ids(&image.diff_ids)) {
            let index = (length == image.diff_ids.len()).then(|| image.index.clone());
            let is_there = self
                .sound_chain(chain_id)?
                .is_some_and(|there| index.is_none() || there.index == index);
            if is_there {
                continue;
            }
            for diff_id in image.diff_ids.get(layers.len()..length).unwrap_or_default() {
                let path = layout.layer(*diff_id);
                let Some((index_digest, _)) = digest_of(&path)? else {
                    return Err(vanished(&path));
                };
                layers.push(ChainLayer {
                    diff_id: *diff_id,
                    index_digest,
                });
            }
            self.publish_chain(&ChainRecord {
                chain_id,
                layers: layers.clone(),
                index,
            })?;
        }
        Ok(())
    }
}

/// Notes that a chain gets other indexes than it had: who holds it may read those. See [`crate::gc`].
pub(crate) fn note_former(
    layout: &Layout,
    workspace: &Workspace,
    chain_id: ChainId,
) -> Result<(), SessionError> {
    let since_unix = server_time(layout);
    let path = layout.former_chain(chain_id);
    Ok(workspace.replace_json(&path, &FormerRecord { since_unix })?)
}

fn vanished(path: &StorePath) -> SessionError {
    SessionError::Vanished {
        path: path.on_host(),
    }
}

#[cfg(test)]
mod tests {
    use uimgacc_erofs::tree::{Inode, Kind};

    use super::*;

    #[test]
    fn what_nobody_could_read_again_is_not_published() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = crate::init(folder.path()).unwrap();
        let mut session = Session::begin(store.clone()).unwrap();
        let mut tree = Tree::new();
        let fifo = tree
            .add(Inode {
                kind: Kind::Fifo,
                ..Inode::empty_directory()
            })
            .unwrap();
        let entries = tree.inode_mut(Tree::ROOT).entries_mut().unwrap();
        for name in [*b"a", *b"b", *b"c"] {
            entries.insert(name.into(), fifo);
        }
        let diff_id = DiffId::from_bytes([1; 32]);
        let chain_id = ChainId::from_bytes([1; 32]);
        session.limits.max_names = 2;
        let refused = session.publish_layer(diff_id, &tree).unwrap_err();
        assert!(matches!(refused, SessionError::Index { .. }), "{refused}");
        session.publish_index(chain_id, &tree).unwrap_err();
        assert!(!store.layout().layer(diff_id).exists().unwrap());
        assert!(!store.layout().index(chain_id).exists().unwrap());
        session.limits.max_names = 3;
        session.publish_layer(diff_id, &tree).unwrap();
        assert!(store.layout().layer(diff_id).exists().unwrap());
    }
}
