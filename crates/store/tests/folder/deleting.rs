//! `delete` against sessions and leases.

use uimgacc_store::{Lease, Session, SweepOptions, delete, sweep, write_lease};

use crate::support::{add_image, assert_clean, convert, new_store};

#[test]
fn chains_that_a_session_counts_on_stay() {
    let (_folder, store) = new_store();
    let layers: [&[u8]; 2] = [&[1; 9000], &[2; 9000]];
    let first = add_image(&store, "example.com/a:1", &layers);
    // Another create of the same content is on its way and has found all that it needs.
    let session = Session::begin(store.clone()).unwrap();
    let second = convert(&session, "example.com/b:1", &layers);
    delete(&store, &first.target, false).unwrap();
    assert!(store.image(&first.target).unwrap().is_none());
    for chain in uimgacc_types::chain_ids(&first.diff_ids) {
        assert!(store.chain(chain).unwrap().is_some());
    }
    let swept = sweep(&store, &SweepOptions::default()).unwrap();
    assert_eq!(swept.waiting_for.len(), 1);
    session.publish_image(&second).unwrap();
    drop(session);
    assert_clean(&store);
    sweep(&store, &SweepOptions::default()).unwrap();
    assert_clean(&store);
    assert!(store.chain(second.chain_id).unwrap().is_some());
}

#[test]
fn missing_chains_are_written_again_with_the_image() {
    let (_folder, store) = new_store();
    let layers: [&[u8]; 2] = [&[1; 9000], &[2; 9000]];
    let session = Session::begin(store.clone()).unwrap();
    let record = convert(&session, "example.com/a:1", &layers);
    for chain in uimgacc_types::chain_ids(&record.diff_ids) {
        std::fs::remove_file(store.layout().chain(chain).on_host()).unwrap();
    }
    session.publish_image(&record).unwrap();
    assert_clean(&store);
}

#[test]
fn an_image_without_its_files_is_not_recorded() {
    let (_folder, store) = new_store();
    let layers: [&[u8]; 1] = [&[1; 9000]];
    let session = Session::begin(store.clone()).unwrap();
    let record = convert(&session, "example.com/a:1", &layers);
    let layout = store.layout();
    for path in [
        layout.layer(record.diff_ids[0]).on_host(),
        layout.index(record.chain_id).on_host(),
        layout.pack(record.index.packs[0]).on_host(),
    ] {
        let hidden = path.with_extension("hidden");
        std::fs::rename(&path, &hidden).unwrap();
        let refused = session.publish_image(&record).unwrap_err();
        assert!(refused.to_string().contains("vanished"), "{refused}");
        std::fs::rename(&hidden, &path).unwrap();
    }
    session.publish_image(&record).unwrap();
    assert_clean(&store);
}

#[test]
fn force_goes_over_leases() {
    let (_folder, store) = new_store();
    let image = add_image(&store, "example.com/a:1", &[&[1; 9000]]);
    let lease = Lease::of_this_machine("node one".to_owned(), vec![image.chain_id]);
    write_lease(store.layout(), "one", &lease).unwrap();
    delete(&store, &image.target, false).unwrap_err();
    assert!(store.chain(image.chain_id).unwrap().is_some());
    delete(&store, &image.target, true).unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    assert!(!store.layout().pack(image.index.packs[0]).on_host().exists());
    assert_clean(&store);
}
