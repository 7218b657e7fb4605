//! Images made by hand: layers of any bytes, OCI or Docker media types, pushed to a registry by skopeo as they are.
//!
//! The builder writes a `dir:` layout of skopeo (containers/image, "dir" transport) and pushes with `--preserve-digests`, so nothing
//! of manifest, config and layers is changed on the way. The caller gets all digests, worked out here apart from the code under test.

mod builder;
mod layer;
mod media;
mod push;
#[cfg(test)]
mod tests;

pub use builder::ImageBuilder;
pub use layer::{Compression, LayerSource};
pub use media::MediaTypes;
pub use push::{Pushed, PushedLayer, push_index};

use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::tar::TarBuilder;

/// `sha256:` and the hex digits of the digest of these bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The chain ID of each prefix of these diff IDs (OCI image spec, config.md, "Layer ChainID").
#[must_use]
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let next = chain.last().map_or_else(
            || diff_id.clone(),
            |parent| digest(format!("{parent} {diff_id}").as_bytes()),
        );
        chain.push(next);
    }
    chain
}

/// An image of one layer that holds Debian's static busybox as `/bin/busybox` with links for its common programs. Its command sleeps,
/// so it serves as pause image too.
///
/// # Panics
/// Where the package `busybox-static` is not installed.
#[must_use]
pub fn busybox() -> ImageBuilder {
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .entrypoint(&["/bin/busybox"])
        .cmd(&["sleep", "2147483"])
}

/// The layer of [`busybox`].
///
/// # Panics
/// Where the package `busybox-static` is not installed.
#[must_use]
pub fn busybox_layer() -> Vec<u8> {
    let program = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists());
    let program =
        fs::read(program.expect("no busybox: run scripts/parts.sh")).expect("busybox can be read");
    let mut tar = TarBuilder::new();
    for (dir, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("dev", 0o755),
        ("tmp", 0o1777),
    ] {
        tar = tar.dir(dir, mode);
    }
    tar = tar.file("bin/busybox", 0o755, program).file(
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/:/bin/sh\n",
    );
    for name in [
        "sh",
        "cat",
        "echo",
        "ls",
        "sleep",
        "sha256sum",
        "stat",
        "true",
        "touch",
        "find",
        "dd",
        "md5sum",
        "rm",
        "id",
        "mkdir",
        "wc",
    ] {
        tar = tar.symlink(&format!("bin/{name}"), "busybox");
    }
    tar.finish()
}
