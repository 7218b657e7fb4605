//! What erofs-utils 1.8 or later say of an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::test_runner::{Config, TestRunner};
use uimgacc_erofs::tree::Tree;
use uimgacc_erofs::write;

use crate::{devices, random, samples};

/// A tool out of the folder of test parts. Where that is not there, it says so, and fails in CI.
fn tool(name: &str) -> Option<PathBuf> {
    let parts = std::env::var_os("UIMGACC_PARTS").map(PathBuf::from);
    let path = parts
        .map(|parts| parts.join("bin").join(name))
        .filter(|path| path.exists());
    if path.is_none() {
        let why = format!("{name} is not in $UIMGACC_PARTS/bin; scripts/test.sh puts it there");
        println!("SKIPPED: {why}");
        assert!(
            std::env::var_os("UIMGACC_CI").is_none_or(|ci| ci != "1"),
            "{why}"
        );
    }
    path
}

/// An image and its devices in a folder of their own.
struct Files {
    _folder: tempfile::TempDir,
    image: PathBuf,
    devices: Vec<PathBuf>,
}

impl Files {
    fn new(tree: &Tree) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let mut bytes = Vec::new();
        write(tree, &mut bytes).unwrap();
        fs::write(&image, bytes).unwrap();
        let devices = devices::write_all(tree, folder.path());
        Self {
            _folder: folder,
            image,
            devices,
        }
    }

    fn run(&self, tool: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(tool);
        command.args(arguments);
        for device in &self.devices {
            command.arg(format!("--device={}", device.display()));
        }
        command.arg(&self.image).output().unwrap()
    }
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

/// Whether `fsck.erofs` is content, and what it said. Its exit code alone does not say so: version
/// 1.8.6 prints a wrong checksum as an error and still exits with 0.
fn fsck(tool: &Path, files: &Files, arguments: &[&str]) -> (bool, String) {
    let output = files.run(tool, &[&["-d3"], arguments].concat());
    let text = text(&output);
    let complains = text.contains("<E>") || text.contains("<W>");
    let content = text.contains("No errors found");
    (output.status.success() && content && !complains, text)
}

/// Checks all metadata, and with `extract` reads every content as well.
fn check(tool: &Path, tree: &Tree, extract: bool) {
    let arguments = if extract { &["--extract"][..] } else { &[] };
    let (content, text) = fsck(tool, &Files::new(tree), arguments);
    assert!(content, "{text}");
}

#[test]
fn fsck_finds_no_errors_in_samples() {
    let Some(tool) = tool("fsck.erofs") else {
        return;
    };
    for (name, tree) in samples::all() {
        println!("sample {name}");
        // Terabytes of zeros are not worth reading.
        check(&tool, &tree, name != "sparse terabytes");
    }
}

#[test]
fn fsck_finds_no_errors_in_random_trees() {
    let Some(tool) = tool("fsck.erofs") else {
        return;
    };
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&random::trees(), |tree| {
        check(&tool, &tree, true);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

/// The tool is really looked at: it must see damage.
#[test]
fn fsck_finds_damage() {
    let Some(tool) = tool("fsck.erofs") else {
        return;
    };
    let files = Files::new(&samples::overlay());
    let mut image = fs::read(&files.image).unwrap();
    image[1100] ^= 1;
    fs::write(&files.image, image).unwrap();
    let (content, text) = fsck(&tool, &files, &[]);
    assert!(!content && text.contains("chksum"), "{text}");
}

#[test]
fn dump_shows_superblock_and_files() {
    let Some(dump) = tool("dump.erofs") else {
        return;
    };
    let files = Files::new(&samples::every_kind());
    let output = files.run(&dump, &["-s"]);
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    let line = |name: &str| {
        let found = shown.lines().find(|line| line.starts_with(name));
        found
            .unwrap_or_else(|| panic!("no {name:?} in {shown}"))
            .to_owned()
    };
    for feature in ["sb_csum", "mtime", "chunked_file", "device_table"] {
        assert!(line("Filesystem features:").contains(feature), "{shown}");
    }
    let inodes = samples::every_kind()
        .normalized()
        .unwrap()
        .len()
        .to_string();
    assert!(
        line("Filesystem inode count:").ends_with(&inodes),
        "{shown}"
    );

    let output = files.run(&dump, &["--path=/chunked", "-e"]);
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("Size: 24577"), "{shown}");
    assert!(shown.contains("Links: 1"), "{shown}");
}
