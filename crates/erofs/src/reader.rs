//! The reader: an image, trusted in nothing, back into a [`Tree`].
//!
//! Guarantees: every length and address is checked before it is used; each inode is read once, so
//! loops end; what is kept is counted against [`Limits`] before it is kept. A tree that comes out
//! can be written again and then reads the same, unless the image shares more xattrs with a single
//! inode than fit beside it.
//!
//! Assumptions: the image uses what [`crate::write`] uses. Contents larger than
//! [`crate::MAX_INLINE_BYTES`] inside the image, compression and the like are errors by name.

mod directory;
mod image;
mod inode;
mod xattrs;

use std::collections::HashMap;

use crate::error::{ReadError, Wrong};
use crate::limits::Limits;
use crate::tree::{Device, InodeId, Tree};
use crate::writer::kind_numbers;

use directory::Entry;
use image::Image;
use inode::Parsed;

/// Reads an image into a tree, its inodes in the order of [`Tree::normalized`].
///
/// # Errors
/// Where the image is damaged, uses what this reader does not know, or is past a limit.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Tree, ReadError> {
    let image = Image::new(bytes)?;
    let mut reading = Reading {
        budget: Budget::new(*limits),
        tree: Tree::from_parts(Vec::new(), image.devices.clone()),
        known: HashMap::new(),
        image: &image,
    };
    reading.run()?;
    Ok(reading.tree)
}

/// The devices of an image, from its first bytes alone.
///
/// # Errors
/// As for [`read`]; [`ReadError::OutOfBounds`] where the device table ends behind these bytes.
pub fn read_devices(bytes: &[u8]) -> Result<Vec<Device>, ReadError> {
    Ok(Image::new(bytes)?.devices)
}

/// What may still be kept.
struct Budget {
    limits: Limits,
    inodes: u32,
    names: u32,
    bytes: u64,
}

impl Budget {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            inodes: limits.max_inodes,
            names: limits.max_names,
            bytes: limits.max_bytes,
        }
    }

    fn take_inode(&mut self) -> Result<(), ReadError> {
        let left = self.inodes.checked_sub(1);
        self.inodes = left.ok_or(ReadError::Limit {
            what: "inodes",
            max: self.limits.max_inodes.into(),
        })?;
        Ok(())
    }

    fn take_name(&mut self, length: usize) -> Result<(), ReadError> {
        let left = self.names.checked_sub(1);
        self.names = left.ok_or(ReadError::Limit {
            what: "names",
            max: self.limits.max_names.into(),
        })?;
        self.take_bytes(length as u64)
    }

    fn take_bytes(&mut self, length: u64) -> Result<(), ReadError> {
        let left = self.bytes.checked_sub(length);
        self.bytes = left.ok_or(ReadError::Limit {
            what: "bytes of names, contents and xattrs",
            max: self.limits.max_bytes,
        })?;
        Ok(())
    }
}

/// An inode that has been read.
struct Known {
    id: InodeId,
    /// As the inode says.
    links: u32,
    /// As the folders say.
    found_links: u32,
}

/// A folder on the way from the root to where the reader is.
struct Level {
    id: InodeId,
    nid: u64,
    entries: std::vec::IntoIter<Entry>,
}

struct Reading<'image, 'bytes> {
    image: &'image Image<'bytes>,
    budget: Budget,
    tree: Tree,
    known: HashMap<u64, Known>,
}

impl Reading<'_, '_> {
    fn run(&mut self) -> Result<(), ReadError> {
        let root = u64::from(self.image.root_nid);
        let (_, level) = self.visit(root, root)?;
        let Some(level) = level else {
            return Err(ReadError::Inode {
                nid: root,
                wrong: Wrong::RootNoFolder,
            });
        };
        let mut levels = vec![level];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let (folder, folder_nid) = (level.id, level.nid);
            levels.extend(self.enter(folder, folder_nid, entry)?);
        }
        self.check_links()
    }

    /// Follows a folder's entry; into a folder where it leads to one.
    fn enter(
        &mut self,
        folder: InodeId,
        folder_nid: u64,
        entry: Entry,
    ) -> Result<Option<Level>, ReadError> {
        let nid = entry.nid;
        let (id, level) = match self.known.get(&nid) {
            Some(known) => (known.id, None),
            None => self.visit(nid, folder_nid)?,
        };
        let inode = self.tree.inode(id);
        let is_directory = inode.is_directory();
        let file_type = kind_numbers(&inode.kind).1;
        if file_type != entry.file_type {
            return Err(ReadError::Malformed {
                nid,
                what: "its type in a folder",
                found: entry.file_type.into(),
            });
        }
        if is_directory && level.is_none() {
            return Err(ReadError::Inode {
                nid,
                wrong: Wrong::FolderTwice,
            });
        }
        if !is_directory {
            self.add_link(nid);
        } else {
            self.add_link(folder_nid);
        }
        if let Some(entries) = self.tree.inode_mut(folder).entries_mut() {
            entries.insert(entry.name, id);
        }
        Ok(level)
    }

    fn add_link(&mut self, nid: u64) {
        if let Some(known) = self.known.get_mut(&nid) {
            known.found_links = known.found_links.saturating_add(1);
        }
    }

    /// Reads an inode that has not been read yet, with its entries where it is a folder.
    fn visit(&mut self, nid: u64, parent_nid: u64) -> Result<(InodeId, Option<Level>), ReadError> {
        self.budget.take_inode()?;
        let Parsed {
            inode,
            links,
            folder,
        } = inode::parse(self.image, nid, &mut self.budget)?;
        let id = self.tree.add(inode).ok_or(ReadError::Limit {
            what: "inodes",
            max: u32::MAX.into(),
        })?;
        let found_links = if folder.is_some() { 2 } else { 0 };
        self.known.insert(
            nid,
            Known {
                id,
                links,
                found_links,
            },
        );
        let Some(data) = folder else {
            return Ok((id, None));
        };
        let entries = directory::entries(self.image, &data, nid, parent_nid, &mut self.budget)?;
        let entries = entries.into_iter();
        Ok((id, Some(Level { id, nid, entries })))
    }

    fn check_links(&self) -> Result<(), ReadError> {
        let wrong = |known: &&Known| known.links != known.found_links;
        let found = self.known.iter().filter(|(_, known)| wrong(known));
        // The least, so that the same image gives the same error.
        match found.min_by_key(|&(&nid, _)| nid) {
            None => Ok(()),
            Some((&nid, known)) => Err(ReadError::Malformed {
                nid,
                what: "its count of names",
                found: known.links.into(),
            }),
        }
    }
}
