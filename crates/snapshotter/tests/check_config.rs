//! `uimgacc-snapshotter check-config`, as a person calls it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests; clippy knows only functions marked as tests"
)]

use std::process::{Command, Output};

fn check(text: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("snapshotter.toml");
    std::fs::write(&file, text).expect("a file");
    Command::new(env!("CARGO_BIN_EXE_uimgacc-snapshotter"))
        .arg("check-config")
        .arg(&file)
        .output()
        .expect("the command starts")
}

#[test]
fn a_right_file_and_wrong_ones() {
    let right = check("store = \"nfs://a,b/?vers=3\"\nroot = \"/var/lib/uimgacc\"\n");
    assert!(right.status.success(), "{right:?}");
    let said = String::from_utf8(right.stdout).unwrap();
    assert!(
        said.ends_with("is right; store: nfs://a,b/?vers=3\n"),
        "{said}"
    );
    for (text, part) in [
        (
            "root = \"/a\"\n\nstroe = \"/b\"\n",
            "line 3: unknown field `stroe`, expected one of",
        ),
        (
            "store = \"10.0.0.1:/\"\n",
            "for SERVER:/PATH write nfs://SERVER/PATH",
        ),
    ] {
        let wrong = check(text);
        assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
        let said = String::from_utf8(wrong.stderr).unwrap();
        assert!(said.contains(part), "{said}");
        assert!(said.contains("snapshotter.toml, line "), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there() {
    let missing = Command::new(env!("CARGO_BIN_EXE_uimgacc-snapshotter"))
        .args(["check-config", "/no/such/file"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("cannot read /no/such/file"), "{said}");
}
