//! gc and delete against sessions and leases, on a real folder.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Cursor;
use std::time::Duration;

use uimgacc_erofs::tree::{ChunkAddress, ChunkedContents, Contents, Inode, Kind, Tree};
use uimgacc_store::{
    ChainRecord, ImageRecord, Lease, Session, StoreReader, delete, init, stat, sweep, verify,
    write_lease,
};
use uimgacc_types::{DiffId, Digest, chain_ids};

/// An image of one layer with one file of `content`.
fn add_image(store: &StoreReader, target: &str, content: &[u8]) -> ImageRecord {
    let session = Session::begin(store.clone()).unwrap();
    let mut writer = session.pack_writer().unwrap();
    let placement = writer
        .put(&mut Cursor::new(content), content.len() as u64)
        .unwrap();
    let mut tree = Tree::new();
    tree.devices.push(session.device(placement.pack));
    let file = tree
        .add(Inode {
            kind: Kind::Regular(Contents::Chunks(ChunkedContents {
                size_bytes: content.len() as u64,
                chunk_log2: 20,
                chunks: vec![Some(ChunkAddress {
                    device: 0,
                    start_block: u32::try_from(placement.extent.offset_bytes / 4096).unwrap(),
                })],
            })),
            ..Inode::empty_directory()
        })
        .unwrap();
    tree.inode_mut(Tree::ROOT)
        .entries_mut()
        .unwrap()
        .insert((*b"file").into(), file);
    session.seal(writer).unwrap();
    session.settle(&mut tree);
    let diff_id = DiffId::from_bytes(*Digest::of(target.as_bytes()).as_bytes());
    let chain_id = chain_ids(&[diff_id])[0];
    let layer = session.publish_layer(diff_id, &tree).unwrap();
    let index = session.publish_index(chain_id, &tree).unwrap();
    session
        .publish_chain(&ChainRecord {
            chain_id,
            layers: vec![layer],
            index: Some(index.clone()),
        })
        .unwrap();
    let record = ImageRecord {
        original: "docker.io/library/original:1".to_owned(),
        target: target.to_owned(),
        platform: "linux/amd64".to_owned(),
        original_digest: Digest::of(b"m"),
        target_digest: None,
        config_digest: Digest::of(b"c"),
        chain_id,
        index,
        diff_ids: vec![diff_id],
        compressed_size: 1,
        size: content.len() as u64,
        inodes: 2,
        created: session.now(),
    };
    session.publish_image(&record).unwrap();
    record
}

fn assert_clean(store: &StoreReader) {
    let report = verify(store, false, &mut |_| {}).unwrap();
    assert_eq!(report.problems, Vec::new());
}

#[test]
fn nothing_is_swept_under_a_living_session() {
    let folder = tempfile::tempdir().unwrap();
    let (store, is_new) = init(&folder.path().join("store")).unwrap();
    assert!(is_new);
    let image = add_image(&store, "example.com/a:1", &[1; 9000]);
    delete(&store, &image.target, false).unwrap();
    let session = Session::begin(store.clone()).unwrap();
    let swept = sweep(&store, Duration::ZERO, false).unwrap();
    assert_eq!((swept.files, swept.waiting_for.len()), (0, 1));
    // The session still finds the content, in the same pack, and may count on it.
    let mut writer = session.pack_writer().unwrap();
    writer.put(&mut Cursor::new([1; 9000]), 9000).unwrap();
    assert_eq!(writer.len_bytes(), 0);
    assert!(store.layout().pack(image.index.packs[0]).exists());
    drop(writer);
    drop(session);
    let swept = sweep(&store, Duration::ZERO, false).unwrap();
    assert!(swept.waiting_for.is_empty());
    assert!(!store.layout().pack(image.index.packs[0]).exists());
    assert_eq!(stat(&store).unwrap().packs, 0);
    assert_clean(&store);
}

#[test]
fn leases_hold_images() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = init(&folder.path().join("store")).unwrap();
    let image = add_image(&store, "example.com/a:1", &[1; 9000]);
    let other = add_image(&store, "example.com/b:1", &[2; 9000]);
    let lease = Lease::of_this_machine("node one".to_owned(), vec![image.chain_id]);
    write_lease(store.layout(), "one", &lease).unwrap();
    let refused = delete(&store, &image.target, false).unwrap_err();
    assert!(refused.to_string().contains("node one"), "{refused}");
    assert!(store.image(&image.target).unwrap().is_some());
    assert!(store.chain(image.chain_id).unwrap().is_some());
    delete(&store, &other.target, false).unwrap();
    sweep(&store, Duration::ZERO, false).unwrap();
    assert!(store.layout().pack(image.index.packs[0]).exists());
    assert!(!store.layout().pack(other.index.packs[0]).exists());

    // A lease of this machine from before its last boot holds nothing.
    let old = Lease {
        boot_id: "another boot".to_owned(),
        ..lease
    };
    write_lease(store.layout(), "one", &old).unwrap();
    delete(&store, &image.target, false).unwrap();
    sweep(&store, Duration::ZERO, false).unwrap();
    assert_eq!(stat(&store).unwrap().pack_bytes, 0);
    assert_clean(&store);
}

#[test]
fn an_interrupted_sweep_is_finished_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = init(&folder.path().join("store")).unwrap();
    let kept = add_image(&store, "example.com/a:1", &[1; 9000]);
    let gone = add_image(&store, "example.com/b:1", &[2; 9000]);
    delete(&store, &gone.target, false).unwrap();
    // Cut short after the tables were renamed, one of them wrongly.
    for pack in [kept.index.packs[0], gone.index.packs[0]] {
        let toc = store.layout().toc(pack);
        std::fs::rename(&toc, toc.with_extension("doomed")).unwrap();
    }
    sweep(&store, Duration::ZERO, false).unwrap();
    assert!(store.layout().toc(kept.index.packs[0]).exists());
    assert!(!store.layout().pack(gone.index.packs[0]).exists());
    assert_clean(&store);
    let swept = sweep(&store, Duration::ZERO, false).unwrap();
    assert_eq!(swept.files, 0);
}

#[test]
fn young_garbage_is_left_alone_and_a_dry_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = init(&folder.path().join("store")).unwrap();
    let image = add_image(&store, "example.com/a:1", &[1; 9000]);
    delete(&store, &image.target, false).unwrap();
    assert_eq!(
        sweep(&store, Duration::from_secs(3600), false)
            .unwrap()
            .files,
        0
    );
    let would = sweep(&store, Duration::ZERO, true).unwrap();
    assert!(would.files >= 3 && would.bytes >= 9000, "{would:?}");
    assert!(store.layout().toc(image.index.packs[0]).exists());
}

#[test]
fn a_folder_with_other_things_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("precious"), "x").unwrap();
    let error = init(folder.path()).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
