//! One layer's tar into a tree, as containerd's overlayfs snapshotter would unpack it: no I/O but
//! the tar's stream and a sink for contents.
//!
//! The tree is in overlay form (see `uimgacc_store::flatten`). What containerd takes is taken in
//! the same way and never outside of the root; what it refuses is refused by name. The only
//! differences: times before 1970 are kept, folders that the tar does not name get the time of
//! the entry that needed them, and old GNU sparse files are taken.

mod attributes;
mod budget;
mod content;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use uimgacc_erofs::tree::{Bytes, DeviceNumber, Inode, InodeId, Kind, Timestamp, Tree};
use uimgacc_store::PutError;
use uimgacc_store::flatten::{IMPLIED_ALL, IMPLIED_XATTR, IMPLIED_XATTRS, OPAQUE_XATTR};
use uimgacc_store::rooted::{ResolveError, RootedPath, clean, resolve, resolve_in_base, show};

use crate::tar::{Entry, EntryKind, TarError, TarReader};
pub(crate) use budget::tree_bytes;
pub use budget::{LayerLimits, MetadataBudget, OverBudget};
pub use content::{ContentSink, Placed};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// Longest name of a folder's entry (Linux `NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;
/// Longest path and longest symlink target (Linux `PATH_MAX`, less the NUL).
const MAX_PATH_BYTES: usize = 4095;
/// As many as an index may have to be read again (`uimgacc_erofs::Limits`).
const MAX_INODES: usize = 10_000_000;

/// Why a layer cannot be taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum LayerError {
    /// The tar is damaged.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry cannot be taken; containerd refuses it as well.
    #[error("the entry {path:?} cannot be taken: {reason}")]
    Refused {
        /// The entry's name.
        path: String,
        reason: String,
    },
    /// An entry's content could not be read or stored.
    #[error("cannot take in the content of {path:?}")]
    Content {
        /// The entry's name.
        path: String,
        source: PutError,
    },
    /// The layer has too many entries.
    #[error("the layer has more than {MAX_INODES} files")]
    TooMany,
    /// Names, xattrs, small contents and chunk tables need too much memory.
    #[error("the metadata of the image's files needs more than {limit}, at {path:?}")]
    TooMuchMetadata {
        /// The bound, for all layers of the image together.
        limit: Arc<OverBudget>,
        /// The entry that went over it.
        path: String,
    },
    /// Contents of sparse files, with the zeros between their pieces, are too long.
    #[error("the layer's contents are longer than {max_bytes} bytes, at {path:?}")]
    TooMuchContent {
        /// The bound.
        max_bytes: u64,
        /// The entry that went over it.
        path: String,
    },
}

fn refused(path: &[u8], reason: impl Into<String>) -> LayerError {
    LayerError::Refused {
        path: String::from_utf8_lossy(path).into_owned(),
        reason: reason.into(),
    }
}

/// Reads a whole tar into a tree; contents go to `sink`.
///
/// `is_base` says that nothing lies below: there containerd lets a whiteout remove what came
/// before it in the same layer, elsewhere it refuses that.
///
/// # Errors
/// A damaged tar, an entry that containerd refuses, a limit, or the sink's error.
pub fn read_layer<R: Read>(
    tar: &mut TarReader<R>,
    sink: &mut dyn ContentSink,
    is_base: bool,
    limits: &LayerLimits,
) -> Result<Tree, LayerError> {
    let mut layer = Layer {
        tree: Tree::new(),
        is_base,
        limits: limits.clone(),
        stored_bytes: 0,
        directory_times: Vec::new(),
        devices: BTreeMap::new(),
    };
    while let Some(entry) = tar.next_entry()? {
        layer.apply(entry, tar, sink)?;
    }
    layer.set_directory_times()?;
    Ok(layer.tree)
}

/// A layer while its entries come in.
struct Layer {
    tree: Tree,
    is_base: bool,
    limits: LayerLimits,
    /// Length of what went to the sink so far.
    stored_bytes: u64,
    /// Times of folders, set at the end as containerd does: by name, through symlinks.
    directory_times: Vec<(Bytes, Timestamp)>,
    /// Numbers of the tree's devices by their tag.
    devices: BTreeMap<[u8; 64], u16>,
}

impl Layer {
    fn apply<R: Read>(
        &mut self,
        entry: Entry,
        tar: &mut TarReader<R>,
        sink: &mut dyn ContentSink,
    ) -> Result<(), LayerError> {
        let names = clean(&entry.name);
        let Some((base, parents)) = names.split_last() else {
            return self.apply_root(&entry);
        };
        if **base == *b".." {
            return self.apply_root(&entry);
        }
        let in_the_way = |source: ResolveError| refused(&entry.name, source.to_string());
        let parent = self.resolve(parents).map_err(in_the_way)?;
        self.check_name(&entry, &parent, base)?;
        self.charge(&entry.name, budget::entry_bytes(&entry))?;
        let folder = self.make_parents(&parent, &entry)?;
        if **base == *OPAQUE_NAME {
            let inode = self.tree.inode_mut(folder);
            if !parent.names.is_empty() {
                // overlayfs merges roots always, whatever their marks.
                inode.xattrs.insert(OPAQUE_XATTR.into(), (*b"y").into());
            }
            return Ok(());
        }
        if let Some(hidden) = base.strip_prefix(WHITEOUT_PREFIX) {
            return self.white_out(folder, hidden, &entry);
        }
        let there = self.entry_of(folder, base);
        if entry.kind == EntryKind::GlobalExtensions {
            // containerd makes room for the name of these, and then nothing in it.
            self.remove(folder, base);
            return Ok(());
        }
        let existing_folder = there
            .filter(|id| entry.kind == EntryKind::Directory && self.tree.inode(*id).is_directory());
        if existing_folder.is_none() && there.is_some() {
            self.remove(folder, base);
        }
        let id = match entry.kind {
            EntryKind::HardLink => self.link_target(&entry)?,
            _ => match existing_folder {
                Some(id) => id,
                None => {
                    let kind = self.kind(&entry, tar, sink)?;
                    let mut inode = Inode {
                        kind,
                        ..Inode::empty_directory()
                    };
                    attributes::inherit(&mut inode, self.tree.inode(folder));
                    self.add_inode(inode)?
                }
            },
        };
        self.set_attributes(id, &entry)?;
        self.insert(folder, base, id);
        if entry.kind == EntryKind::Directory {
            self.directory_times.push((entry.name.into(), entry.mtime));
        }
        Ok(())
    }

    /// containerd passes over entries for the root itself; we take at least its time from them.
    fn apply_root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind == EntryKind::Directory {
            self.tree.inode_mut(Tree::ROOT).mtime = attributes::bounded(entry.mtime);
        }
        Ok(())
    }

    fn check_name(
        &self,
        entry: &Entry,
        parent: &RootedPath,
        base: &Bytes,
    ) -> Result<(), LayerError> {
        let mut length = 0;
        for name in parent.names.iter().chain([base]) {
            if name.len() > MAX_NAME_BYTES {
                return Err(refused(
                    &entry.name,
                    format!("a name of {} bytes ({MAX_NAME_BYTES} at most)", name.len()),
                ));
            }
            if name.contains(&0) {
                return Err(refused(&entry.name, "a NUL in its name"));
            }
            length += name.len() + 1;
        }
        if length > MAX_PATH_BYTES {
            return Err(refused(
                &entry.name,
                format!("a path of {length} bytes ({MAX_PATH_BYTES} at most)"),
            ));
        }
        Ok(())
    }

    /// The folder at `path`; those missing are made and marked as implied.
    fn make_parents(&mut self, path: &RootedPath, entry: &Entry) -> Result<InodeId, LayerError> {
        let mut here = Tree::ROOT;
        for name in &path.names {
            let there = self.entry_of(here, name);
            let next = match there {
                Some(id) if self.tree.inode(id).is_directory() => id,
                Some(id) if !(self.is_base && self.tree.inode(id).is_whiteout()) => {
                    return Err(refused(
                        &entry.name,
                        format!("{} is no folder", show(&path.names)),
                    ));
                }
                _ => {
                    let mut inode = Inode::empty_directory();
                    inode.mtime = attributes::bounded(entry.mtime);
                    attributes::inherit_implied(&mut inode, self.tree.inode(here));
                    self.charge(&entry.name, budget::folder_bytes(&inode, name))?;
                    inode
                        .xattrs
                        .insert(IMPLIED_XATTR.into(), IMPLIED_ALL.into());
                    let id = self.add_inode(inode)?;
                    self.insert(here, name, id);
                    id
                }
            };
            here = next;
        }
        Ok(here)
    }

    fn white_out(
        &mut self,
        folder: InodeId,
        hidden: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(&entry.name, "a whiteout of no name"));
        }
        let hidden: Bytes = hidden.into();
        if self.entry_of(folder, &hidden).is_some() {
            if !self.is_base {
                return Err(refused(
                    &entry.name,
                    "a whiteout of what the same layer holds already",
                ));
            }
            self.remove(folder, &hidden);
        }
        let mut inode = Inode::empty_directory();
        inode.permissions = 0;
        inode.kind = Kind::CharacterDevice(DeviceNumber::WHITEOUT);
        let id = self.add_inode(inode)?;
        self.insert(folder, &hidden, id);
        Ok(())
    }

    /// What a hard link points to: it must be in this layer, and no folder.
    fn link_target(&self, entry: &Entry) -> Result<InodeId, LayerError> {
        let split = entry
            .link
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |slash| slash + 1);
        let (parents, base) = entry.link.split_at(split);
        let nowhere = || {
            refused(
                &entry.name,
                format!(
                    "a hard link to {:?}, which this layer does not hold",
                    String::from_utf8_lossy(&entry.link)
                ),
            )
        };
        let mut path = self.resolve(&clean(parents)).map_err(|_| nowhere())?;
        // The last name is taken by its text: a link to a symlink links the symlink.
        let mut names = std::mem::take(&mut path.names);
        match base {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            _ => names.push(base.into()),
        }
        let mut here = Tree::ROOT;
        for name in &names {
            here = self.entry_of(here, name).ok_or_else(nowhere)?;
        }
        if self.is_base && self.tree.inode(here).is_whiteout() {
            return Err(nowhere());
        }
        if self.tree.inode(here).is_directory() {
            return Err(refused(&entry.name, "a hard link to a folder"));
        }
        Ok(here)
    }

    fn kind<R: Read>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R>,
        sink: &mut dyn ContentSink,
    ) -> Result<Kind, LayerError> {
        Ok(match entry.kind {
            EntryKind::Regular => Kind::Regular(self.take_content(entry, tar, sink)?),
            EntryKind::Directory => Kind::Directory(BTreeMap::new()),
            EntryKind::Symlink => {
                let target = &entry.link;
                if target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains(&0) {
                    return Err(refused(&entry.name, "a symlink to no possible path"));
                }
                Kind::Symlink(target.as_slice().into())
            }
            EntryKind::CharacterDevice => Kind::CharacterDevice(device_number(entry)?),
            EntryKind::BlockDevice => Kind::BlockDevice(device_number(entry)?),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Other(flag) => {
                return Err(refused(
                    &entry.name,
                    format!("an entry of the unknown type {:?}", char::from(flag)),
                ));
            }
            EntryKind::HardLink | EntryKind::GlobalExtensions => {
                return Err(refused(&entry.name, "an entry out of place"));
            }
        })
    }

    fn set_attributes(&mut self, id: InodeId, entry: &Entry) -> Result<(), LayerError> {
        let inode = self.tree.inode_mut(id);
        if let Some(mark) = inode.xattrs.get_mut(IMPLIED_XATTR) {
            // The entry says all but the xattrs that came from below.
            *mark = IMPLIED_XATTRS.into();
        }
        attributes::set(inode, entry).map_err(|reason| refused(&entry.name, reason))
    }

    fn set_directory_times(&mut self) -> Result<(), LayerError> {
        for (name, mtime) in std::mem::take(&mut self.directory_times) {
            let found = self
                .resolve(&clean(&name))
                .map_err(|source| refused(&name, source.to_string()))?
                .inode()
                .ok_or_else(|| refused(&name, "a folder that a later entry removes"))?;
            self.tree.inode_mut(found).mtime = attributes::bounded(mtime);
        }
        Ok(())
    }

    /// Follows a path inside the layer.
    fn resolve(&self, names: &[Bytes]) -> Result<RootedPath, ResolveError> {
        if self.is_base {
            // containerd leaves nothing where a whiteout stood.
            resolve_in_base(&self.tree, names)
        } else {
            resolve(&self.tree, names)
        }
    }

    /// Takes from what the image's metadata may need in memory.
    fn charge(&self, path: &[u8], bytes: u64) -> Result<(), LayerError> {
        self.limits
            .metadata
            .take(bytes)
            .map_err(|limit| LayerError::TooMuchMetadata {
                limit,
                path: String::from_utf8_lossy(path).into_owned(),
            })
    }

    fn entry_of(&self, folder: InodeId, name: &[u8]) -> Option<InodeId> {
        self.tree.inode(folder).entries()?.get(name).copied()
    }

    fn insert(&mut self, folder: InodeId, name: &Bytes, id: InodeId) {
        if let Some(entries) = self.tree.inode_mut(folder).entries_mut() {
            entries.insert(name.clone(), id);
        }
    }

    fn remove(&mut self, folder: InodeId, name: &[u8]) {
        if let Some(entries) = self.tree.inode_mut(folder).entries_mut() {
            entries.remove(name);
        }
    }

    fn add_inode(&mut self, inode: Inode) -> Result<InodeId, LayerError> {
        if self.tree.len() >= MAX_INODES {
            return Err(LayerError::TooMany);
        }
        self.tree.add(inode).ok_or(LayerError::TooMany)
    }
}

fn device_number(entry: &Entry) -> Result<DeviceNumber, LayerError> {
    let (major, minor) = entry.device;
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) if major < 1 << 12 && minor < 1 << 20 => {
            Ok(DeviceNumber { major, minor })
        }
        _ => Err(refused(
            &entry.name,
            format!("the device number {major}:{minor}"),
        )),
    }
}

#[cfg(test)]
mod tests;
