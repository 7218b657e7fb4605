//! Sessions beside each other, and on damaged stores.

use uimgacc_erofs::Tree;
use uimgacc_erofs::tree::{ChunkAddress, Contents, Kind};
use uimgacc_store::{ChainRecord, Session, StoreReader, flatten, stat};

use crate::support::{add_image, assert_clean, convert, diff_id, new_store, tree_of};

#[test]
fn what_came_after_the_start_of_a_session_is_used_and_stays() {
    let (_folder, store) = new_store();
    let (base, app): (&[u8], &[u8]) = (&[1; 9000], &[2; 9000]);
    let late = Session::begin(store.clone()).unwrap();
    let first = add_image(&store, "example.com/a:1", &[base]);
    assert!(late.layer(diff_id(base)).unwrap().is_some());
    assert!(late.index(first.chain_id).unwrap().is_some());
    let second = convert(&late, "example.com/b:1", &[base, app]);
    late.publish_image(&second).unwrap();
    drop(late);
    assert_clean(&store);
    assert_eq!(store.images().unwrap().len(), 2);
    assert_eq!(stat(&store).unwrap().contents, 2);
}

#[test]
fn a_record_without_an_index_takes_no_ones_place() {
    let (_folder, store) = new_store();
    let image = add_image(&store, "example.com/a:1", &[&[1; 9000]]);
    let whole = store.chain(image.chain_id).unwrap().unwrap();
    let session = Session::begin(store.clone()).unwrap();
    let prefix = ChainRecord {
        index: None,
        ..whole.clone()
    };
    session.publish_chain(&prefix).unwrap();
    assert_eq!(store.chain(image.chain_id).unwrap(), Some(whole.clone()));
    // One that names another layer index than there is now is put right, with its index.
    let path = store.layout().chain(image.chain_id).on_host();
    let mut stale = whole.clone();
    stale.layers[0].index_digest = uimgacc_types::Digest::of(b"older");
    std::fs::write(&path, serde_json::to_vec(&stale).unwrap()).unwrap();
    session.publish_chain(&prefix).unwrap();
    assert_eq!(store.chain(image.chain_id).unwrap(), Some(whole));
}

fn recreate(store: &StoreReader) {
    add_image(store, "example.com/a:1", &[&[1; 9000], &[2; 9000]]);
    assert_clean(store);
}

#[test]
fn creating_again_mends_what_is_damaged_or_lost() {
    let (_folder, store) = new_store();
    let image = add_image(&store, "example.com/a:1", &[&[1; 9000], &[2; 9000]]);
    let layout = store.layout();
    let (layer, index) = (
        layout.layer(image.diff_ids[0]).on_host(),
        layout.index(image.chain_id).on_host(),
    );
    let (pack, toc) = (
        layout.pack(image.index.packs[0]).on_host(),
        layout.toc(image.index.packs[0]).on_host(),
    );
    for path in [
        layer,
        index.clone(),
        pack,
        toc.clone(),
        layout.chain(image.chain_id).on_host(),
    ] {
        std::fs::remove_file(&path).unwrap();
        recreate(&store);
        std::fs::write(&path, b"damaged").unwrap();
        recreate(&store);
    }
    // Another index than the record says, but a sound one.
    let mut other = Vec::new();
    uimgacc_erofs::write(&Tree::new(), &mut other).unwrap();
    std::fs::write(&index, other).unwrap();
    let session = Session::begin(store.clone()).unwrap();
    assert!(session.index(image.chain_id).unwrap().is_none());
    drop(session);
    std::fs::remove_file(&index).unwrap();
    recreate(&store);
    // A damaged table is no reason to stop for those who do not need its pack.
    std::fs::write(&toc, b"damaged").unwrap();
    add_image(&store, "example.com/other:1", &[&[3; 9000]]);
    stat(&store).unwrap();
}

/// The same content in two packs, as two sessions at once may leave it.
fn content_twice(store: &StoreReader, content: &[u8]) -> Vec<Tree> {
    let sessions = [(); 2].map(|()| Session::begin(store.clone()).unwrap());
    (1u8..)
        .zip(&sessions)
        .map(|(number, session)| {
            let mut writer = session.pack_writer().unwrap();
            let mut tree = tree_of(session, &mut writer, content);
            // Something of its own, so that the packs differ.
            tree_of(session, &mut writer, &[number; 5000]);
            session.seal(writer).unwrap();
            session.settle(&mut tree);
            tree
        })
        .collect()
}

/// Else no layer would have it any more, and a repair would not find it.
#[test]
fn a_sparse_file_is_repacked_as_the_contents_that_it_was_written_as() {
    let (_directory, store) = new_store();
    let content = [[1; 4096], [2; 4096]].concat();
    let mut tree = {
        let session = Session::begin(store.clone()).unwrap();
        let mut writer = session.pack_writer().unwrap();
        let mut tree = tree_of(&session, &mut writer, &content);
        session.seal(writer).unwrap();
        session.settle(&mut tree);
        tree
    };
    let (id, _) = tree.iter().nth(1).unwrap();
    let old = |block: u32| {
        Some(ChunkAddress {
            device: 0,
            start_block: block,
        })
    };
    if let Kind::Regular(Contents::Chunks(contents)) = &mut tree.inode_mut(id).kind {
        contents.chunk_log2 = 12;
        contents.size_bytes = 5 * 4096;
        contents.chunks = vec![None, old(0), old(1), None, None];
    }
    let session = Session::begin(store.clone()).unwrap();
    let mut writer = session.pack_writer().unwrap();
    // Something before it, so that it comes to lie elsewhere.
    tree_of(&session, &mut writer, &[9; 9000]);
    session.repack(&mut [&mut tree], &mut writer, 0).unwrap();
    assert_eq!(writer.len_bytes(), 12288 + 8192);
    let Kind::Regular(Contents::Chunks(contents)) = &tree.inode(id).kind else {
        panic!("it was a file");
    };
    assert_eq!(contents.chunks, [None, old(3), old(4), None, None]);
    let again = tree_of(&session, &mut writer, &content);
    assert_eq!(again.devices, tree.devices);
    assert_eq!(writer.len_bytes(), 12288 + 8192);
}

#[test]
fn repacking_writes_each_content_once() {
    let (_folder, store) = new_store();
    let content = [7; 9000];
    let trees = content_twice(&store, &content);
    let session = Session::begin(store.clone()).unwrap();
    let mut writer = session.pack_writer().unwrap();
    let mut both = trees[0].clone();
    both.devices.extend(trees[1].devices.clone());
    let (id, inode) = trees[1].iter().nth(1).unwrap();
    let mut inode = inode.clone();
    if let Kind::Regular(Contents::Chunks(contents)) = &mut inode.kind {
        for ChunkAddress { device, .. } in contents.chunks.iter_mut().flatten() {
            *device = 1;
        }
    }
    let second = both.add(inode).unwrap();
    assert!(id != second);
    let entries = both.inode_mut(Tree::ROOT).entries_mut().unwrap();
    entries.insert((*b"second").into(), second);
    // The same contents were put before, and come again in another tree.
    let mut layer = trees[1].clone();
    let own = tree_of(&session, &mut writer, &[9; 9000]);
    both = flatten::flatten(&[both, own]).unwrap();
    session
        .repack(&mut [&mut both, &mut layer], &mut writer, 1)
        .unwrap();
    assert_eq!(writer.len_bytes(), 2 * 12288);
    session.seal(writer).unwrap();
    for tree in [&mut both, &mut layer] {
        session.settle(tree);
        assert_eq!(tree.devices.len(), 1);
    }
    let layer = session.publish_layer(diff_id(b"x"), &layer).unwrap();
    let chain_id = uimgacc_types::chain_ids(&[layer.diff_id])[0];
    session.publish_index(chain_id, &both).unwrap();
    drop(session);
    assert_clean(&store);
    Session::begin(store.clone()).unwrap();
    stat(&store).unwrap();
}
