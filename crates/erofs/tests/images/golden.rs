//! One image for good: the writer must go on giving exactly these bytes, as stores hold digests of
//! images.

use std::path::Path;

use uimgacc_erofs::{Limits, read, write};

use crate::samples;

#[test]
fn bytes_never_change() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/every-kind.erofs");
    let tree = samples::every_kind();
    let mut image = Vec::new();
    write(&tree, &mut image).unwrap();
    if std::env::var_os("UIMGACC_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &image).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(
        image == golden,
        "the writer gives other bytes than {}",
        path.display()
    );
    let found = read(&golden, &Limits::default()).unwrap();
    assert!(found == tree.normalized().unwrap());
}
