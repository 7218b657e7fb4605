//! Each rule of containerd's unpacking on a small tar; the same rules are checked against the
//! real containerd in `tests/equality.rs`.

use std::io::Read;

use uimgacc_erofs::tree::{Contents, Device};
use uimgacc_testkit::tar::TarBuilder;
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
    let mut sink = Memory::default();
    let tree = read_layer(&mut TarReader::new(tar), &mut sink, is_base)?;
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
