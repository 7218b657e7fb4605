//! containerd's own tests of snapshotters, in Go, against our socket.

use std::path::{Path, PathBuf};
use std::process::Command;

use uimgacc_testkit::{Need, ready};

use crate::daemon::PROGRAM;

/// A `go` that is new enough (from 1.21 on it fetches the version that a module asks for), from
/// the path, where its own packages put it, or where `scripts/parts-kubernetes.sh` does.
fn go() -> Option<PathBuf> {
    let places = ["go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go"];
    let parts = uimgacc_testkit::parts::dir().join("go/bin/go");
    let mut places = places.into_iter().map(PathBuf::from).chain([parts]);
    places.find(|program| {
        let Ok(output) = Command::new(program).arg("version").output() else {
            return false;
        };
        // "go version go1.26.8 linux/amd64"
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let minor = text
            .split_whitespace()
            .find_map(|word| word.strip_prefix("go1."))
            .and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        minor.is_some_and(|minor| minor >= 21)
    })
}

#[test]
fn containerds_own_suite() {
    if !ready(&[Need::Root, Need::Filesystem("overlay")]) {
        return;
    }
    let Some(go) = go() else {
        let why = "no go of version 1.21 or later: install one to run containerd's own tests";
        assert!(
            std::env::var_os("UIMGACC_CI").is_none_or(|value| value != "1"),
            "this test cannot run, and CI skips none: {why}"
        );
        eprintln!("SKIPPED: {why}");
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let output = Command::new(go)
        .args(["test", "-count=1", "-run", "TestSuite", "./...", "-v"])
        .args(["-args", "-test.root"])
        .current_dir(folder)
        .env("UIMGACC_SNAPSHOTTER", PROGRAM)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = text.matches("    --- PASS: TestSuite/").count();
    assert!(
        output.status.success() && passed == 21,
        "{passed} of 21 passed\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
