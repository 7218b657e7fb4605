//! One walk over a tree: which inodes an image has, in which order, and with how many names.
//!
//! Guarantees: depth first, a folder before what it holds, entries by their bytes; each inode
//! once, at its first name. Every inode is checked on the way. No recursion, so depth costs heap.

use std::collections::btree_map;

use crate::error::{WriteError, Wrong};
use crate::tree::{Bytes, Inode, InodeId, Kind, Tree};
use crate::validate;

/// Not met yet.
const UNSEEN: u32 = u32::MAX;

/// What the walk found. Its inodes are counted from 0, the root.
#[derive(Debug)]
pub(crate) struct Walk<'tree> {
    /// The inodes in order.
    pub(crate) inodes: Vec<Visited<'tree>>,
    /// From an id of the tree to a place in `inodes`.
    places: Vec<u32>,
}

/// One inode of an image.
#[derive(Debug)]
pub(crate) struct Visited<'tree> {
    pub(crate) inode: &'tree Inode,
    /// What `stat` shows: names, or for a folder 2 and its subfolders.
    pub(crate) links: u32,
    /// The place of the first folder that names it; the root's is the root.
    pub(crate) parent: u32,
}

/// A folder on the way from the root to where the walk is.
struct Level<'tree> {
    place: u32,
    name: &'tree [u8],
    entries: btree_map::Iter<'tree, Bytes, InodeId>,
}

impl<'tree> Walk<'tree> {
    /// Walks and checks the whole tree.
    pub(crate) fn new(tree: &'tree Tree) -> Result<Self, WriteError> {
        let mut walk = Self {
            inodes: Vec::with_capacity(tree.len()),
            places: vec![UNSEEN; tree.len()],
        };
        let mut levels: Vec<Level<'tree>> = Vec::new();
        walk.visit(tree, Tree::ROOT, 0)
            .map_err(|wrong| at(&levels, b"", wrong))?;
        let root = walk.level(tree, Tree::ROOT, b"");
        levels.push(root.ok_or_else(|| at(&[], b"", Wrong::RootNoFolder))?);
        while let Some(level) = levels.last_mut() {
            let Some((name, &id)) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let parent = level.place;
            let found = validate::entry_name(name).and_then(|()| walk.enter(tree, id, parent));
            match found {
                Ok(true) => levels.extend(walk.level(tree, id, name)),
                Ok(false) => {}
                Err(wrong) => return Err(at(&levels, name, wrong)),
            }
        }
        Ok(walk)
    }

    /// An error with the path of an inode's first name. Slow: it looks through the folders above.
    pub(crate) fn error_at(&self, place: usize, wrong: Wrong) -> WriteError {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut place = place;
        while place != 0 {
            let parent = self.inodes[place].parent as usize;
            let entries = self.inodes[parent].inode.entries();
            let name = entries
                .into_iter()
                .flatten()
                .find(|&(_, &id)| self.place(id) == place)
                .map(|(name, _)| &**name);
            parts.push(name.unwrap_or_default());
            place = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        WriteError::Inode { path, wrong }
    }

    /// The place of an inode that the walk met.
    pub(crate) fn place(&self, id: InodeId) -> usize {
        self.places[id.0 as usize] as usize
    }

    /// Follows a folder's entry; whether its inode is a folder.
    fn enter(&mut self, tree: &'tree Tree, id: InodeId, parent: u32) -> Result<bool, Wrong> {
        let Some(&place) = self.places.get(id.0 as usize) else {
            return Err(Wrong::NoSuchInode { id: id.0 });
        };
        let is_directory = tree.inode(id).is_directory();
        if place == UNSEEN {
            self.visit(tree, id, parent)?;
        } else if is_directory {
            return Err(Wrong::FolderTwice);
        } else {
            self.inodes[place as usize].links += 1;
        }
        if is_directory {
            self.inodes[parent as usize].links += 1;
        }
        Ok(is_directory)
    }

    /// Takes in an inode that the walk has not met before.
    fn visit(&mut self, tree: &'tree Tree, id: InodeId, parent: u32) -> Result<(), Wrong> {
        let inode = tree.inode(id);
        validate::inode(inode, &tree.devices)?;
        let place =
            u32::try_from(self.inodes.len()).map_err(|_| Wrong::NoSuchInode { id: id.0 })?;
        self.places[id.0 as usize] = place;
        self.inodes.push(Visited {
            inode,
            links: if inode.is_directory() { 2 } else { 1 },
            parent,
        });
        Ok(())
    }

    fn level(&self, tree: &'tree Tree, id: InodeId, name: &'tree [u8]) -> Option<Level<'tree>> {
        Some(Level {
            place: self.places[id.0 as usize],
            name,
            entries: tree.inode(id).entries()?.iter(),
        })
    }
}

/// An error with the path that the levels and the last name make.
fn at(levels: &[Level<'_>], name: &[u8], wrong: Wrong) -> WriteError {
    let mut path = Vec::new();
    for part in levels.iter().skip(1).map(|level| level.name).chain([name]) {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    WriteError::Inode { path, wrong }
}

impl Tree {
    /// The same tree with only the inodes that an image has, in the order of a walk: depth first,
    /// by name. Two trees that look the same are equal after this.
    ///
    /// # Errors
    /// Where [`crate::write`] would refuse the tree.
    pub fn normalized(&self) -> Result<Self, WriteError> {
        let walk = Walk::new(self)?;
        let mut inodes = Vec::with_capacity(walk.inodes.len());
        for visited in &walk.inodes {
            let mut inode = visited.inode.clone();
            if let Kind::Directory(entries) = &mut inode.kind {
                for id in entries.values_mut() {
                    *id = InodeId(walk.places[id.0 as usize]);
                }
            }
            inodes.push(inode);
        }
        Ok(Self::from_parts(inodes, self.devices.clone()))
    }
}
