//! Each rule of containerd's unpacking on a small tar; the same rules are checked against the
//! real containerd in `tests/equality.rs`.

use std::io::Read;

use uimgacc_erofs::tree::{Contents, Device};
use uimgacc_store::acl;
use uimgacc_testkit::tar::{Entry as TarEntry, Kind as TarKind, Segment, SparseFormat, TarBuilder};
use uimgacc_types::Extent;

use super::*;

/// Keeps contents in memory, all on one device.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
}

impl ContentSink for Memory {
    fn put(&mut self, source: &mut dyn Read, len_bytes: u64) -> Result<Placed, PutError> {
        let offset_bytes = self.bytes.len() as u64;
        let read = source
            .take(len_bytes)
            .read_to_end(&mut self.bytes)
            .map_err(PutError::Source)? as u64;
        if read < len_bytes {
            return Err(PutError::Short {
                missing: len_bytes - read,
            });
        }
        self.bytes
            .resize(self.bytes.len().next_multiple_of(4096), 0);
        Ok(Placed {
            device: Device {
                tag: [b'm'; 64],
                blocks: 0,
            },
            extent: Extent {
                offset_bytes,
                len_bytes,
            },
        })
    }
}

fn unpack(tar: &[u8], is_base: bool) -> Result<(Tree, Vec<u8>), LayerError> {
    unpack_within(tar, is_base, 64 << 20, 64 << 20)
}

fn unpack_within(
    tar: &[u8],
    is_base: bool,
    metadata_bytes: u64,
    stored_bytes: u64,
) -> Result<(Tree, Vec<u8>), LayerError> {
    let mut sink = Memory::default();
    let limits = LayerLimits {
        metadata: MetadataBudget::new(metadata_bytes),
        stored_bytes,
    };
    let tree = read_layer(&mut TarReader::new(tar), &mut sink, is_base, &limits)?;
    Ok((tree, sink.bytes))
}

fn at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Inode> {
    let mut here = Tree::ROOT;
    for name in clean(path.as_bytes()) {
        here = *tree.inode(here).entries()?.get(&name)?;
    }
    Some(tree.inode(here))
}

fn refusal(tar: &[u8]) -> String {
    unpack(tar, false).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn names_stay_below_the_root() {
    let tar = TarBuilder::new()
        .file("/absolute", 0o644, b"1")
        .file("../../up", 0o644, b"2")
        .file("a/../b", 0o644, b"3")
        .symlink("link", "/target/./x/..")
        .file("link/through", 0o644, b"4")
        .symlink("out", "../../../../etc")
        .file("out/passwd", 0o644, b"5")
        .finish();
    let (tree, _) = unpack(&tar, false).unwrap();
    for path in ["absolute", "up", "b", "target/through", "etc/passwd"] {
        assert!(at(&tree, path).is_some(), "{path}");
    }
    assert!(at(&tree, "a").is_none());
    let implied = at(&tree, "target").unwrap();
    assert_eq!(implied.permissions, 0o755);
    assert_eq!(
        implied.xattrs.get(IMPLIED_XATTR).map(|mark| &**mark),
        Some(IMPLIED_ALL)
    );
}

#[test]
fn later_entries_stand() {
    let tar = TarBuilder::new()
        .file("f", 0o644, b"first")
        .file("f", 0o644, b"second")
        .dir("d", 0o700)
        .file("d/inside", 0o644, b"x")
        .file("g", 0o644, b"y")
        .dir("g", 0o711)
        .finish();
    let (tree, _) = unpack(&tar, false).unwrap();
    assert_eq!(
        at(&tree, "f").unwrap().kind,
        Kind::Regular(Contents::Inline((*b"second").into()))
    );
    assert!(at(&tree, "d/inside").is_some());
    assert!(at(&tree, "g").unwrap().is_directory());
}

#[test]
fn whiteouts_in_overlay_form() {
    let tar = TarBuilder::new()
        .file("d/.wh.gone", 0o644, b"")
        .file("o/.wh..wh..opq", 0o644, b"")
        .file(".wh.back", 0o644, b"")
        .file("back", 0o644, b"again")
        .finish();
    let (tree, _) = unpack(&tar, false).unwrap();
    assert!(at(&tree, "d/gone").unwrap().is_whiteout());
    assert_eq!(
        at(&tree, "o")
            .unwrap()
            .xattrs
            .get(OPAQUE_XATTR)
            .map(|value| &**value),
        Some(&b"y"[..])
    );
    assert!(!at(&tree, "back").unwrap().is_whiteout());
    let late = TarBuilder::new()
        .file("f", 0o644, b"")
        .file(".wh.f", 0o644, b"")
        .finish();
    assert!(refusal(&late).contains("whiteout"));
    let (tree, _) = unpack(&late, true).unwrap();
    assert!(at(&tree, "f").unwrap().is_whiteout());
    for name in [".wh.", ".wh..", "d/.wh..."] {
        assert!(
            refusal(&TarBuilder::new().file(name, 0o644, b"").finish()).contains("whiteout"),
            "{name}"
        );
    }
}

#[test]
fn hard_links_change_what_they_link() {
    let tar = TarBuilder::new()
        .file("a", 0o644, b"x")
        .hard_link("b", "/a")
        .finish();
    let (tree, _) = unpack(&tar, false).unwrap();
    let root = tree.inode(Tree::ROOT).entries().unwrap();
    assert_eq!(root.get(&b"a"[..]), root.get(&b"b"[..]));
    for (link, target) in [("b", "nowhere"), ("b", "d"), ("a", "a"), ("b", "d/..")] {
        let tar = TarBuilder::new()
            .file("a", 0o644, b"x")
            .dir("d", 0o755)
            .hard_link(link, target)
            .finish();
        assert!(
            refusal(&tar).contains("a hard link to"),
            "{link} -> {target}"
        );
    }
}

#[test]
fn what_cannot_be_is_named() {
    let long = "n".repeat(256);
    assert!(refusal(&TarBuilder::new().file(&long, 0o644, b"").finish()).contains("256 bytes"));
    let deep = "d/".repeat(2100) + "f";
    assert!(refusal(&TarBuilder::new().file(&deep, 0o644, b"").finish()).contains("4095"));
    let below = TarBuilder::new()
        .file("f", 0o644, b"")
        .file("f/g", 0o644, b"")
        .finish();
    assert!(refusal(&below).contains("f/g"));
    let circle = TarBuilder::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", 0o644, b"")
        .finish();
    assert!(refusal(&circle).contains("symlinks"));
    let gone = TarBuilder::new()
        .dir("d/e", 0o755)
        .file("d", 0o644, b"")
        .finish();
    assert!(refusal(&gone).contains("d/e"));
}

#[test]
fn contents_go_to_the_sink_by_whole_chunks() {
    let large: Vec<u8> = (0..10_000u32).map(|byte| (byte % 251) as u8).collect();
    let tar = TarBuilder::new()
        .file("large", 0o644, large.clone())
        .file("small", 0o644, &large[..512])
        .finish();
    let (tree, stored) = unpack(&tar, false).unwrap();
    let Kind::Regular(Contents::Chunks(contents)) = &at(&tree, "large").unwrap().kind else {
        panic!("not chunked");
    };
    assert_eq!(
        (
            contents.size_bytes,
            contents.chunk_log2,
            contents.chunks.len()
        ),
        (10_000, 14, 1)
    );
    assert_eq!(&stored[..10_000], &large[..]);
    assert!(matches!(
        at(&tree, "small").unwrap().kind,
        Kind::Regular(Contents::Inline(_))
    ));
}

#[test]
fn a_hole_at_the_end_costs_nothing() {
    for format in [SparseFormat::Pax10, SparseFormat::Pax01, SparseFormat::Gnu] {
        let tar = TarBuilder::new()
            .sparse(
                &TarEntry::new("sparse", TarKind::File),
                format,
                10 << 30,
                &[Segment {
                    offset: 1 << 20,
                    data: vec![7; 4096],
                }],
            )
            .finish();
        let (tree, stored) = unpack(&tar, false).unwrap();
        assert!(stored.len() < 1 << 20, "{format:?}: {}", stored.len());
        let Kind::Regular(Contents::Chunks(contents)) = &at(&tree, "sparse").unwrap().kind else {
            panic!("not chunked");
        };
        assert_eq!(contents.size_bytes, 10 << 30);
        assert!(contents.chunks.len() < 1 << 17, "{}", contents.chunks.len());
    }
}

/// Many one-byte pieces far apart: little tar, many chunks.
fn scattered(files: usize, pieces: u64, apart_bytes: u64) -> Vec<u8> {
    (0..files)
        .fold(TarBuilder::new(), |tar, number| {
            let segments: Vec<Segment> = (0..pieces)
                .map(|piece| Segment {
                    offset: piece * apart_bytes,
                    data: vec![1],
                })
                .collect();
            tar.sparse(
                &TarEntry::new(format!("f{number}"), TarKind::File),
                SparseFormat::Pax10,
                pieces * apart_bytes,
                &segments,
            )
        })
        .finish()
}

#[test]
fn metadata_and_filled_holes_are_bounded() {
    // Each file has 2^15 chunks: 384 KiB of memory.
    let one = scattered(1, 64, 2 << 20);
    unpack_within(&one, false, 1 << 20, 1 << 20).unwrap();
    let many = scattered(8, 64, 2 << 20);
    let error = unpack_within(&many, false, 1 << 20, 1 << 30).unwrap_err();
    assert!(
        matches!(error, LayerError::TooMuchMetadata { .. }),
        "{error}"
    );
    // Holes shorter than a chunk are filled: 16 KiB apart, each piece costs a block.
    let error = unpack_within(&one, false, 1 << 20, 100_000).unwrap_err();
    assert!(
        matches!(error, LayerError::TooMuchContent { .. }),
        "{error}"
    );
    // Names and xattrs count as well; the layers of an image share one budget.
    let names = (0..100).fold(TarBuilder::new(), |tar, number| {
        tar.entry(&TarEntry::new(format!("{number}"), TarKind::Fifo).xattr("user.x", vec![1; 1000]))
    });
    let names = names.finish();
    let budget = MetadataBudget::new(200_000);
    let read = || {
        let limits = LayerLimits {
            metadata: budget.clone(),
            stored_bytes: 0,
        };
        let mut tar = TarReader::new(names.as_slice());
        read_layer(&mut tar, &mut Memory::default(), false, &limits).map(|_| ())
    };
    read().unwrap();
    assert!(matches!(read(), Err(LayerError::TooMuchMetadata { .. })));
}

#[test]
fn in_a_base_layer_whiteouts_are_nothing() {
    let tar = TarBuilder::new()
        .file(".wh.foo", 0o644, b"")
        .file("foo/bar/x", 0o644, b"1")
        .finish();
    let (tree, _) = unpack(&tar, true).unwrap();
    assert!(at(&tree, "foo/bar/x").is_some());
    assert!(refusal(&tar).contains("foo/bar/x"));
    let linked = TarBuilder::new()
        .file(".wh.foo", 0o644, b"")
        .hard_link("bar", "foo")
        .finish();
    assert!(unpack(&linked, true).is_err());
}

/// An ACL of these entries: tag, permissions, id.
fn acl_of(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

#[test]
fn folders_give_their_acl_and_group() {
    const NO_ID: u32 = u32::MAX;
    let with = |user: u16, mask: u16, other: u16| {
        acl_of(&[
            (1, user, NO_ID),
            (2, 5, 1000),
            (4, 5, NO_ID),
            (0x10, mask, NO_ID),
            (0x20, other, NO_ID),
        ])
    };
    let plain = acl_of(&[(1, 7, NO_ID), (4, 5, NO_ID), (0x20, 5, NO_ID)]);
    let folder = |name: &str, default: &[u8]| {
        TarEntry::new(name, TarKind::Directory)
            .mode(0o2775)
            .owner(1, 50)
            .xattr("system.posix_acl_default", default)
    };
    let tar = TarBuilder::new()
        .entry(&folder("d", &with(7, 7, 7)))
        .file("d/file", 0o640, b"x")
        .symlink("d/link", "file")
        .dir("d/sub", 0o711)
        .file("d/implied/deep/file", 0o600, b"y")
        .entry(
            &TarEntry::new("d/own", TarKind::File)
                .mode(0o600)
                .xattr("system.posix_acl_access", plain.clone()),
        )
        .entry(&folder("plain", &plain))
        .file("plain/file", 0o644, b"z")
        .finish();
    let (tree, _) = unpack(&tar, false).unwrap();
    let xattr = |path: &str, name: &[u8]| {
        at(&tree, path)
            .unwrap()
            .xattrs
            .get(name)
            .map(|value| value.to_vec())
    };
    assert_eq!(xattr("d/file", acl::ACCESS), Some(with(6, 4, 0)));
    assert_eq!(xattr("d/file", acl::DEFAULT), None);
    assert_eq!(xattr("d/link", acl::ACCESS), None);
    for (path, access) in [
        ("d/sub", with(7, 1, 1)),
        ("d/implied", with(7, 5, 5)),
        ("d/implied/deep", with(7, 5, 5)),
    ] {
        assert_eq!(xattr(path, acl::ACCESS), Some(access), "{path}");
        assert_eq!(xattr(path, acl::DEFAULT), Some(with(7, 7, 7)), "{path}");
    }
    assert_eq!(
        xattr("d/implied/deep/file", acl::ACCESS),
        Some(with(6, 0, 0))
    );
    assert_eq!(xattr("d/own", acl::ACCESS), None);
    assert_eq!(xattr("plain/file", acl::ACCESS), None);
    // The group goes one step down: the bit itself does not.
    let implied = at(&tree, "d/implied").unwrap();
    assert_eq!(
        (implied.uid, implied.gid, implied.permissions),
        (0, 50, 0o755)
    );
    assert_eq!(at(&tree, "d/implied/deep").unwrap().gid, 0);
    assert_eq!(at(&tree, "d/sub").unwrap().gid, 0);
}
