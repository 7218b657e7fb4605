use uimgacc_erofs::tree::{ChunkAddress, ChunkedContents, DeviceNumber};

use super::*;
use crate::rooted::clean;

/// Adds what `path` names, with its parents.
fn put(tree: &mut Tree, path: &str, inode: Inode) -> InodeId {
    let names = clean(path.as_bytes());
    let (last, parents) = names.split_last().unwrap();
    let mut here = Tree::ROOT;
    for name in parents {
        let there = tree.inode(here).entries().unwrap().get(name).copied();
        here = there.unwrap_or_else(|| {
            let id = tree.add(Inode::empty_directory()).unwrap();
            tree.inode_mut(here)
                .entries_mut()
                .unwrap()
                .insert(name.clone(), id);
            id
        });
    }
    let id = tree.add(inode).unwrap();
    tree.inode_mut(here)
        .entries_mut()
        .unwrap()
        .insert(last.clone(), id);
    id
}

fn at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Inode> {
    let mut here = Tree::ROOT;
    for name in clean(path.as_bytes()) {
        here = *tree.inode(here).entries()?.get(&name)?;
    }
    Some(tree.inode(here))
}

fn file(text: &str) -> Inode {
    Inode {
        kind: Kind::Regular(Contents::Inline(text.as_bytes().into())),
        ..Inode::empty_directory()
    }
}

fn folder(permissions: u16) -> Inode {
    Inode {
        permissions,
        ..Inode::empty_directory()
    }
}

fn symlink(target: &str) -> Inode {
    Inode {
        kind: Kind::Symlink(target.as_bytes().into()),
        ..Inode::empty_directory()
    }
}

fn whiteout() -> Inode {
    Inode {
        kind: Kind::CharacterDevice(DeviceNumber::WHITEOUT),
        ..Inode::empty_directory()
    }
}

fn marked(mut inode: Inode, name: &[u8], value: &[u8]) -> Inode {
    inode.xattrs.insert(name.into(), value.into());
    inode
}

fn implied() -> Inode {
    marked(folder(0o755), IMPLIED_XATTR, IMPLIED_ALL)
}

#[test]
fn upper_layers_hide_and_merge() {
    let mut lower = Tree::new();
    for path in [
        "gone",
        "d/kept",
        "d/hidden",
        "opaque/hidden",
        "whole/inside",
        "file",
    ] {
        put(&mut lower, path, file(path));
    }
    let mut upper = Tree::new();
    put(&mut upper, "gone", whiteout());
    put(&mut upper, "d", folder(0o700));
    put(&mut upper, "d/hidden", whiteout());
    put(
        &mut upper,
        "opaque",
        marked(folder(0o711), OPAQUE_XATTR, b"y"),
    );
    put(&mut upper, "opaque/shown", file("x"));
    put(&mut upper, "whole", file("no folder any more"));
    put(&mut upper, "file/below", file("y"));
    let tree = flatten(&[lower, upper]).unwrap();
    for hidden in ["gone", "d/hidden", "opaque/hidden", "whole/inside"] {
        assert!(at(&tree, hidden).is_none(), "{hidden}");
    }
    for shown in ["d/kept", "opaque/shown", "file/below"] {
        assert!(at(&tree, shown).is_some(), "{shown}");
    }
    assert_eq!(at(&tree, "d").unwrap().permissions, 0o700);
    assert!(at(&tree, "opaque").unwrap().xattrs.is_empty());
    assert!(!at(&tree, "whole").unwrap().is_directory());
}

#[test]
fn a_folder_above_a_file_does_not_bring_back_what_the_file_hid() {
    let mut bottom = Tree::new();
    put(&mut bottom, "a/old", file("1"));
    let mut middle = Tree::new();
    put(&mut middle, "a", file("2"));
    let mut top = Tree::new();
    put(&mut top, "a/new", file("3"));
    let tree = flatten(&[bottom, middle, top]).unwrap();
    assert!(at(&tree, "a/old").is_none());
    assert!(at(&tree, "a/new").is_some());
}

#[test]
fn implied_folders_take_after_the_layers_below() {
    let mut bottom = Tree::new();
    put(&mut bottom, "real", marked(folder(0o750), b"user.x", b"1"));
    put(&mut bottom, "link", symlink("/real"));
    put(&mut bottom, "was-file", folder(0o700));
    let mut middle = Tree::new();
    put(&mut middle, "real", implied());
    put(&mut middle, "was-file", file("x"));
    let mut top = Tree::new();
    for path in ["real", "link", "was-file", "nowhere"] {
        put(&mut top, path, implied());
    }
    put(
        &mut top,
        "own",
        marked(
            marked(folder(0o711), IMPLIED_XATTR, IMPLIED_XATTRS),
            b"user.y",
            b"2",
        ),
    );
    let tree = flatten(&[bottom, middle, top]).unwrap();
    assert_eq!(at(&tree, "real").unwrap().permissions, 0o750);
    assert_eq!(
        &**at(&tree, "real")
            .unwrap()
            .xattrs
            .get(&b"user.x"[..])
            .unwrap(),
        b"1"
    );
    assert_eq!(at(&tree, "link").unwrap().permissions, 0o750);
    assert_eq!(at(&tree, "was-file").unwrap().permissions, 0o755);
    assert_eq!(at(&tree, "nowhere").unwrap().permissions, 0o755);
    for (_, inode) in tree.iter() {
        assert!(!inode.xattrs.contains_key(IMPLIED_XATTR));
    }
    assert_eq!(at(&tree, "own").unwrap().permissions, 0o711);
}

#[test]
fn what_containerd_refuses_below_a_file() {
    let mut lower = Tree::new();
    put(&mut lower, "a", file("x"));
    let mut upper = Tree::new();
    put(&mut upper, "a", implied());
    put(&mut upper, "a/b", implied());
    let error = flatten(&[lower, upper]).unwrap_err();
    assert!(error.to_string().contains("/a/b"), "{error}");
}

#[test]
fn links_stay_links_and_devices_are_joined() {
    let device = |tag: u8| Device {
        tag: [tag; 64],
        blocks: 9,
    };
    let chunked = |device: u16| Inode {
        kind: Kind::Regular(Contents::Chunks(ChunkedContents {
            size_bytes: 5000,
            chunk_log2: 13,
            chunks: vec![Some(ChunkAddress {
                device,
                start_block: 3,
            })],
        })),
        ..Inode::empty_directory()
    };
    let mut lower = Tree::new();
    lower.devices = vec![device(1), device(2)];
    put(&mut lower, "replaced", chunked(0));
    let kept = put(&mut lower, "kept", chunked(1));
    lower
        .inode_mut(Tree::ROOT)
        .entries_mut()
        .unwrap()
        .insert((*b"linked").into(), kept);
    let mut upper = Tree::new();
    upper.devices = vec![device(3), device(2)];
    put(&mut upper, "replaced", chunked(0));
    put(&mut upper, "shared", chunked(1));
    let tree = flatten(&[lower, upper]).unwrap();
    assert_eq!(
        tree.devices.len(),
        2,
        "the first layer's own device is no longer used"
    );
    let tag_of = |path: &str| match &at(&tree, path).unwrap().kind {
        Kind::Regular(Contents::Chunks(contents)) => {
            tree.devices[usize::from(contents.chunks[0].unwrap().device)].tag[0]
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (tag_of("replaced"), tag_of("kept"), tag_of("shared")),
        (3, 2, 2)
    );
    let root = tree.inode(Tree::ROOT).entries().unwrap();
    assert_eq!(root.get(&b"kept"[..]), root.get(&b"linked"[..]));
}
