//! What two images share lies in the store once.

use uimgacc_testkit::image::{Compression, ImageBuilder};
use uimgacc_testkit::tar::TarBuilder;
use uimgacc_testkit::tree::{diff, snapshot};

use crate::support::{StoreFixture, ok, ready};

const FILE_BYTES: usize = 50_000;

/// Content of file `number`, different in each block.
fn content(number: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    (0..FILE_BYTES)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

fn layer(folder: &str, numbers: impl Iterator<Item = usize>) -> Vec<u8> {
    numbers
        .fold(TarBuilder::new(), |tar, number| {
            tar.file(&format!("{folder}/{number}"), 0o644, content(number))
        })
        .finish()
}

#[test]
fn a_second_image_adds_only_its_own_files() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    let image = |layers: Vec<Vec<u8>>| {
        layers.into_iter().fold(ImageBuilder::new(), |image, tar| {
            image.layer(tar, Compression::Gzip)
        })
    };
    image(vec![layer("a", 0..60), layer("b", 60..100)]).push(&fixture.registry, "first:1");
    // The same 90 files, other names, other layers, and 10 new ones among them.
    image(vec![
        layer("x", 30..90),
        layer("y", 90..95),
        layer("z", (0..25).chain(100..110)),
    ])
    .push(&fixture.registry, "second:1");
    ok(&fixture.create("first:1", "first:fast", &["--no-push"]));
    let before = fixture.json(&["store", "stat"]);
    ok(&fixture.create("second:1", "second:fast", &["--no-push"]));
    let after = fixture.json(&["store", "stat"]);
    let grown = |field: &str| after[field].as_u64().unwrap() - before[field].as_u64().unwrap();
    assert_eq!(grown("contents"), 10);
    assert_eq!(grown("content_bytes"), 10 * FILE_BYTES as u64);
    assert_eq!(
        grown("pack_bytes"),
        10 * FILE_BYTES.next_multiple_of(4096) as u64
    );
    fixture.assert_clean();

    // Deleting the first leaves the second whole.
    let second_before = snapshot(&fixture.mount("second:fast", &[]).path);
    ok(&crate::support::uimgacc(&[
        "delete",
        &fixture.registry.reference("first:fast"),
        "--store",
        &fixture.store(),
    ]));
    fixture.assert_clean();
    let second_after = snapshot(&fixture.mount("second:fast", &[]).path);
    assert_eq!(diff(&second_before, &second_after), Vec::<String>::new());
    assert_eq!(
        second_after
            .iter()
            .filter(|entry| entry.size == FILE_BYTES as u64)
            .count(),
        100
    );
}

#[test]
fn an_image_refers_to_a_bounded_number_of_packs() {
    if !ready() {
        return;
    }
    let fixture = StoreFixture::new();
    // Each image brings a pack; the last one shares a file with every one of them.
    for number in 0..20 {
        ImageBuilder::new()
            .layer(
                layer("own", [number, number + 1000].into_iter()),
                Compression::None,
            )
            .push(&fixture.registry, &format!("part:{number}"));
        ok(&fixture.create(
            &format!("part:{number}"),
            &format!("part:fast-{number}"),
            &["--no-push"],
        ));
    }
    ImageBuilder::new()
        .layer(layer("all", 0..20), Compression::Zstd)
        .push(&fixture.registry, "all:1");
    ok(&fixture.create("all:1", "all:fast", &["--no-push"]));
    fixture.assert_clean();
    let images = fixture.json(&["get", &fixture.registry.reference("all:fast")]);
    assert_eq!(images["Images"][0]["Packs"], 16);
    let mounted = fixture.mount("all:fast", &[]);
    for number in 0..20 {
        let found = std::fs::read(mounted.path.join(format!("all/{number}"))).unwrap();
        assert!(found == content(number), "file {number}");
    }
    drop(mounted);
    // Parts of it go; it stays.
    for number in 0..20 {
        ok(&crate::support::uimgacc(&[
            "delete",
            &fixture.registry.reference(&format!("part:fast-{number}")),
            "--store",
            &fixture.store(),
        ]));
    }
    // Its layer refers to no more packs than the image: the others' are gone.
    assert_eq!(fixture.json(&["store", "stat"])["packs"], 16);
    fixture.assert_clean();
    let mounted = fixture.mount("all:fast", &[]);
    let found = std::fs::read(mounted.path.join("all/19")).unwrap();
    assert!(found == content(19));
}
