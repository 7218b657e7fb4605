//! Whether a tree, once written, can be read again within given [`Limits`].

use crate::error::WriteError;
use crate::format::ChunkIndex;
use crate::limits::Limits;
use crate::tree::{Contents, Kind, Tree};
use crate::walk::Walk;
use crate::xattr::{self, PAIR_BYTES};

/// Counts what [`crate::read`] would spend on the image of this tree.
///
/// # Errors
/// [`WriteError::Limit`] where that is more than `limits` allow; also where [`crate::write`] would
/// refuse the tree.
pub fn check(tree: &Tree, limits: &Limits) -> Result<(), WriteError> {
    let walk = Walk::new(tree)?;
    let (mut names, mut bytes) = (0u64, 0u64);
    for visited in &walk.inodes {
        for (name, value) in &visited.inode.xattrs {
            let suffix_bytes = xattr::split(name).map_or(name.len(), |(_, suffix)| suffix.len());
            bytes += suffix_bytes as u64 + value.len() as u64 + PAIR_BYTES;
        }
        bytes += match &visited.inode.kind {
            Kind::Directory(entries) => {
                names += entries.len() as u64;
                entries.keys().map(|name| name.len() as u64).sum()
            }
            Kind::Regular(Contents::Inline(content)) => content.len() as u64,
            Kind::Regular(Contents::Chunks(contents)) => {
                contents.chunks.len() as u64 * size_of::<ChunkIndex>() as u64
            }
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
    }
    for (what, found, max) in [
        ("inodes", walk.inodes.len() as u64, limits.max_inodes.into()),
        ("names", names, limits.max_names.into()),
        (
            "bytes of names, contents and xattrs",
            bytes,
            limits.max_bytes,
        ),
    ] {
        if found > max {
            return Err(WriteError::Limit { what, found, max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ChunkAddress, ChunkedContents, Device, Inode};

    fn tree() -> Tree {
        let mut tree = Tree::new();
        tree.devices.push(Device {
            tag: [b'a'; 64],
            blocks: 100,
        });
        let kinds = [
            Kind::Regular(Contents::Inline((*b"content").into())),
            Kind::Regular(Contents::Chunks(ChunkedContents {
                size_bytes: 9000,
                chunk_log2: 12,
                chunks: vec![
                    None,
                    Some(ChunkAddress {
                        device: 0,
                        start_block: 1,
                    }),
                    None,
                ],
            })),
            Kind::Symlink((*b"target").into()),
            Kind::Directory(std::collections::BTreeMap::new()),
        ];
        for (number, kind) in kinds.into_iter().enumerate() {
            let mut inode = Inode {
                kind,
                ..Inode::empty_directory()
            };
            inode
                .xattrs
                .insert((*b"user.both").into(), (*b"the same").into());
            let id = tree.add(inode).unwrap();
            let name = format!("name-{number}").into_bytes().into_boxed_slice();
            let entries = tree.inode_mut(Tree::ROOT).entries_mut().unwrap();
            entries.insert(name, id);
        }
        tree
    }

    /// The limits that just do, each one less does not: for the check as for the reader.
    #[test]
    fn it_counts_as_the_reader_does() {
        let tree = tree();
        let mut image = Vec::new();
        crate::write(&tree, &mut image).unwrap();
        let bytes = 4 * 6 + 7 + 3 * 8 + 6 + 4 * (4 + 8 + PAIR_BYTES);
        let just = Limits {
            max_inodes: 5,
            max_names: 4,
            max_bytes: bytes,
        };
        check(&tree, &just).unwrap();
        crate::read(&image, &just).unwrap();
        let less = [
            Limits {
                max_inodes: 4,
                ..just
            },
            Limits {
                max_names: 3,
                ..just
            },
            Limits {
                max_bytes: bytes - 1,
                ..just
            },
        ];
        for limits in less {
            assert!(matches!(
                check(&tree, &limits),
                Err(WriteError::Limit { .. })
            ));
            assert!(crate::read(&image, &limits).is_err());
        }
    }
}
