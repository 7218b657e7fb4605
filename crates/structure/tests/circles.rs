//! No modules of this project use each other in a circle.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::fs;
use std::path::Path;

use uimgacc_structure::{Crate, circles};

fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let circles = circles(&Crate::read(directory.path()).unwrap());
    circles.iter().map(ToString::to_string).collect()
}

#[test]
fn a_circle_is_found() {
    let root = ("lib.rs", "mod a; mod b; pub use b::Real as Given;");
    let b = ("b.rs", "pub struct Real; fn f() { crate::a::g() }");
    let direct = circles_of(&[root, ("a.rs", "use crate::b::Real; pub fn g() {}"), b]);
    assert_eq!(direct, ["  a uses b: Real\n  b uses a: g\n"]);
    // By a name that the root only hands on, and in a macro.
    let handed = circles_of(&[root, ("a.rs", "use super::Given;"), b]);
    assert_eq!(handed, direct);
    let in_macro = circles_of(&[root, ("a.rs", "fn g() { x!(1, crate::b::Real) }"), b]);
    assert_eq!(in_macro, direct);
    // By way of what is inside of one.
    let inside = circles_of(&[
        root,
        ("a.rs", "mod c; pub fn g() {}"),
        ("a/c.rs", "use crate::b::Real;"),
        b,
    ]);
    assert_eq!(inside, direct);
    assert!(circles_of(&[root, ("a.rs", "use std::fs; pub fn g() {}"), b]).is_empty());
    let parent = circles_of(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod c; use c::f; pub struct Shared;"),
        ("a/c.rs", "use super::Shared; pub fn f() {}"),
    ]);
    assert!(parent.is_empty(), "{parent:?}");
    let test = "#[cfg(test)] mod tests { use crate::b::Real; } pub fn g() {}";
    assert!(circles_of(&[root, ("a.rs", test), b]).is_empty());
}

#[test]
fn no_crate_has_a_circle() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = vec![crates.parent().unwrap().join("bench")];
    all.extend(
        fs::read_dir(crates)
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    all.sort();
    assert!(all.len() > 15, "{all:?}");
    let mut found = String::new();
    for crate_ in all {
        for circle in circles(&Crate::read(&crate_.join("src")).unwrap()) {
            found += &format!("{}:\n{circle}", crate_.display());
        }
    }
    assert!(found.is_empty(), "circles of modules:\n{found}");
}
