//! The space of deleted images comes back, also where other images share packs with them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use uimgacc_testkit::image::{Compression, ImageBuilder};
use uimgacc_testkit::tar::TarBuilder;
use uimgacc_testkit::tree::{diff, snapshot};

use crate::support::{StoreFixture, content, failed, ok, ready, uimgacc};

const MIB: usize = 1 << 20;

/// A layer of files of these seeds, a MiB each.
fn layer(folder: &str, seeds: std::ops::Range<u64>) -> Vec<u8> {
    seeds
        .fold(TarBuilder::new(), |tar, seed| {
            tar.file(&format!("{folder}/{seed}"), 0o644, content(seed, MIB))
        })
        .finish()
}

/// What the files below a directory with that suffix take on the disk.
fn allocated(folder: &Path, suffix: &str) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes += allocated(&path, suffix);
        } else if path.extension().is_some_and(|found| found == suffix) {
            bytes += path.metadata().unwrap().blocks() * 512;
        }
    }
    bytes
}

/// A large image and a small one that shares 5 MiB of files with it, which lie in the large one's pack.
#[test]
fn a_small_image_keeps_no_large_one() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    for (name, layers) in [
        ("large:1", vec![layer("a", 0..60), layer("b", 60..70)]),
        ("small:1", vec![layer("c", 55..60), layer("d", 100..101)]),
    ] {
        let image = ImageBuilder::new();
        layers
            .into_iter()
            .fold(image, |image, tar| image.layer(tar, Compression::Gzip))
            .push(&fixture.registry, name);
    }
    let (large, small) = ("large:fast", "small:fast");
    ok(&fixture.create("large:1", large, &["--no-push"]));
    ok(&fixture.create("small:1", small, &["--no-push"]));
    let index = |image: &str| {
        let all = fixture.json(&["get"]);
        let images = all["Images"].as_array().unwrap().clone();
        let target = fixture.registry.reference(image);
        let found = images.into_iter().find(|one| one["TargetImage"] == target);
        found.unwrap()["IndexDigest"].clone()
    };
    let small_index = index(small);
    let packs = fixture.path("store/packs");
    let mib = |count: usize| (count * MIB) as u64;
    assert!(allocated(&packs, "pack") >= mib(71));
    let stat = fixture.json(&["store", "stat"]);
    assert_eq!(stat["dead_bytes"], 0, "{stat}");
    let space = |stat: &serde_json::Value, at: usize| {
        let space = &stat["image_space"][at];
        (space["own_bytes"].as_u64(), space["shared_bytes"].as_u64())
    };
    assert_eq!(space(&stat, 0), (Some(mib(65)), Some(mib(5))), "{stat}");
    assert_eq!(space(&stat, 1), (Some(mib(1)), Some(mib(5))), "{stat}");
    assert!(
        stat["physical_bytes"].as_u64().unwrap() >= mib(71),
        "{stat}"
    );

    let target = fixture.registry.reference(large);
    let store = fixture.store();
    let delete =
        |more: &[&str]| uimgacc(&[&["delete", &target, "--store", &store][..], more].concat());
    let would = ok(&delete(&["--dry-run"]));
    assert!(would.contains("68.1 MB of 73.4 MB"), "{would}");
    failed(&delete(&["--dry-run", "--force"]), 2);

    // Somebody reads the small one all the time.
    let mounted = fixture.mount(small, &[]);
    let before = snapshot(&mounted.path);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut times = 0;
            while !is_over.load(Ordering::SeqCst) || times < 2 {
                uimgacc_testkit::page_cache::dropped(1);
                assert_eq!(
                    diff(&before, &snapshot(&mounted.path)),
                    Vec::<String>::new()
                );
                times += 1;
            }
        });
        let deleted = ok(&delete(&[]));
        assert!(deleted.contains("freed"), "{deleted}");
        is_over.store(true, Ordering::SeqCst);
        reading.join().unwrap();
    });
    let taken = allocated(&packs, "pack");
    assert!(taken <= mib(6) * 105 / 100, "{taken}");
    fixture.assert_clean();
    assert_eq!(index(small), small_index);
    let stat = fixture.json(&["store", "stat"]);
    assert_eq!(stat["freed_bytes"], mib(55), "{stat}");

    // What was given back comes again, and is not read from a hole.
    ok(&fixture.create("large:1", large, &["--no-push"]));
    fixture.assert_clean();
    let all = snapshot(&fixture.mount(large, &[]).path);
    assert_eq!(
        all.iter().filter(|entry| entry.size == MIB as u64).count(),
        70
    );
}
