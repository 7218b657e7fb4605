//! From a folder to the registry, by skopeo.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{MediaTypes, digest};
use crate::process::run;
use crate::{Registry, parts};

/// An image as it lies in the registry.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Host, port, name and tag.
    pub reference: String,
    /// Digest of the manifest, `sha256:...`.
    pub manifest_digest: String,
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// Digest of the config, which is the image ID.
    pub config_digest: String,
    /// The layers, lowest first.
    pub layers: Vec<PushedLayer>,
    pub(super) media: MediaTypes,
    pub(super) architecture: String,
}

/// A layer as it lies in the registry.
#[derive(Debug, Clone)]
pub struct PushedLayer {
    /// Digest of the blob as stored, `sha256:...`.
    pub digest: String,
    /// Digest of the tar archive, `sha256:...`.
    pub diff_id: String,
    /// Chain ID of this layer with all below it, `sha256:...`.
    pub chain_id: String,
    /// Size of the blob as stored.
    pub stored_bytes: u64,
}

impl Pushed {
    /// The chain ID of the whole image.
    ///
    /// # Panics
    /// Where the image has no layers.
    #[must_use]
    pub fn chain_id(&self) -> &str {
        &self.layers.last().expect("an image with layers").chain_id
    }
}

/// Pushes an index (OCI) or manifest list (Docker) over images of this registry, as `name`. Returns its digest.
///
/// # Panics
/// Where skopeo fails; its output is shown.
pub fn push_index(
    registry: &Registry,
    name: &str,
    media: MediaTypes,
    images: &[&Pushed],
) -> String {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut manifests: Vec<Value> = Vec::new();
    for image in images {
        let source = format!("docker://{}", image.reference);
        let target = format!("dir:{}", dir.path().display());
        run(skopeo().args([
            "copy",
            "--preserve-digests",
            "--src-tls-verify=false",
            &source,
            &target,
        ]));
        let hex = image.manifest_digest.trim_start_matches("sha256:");
        fs::write(
            dir.path().join(format!("{hex}.manifest.json")),
            &image.manifest,
        )
        .expect("a manifest can be written");
        manifests.push(json!({
            "mediaType": image.media.manifest(),
            "digest": image.manifest_digest,
            "size": image.manifest.len(),
            "platform": { "architecture": image.architecture, "os": "linux" },
        }));
    }
    let media_type = match media {
        MediaTypes::Oci => "application/vnd.oci.image.index.v1+json",
        MediaTypes::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
    };
    let index = serde_json::to_vec(
        &json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }),
    )
    .expect("JSON");
    fs::write(dir.path().join("manifest.json"), &index).expect("the index can be written");
    copy(dir.path(), registry, &registry.reference(name), true);
    digest(&index)
}

/// Copies a `dir:` layout to the registry as it is.
pub(super) fn copy(dir: &Path, registry: &Registry, reference: &str, all: bool) {
    let mut command = skopeo();
    command.args(["copy", "--preserve-digests", "--dest-tls-verify=false"]);
    if all {
        command.arg("--all");
    }
    if let Some(login) = registry.login() {
        command.arg("--dest-creds").arg(login);
    }
    run(command
        .arg(format!("dir:{}", dir.display()))
        .arg(format!("docker://{reference}")));
}

fn skopeo() -> Command {
    let mut command = Command::new(parts::program("skopeo"));
    // The machine's policy is not asked: it may forbid what a test needs, or be missing.
    command.arg("--insecure-policy");
    command
}
