//! GNU tar reads what we write.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use super::{Entry, Kind, Segment, SparseFormat, TarBuilder};
use crate::process::run;

fn extract(archive: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.tar");
    fs::write(&file, archive).unwrap();
    fs::create_dir(dir.path().join("x")).unwrap();
    run(Command::new("tar")
        .arg("-xpf")
        .arg(&file)
        .arg("-C")
        .arg(dir.path().join("x"))
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner"]));
    dir
}

#[test]
fn names_numbers_and_times_of_both_dialects_are_read_by_gnu_tar() {
    for gnu in [false, true] {
        let name = format!("{}/{}", "d".repeat(120), "f".repeat(200));
        let mut file = Entry::new(name.as_str(), Kind::File)
            .owner(3_000_000_000, 7)
            .mode(0o4711)
            .content("hello")
            .mtime(-86_400, 0);
        let mut link = Entry::new("link", Kind::Symlink).link("t".repeat(300));
        if gnu {
            (file, link) = (file.gnu(), link.gnu());
        }
        let dir = extract(
            &TarBuilder::new()
                .dir(&"d".repeat(120), 0o750)
                .entry(&file)
                .entry(&link)
                .finish(),
        );
        let seen = fs::metadata(dir.path().join("x").join(&name)).unwrap();
        assert_eq!(
            (seen.uid(), seen.gid(), seen.mode() & 0o7777, seen.mtime()),
            (3_000_000_000, 7, 0o4711, -86_400)
        );
        assert_eq!(
            fs::read_link(dir.path().join("x/link"))
                .unwrap()
                .as_os_str()
                .len(),
            300
        );
    }
}

#[test]
fn pax_fractions_before_1970_xattrs_and_odd_bytes_are_read_by_gnu_tar() {
    let name = b"n\xff\xfe".to_vec();
    let file = Entry::new(name.clone(), Kind::File)
        .mtime(-2, 500_000_000)
        .xattr("user.a", "b=\nc");
    let dir = extract(&TarBuilder::new().entry(&file).finish());
    let path = dir.path().join("x").join(OsStr::from_bytes(&name));
    let seen = fs::metadata(&path).unwrap();
    assert_eq!((seen.mtime(), seen.mtime_nsec()), (-2, 500_000_000));
    let mut value = [0; 16];
    let bytes = rustix::fs::getxattr(&path, "user.a", &mut value).unwrap();
    assert_eq!(&value[..bytes], b"b=\nc");
}

#[test]
fn sparse_files_of_all_forms_are_read_by_gnu_tar() {
    let size = 64 << 20;
    // More pieces than a header and one block after it hold.
    let segments: Vec<Segment> = (0..40)
        .map(|n| Segment {
            offset: n << 20,
            data: vec![b'a' + u8::try_from(n % 26).unwrap(); 512],
        })
        .collect();
    for format in [SparseFormat::Gnu, SparseFormat::Pax01, SparseFormat::Pax10] {
        let archive = TarBuilder::new()
            .sparse(&Entry::new("s", Kind::File), format, size, &segments)
            .file("after", 0o644, "x")
            .finish();
        let dir = extract(&archive);
        let seen = fs::read(dir.path().join("x/s")).unwrap();
        assert_eq!(seen.len(), 64 << 20, "{format:?}");
        assert_eq!(seen[39 << 20], b'a' + 39 % 26, "{format:?}");
        assert_eq!(
            seen.iter().filter(|byte| **byte != 0).count(),
            40 * 512,
            "{format:?}"
        );
        assert_eq!(fs::read(dir.path().join("x/after")).unwrap(), b"x");
    }
}
