//! Broken leases and files that are not the store's: never a hang, always the file's name.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uimgacc_store::{
    DropLeaseError, Lease, ReadError, StoreReader, SweepOptions, VerifyOptions, delete, drop_lease,
    lease_files, stat, sweep, verify, write_lease,
};

use crate::support::{add_image, age, dry_run, new_store};

const KEPT: &str = "example.com/kept:1";
const GOING: &str = "example.com/going:1";

/// Runs `work`, which must end soon.
fn soon<T: Send>(what: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        let started = std::time::Instant::now();
        while !working.is_finished() {
            assert!(started.elapsed() < Duration::from_secs(60), "{what} hangs");
            std::thread::sleep(Duration::from_millis(5));
        }
        working.join().unwrap()
    })
}

fn explain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn problems(store: &StoreReader) -> Vec<PathBuf> {
    let report = soon("verify", || {
        verify(store, &VerifyOptions::default(), &mut |_| {}).unwrap()
    });
    report
        .problems
        .into_iter()
        .map(|problem| problem.path)
        .collect()
}

/// The kinds of things that may stand at a path; a lease or a record of 0 bytes is one.
const KINDS: [&str; 6] = ["empty", "rubbish", "link", "pipe", "socket", "directory"];

fn put(kind: &str, path: &Path) {
    match kind {
        "empty" => std::fs::write(path, "").unwrap(),
        "rubbish" => std::fs::write(path, "{\"holder\": 7").unwrap(),
        "link" => symlink("/etc/hostname", path).unwrap(),
        "pipe" => {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        }
        "socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        _ => std::fs::create_dir(path).unwrap(),
    }
}

fn two_images() -> (tempfile::TempDir, StoreReader) {
    let (folder, store) = new_store();
    add_image(&store, KEPT, &[&[1; 9000]]);
    add_image(&store, GOING, &[&[2; 9000]]);
    (folder, store)
}

#[test]
fn a_lease_that_cannot_be_read_keeps_everything_and_is_named() {
    for kind in KINDS {
        let (_folder, store) = two_images();
        let path = store.layout().leases().on_host().join("node-7.json");
        put(kind, &path);
        let refusals = [
            explain(&soon("gc", || {
                sweep(&store, &SweepOptions::default()).unwrap_err()
            })),
            explain(&soon("delete", || {
                delete(&store, GOING, false).unwrap_err()
            })),
        ];
        for refused in refusals {
            let command = "uimgacc store lease drop node-7";
            assert!(refused.contains(command), "{kind}: {refused}");
            assert!(
                refused.contains(&path.display().to_string()),
                "{kind}: {refused}"
            );
        }
        assert!(store.image(GOING).unwrap().is_some());
        assert_eq!(problems(&store), std::slice::from_ref(&path), "{kind}");
        let stat = soon("stat", || stat(&store).unwrap());
        assert_eq!((stat.images, stat.packs, stat.leases), (2, 2, 1), "{kind}");
        assert!(stat.unreadable[0].contains("node-7"), "{kind}");
        assert_eq!(store.images().unwrap().len(), 2);
        // Removed as was asked, and no failure afterwards.
        soon("delete --force", || delete(&store, GOING, true).unwrap());
        assert!(store.image(GOING).unwrap().is_none());
        let files = soon("lease list", || lease_files(store.layout()).unwrap());
        assert!(matches!(
            files[0].lease,
            Err(ReadError::BrokenLease { ref name, .. }) if name == "node-7"
        ));
        let refused = drop_lease(store.layout(), "node-7", false).unwrap_err();
        assert!(
            matches!(refused, DropLeaseError::Recent { .. }),
            "{kind}: {refused}"
        );
        if kind == "directory" {
            drop_lease(store.layout(), "node-7", true).unwrap_err();
            continue;
        }
        drop_lease(store.layout(), "node-7", true).unwrap();
        assert!(problems(&store).is_empty());
        let swept = sweep(&store, &SweepOptions::default()).unwrap();
        assert!(swept.files > 0 && swept.left_alone.is_empty());
    }
}

#[test]
fn a_lease_is_dropped_once_its_holder_is_silent() {
    let (_folder, store) = two_images();
    let chain = store.image(GOING).unwrap().unwrap().chain_id;
    let lease = Lease::of_a_node("seven", vec![chain], 0, 0);
    write_lease(store.layout(), "seven", &lease).unwrap();
    delete(&store, GOING, false).unwrap_err();
    let refused = drop_lease(store.layout(), "seven", false).unwrap_err();
    assert!(refused.to_string().contains("--force"), "{refused}");
    let path = store.layout().leases().on_host().join("seven.json");
    age(&path, Duration::from_secs(660));
    for wrong in ["eight", "../store", ""] {
        let refused = drop_lease(store.layout(), wrong, true).unwrap_err();
        assert!(matches!(refused, DropLeaseError::NoLease(_)), "{refused}");
    }
    let dropped = drop_lease(store.layout(), "seven", false).unwrap();
    assert_eq!(dropped.lease.unwrap(), lease);
    delete(&store, GOING, false).unwrap();
}

#[test]
fn other_files_among_the_leases_stop_nobody() {
    let (_folder, store) = two_images();
    let leases = store.layout().leases().on_host();
    let others = ["node.json~", ".node.json.swp", ".#node.json", ".gitkeep"];
    for name in others {
        std::fs::write(leases.join(name), "").unwrap();
    }
    std::fs::write(leases.join(".nfs0000000000000001"), "").unwrap();
    delete(&store, GOING, false).unwrap();
    sweep(&store, &SweepOptions::default()).unwrap();
    let mut found = problems(&store);
    let mut expected: Vec<PathBuf> = others.iter().map(|name| leases.join(name)).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_has_no_name_of_the_stores_is_reported_and_stays() {
    let (_folder, store) = two_images();
    let image = store.image(GOING).unwrap().unwrap();
    let root = store.layout().root().to_owned();
    let mut expected = Vec::new();
    for directory in ["packs", "layers", "chains", "indexes", "images"] {
        let fan = root.join(directory).join("aa");
        std::fs::create_dir_all(&fan).unwrap();
        for suffix in ["toc", "pack", "dead", "erofs", "json", "retired", "filter"] {
            let path = fan.join(format!("notes.{suffix}"));
            std::fs::write(&path, "notes").unwrap();
            expected.push(path);
        }
        for kind in KINDS {
            let path = fan.join(kind);
            put(kind, &path);
            expected.push(path);
        }
        // An id in the wrong directory.
        let path = fan.join(format!("{}.json", image.chain_id.hex().replace('a', "b")));
        std::fs::write(&path, "{}").unwrap();
        expected.push(path);
    }
    for name in [
        "extra",
        "leases/pipe",
        "tmp/pipe",
        "chains/pipe",
        "tmp/link",
    ] {
        put(name.rsplit('/').next().unwrap(), &root.join(name));
        expected.push(root.join(name));
    }
    soon("delete", || delete(&store, GOING, false).unwrap());
    let swept = soon("gc", || sweep(&store, &SweepOptions::default()).unwrap());
    assert!(swept.files > 0);
    assert_eq!(soon("stat", || stat(&store).unwrap()).packs, 1);
    let mut found = problems(&store);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_stands_in_place_of_a_file_is_reported_and_stays() {
    for kind in ["link", "pipe", "socket", "directory"] {
        let (_folder, store) = two_images();
        let image = store.image(GOING).unwrap().unwrap();
        let layout = store.layout();
        delete(&store, GOING, false).unwrap();
        let places = [
            layout.layer(image.diff_ids[0]).on_host(),
            layout.index(image.chain_id).on_host(),
            layout.pack(image.index.packs[0]).on_host(),
        ];
        for path in &places {
            std::fs::remove_file(path).unwrap();
            put(kind, path);
        }
        let would = soon("a dry run", || sweep(&store, &dry_run()).unwrap());
        let swept = soon("gc", || sweep(&store, &SweepOptions::default()).unwrap());
        for path in &places {
            assert!(path.symlink_metadata().is_ok(), "{kind}");
            assert!(would.left_alone.contains(path), "{kind}: {would:?}");
            assert!(swept.left_alone.contains(path), "{kind}: {swept:?}");
            assert!(problems(&store).contains(path), "{kind}");
        }
        soon("stat", || stat(&store).unwrap());
    }
}

#[test]
fn a_linked_directory_stops_gc_by_its_name_and_nothing_is_behind_it() {
    for directory in ["packs", "layers", "chains", "indexes", "images", "leases"] {
        let (_folder, store) = two_images();
        let outside = tempfile::tempdir().unwrap();
        let fan = match directory {
            "leases" => store.layout().leases().on_host(),
            other => {
                let mut free = (0..256u32).map(|byte| {
                    store
                        .layout()
                        .root()
                        .join(other)
                        .join(format!("{byte:02x}"))
                });
                free.find(|path| !path.exists()).unwrap()
            }
        };
        let _ = std::fs::remove_dir(&fan);
        symlink(outside.path(), &fan).unwrap();
        let refused = explain(&soon("gc", || {
            sweep(&store, &SweepOptions::default()).unwrap_err()
        }));
        assert!(refused.contains(&fan.display().to_string()), "{refused}");
        assert!(refused.contains("move it away"), "{refused}");
        assert_eq!(problems(&store), std::slice::from_ref(&fan));
        let stat = soon("stat", || stat(&store).unwrap());
        assert_eq!(stat.images, 2);
        // Chains are not counted.
        let is_named = stat.unreadable.iter().any(|text| text.contains(directory));
        assert!(is_named || directory == "chains", "{directory}: {stat:?}");
        std::fs::remove_file(&fan).unwrap();
        sweep(&store, &SweepOptions::default()).unwrap();
    }
}

#[test]
fn a_broken_image_record_is_named_with_what_to_do() {
    for kind in KINDS {
        let (_folder, store) = two_images();
        let path = store.layout().image(GOING).on_host();
        std::fs::remove_file(&path).unwrap();
        put(kind, &path);
        let errors = [
            explain(&soon("get", || store.images().unwrap_err())),
            explain(&soon("get", || store.image(GOING).unwrap_err())),
            explain(&soon("gc", || {
                sweep(&store, &SweepOptions::default()).unwrap_err()
            })),
            explain(&soon("delete", || delete(&store, KEPT, false).unwrap_err())),
        ];
        for error in errors {
            assert!(
                error.contains(&path.display().to_string()),
                "{kind}: {error}"
            );
            assert!(error.contains("run `uimgacc create`"), "{kind}: {error}");
        }
        assert_eq!(problems(&store), [path], "{kind}");
        assert_eq!(soon("stat", || stat(&store).unwrap()).images, 1, "{kind}");
    }
}
