//! A store and the command to drive it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use uimgacc_testkit::{Need, Registry, programs};

/// Whether the real parts are here; says loudly what is missing.
pub(crate) fn ready() -> bool {
    uimgacc_testkit::ready(&[Need::Root, Need::Parts])
}

/// The command.
pub(crate) fn uimgacc(arguments: &[&str]) -> Output {
    programs::uimgacc(arguments)
        .output()
        .expect("the command starts")
}

/// Standard output of a command that must succeed.
pub(crate) fn ok(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error of a command that must fail with `code`.
pub(crate) fn failed(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// Bytes that look random, the same for the same seed.
pub(crate) fn content(seed: u64, len_bytes: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()
    })
    .flatten()
    .take(len_bytes)
    .collect()
}

/// Copies a store, so that each point starts from the same one.
pub(crate) fn copy(from: &str, to: &str) {
    let status = Command::new("cp").args(["-a", from, to]).status().unwrap();
    assert!(status.success());
}

/// A registry and a store.
#[derive(Debug)]
pub(crate) struct StoreFixture {
    pub(crate) registry: Registry,
    folder: TempDir,
}

impl StoreFixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("uimgacc-e2e-")
            .tempdir()
            .expect("a temporary folder");
        let fixture = Self {
            registry: Registry::start(),
            folder,
        };
        ok(&uimgacc(&["store", "init", "--store", &fixture.store()]));
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn store(&self) -> String {
        text(&self.path("store"))
    }

    /// `create` from this registry to this registry, with further arguments.
    pub(crate) fn create(&self, original: &str, target: &str, more: &[&str]) -> Output {
        let (original, target) = (
            self.registry.reference(original),
            self.registry.reference(target),
        );
        let store = self.store();
        let mut arguments = vec![
            "create",
            &original,
            &target,
            "--store",
            &store,
            "--plain-http",
        ];
        arguments.extend(more);
        uimgacc(&arguments)
    }

    /// What a verb with `-o json` prints.
    pub(crate) fn json(&self, verb: &[&str]) -> Value {
        let store = self.store();
        let mut arguments = verb.to_vec();
        arguments.extend(["--store", &store, "-o", "json"]);
        serde_json::from_str(&ok(&uimgacc(&arguments))).expect("JSON")
    }

    /// `store verify`, which must find nothing.
    pub(crate) fn assert_clean(&self) {
        ok(&uimgacc(&["store", "verify", "--store", &self.store()]));
    }

    /// Mounts an image of this registry at a new folder, gone with the guard.
    pub(crate) fn mount(&self, name: &str, more: &[&str]) -> Mounted<'_> {
        let mounted = Mounted {
            fixture: self,
            path: self.path(&format!("mount-{}", name.replace(['/', ':'], "-"))),
        };
        let (image, store, state) = (
            self.registry.reference(name),
            self.store(),
            text(&self.path("state")),
        );
        let path = text(&mounted.path);
        let mut arguments = vec!["mount", &image, &path, "--store", &store, "--state", &state];
        arguments.extend(more);
        ok(&uimgacc(&arguments));
        mounted
    }
}

/// A mounted image.
#[derive(Debug)]
pub(crate) struct Mounted<'a> {
    fixture: &'a StoreFixture,
    pub(crate) path: PathBuf,
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let state = text(&self.fixture.path("state"));
        let output = uimgacc(&["umount", &text(&self.path), "--state", &state]);
        if !std::thread::panicking() {
            ok(&output);
            let left = mounts_below(&self.path);
            assert!(left.is_empty(), "umount said it was done: {left:?}");
        }
    }
}

/// What the kernel has mounted at or below `folder`.
pub(crate) fn mounts_below(folder: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| Path::new(point).starts_with(folder))
        .map(str::to_owned)
        .collect()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}
