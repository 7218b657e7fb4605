//! Layers stacked into one tree, as containerd's overlayfs shows them: pure.
//!
//! A layer's tree is in overlay form: whiteouts are character devices 0:0, opaque folders have
//! `trusted.overlay.opaque=y`. On top of that, folders that the layer's tar did not name but
//! needed carry [`IMPLIED_XATTR`]: containerd gives such a folder the owner, mode and xattrs of
//! the folder of that name in the nearest layer below that has one, each layer looked at by
//! itself and symlinks followed in it. The flattened tree has none of these marks.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};

use crate::acl;
use crate::rooted::{ResolveError, resolve as resolve_path, resolve_in_base, show};
use uimgacc_erofs::tree::{Bytes, Contents, Device, Inode, InodeId, Kind, Timestamp, Tree};

/// Marks a folder whose tar entry is missing; the value says what it takes from below.
pub const IMPLIED_XATTR: &[u8] = b"trusted.uimgacc.implied";
/// Value of [`IMPLIED_XATTR`]: mode, owner, time and xattrs come from below.
pub const IMPLIED_ALL: &[u8] = b"all";
/// Value of [`IMPLIED_XATTR`]: only xattrs come from below (an entry came after its children).
pub const IMPLIED_XATTRS: &[u8] = b"xattrs";
/// overlayfs' mark of a folder that hides what lies below it.
pub const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";

/// Why layers cannot be stacked. containerd refuses the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlattenError {
    /// The way to a folder that a layer implies cannot be followed in a layer below.
    #[error("layer {layer} needs the folder {path} without an entry for it, and in layer {lower}")]
    Resolve {
        /// From 0, bottom first.
        layer: usize,
        /// From 0, bottom first.
        lower: usize,
        /// The folder.
        path: String,
        /// What is in the way.
        source: ResolveError,
    },
    /// More than 2^32 inodes or 2^16 packs.
    #[error("the image has too many {0}")]
    TooMany(&'static str),
}

/// Of a folder: what is made in it gets its group.
const SET_GID: u16 = 0o2000;

/// What a folder shows.
#[derive(Clone)]
struct Attributes {
    permissions: u16,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    xattrs: BTreeMap<Bytes, Bytes>,
}

impl Attributes {
    fn of(inode: &Inode) -> Self {
        Self {
            permissions: inode.permissions,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            xattrs: inode.xattrs.clone(),
        }
    }
}

/// A layer with what its implied folders got from below.
struct Resolved<'a> {
    tree: &'a Tree,
    inherited: HashMap<InodeId, Attributes>,
}

impl Resolved<'_> {
    fn attributes(&self, id: InodeId) -> Attributes {
        self.inherited
            .get(&id)
            .cloned()
            .unwrap_or_else(|| Attributes::of(self.tree.inode(id)))
    }
}

/// What a folder that came from below gives to what its layer makes in it.
#[derive(Clone, Default)]
struct Passed {
    default_acl: Option<Bytes>,
    /// The group of a setgid folder, for implied folders alone: others have one of their own.
    gid: Option<u32>,
}

impl Passed {
    /// Gives a new inode its ACLs, where its entry did not.
    fn give(&self, inode: &Inode, attributes: &mut Attributes) {
        let Some(default) = &self.default_acl else {
            return;
        };
        if inode.is_directory() {
            let xattrs = &mut attributes.xattrs;
            xattrs
                .entry(acl::DEFAULT.into())
                .or_insert_with(|| default.clone());
        }
        if acl::check(default) == Ok(acl::Meaning::More) {
            let access = acl::with_mode(default, attributes.permissions);
            let xattrs = &mut attributes.xattrs;
            xattrs.entry(acl::ACCESS.into()).or_insert(access);
        }
    }
}

/// Finds what the implied folders of layer `number` get from the layers below, and what is made in
/// them from those.
fn resolve<'a>(
    tree: &'a Tree,
    number: usize,
    below: &[Resolved<'a>],
) -> Result<Resolved<'a>, FlattenError> {
    let mut inherited = HashMap::new();
    // Folders to visit, each with its path and what its own folder gives.
    let mut folders = vec![(Tree::ROOT, Vec::<Bytes>::new(), Passed::default())];
    while let Some((id, path, given)) = folders.pop() {
        let inode = tree.inode(id);
        let mark = inode.xattrs.get(IMPLIED_XATTR);
        let from_below = match mark {
            Some(mark) => inherit(inode, mark, &path, number, below)?,
            None => None,
        };
        let is_from_below = from_below.is_some() && mark.is_some_and(|mark| **mark == *IMPLIED_ALL);
        let mut attributes = from_below.clone().unwrap_or_else(|| Attributes::of(inode));
        given.give(inode, &mut attributes);
        let mut passed = Passed::default();
        if from_below.is_some() {
            passed.default_acl = attributes.xattrs.get(acl::DEFAULT).cloned();
        }
        if is_from_below {
            passed.gid = (attributes.permissions & SET_GID != 0).then_some(attributes.gid);
        } else if from_below.is_none()
            && given.default_acl.is_some()
            && !inode.xattrs.contains_key(acl::DEFAULT)
        {
            passed.default_acl.clone_from(&given.default_acl);
        }
        if let (Some(gid), None) = (given.gid, &from_below)
            && mark.is_some_and(|mark| **mark == *IMPLIED_ALL)
        {
            attributes.gid = gid;
        }
        if from_below.is_some() || given.default_acl.is_some() || given.gid.is_some() {
            inherited.insert(id, attributes);
        }
        for (name, child) in inode.entries().into_iter().flatten() {
            let inode = tree.inode(*child);
            if inode.is_directory() {
                let mut path = path.clone();
                path.push(name.clone());
                folders.push((*child, path, passed.clone()));
            } else if passed.default_acl.is_some()
                && !matches!(inode.kind, Kind::Symlink(_))
                && !inode.is_whiteout()
            {
                let mut attributes = Attributes::of(inode);
                passed.give(inode, &mut attributes);
                inherited.insert(*child, attributes);
            }
        }
    }
    Ok(Resolved { tree, inherited })
}

fn inherit(
    inode: &Inode,
    mark: &[u8],
    path: &[Bytes],
    number: usize,
    below: &[Resolved<'_>],
) -> Result<Option<Attributes>, FlattenError> {
    for (lower, layer) in below.iter().enumerate().rev() {
        // Whiteouts of the lowest layer stand for nothing.
        let found = match lower {
            0 => resolve_in_base(layer.tree, path),
            _ => resolve_path(layer.tree, path),
        };
        let found = found.map_err(|source| FlattenError::Resolve {
            layer: number,
            lower,
            path: show(path),
            source,
        })?;
        let Some(found) = found.inode() else {
            continue;
        };
        if !layer.tree.inode(found).is_directory() {
            // The name was something else in between: nothing is taken from further below.
            return Ok(None);
        }
        let from = layer.attributes(found);
        let mut attributes = if mark == IMPLIED_ALL {
            from.clone()
        } else {
            Attributes::of(inode)
        };
        attributes.xattrs = inode.xattrs.clone();
        for (name, value) in from.xattrs {
            // Linux has no "only where there is none" for ACLs: those from below stand.
            let is_acl = mark == IMPLIED_ALL && matches!(&*name, acl::ACCESS | acl::DEFAULT);
            if is_acl {
                attributes.xattrs.insert(name, value);
            } else if !name.starts_with(b"trusted.") {
                attributes.xattrs.entry(name).or_insert(value);
            }
        }
        if let Some(access) = attributes.xattrs.get_mut(acl::ACCESS) {
            *access = acl::with_mode(access, attributes.permissions);
        }
        return Ok(Some(attributes));
    }
    Ok(None)
}

/// The result while layers are laid on it.
struct Merge {
    tree: Tree,
    device_numbers: HashMap<[u8; 64], u16>,
}

impl Merge {
    fn device(&mut self, device: &Device) -> Result<u16, FlattenError> {
        if let Some(number) = self.device_numbers.get(&device.tag) {
            return Ok(*number);
        }
        let number = u16::try_from(self.tree.devices.len())
            .ok()
            .filter(|number| *number < u16::MAX)
            .ok_or(FlattenError::TooMany("packs"))?;
        self.tree.devices.push(device.clone());
        self.device_numbers.insert(device.tag, number);
        Ok(number)
    }

    fn add(&mut self, inode: Inode) -> Result<InodeId, FlattenError> {
        self.tree.add(inode).ok_or(FlattenError::TooMany("inodes"))
    }

    fn lay(&mut self, layer: &Resolved<'_>) -> Result<(), FlattenError> {
        let devices: Vec<u16> = layer
            .tree
            .devices
            .iter()
            .map(|device| self.device(device))
            .collect::<Result<_, _>>()?;
        self.set_attributes(Tree::ROOT, layer.attributes(Tree::ROOT));
        let mut copied: HashMap<InodeId, InodeId> = HashMap::new();
        let mut folders = vec![(Tree::ROOT, Tree::ROOT)];
        while let Some((from, to)) = folders.pop() {
            for (name, child) in layer.tree.inode(from).entries().into_iter().flatten() {
                let inode = layer.tree.inode(*child);
                if inode.is_whiteout() {
                    if let Some(entries) = self.tree.inode_mut(to).entries_mut() {
                        entries.remove(name);
                    }
                } else if inode.is_directory() {
                    let folder = self.folder(to, name, inode)?;
                    self.set_attributes(folder, layer.attributes(*child));
                    folders.push((*child, folder));
                } else {
                    let id = match copied.get(child) {
                        Some(id) => *id,
                        None => {
                            let id = self.add(renumbered(inode, &devices))?;
                            if let Some(attributes) = layer.inherited.get(child) {
                                self.set_attributes(id, attributes.clone());
                            }
                            copied.insert(*child, id);
                            id
                        }
                    };
                    self.insert(to, name, id);
                }
            }
        }
        Ok(())
    }

    /// The folder `name` to lay `inode`'s entries into: the one there, unless hidden.
    fn folder(
        &mut self,
        to: InodeId,
        name: &Bytes,
        inode: &Inode,
    ) -> Result<InodeId, FlattenError> {
        let opaque = inode
            .xattrs
            .get(OPAQUE_XATTR)
            .is_some_and(|value| **value == *b"y");
        let there = self
            .tree
            .inode(to)
            .entries()
            .and_then(|entries| entries.get(name))
            .copied();
        match there.filter(|id| !opaque && self.tree.inode(*id).is_directory()) {
            Some(id) => Ok(id),
            None => {
                let id = self.add(Inode::empty_directory())?;
                self.insert(to, name, id);
                Ok(id)
            }
        }
    }

    fn insert(&mut self, folder: InodeId, name: &Bytes, id: InodeId) {
        if let Some(entries) = self.tree.inode_mut(folder).entries_mut() {
            entries.insert(name.clone(), id);
        }
    }

    fn set_attributes(&mut self, id: InodeId, attributes: Attributes) {
        let inode = self.tree.inode_mut(id);
        inode.permissions = attributes.permissions;
        inode.uid = attributes.uid;
        inode.gid = attributes.gid;
        inode.mtime = attributes.mtime;
        inode.xattrs = attributes.xattrs;
        inode.xattrs.retain(|name, _| !is_mark(name));
    }
}

fn is_mark(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name == IMPLIED_XATTR
}

/// A copy whose chunks count the devices of the result.
fn renumbered(inode: &Inode, devices: &[u16]) -> Inode {
    let mut inode = inode.clone();
    inode.xattrs.retain(|name, _| !is_mark(name));
    if let Kind::Regular(Contents::Chunks(contents)) = &mut inode.kind {
        for chunk in contents.chunks.iter_mut().flatten() {
            chunk.device = devices
                .get(usize::from(chunk.device))
                .copied()
                .unwrap_or(u16::MAX);
        }
    }
    inode
}

/// Stacks `layers`, bottom first, into the tree that a container sees.
///
/// Devices keep their tags, each once, those that nothing refers to left out.
///
/// # Errors
/// What containerd refuses as well, and more than 2^32 inodes or 2^16 packs.
pub fn flatten<T: Borrow<Tree>>(layers: &[T]) -> Result<Tree, FlattenError> {
    let mut resolved: Vec<Resolved<'_>> = Vec::with_capacity(layers.len());
    for (number, tree) in layers.iter().enumerate() {
        let next = resolve(tree.borrow(), number, &resolved)?;
        resolved.push(next);
    }
    let mut merge = Merge {
        tree: Tree::new(),
        device_numbers: HashMap::new(),
    };
    for layer in &resolved {
        merge.lay(layer)?;
    }
    let mut tree = merge.tree;
    drop_unused_devices(&mut tree);
    Ok(tree)
}

/// The inodes that folders name, each once, parents before children, in the order of names.
pub fn reachable(tree: &Tree) -> Vec<InodeId> {
    let mut seen = vec![false; tree.len()];
    let mut order = Vec::new();
    let mut rest = vec![Tree::ROOT];
    while let Some(id) = rest.pop() {
        match seen.get_mut(id.0 as usize) {
            Some(seen) if !*seen => *seen = true,
            _ => continue,
        }
        order.push(id);
        rest.extend(
            tree.inode(id)
                .entries()
                .into_iter()
                .flat_map(BTreeMap::values)
                .rev(),
        );
    }
    order
}

/// Leaves only the devices that a reachable file refers to, in the order of first use.
pub fn drop_unused_devices(tree: &mut Tree) {
    let devices = std::mem::take(&mut tree.devices);
    let mut new_numbers: Vec<Option<u16>> = vec![None; devices.len()];
    let mut kept: Vec<Device> = Vec::new();
    for id in reachable(tree) {
        let Kind::Regular(Contents::Chunks(contents)) = &mut tree.inode_mut(id).kind else {
            continue;
        };
        for chunk in contents.chunks.iter_mut().flatten() {
            let old = usize::from(chunk.device);
            let (Some(slot), Some(device)) = (new_numbers.get_mut(old), devices.get(old)) else {
                continue;
            };
            chunk.device = *slot.get_or_insert_with(|| {
                kept.push(device.clone());
                // No more are kept than there were, and those were counted in 16 bits.
                u16::try_from(kept.len() - 1).unwrap_or(u16::MAX)
            });
        }
    }
    tree.devices = kept;
}

#[cfg(test)]
mod tests;
