//! gc against sessions, leases and its own young garbage.

use std::io::Cursor;
use std::time::Duration;

use uimgacc_store::{Lease, Session, SweepOptions, delete, init, stat, sweep, write_lease};

use crate::support::{add_image, age, assert_clean, convert, dry_run, new_store};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn nothing_is_swept_under_a_living_session() {
    let (_folder, store) = new_store();
    let image = add_image(&store, "example.com/a:1", &[&[1; 9000]]);
    delete(&store, &image.target, false).unwrap();
    let session = Session::begin(store.clone()).unwrap();
    let swept = sweep(&store, &SweepOptions::default()).unwrap();
    assert_eq!((swept.files, swept.waiting_for.len()), (0, 1));
    // The session still finds the content, in the same pack, and may count on it.
    let mut writer = session.pack_writer().unwrap();
    writer.put(&mut Cursor::new([1; 9000]), 9000).unwrap();
    assert_eq!(writer.len_bytes(), 0);
    assert!(store.layout().pack(image.index.packs[0]).on_host().exists());
    drop(writer);
    drop(session);
    let swept = sweep(&store, &SweepOptions::default()).unwrap();
    assert!(swept.waiting_for.is_empty());
    assert!(!store.layout().pack(image.index.packs[0]).on_host().exists());
    assert_eq!(stat(&store).unwrap().packs, 0);
    assert_clean(&store);
}

#[test]
fn leases_hold_images() {
    let (_folder, store) = new_store();
    let image = add_image(&store, "example.com/a:1", &[&[1; 9000]]);
    let other = add_image(&store, "example.com/b:1", &[&[2; 9000]]);
    let lease = Lease::of_this_machine("node one".to_owned(), vec![image.chain_id]);
    write_lease(store.layout(), "one", &lease).unwrap();
    let refused = delete(&store, &image.target, false).unwrap_err();
    assert!(refused.to_string().contains("node one"), "{refused}");
    assert!(store.image(&image.target).unwrap().is_some());
    assert!(store.chain(image.chain_id).unwrap().is_some());
    delete(&store, &other.target, false).unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    assert!(store.layout().pack(image.index.packs[0]).on_host().exists());
    assert!(!store.layout().pack(other.index.packs[0]).on_host().exists());

    // A lease of this machine from before its last boot holds nothing.
    let old = Lease {
        boot_id: "another boot".to_owned(),
        ..lease
    };
    write_lease(store.layout(), "one", &old).unwrap();
    delete(&store, &image.target, false).unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    assert_eq!(stat(&store).unwrap().pack_bytes, 0);
    assert_clean(&store);
}

#[test]
fn young_garbage_is_left_alone_and_a_dry_run_changes_nothing() {
    let (_folder, store) = new_store();
    let image = add_image(&store, "example.com/a:1", &[&[1; 9000]]);
    delete(&store, &image.target, false).unwrap();
    // Only the retired record, which no lease names, goes.
    assert_eq!(
        sweep(&store, &SweepOptions::older_than(HOUR))
            .unwrap()
            .files,
        1
    );
    let would = sweep(&store, &dry_run()).unwrap();
    assert!(would.files >= 3 && would.bytes >= 9000, "{would:?}");
    assert!(store.layout().toc(image.index.packs[0]).on_host().exists());
}

#[test]
fn a_folder_with_other_things_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("precious"), "x").unwrap();
    let error = init(folder.path()).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_index_stays_as_long_as_a_record_names_it() {
    let (_folder, store) = new_store();
    let base = add_image(&store, "example.com/base:1", &[&[1; 9000]]);
    add_image(&store, "example.com/app:1", &[&[1; 9000], &[2; 9000]]);
    delete(&store, &base.target, false).unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    // The chain of the base is a prefix of the app's, with its index.
    let record = store.chain(base.chain_id).unwrap().unwrap();
    assert_eq!(
        record.index.is_some(),
        store.layout().index(base.chain_id).on_host().exists()
    );
    assert_clean(&store);
    add_image(&store, "example.com/base:1", &[&[1; 9000]]);
    assert_clean(&store);
}

#[test]
fn records_of_lost_indexes_are_mended() {
    let (_folder, store) = new_store();
    let base = add_image(&store, "example.com/base:1", &[&[1; 9000]]);
    add_image(&store, "example.com/app:1", &[&[1; 9000], &[2; 9000]]);
    delete(&store, &base.target, false).unwrap();
    // As a gc of version 0.1 left it.
    std::fs::remove_file(store.layout().index(base.chain_id).on_host()).unwrap();
    sweep(&store, &SweepOptions::older_than(HOUR)).unwrap();
    assert_clean(&store);
    assert_eq!(store.chain(base.chain_id).unwrap().unwrap().index, None);
    let again = add_image(&store, "example.com/base:1", &[&[1; 9000]]);
    assert_eq!(
        store.chain(base.chain_id).unwrap().unwrap().index,
        Some(again.index)
    );
    assert_clean(&store);
}

#[test]
fn what_young_garbage_names_is_young_as_well() {
    let (_folder, store) = new_store();
    let first = add_image(&store, "example.com/a:1", &[&[1; 9000]]);
    let second = add_image(&store, "example.com/b:1", &[&[2; 9000], &[1; 9000]]);
    let pack = first.index.packs[0];
    delete(&store, &first.target, false).unwrap();
    // A create that died before its record: young indexes, an old pack.
    std::fs::remove_file(store.layout().image(&second.target).on_host()).unwrap();
    let old = [
        store.layout().pack(pack).on_host(),
        store.layout().toc(pack).on_host(),
        store.layout().layer(first.diff_ids[0]).on_host(),
    ];
    for path in &old {
        age(path, 2 * HOUR);
    }
    sweep(&store, &SweepOptions::older_than(HOUR)).unwrap();
    assert_clean(&store);
    let again = add_image(&store, "example.com/b:1", &[&[2; 9000], &[1; 9000]]);
    assert_eq!(again.index, second.index);
    assert_clean(&store);
    // Also where only the layer's index is left, without a chain.
    std::fs::remove_file(store.layout().image(&second.target).on_host()).unwrap();
    for chain in uimgacc_types::chain_ids(&second.diff_ids) {
        std::fs::remove_file(store.layout().chain(chain).on_host()).unwrap();
    }
    for path in &old {
        age(path, 2 * HOUR);
    }
    age(&store.layout().index(second.chain_id).on_host(), 2 * HOUR);
    let young = store.layout().layer(first.diff_ids[0]).on_host();
    age(&young, Duration::ZERO);
    sweep(&store, &SweepOptions::older_than(HOUR)).unwrap();
    assert!(young.exists() && store.layout().pack(pack).on_host().exists());
    assert_clean(&store);
}

#[test]
fn a_lease_holds_what_it_names_after_the_record_is_gone() {
    let (_folder, store) = new_store();
    let image = add_image(&store, "example.com/a:1", &[&[1; 9000], &[2; 9000]]);
    let files = || {
        let layout = store.layout();
        let mut files = vec![layout.index(image.chain_id).on_host()];
        files.extend(image.diff_ids.iter().map(|id| layout.layer(*id).on_host()));
        files.extend(
            image
                .index
                .packs
                .iter()
                .map(|id| layout.pack(*id).on_host()),
        );
        files.extend(image.index.packs.iter().map(|id| layout.toc(*id).on_host()));
        files
    };
    delete(&store, &image.target, false).unwrap();
    assert!(store.chain(image.chain_id).unwrap().is_none());
    // A node had looked before, its lease appears only now.
    let lease = Lease::of_this_machine("node one".to_owned(), vec![image.chain_id]);
    write_lease(store.layout(), "one", &lease).unwrap();
    for _ in 0..2 {
        let swept = sweep(&store, &SweepOptions::default()).unwrap();
        assert_eq!(swept.held_by, ["node one"]);
        for file in files() {
            assert!(file.exists(), "{}", file.display());
        }
    }
    // The chain comes and goes once more while the lease holds.
    let again = add_image(&store, "example.com/a:2", &[&[1; 9000], &[2; 9000]]);
    std::fs::remove_file(store.layout().image(&again.target).on_host()).unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    for file in files() {
        assert!(file.exists(), "{}", file.display());
    }
    uimgacc_store::remove_lease(store.layout(), "one").unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    assert_eq!(stat(&store).unwrap().metadata_bytes, 0);
    assert_eq!(stat(&store).unwrap().pack_bytes, 0);
    assert_clean(&store);
}

#[test]
fn sessions_that_begin_during_gc_count_on_nothing_that_goes() {
    let (_folder, store) = new_store();
    let contents: Vec<Vec<u8>> = (1..5u8).map(|byte| vec![byte; 9000]).collect();
    // Each thread makes and deletes the same image again and again, others sweep.
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (store, contents) = (&store, &contents);
            scope.spawn(move || {
                for round in 0..8 {
                    let target = format!("example.com/{thread}:1");
                    let layers: Vec<&[u8]> = (0..3)
                        .map(|at| contents[(at + round) % 4].as_slice())
                        .collect();
                    add_image(store, &target, &layers);
                    if round % 2 == 0 {
                        delete(store, &target, true).unwrap();
                    }
                }
            });
        }
        let store = &store;
        scope.spawn(move || {
            for _ in 0..6 {
                sweep(store, &SweepOptions::default()).unwrap();
            }
        });
    });
    assert_clean(&store);
    assert_eq!(store.images().unwrap().len(), 2);
}

#[test]
fn what_a_dead_gc_left_is_no_hindrance() {
    let (_folder, store) = new_store();
    add_image(&store, "example.com/a:1", &[&[1; 9000]]);
    // The marker of a process that is no more.
    let dir = store.layout().tmp().on_host().join("gc-0123");
    std::fs::create_dir(&dir).unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let intent = format!(
        r#"{{"host":"{}","boot_id":"{}","pid_namespace":"{}","pid":1,"process_start":1,"started":"s"}}"#,
        host.trim(),
        boot_id.trim(),
        namespace.display()
    );
    std::fs::write(dir.join("intent.json"), intent).unwrap();
    let session = Session::begin(store.clone()).unwrap();
    convert(&session, "example.com/b:1", &[&[2; 9000]]);
    drop(session);
    assert!(!dir.exists());
    let swept = sweep(&store, &SweepOptions::default()).unwrap();
    assert!(swept.waiting_for.is_empty() && swept.files > 0);
}
