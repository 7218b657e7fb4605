//! What a crate must not depend on, not even by way of others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::Command;

/// All crates that a crate is built of, its own name among them.
fn tree(name: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges=normal", "--prefix=none"])
        .args(["--format={p}", "--package", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree of {name}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn crates_keep_apart() {
    let kubernetes = ["kube", "kube-core", "k8s-openapi"];
    let data = ["uimgacc-store", "uimgacc-convert", "uimgacc-mount"];
    for (name, kept_out) in [
        ("uimgacc-api", kubernetes),
        ("uimgacc-remote", kubernetes),
        ("uimgacc-controller", data),
        ("uimgacc-control", data),
        ("uimgacc-objects", data),
    ] {
        let tree = tree(name);
        assert!(tree.iter().any(|one| one == name), "{tree:?}");
        for other in kept_out {
            let is_there = tree.iter().any(|one| one == other);
            assert!(!is_there, "{name} depends on {other}");
        }
    }
    // The check would find one.
    assert!(tree("uimgacc-objects").iter().any(|one| one == "kube-core"));
}
