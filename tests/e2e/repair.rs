//! A damaged store is repaired from the registry, while somebody has the image mounted.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use uimgacc_testkit::image::{Compression, ImageBuilder, busybox_layer};
use uimgacc_testkit::tar::{Entry, Kind, Segment, SparseFormat, TarBuilder};
use uimgacc_testkit::tree::{diff, snapshot};

use crate::support::{StoreFixture, content, copy, failed, ok, ready, text, uimgacc};

/// The files below a directory with that suffix.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.extension().is_some_and(|one| one == suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn repair(fixture: &StoreFixture) -> std::process::Output {
    let registry = fixture.registry.address();
    uimgacc(&[
        "store",
        "repair",
        "--store",
        &fixture.store(),
        "--plain-http-registry",
        &registry,
    ])
}

#[test]
fn packs_come_back_from_the_registry_beside_a_mount() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let large = content(1, 5 << 20);
    let layer = (2..40)
        .fold(TarBuilder::new(), |tar, seed| {
            tar.file(&format!("small/{seed}"), 0o644, content(seed, 70_001))
        })
        .file("large", 0o644, large.clone())
        .sparse(
            &Entry::new("sparse", Kind::File),
            SparseFormat::Pax10,
            40 << 20,
            &[(8 << 20, 9000), (32 << 20, 300)].map(|(offset, len_bytes)| Segment {
                offset,
                data: content(offset, len_bytes),
            }),
        )
        .finish();
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .layer(layer, Compression::Zstd)
        .push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "app:fast", &[]));
    let packs = files(&fixture.path("store/packs"), "pack");
    let before: Vec<Vec<u8>> = packs.iter().map(|path| fs::read(path).unwrap()).collect();
    let mounted = fixture.mount("app:fast", &[]);
    let tree = snapshot(&mounted.path);
    let said = ok(&repair(&fixture));
    assert!(said.contains("0 repaired, 0 not repaired"), "{said}");

    // A MiB of each, where there is one, and the tail of the last.
    for (path, bytes) in packs.iter().zip(&before) {
        let file = fs::File::options().write(true).open(path).unwrap();
        let at = bytes.len() as u64 / 3;
        file.write_all_at(&vec![0x55; (1 << 20).min(bytes.len() / 3)], at)
            .unwrap();
    }
    let verify = uimgacc(&["store", "verify", "--store", &fixture.store()]);
    failed(&verify, 3);
    let said = ok(&repair(&fixture));
    assert!(said.contains("written again"), "{said}");
    let after = |packs: &[PathBuf]| {
        packs
            .iter()
            .map(|path| fs::read(path).unwrap())
            .collect::<Vec<_>>()
    };
    assert!(after(&packs) == before);
    fixture.assert_clean();
    assert_eq!(diff(&tree, &snapshot(&mounted.path)), Vec::<String>::new());

    // Cut, and gone: put together again, under the same names. The mount has what it had open.
    for (number, path) in packs.iter().enumerate() {
        if number == 0 {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(before[0].len() as u64 / 2).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    let said = ok(&repair(&fixture));
    assert!(said.contains("put together again"), "{said}");
    assert!(after(&packs) == before);
    fixture.assert_clean();
    drop(mounted);
    let mounted = fixture.mount("app:fast", &[]);
    assert_eq!(diff(&tree, &snapshot(&mounted.path)), Vec::<String>::new());
}

/// Nobody has the layer any more: the image is named, and created again it works.
#[test]
fn what_no_registry_has_is_named() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .push(&fixture.registry, "app:1");
    ok(&fixture.create("app:1", "app:fast", &[]));
    let pack = &files(&fixture.path("store/packs"), "pack")[0];
    fs::remove_file(pack).unwrap();
    // A registry that is not there.
    let nowhere = uimgacc(&["store", "repair", "--store", &fixture.store(), "-o", "json"]);
    failed(&nowhere, 3);
    let repairs: serde_json::Value = serde_json::from_slice(&nowhere.stdout).unwrap();
    let target = fixture.registry.reference("app:fast");
    assert_eq!(
        repairs["unrepaired"][0]["images"],
        serde_json::json!([target]),
        "{repairs}"
    );
    assert_eq!(repairs["unrepaired"][0]["path"], pack.to_str().unwrap());
    ok(&fixture.create("app:1", "app:fast", &[]));
    fixture.assert_clean();
}

#[test]
fn repair_killed_at_ten_points() {
    if !ready() {
        return;
    }
    const POINTS: u32 = 10;
    let fixture = StoreFixture::new();
    for seed in 1..=3 {
        let layer = TarBuilder::new().file("file", 0o644, content(seed, 3 << 20));
        let (original, target) = (format!("app:{seed}"), format!("app:{seed}-fast"));
        ImageBuilder::new()
            .layer(layer.finish(), Compression::Gzip)
            .push(&fixture.registry, &original);
        ok(&fixture.create(&original, &target, &["--no-push"]));
    }
    let store = fixture.path("store");
    let before: Vec<Vec<u8>> = files(&store, "pack")
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let packs = files(&store, "pack");
    fs::remove_file(&packs[0]).unwrap();
    let file = fs::File::options().write(true).open(&packs[1]).unwrap();
    file.set_len(4096).unwrap();
    let file = fs::File::options().write(true).open(&packs[2]).unwrap();
    file.write_all_at(&[0; 100], 1 << 20).unwrap();
    fs::remove_file(&files(&store, "toc")[1]).unwrap();
    for index in files(&store.join("indexes"), "erofs") {
        fs::write(index, "damaged").unwrap();
    }
    fs::remove_file(&files(&store.join("chains"), "json")[0]).unwrap();
    let registry = fixture.registry.address();
    let command = |store: &str| {
        let mut command = Command::new(uimgacc_testkit::programs::program("uimgacc"));
        command.args([
            "store",
            "repair",
            "--store",
            store,
            "--plain-http-registry",
            &registry,
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let copied = |name: &str| {
        let to = text(&fixture.path(name));
        copy(&text(&store), &to);
        to
    };
    let whole = copied("whole");
    let start = Instant::now();
    assert!(command(&whole).status().unwrap().success());
    let length = start.elapsed();
    for point in 0..POINTS {
        let store = copied(&format!("store-{point}"));
        let mut child = command(&store).spawn().unwrap();
        std::thread::sleep(length * point / POINTS);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(command(&store).status().unwrap().success(), "{point}");
        ok(&uimgacc(&["store", "verify", "--store", &store]));
        let after = files(Path::new(&store), "pack");
        let after: Vec<Vec<u8>> = after.iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(after == before, "{point}");
    }
}
