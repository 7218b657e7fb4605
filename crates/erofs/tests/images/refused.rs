//! Trees that EROFS cannot hold: an error that names the path, and nothing written.

use std::collections::BTreeMap;

use uimgacc_erofs::tree::{
    ChunkAddress, ChunkedContents, Contents, Device, DeviceNumber, InodeId, Kind, Tree,
};
use uimgacc_erofs::{MAX_INLINE_BYTES, WriteError, Wrong, write};

use crate::random::link;
use crate::samples::add;

/// What is wrong with a tree, after checking where.
fn refused(tree: &Tree, expected_path: &[u8]) -> Wrong {
    let mut image = Vec::new();
    match write(tree, &mut image) {
        Err(WriteError::Inode { path, wrong }) => {
            assert_eq!(path, expected_path);
            assert!(image.is_empty());
            wrong
        }
        other => panic!("{other:?}"),
    }
}

/// A tree with one inode, `/folder/name`.
fn with(name: &[u8], kind: Kind) -> (Tree, InodeId) {
    let mut tree = Tree::new();
    let folder = add(
        &mut tree,
        Tree::ROOT,
        b"folder",
        Kind::Directory(BTreeMap::new()),
    );
    let id = add(&mut tree, folder, name, kind);
    (tree, id)
}

fn refused_kind(kind: Kind) -> Wrong {
    let (mut tree, _) = with(b"name", kind);
    tree.devices.push(Device {
        tag: [0; 64],
        blocks: 4,
    });
    refused(&tree, b"/folder/name")
}

#[test]
fn names() {
    let refused_name = |name: &[u8]| {
        let (tree, _) = with(name, Kind::Fifo);
        refused(&tree, &[b"/folder/", name].concat())
    };
    assert_eq!(refused_name(b""), Wrong::NameEmpty);
    let long = refused_name(&[b'n'; 256]);
    assert!(matches!(long, Wrong::NameTooLong { found: 256, .. }));
    for name in [&b"."[..], b"..", b"a/b", b"a\0b"] {
        assert!(matches!(refused_name(name), Wrong::NameForbidden { .. }));
    }
}

#[test]
fn contents_and_targets() {
    let target = |bytes: Vec<u8>| refused_kind(Kind::Symlink(bytes.into()));
    assert_eq!(
        target(vec![b'x'; 4096]),
        Wrong::SymlinkTooLong { found: 4096 }
    );
    assert_eq!(target(Vec::new()), Wrong::SymlinkForbidden);
    assert_eq!(target(b"a\0b".to_vec()), Wrong::SymlinkForbidden);
    let inline = vec![0; MAX_INLINE_BYTES + 1].into();
    let found = MAX_INLINE_BYTES as u64 + 1;
    assert_eq!(
        refused_kind(Kind::Regular(Contents::Inline(inline))),
        Wrong::InlineTooLarge { found }
    );
    let number = DeviceNumber {
        major: 4096,
        minor: 0,
    };
    assert_eq!(
        refused_kind(Kind::BlockDevice(number)),
        Wrong::DeviceNumber {
            major: 4096,
            minor: 0
        }
    );
}

#[test]
fn chunks() {
    let chunked = |size_bytes, chunk_log2, chunks: &[Option<(u16, u32)>]| {
        let address = |(device, start_block)| ChunkAddress {
            device,
            start_block,
        };
        let chunks = chunks.iter().map(|chunk| chunk.map(address)).collect();
        refused_kind(Kind::Regular(Contents::Chunks(ChunkedContents {
            size_bytes,
            chunk_log2,
            chunks,
        })))
    };
    assert_eq!(chunked(0, 12, &[]), Wrong::FileSize { found: 0 });
    assert_eq!(
        chunked(u64::MAX, 43, &[]),
        Wrong::FileSize { found: u64::MAX }
    );
    assert_eq!(chunked(1, 11, &[None]), Wrong::ChunkSize { found: 11 });
    assert_eq!(chunked(1, 44, &[None]), Wrong::ChunkSize { found: 44 });
    assert_eq!(
        chunked(4097, 12, &[None]),
        Wrong::ChunkCount {
            found: 1,
            expected: 2
        }
    );
    assert_eq!(
        chunked(1, 12, &[Some((1, 0))]),
        Wrong::ChunkDevice {
            device: 1,
            devices: 1
        }
    );
    let past_end = |start_block| Wrong::ChunkPastEnd {
        device: 0,
        start_block,
        blocks: 4,
    };
    assert_eq!(chunked(1, 12, &[Some((0, 4))]), past_end(4));
    assert_eq!(chunked(4097, 13, &[Some((0, 3))]), past_end(3));
    assert_eq!(chunked(1, 12, &[Some((0, u32::MAX))]), past_end(u32::MAX));
}

#[test]
fn xattrs() {
    let refused_xattr = |name: &[u8], length: usize| {
        let (mut tree, id) = with(b"name", Kind::Fifo);
        tree.inode_mut(id)
            .xattrs
            .insert(name.into(), vec![0; length].into());
        refused(&tree, b"/folder/name")
    };
    for name in [
        &b"nothing"[..],
        b"system.other",
        b"system.posix_acl_accessx",
        b"lustre.x",
    ] {
        assert!(matches!(refused_xattr(name, 0), Wrong::XattrPrefix { .. }));
    }
    for name in [
        &b"user."[..],
        b"trusted.a\0b",
        &[b"user.", &[b'x'; 251][..]].concat(),
    ] {
        assert!(matches!(refused_xattr(name, 0), Wrong::XattrName { .. }));
    }
    let large = refused_xattr(b"user.x", 65_536);
    assert!(matches!(
        large,
        Wrong::XattrValueTooLarge { found: 65_536, .. }
    ));

    let (mut tree, id) = with(b"name", Kind::Fifo);
    for number in 0..5 {
        let name = format!("trusted.{number}").into_bytes();
        tree.inode_mut(id)
            .xattrs
            .insert(name.into(), vec![0; 65_535].into());
    }
    assert!(matches!(
        refused(&tree, b"/folder/name"),
        Wrong::XattrsTooLarge { .. }
    ));
}

#[test]
fn shapes() {
    let mut tree = Tree::new();
    let folder = add(
        &mut tree,
        Tree::ROOT,
        b"folder",
        Kind::Directory(BTreeMap::new()),
    );
    link(&mut tree, folder, (*b"itself").into(), folder);
    assert_eq!(refused(&tree, b"/folder/itself"), Wrong::FolderTwice);

    let mut tree = Tree::new();
    link(&mut tree, Tree::ROOT, (*b"root").into(), Tree::ROOT);
    assert_eq!(refused(&tree, b"/root"), Wrong::FolderTwice);

    let mut tree = Tree::new();
    link(&mut tree, Tree::ROOT, (*b"none").into(), InodeId(7));
    assert_eq!(refused(&tree, b"/none"), Wrong::NoSuchInode { id: 7 });

    let mut tree = Tree::new();
    tree.inode_mut(Tree::ROOT).kind = Kind::Fifo;
    assert_eq!(refused(&tree, b"/"), Wrong::RootNoFolder);

    let (mut tree, id) = with(b"name", Kind::Fifo);
    tree.inode_mut(id).permissions = 0o10000;
    assert!(matches!(
        refused(&tree, b"/folder/name"),
        Wrong::Permissions { .. }
    ));
    let (mut tree, id) = with(b"name", Kind::Fifo);
    tree.inode_mut(id).mtime.nanoseconds = 1_000_000_000;
    assert!(matches!(
        refused(&tree, b"/folder/name"),
        Wrong::Nanoseconds { .. }
    ));

    let mut tree = Tree::new();
    tree.devices = vec![
        Device {
            tag: [0; 64],
            blocks: 1
        };
        65_536
    ];
    let error = write(&tree, &mut Vec::new());
    assert!(matches!(
        error,
        Err(WriteError::TooManyDevices { found: 65_536 })
    ));
}

/// A full disk comes out as it went in.
#[test]
fn output_errors_are_passed_on() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    match write(&Tree::new(), &mut Full) {
        Err(WriteError::Output(error)) => {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        }
        other => panic!("{other:?}"),
    }
}
