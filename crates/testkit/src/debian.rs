//! Real files in real number: a Debian with packages, and Python packages, as tar archives to be used as layers.
//!
//! Made once a list of packages and kept in the cache folder of the parts. Debian comes from the mirror that this machine's own apt
//! uses, Python packages from the index that pip is set to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::image::digest;
use crate::parts;
use crate::process::run;

/// Time stamp of what is made here, seconds since 1970, so that the same packages give the same archive.
const EPOCH: &str = "1700000000";

/// A tar archive of the running machine's Debian release, variant minbase, with these packages.
///
/// # Panics
/// Where mmdebstrap fails; its output is shown.
#[must_use]
pub fn rootfs(packages: &[&str]) -> PathBuf {
    rootfs_of(&mirror().0, packages)
}

/// The same of another release, by its codename.
///
/// # Panics
/// Where mmdebstrap fails; its output is shown.
#[must_use]
pub fn rootfs_of(release: &str, packages: &[&str]) -> PathBuf {
    let (_, url) = mirror();
    let list = packages.join(",");
    cached("debian", &format!("{release} {list}"), |target, scratch| {
        let mut mmdebstrap = Command::new("mmdebstrap");
        mmdebstrap
            .env("SOURCE_DATE_EPOCH", EPOCH)
            .env("TMPDIR", scratch)
            .args(["--quiet", "--variant=minbase", "--format=tar"]);
        if !list.is_empty() {
            mmdebstrap.arg(format!("--include={list}"));
        }
        run(mmdebstrap.arg(release).arg(target).arg(url));
    })
}

/// The machine's release, and the address of the mirror that it comes from.
fn mirror() -> (String, String) {
    let text =
        fs::read_to_string(parts::dir().join("mirror")).expect("no mirror: run scripts/parts.sh");
    let (release, url) = text
        .trim()
        .split_once(' ')
        .expect("release and address of the mirror");
    (release.to_owned(), url.to_owned())
}

/// A tar archive with these Python packages (as pip names them, e.g. `numpy==2.2.6`), for the Python of this machine's Debian release,
/// below `/usr/local/lib`. Goes on top of [`rootfs`] with `python3`.
///
/// # Panics
/// Where pip fails; its output is shown.
#[must_use]
pub fn python_packages(packages: &[&str]) -> PathBuf {
    let python = "/usr/bin/python3";
    let version = run(Command::new(python).args([
        "-c",
        "import sys; print('python%d.%d' % sys.version_info[:2])",
    ]))
    .stdout;
    let version = String::from_utf8(version)
        .expect("a version is ASCII")
        .trim()
        .to_owned();
    cached(
        "python",
        &format!("{version} {}", packages.join(" ")),
        |target, scratch| {
            let site = format!("usr/local/lib/{version}/dist-packages");
            let root = scratch.join("root");
            let mut pip = Command::new(python);
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-cache-dir",
                "--no-compile",
                "--only-binary=:all:",
                "--target",
            ]);
            run(pip.arg(root.join(site)).args(packages));
            let mut tar = Command::new("tar");
            tar.arg("--create")
                .arg("--file")
                .arg(target)
                .arg("--directory")
                .arg(&root);
            run(tar
                .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
                .arg(format!("--mtime=@{EPOCH}"))
                .arg("usr"));
        },
    )
}

/// The file made of `what`, from the cache or by `make`, which gets the file to write and a folder to work in.
fn cached(kind: &str, what: &str, make: impl FnOnce(&Path, &Path)) -> PathBuf {
    let dir = parts::dir().join("layers");
    fs::create_dir_all(&dir).expect("a folder in the cache");
    let name = format!("{kind}-{}", &digest(what.as_bytes())[7..23]);
    let path = dir.join(format!("{name}.tar"));
    // Tests run in several processes at once: one makes it, the others wait.
    let lock = File::create(dir.join(format!("{name}.lock"))).expect("a lock file in the cache");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    if !path.exists() {
        let scratch = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&dir)
            .expect("a folder in the cache");
        let new = scratch.path().join("layer.tar");
        make(&new, scratch.path());
        fs::rename(&new, &path).expect("a rename in the cache");
    }
    path
}

#[cfg(test)]
mod tests {
    use crate::{Need, ready};

    #[test]
    fn a_debian_and_a_python_package_are_made_once() {
        if !ready(&[Need::Root, Need::Parts]) {
            return;
        }
        let base = super::rootfs(&["python3-minimal"]);
        let listed = super::run(super::Command::new("tar").arg("-tf").arg(&base)).stdout;
        assert!(String::from_utf8_lossy(&listed).contains("./usr/bin/python3"));
        let made = std::fs::metadata(&base).unwrap().modified().unwrap();
        assert_eq!(super::rootfs(&["python3-minimal"]), base);
        assert_eq!(std::fs::metadata(&base).unwrap().modified().unwrap(), made);

        let python = super::python_packages(&["markupsafe"]);
        let listed = super::run(super::Command::new("tar").arg("-tf").arg(&python)).stdout;
        assert!(String::from_utf8_lossy(&listed).contains("/dist-packages/markupsafe/_speedups."));
    }
}
