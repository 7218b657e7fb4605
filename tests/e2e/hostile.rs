//! Bad layers and bad stores: a clear error that names the layer or path, and a clean store.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use uimgacc_testkit::image::{Compression, ImageBuilder, Pushed};
use uimgacc_testkit::process::run;
use uimgacc_testkit::tar::{Entry, Kind, Segment, SparseFormat, TarBuilder};

use crate::support::{StoreFixture, failed, ok, ready, text};

/// `create` of `name` must fail with a message that has all of `words`.
fn refused(fixture: &StoreFixture, name: &str, words: &[&str]) {
    let message = failed(&fixture.create(name, "target:1", &["--no-push"]), 1);
    for word in words {
        assert!(message.contains(word), "{name}: no {word:?} in\n{message}");
    }
    fixture.assert_clean();
    assert!(
        fixture.json(&["get"])["Images"]
            .as_array()
            .unwrap()
            .is_empty(),
        "{name}"
    );
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

fn good_layer() -> Vec<u8> {
    let content: Vec<u8> = (0..300_000u32)
        .map(|at| (at / 3).to_le_bytes()[0])
        .collect();
    TarBuilder::new().file("file", 0o644, content).finish()
}

fn push(fixture: &StoreFixture, name: &str, layer: Vec<u8>, compression: Compression) -> Pushed {
    ImageBuilder::new()
        .layer(
            TarBuilder::new().file("below", 0o644, "b").finish(),
            Compression::Gzip,
        )
        .layer(layer, compression)
        .push(&fixture.registry, name)
}

#[test]
fn blobs_that_are_not_what_they_should_be() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let changed = push(&fixture, "changed:1", good_layer(), Compression::None);
    let digest = &changed.layers[1].digest;
    let blob = fixture.registry.blob_file(hex(digest));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    refused(&fixture, "changed:1", &["layer 2 of 2", digest, "digest"]);

    let cut = push(
        &fixture,
        "cut:1",
        [good_layer(), vec![0; 512]].concat(),
        Compression::Gzip,
    );
    let digest = &cut.layers[1].digest;
    let blob = fixture.registry.blob_file(hex(digest));
    let bytes = std::fs::read(&blob).unwrap();
    std::fs::write(&blob, &bytes[..bytes.len() / 2]).unwrap();
    refused(&fixture, "cut:1", &["layer 2 of 2", digest]);

    let liar = ImageBuilder::new()
        .layer(good_layer(), Compression::Zstd)
        .diff_ids(&["sha256:0000000000000000000000000000000000000000000000000000000000000000"])
        .push(&fixture.registry, "liar:1");
    refused(
        &fixture,
        "liar:1",
        &["layer 1 of 1", &liar.layers[0].digest, "diff ID"],
    );

    let garbage = [&[0x1f, 0x8b, 0x08][..], &[0xaa; 5000]].concat();
    push(&fixture, "garbage:1", garbage, Compression::None);
    refused(&fixture, "garbage:1", &["layer 2 of 2", "sha256:"]);
}

#[test]
fn tars_that_make_no_sense() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let name = "n".repeat(300);
    push(
        &fixture,
        "name:1",
        TarBuilder::new().file(&name, 0o644, "").finish(),
        Compression::Gzip,
    );
    refused(&fixture, "name:1", &["layer 2 of 2", "300 bytes", &name]);

    let links = TarBuilder::new().hard_link("link", "to/nowhere").finish();
    push(&fixture, "link:1", links, Compression::Gzip);
    refused(&fixture, "link:1", &["layer 2 of 2", "to/nowhere"]);

    // To a file of the layer below: containerd refuses that too.
    let links = TarBuilder::new().hard_link("link", "below").finish();
    push(&fixture, "lower:1", links, Compression::Gzip);
    refused(&fixture, "lower:1", &["layer 2 of 2", "below"]);

    let cut = TarBuilder::new()
        .file("one", 0o644, "")
        .file("two", 0o644, "")
        .truncated(300);
    push(&fixture, "header:1", cut, Compression::Gzip);
    refused(&fixture, "header:1", &["layer 2 of 2", "a header"]);

    let cut = TarBuilder::new()
        .file("three", 0o644, vec![1; 5000])
        .truncated(2000);
    push(&fixture, "content:1", cut, Compression::Gzip);
    refused(&fixture, "content:1", &["layer 2 of 2", "three"]);
}

#[test]
fn a_zip_bomb_is_stopped() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let folder = tempfile::tempdir().unwrap();
    // A tar with one file of 3 GB of zeros; it never lies on the disk.
    let tar = folder.path().join("bomb.tar");
    let size = 3_000_000_000u64;
    let header = {
        let whole = TarBuilder::new()
            .entry(&Entry::new("bomb", Kind::File).content(vec![0; 1]))
            .finish();
        let mut header = whole[..512].to_vec();
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    };
    let mut file = std::fs::File::create(&tar).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(512 + size.next_multiple_of(512) + 1024)
        .unwrap();
    drop(file);
    ImageBuilder::new()
        .layer(tar.as_path(), Compression::Gzip)
        .push(&fixture.registry, "bomb:1");
    refused(&fixture, "bomb:1", &["layer 1 of 1", "--max-expansion"]);
    let stat = fixture.json(&["store", "stat"]);
    assert_eq!(stat["pack_bytes"], 0);
}

#[test]
fn holes_cost_nothing() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let terabyte = 1u64 << 40;
    for (number, format) in [SparseFormat::Pax10, SparseFormat::Pax01, SparseFormat::Gnu]
        .into_iter()
        .enumerate()
    {
        let tar = TarBuilder::new()
            .sparse(
                &Entry::new("sparse", Kind::File),
                format,
                terabyte,
                &[
                    Segment {
                        offset: 0,
                        data: b"start".to_vec(),
                    },
                    Segment {
                        offset: terabyte - 3,
                        data: b"end".to_vec(),
                    },
                ],
            )
            .finish();
        let name = format!("sparse:{number}");
        ImageBuilder::new()
            .layer(tar, Compression::Gzip)
            .push(&fixture.registry, &name);
        ok(&fixture.create(&name, &format!("{name}-fast"), &["--no-push"]));
        fixture.assert_clean();
        let mounted = fixture.mount(&format!("{name}-fast"), &[]);
        let path = mounted.path.join("sparse");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), terabyte);
        let at = |offset: u64| {
            use std::os::unix::fs::FileExt as _;
            let mut bytes = [9; 3];
            std::fs::File::open(&path)
                .unwrap()
                .read_exact_at(&mut bytes, offset)
                .unwrap();
            bytes
        };
        assert_eq!(
            (&at(0), &at(terabyte / 2), &at(terabyte - 3)),
            (b"sta", &[0; 3], b"end")
        );
    }
    let used = run(Command::new("du").args(["-sB1", &fixture.store()])).stdout;
    let used: u64 = String::from_utf8_lossy(&used)
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(used < 64 << 20, "{used} bytes on the disk");
}

/// A mount that goes with the guard.
struct MountGuard(String);

impl MountGuard {
    fn new(arguments: &[&str], target: &Path) -> Self {
        let target = text(target);
        run(Command::new("mount").args(arguments).arg(&target));
        Self(target)
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[test]
fn a_hole_at_the_end_costs_nothing() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let size = 10u64 << 30;
    let formats = [SparseFormat::Pax10, SparseFormat::Pax01, SparseFormat::Gnu];
    for (number, format) in formats.into_iter().enumerate() {
        let tar = TarBuilder::new()
            .sparse(
                &Entry::new("sparse", Kind::File),
                format,
                size,
                &[Segment {
                    offset: 1 << 30,
                    data: vec![7; 4096],
                }],
            )
            .finish();
        let name = format!("hole:{number}");
        ImageBuilder::new()
            .layer(tar, Compression::Gzip)
            .push(&fixture.registry, &name);
        ok(&fixture.create(&name, &format!("{name}-fast"), &["--no-push"]));
        fixture.assert_clean();
        let mounted = fixture.mount(&format!("{name}-fast"), &[]);
        let file = std::fs::metadata(mounted.path.join("sparse")).unwrap();
        assert_eq!(file.len(), size);
    }
    let stat = fixture.json(&["store", "stat"]);
    // Each of the three: less than a megabyte, of which the most are chunks of its two indexes.
    let bytes = |name: &str| stat[name].as_u64().unwrap();
    assert!(
        bytes("pack_bytes") + bytes("metadata_bytes") < 3 << 20,
        "{stat}"
    );
}

#[test]
fn a_full_store_and_a_read_only_store() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let big: Vec<u8> = (0..20_000_000u32)
        .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    push(
        &fixture,
        "big:1",
        TarBuilder::new().file("big", 0o644, big).finish(),
        Compression::None,
    );

    let small = fixture.path("small");
    std::fs::create_dir(&small).unwrap();
    let guard = MountGuard::new(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"], &small);
    let store = text(&small.join("store"));
    ok(&crate::support::uimgacc(&[
        "store", "init", "--store", &store,
    ]));
    let create = |store: &str| {
        crate::support::uimgacc(&[
            "create",
            &fixture.registry.reference("big:1"),
            &fixture.registry.reference("big:2"),
            "--store",
            store,
            "--plain-http",
            "--no-push",
        ])
    };
    let message = failed(&create(&store), 1);
    assert!(
        message.contains("full") && message.contains(&store),
        "{message}"
    );
    ok(&crate::support::uimgacc(&[
        "store", "verify", "--store", &store,
    ]));
    // What was begun is gone, so that the space is there again.
    assert_eq!(
        std::fs::read_dir(small.join("store/tmp")).unwrap().count(),
        0
    );
    drop(guard);

    let read_only = fixture.path("read-only");
    std::fs::create_dir(&read_only).unwrap();
    let guard = MountGuard::new(&["--bind", &fixture.store()], &read_only);
    run(Command::new("mount")
        .args(["-o", "remount,bind,ro"])
        .arg(&read_only));
    let message = failed(&create(&text(&read_only)), 1);
    assert!(
        message.contains("writable") && message.contains("read-only"),
        "{message}"
    );
    drop(guard);
    fixture.assert_clean();
}
