//! Where the real programs are, and whether a test can run here.
//!
//! The folder is `$UIMGACC_PARTS`, else `uimgacc/parts` below `$XDG_CACHE_HOME` or `~/.cache`, as in `scripts/parts.sh`, which fills it.

use std::env;
use std::path::PathBuf;

/// Something a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To run as root, for mounts and containers.
    Root,
    /// The programs that `scripts/parts.sh` installs.
    Parts,
    /// The programs that `scripts/parts-kubernetes.sh` builds besides.
    Kubernetes,
    /// The image of our own parts that `scripts/image.sh` builds.
    OurImage,
    /// The kernels and the NFS server that `scripts/parts-uml.sh` installs.
    Uml,
    /// A file system type of the running kernel, by its name in `/proc/filesystems`.
    Filesystem(&'static str),
}

impl Need {
    /// Says what is missing and what to do, or `None` where the need is met.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root())
                .then(|| "not root: run the tests as root".to_owned()),
            Self::Parts => (!dir().join("stamp").exists()).then(|| {
                format!(
                    "no parts in {}: run scripts/parts.sh, or point UIMGACC_PARTS at them",
                    dir().display()
                )
            }),
            Self::Kubernetes => {
                let parts = ["etcd", "cni", "kubernetes", "containerd-2.4"];
                let all = parts
                    .iter()
                    .all(|part| dir().join(part).join("bin").is_dir());
                (!all).then(|| {
                    format!(
                        "no Kubernetes in {}: run scripts/parts-kubernetes.sh",
                        dir().display()
                    )
                })
            }
            Self::OurImage => (!our_image().join("index.json").exists()).then(|| {
                "no image of our parts: build it by scripts/image.sh --profile dev FOLDER, and point UIMGACC_IMAGE at the folder"
                    .to_owned()
            }),
            Self::Uml => (!uml_dir().join("stamp").exists()).then(|| {
                format!(
                    "no kernels in {}: run scripts/parts-uml.sh (amd64 only)",
                    uml_dir().display()
                )
            }),
            Self::Filesystem(name) => {
                let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
                (!known.split_whitespace().any(|word| word == name))
                    .then(|| format!("this kernel has no file system {name}"))
            }
        }
    }
}

/// Whether every need is met. If not, says why on stderr, and fails the test where `UIMGACC_CI=1`, so that CI never skips.
#[must_use]
pub fn ready(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let why = missing.join("; ");
    assert!(
        env::var_os("UIMGACC_CI").is_none_or(|value| value != "1"),
        "this test cannot run, and CI skips none: {why}"
    );
    eprintln!("SKIPPED: {why}");
    false
}

/// The folder of the parts.
///
/// # Panics
/// Where neither `UIMGACC_PARTS` nor `XDG_CACHE_HOME` nor `HOME` is set.
#[must_use]
pub fn dir() -> PathBuf {
    if let Some(dir) = env::var_os("UIMGACC_PARTS") {
        return dir.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache
        .expect("UIMGACC_PARTS, XDG_CACHE_HOME or HOME must be set")
        .join("uimgacc/parts")
}

/// The directory of `scripts/parts-uml.sh`.
///
/// # Panics
/// Where [`dir`] does.
#[must_use]
pub fn uml_dir() -> PathBuf {
    dir().join("uml")
}

/// The folder of the image of our own parts, an OCI layout.
#[must_use]
pub fn our_image() -> PathBuf {
    env::var_os("UIMGACC_IMAGE").unwrap_or_default().into()
}

/// A program of `bin/`, e.g. `fsck.erofs`.
///
/// # Panics
/// Where it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = dir().join("bin").join(name);
    assert!(
        path.exists(),
        "{} is not there: run scripts/parts.sh",
        path.display()
    );
    path
}

/// `PATH` with `first` and the parts' `bin/` before the machine's own.
#[must_use]
pub(crate) fn search_path(first: &[PathBuf]) -> std::ffi::OsString {
    let machine = env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut all = first.to_vec();
    all.push(dir().join("bin"));
    all.extend(env::split_paths(&machine));
    env::join_paths(all).expect("no folder of PATH has a colon")
}
