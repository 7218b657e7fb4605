//! What the crate `erofs-rs` 0.3 shows of an image.
//!
//! It has no word for hard links: the inode numbers that it shows stand in for that.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use erofs_rs::EroFS;
use erofs_rs::backend::SliceImage;
use erofs_rs::types::Inode;
use proptest::test_runner::{Config, TestRunner};
use uimgacc_erofs::tree::Tree;
use uimgacc_erofs::write;

use crate::seen::{Paths, Seen, WINDOW_BYTES, assert_same, expected};
use crate::{devices, random, samples};

fn check(tree: &Tree) {
    let mut image = Vec::new();
    write(tree, &mut image).unwrap();
    let devices: Vec<Vec<u8>> = (0_u16..)
        .zip(&tree.devices)
        .map(|(number, device)| {
            (0..device.blocks)
                .flat_map(|index| devices::block(number, index))
                .collect()
        })
        .collect();
    let devices = devices.iter().map(|bytes| SliceImage::new(bytes)).collect();
    let system = EroFS::new_with_devices(SliceImage::new(&image), devices).unwrap();
    assert_same(&expected(tree), &walk(&system));
}

fn walk(system: &EroFS<SliceImage<'_>>) -> Paths {
    let mut found: BTreeMap<Vec<u8>, (Seen, u64)> = BTreeMap::new();
    // The walk leaves out where it begins.
    let root = system.super_block().root_inode_id();
    let root_seen = seen(system, system.get_inode(root).unwrap());
    found.insert(Vec::new(), (root_seen, root));
    for entry in system.walk_dir("/").unwrap() {
        let entry = entry.unwrap();
        let path = entry.dir_entry.path().as_bytes().to_vec();
        assert!(
            found
                .insert(path, (seen(system, entry.inode), entry.inode.id()))
                .is_none()
        );
    }
    let mut least: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (path, (_, nid)) in &found {
        least.entry(*nid).or_insert_with(|| path.clone());
    }
    found
        .into_iter()
        .map(|(path, (mut seen, nid))| {
            seen.least_path.clone_from(&least[&nid]);
            (path, seen)
        })
        .collect()
}

fn seen(system: &EroFS<SliceImage<'_>>, inode: Inode) -> Seen {
    let (seconds, nanoseconds) = inode.modified_unix();
    let contents = if inode.is_file() {
        let mut bytes = Vec::new();
        let mut file = system.open_inode_file(inode).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    } else {
        Vec::new()
    };
    Seen {
        mode: inode.file_type().as_raw_mode() | inode.permissions().mode() & 0o7777,
        uid: inode.uid(),
        gid: inode.gid(),
        links: inode.nlink().into(),
        mtime: (seconds, nanoseconds.into()),
        size: if inode.is_dir() { 0 } else { inode.data_size() },
        device: inode.device(),
        xattrs: system.xattrs_inode(inode).unwrap(),
        target: inode
            .is_symlink()
            .then(|| system.read_link_inode(inode).unwrap().as_bytes().to_vec()),
        first: contents[..contents.len().min(WINDOW_BYTES)].to_vec(),
        last: contents[contents.len().saturating_sub(WINDOW_BYTES)..].to_vec(),
        least_path: Vec::new(),
    }
}

#[test]
fn erofs_rs_shows_every_sample() {
    for (name, tree) in samples::all() {
        // Terabytes of zeros are not worth reading.
        if name != "sparse terabytes" {
            println!("sample {name}");
            check(&tree);
        }
    }
}

#[test]
fn erofs_rs_shows_random_trees() {
    let config = Config {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&random::trees(), |tree| {
        check(&tree);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}
