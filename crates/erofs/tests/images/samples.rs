//! Trees made by hand: each holds one thing that is easy to get wrong.

use std::collections::BTreeMap;

use uimgacc_erofs::tree::{
    Bytes, ChunkAddress, ChunkedContents, Contents, Device, DeviceNumber, Inode, InodeId, Kind,
    Timestamp, Tree,
};

use crate::random::{ACL, CAPABILITY, link};

pub(crate) fn all() -> Vec<(&'static str, Tree)> {
    vec![
        ("empty", Tree::new()),
        ("overlay", overlay()),
        ("every kind", every_kind()),
        ("folders of every size", folder_sizes()),
        ("full blocks", full_blocks()),
        ("xattrs past a block", large_xattrs()),
        ("sparse terabytes", sparse()),
        ("many devices", many_devices()),
        ("many hard links", many_links()),
    ]
}

pub(crate) fn add(tree: &mut Tree, folder: InodeId, name: &[u8], kind: Kind) -> InodeId {
    let inode = Inode {
        permissions: 0o644,
        kind,
        ..Inode::empty_directory()
    };
    let id = tree.add(inode).unwrap();
    link(tree, folder, name.into(), id);
    id
}

fn folder() -> Kind {
    Kind::Directory(BTreeMap::new())
}

fn file(bytes: &[u8]) -> Kind {
    Kind::Regular(Contents::Inline(bytes.into()))
}

fn set_xattr(tree: &mut Tree, id: InodeId, name: &[u8], value: &[u8]) {
    tree.inode_mut(id).xattrs.insert(name.into(), value.into());
}

/// Whiteouts and opaque folders as overlayfs wants them in a lower layer.
pub(crate) fn overlay() -> Tree {
    let mut tree = Tree::new();
    let opaque = add(&mut tree, Tree::ROOT, b"opaque", folder());
    set_xattr(&mut tree, opaque, b"trusted.overlay.opaque", b"y");
    let gone = Kind::CharacterDevice(DeviceNumber::WHITEOUT);
    add(&mut tree, opaque, b"gone", gone.clone());
    add(&mut tree, Tree::ROOT, b"gone", gone);
    tree
}

/// One of everything; also the golden image.
pub(crate) fn every_kind() -> Tree {
    let mut tree = Tree::new();
    let mut tag = [0; 64];
    tag[..4].copy_from_slice(b"pack");
    tree.devices.push(Device { tag, blocks: 8 });
    tree.inode_mut(Tree::ROOT).mtime.seconds = 1_700_000_000;

    let empty = add(&mut tree, Tree::ROOT, b"empty", file(b""));
    let small = add(&mut tree, Tree::ROOT, b"small", file(b"some bytes\n"));
    link(&mut tree, Tree::ROOT, (*b"small-too").into(), small);
    add(
        &mut tree,
        Tree::ROOT,
        b"link",
        Kind::Symlink((*b"../else/where").into()),
    );
    add(
        &mut tree,
        Tree::ROOT,
        b"long-link",
        Kind::Symlink(vec![b'x'; 4095].into()),
    );
    let number = DeviceNumber {
        major: 4095,
        minor: 0x000F_ABCD,
    };
    add(
        &mut tree,
        Tree::ROOT,
        b"character",
        Kind::CharacterDevice(number),
    );
    add(
        &mut tree,
        Tree::ROOT,
        b"block",
        Kind::BlockDevice(DeviceNumber {
            major: 8,
            minor: 257,
        }),
    );
    add(&mut tree, Tree::ROOT, b"fifo", Kind::Fifo);
    add(&mut tree, Tree::ROOT, b"socket", Kind::Socket);
    let chunked = Kind::Regular(Contents::Chunks(ChunkedContents {
        size_bytes: 4096 * 6 + 1,
        chunk_log2: 13,
        chunks: vec![
            Some(ChunkAddress {
                device: 0,
                start_block: 2,
            }),
            None,
            Some(ChunkAddress {
                device: 0,
                start_block: 0,
            }),
            Some(ChunkAddress {
                device: 0,
                start_block: 7,
            }),
        ],
    }));
    let chunked = add(&mut tree, Tree::ROOT, b"chunked", chunked);

    // Names on both sides of `.` and `..`, and bytes that are no text.
    for name in [&b"!"[..], b"-", b".a", b"..a", b"...", b"\xFF\xFE", b"a\nb"] {
        add(&mut tree, Tree::ROOT, name, file(name));
    }

    let inner = add(&mut tree, Tree::ROOT, b"folder", folder());
    let deeper = add(&mut tree, inner, b"deeper", folder());
    link(&mut tree, deeper, (*b"small-again").into(), small);
    tree.inode_mut(inner).mtime = Timestamp {
        seconds: -86_401,
        nanoseconds: 999_999_999,
    };
    tree.inode_mut(empty).uid = 4_000_000_000;
    tree.inode_mut(small).gid = 65_536;
    tree.inode_mut(deeper).permissions = 0o7777;

    set_xattr(&mut tree, chunked, b"security.capability", &CAPABILITY);
    set_xattr(&mut tree, inner, b"system.posix_acl_access", &ACL);
    set_xattr(&mut tree, inner, b"system.posix_acl_default", &ACL);
    for id in [empty, small, chunked, inner, deeper] {
        set_xattr(
            &mut tree,
            id,
            b"user.shared",
            b"a value that several inodes have",
        );
    }
    set_xattr(&mut tree, empty, b"user.none", b"");
    tree
}

/// Folders whose last block ends at every place around a block's end.
fn folder_sizes() -> Tree {
    let mut tree = Tree::new();
    // `.` and `..` take 27 bytes, and each of these names 212.
    for last in [1, 16, 17, 18, 255] {
        for count in [0, 1, 18, 19, 20, 38, 39] {
            let name = format!("{last}-{count}");
            let folder = add(&mut tree, Tree::ROOT, name.as_bytes(), folder());
            for number in 0..count {
                let name = format!("{number:0200}");
                add(&mut tree, folder, name.as_bytes(), file(b""));
            }
            add(&mut tree, folder, &vec![b'z'; last], file(b""));
        }
    }
    tree
}

/// Folders that fill whole blocks to the last byte.
fn full_blocks() -> Tree {
    let mut tree = Tree::new();
    for blocks in 1..4_usize {
        let folder = add(
            &mut tree,
            Tree::ROOT,
            format!("{blocks}").as_bytes(),
            folder(),
        );
        for block in 0..blocks {
            // 15 names of 256 bytes on disk and one of 229 or 256: 4096 with the dots' 27.
            for number in 0..16 {
                let width = if block == 0 && number == 15 { 217 } else { 244 };
                let name = format!("{:0width$}", block * 16 + number);
                add(&mut tree, folder, name.as_bytes(), file(b""));
            }
        }
    }
    tree
}

fn large_xattrs() -> Tree {
    let mut tree = Tree::new();
    for (name, kind) in [
        (&b"file"[..], file(b"inline beside large xattrs")),
        (b"folder", folder()),
        (b"link", Kind::Symlink((*b"target").into())),
        (b"hole", Kind::Regular(Contents::Chunks(hole(5000, 12)))),
    ] {
        for length in [3000_usize, 4000, 4064, 4096, 10_000, 65_535] {
            let name = [name, format!("{length}").as_bytes()].concat();
            let id = add(&mut tree, Tree::ROOT, &name, kind.clone());
            set_xattr(&mut tree, id, b"trusted.large", &vec![b'v'; length]);
            set_xattr(&mut tree, id, b"trusted.own", &name);
        }
    }
    for number in 0..3 {
        let id = add(
            &mut tree,
            Tree::ROOT,
            format!("shared{number}").as_bytes(),
            file(b"x"),
        );
        for index in 0..400 {
            let value: Bytes = format!("a value of number {index}").into_bytes().into();
            set_xattr(&mut tree, id, format!("trusted.{index}").as_bytes(), &value);
        }
    }
    tree
}

fn hole(size_bytes: u64, chunk_log2: u8) -> ChunkedContents {
    let count = usize::try_from(size_bytes.div_ceil(1 << chunk_log2)).unwrap();
    ChunkedContents {
        size_bytes,
        chunk_log2,
        chunks: vec![None; count],
    }
}

fn sparse() -> Tree {
    let mut tree = Tree::new();
    tree.devices.push(Device {
        tag: [0; 64],
        blocks: 1,
    });
    for (name, size_bytes, chunk_log2) in [
        (&b"1T"[..], 1_u64 << 40, 43),
        (b"1T-chunks", 1 << 40, 30),
        (b"4G", (1 << 32) - 1, 31),
        (b"5G", (5 << 30) + 1, 20),
    ] {
        let kind = Kind::Regular(Contents::Chunks(hole(size_bytes, chunk_log2)));
        add(&mut tree, Tree::ROOT, name, kind);
    }
    let mut island = hole((1 << 40) + 100, 30);
    *island.chunks.last_mut().unwrap() = Some(ChunkAddress {
        device: 0,
        start_block: 0,
    });
    add(
        &mut tree,
        Tree::ROOT,
        b"end",
        Kind::Regular(Contents::Chunks(island)),
    );
    tree
}

/// More devices than a table in the first block can hold.
fn many_devices() -> Tree {
    let mut tree = Tree::new();
    for number in 0..30_u16 {
        let mut tag = [0; 64];
        tag[..2].copy_from_slice(&number.to_le_bytes());
        tree.devices.push(Device { tag, blocks: 2 });
        let contents = ChunkedContents {
            size_bytes: 8000,
            chunk_log2: 13,
            chunks: vec![Some(ChunkAddress {
                device: number,
                start_block: 0,
            })],
        };
        let kind = Kind::Regular(Contents::Chunks(contents));
        add(&mut tree, Tree::ROOT, format!("{number}").as_bytes(), kind);
    }
    tree
}

/// More names than a compact inode can count.
fn many_links() -> Tree {
    let mut tree = Tree::new();
    let id = add(&mut tree, Tree::ROOT, b"first", file(b"one inode"));
    for number in 0..66_000 {
        link(
            &mut tree,
            Tree::ROOT,
            format!("{number}").into_bytes().into(),
            id,
        );
    }
    tree
}
