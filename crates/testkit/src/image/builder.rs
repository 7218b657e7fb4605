//! The image: layers and config, then the manifest over them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::layer::{self, Blob};
use super::push::{self, Pushed, PushedLayer};
use super::{Compression, LayerSource, MediaTypes, chain_ids, digest};
use crate::Registry;

/// An image to be made.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<(LayerSource, Compression)>,
    media: MediaTypes,
    architecture: String,
    config: serde_json::Map<String, Value>,
    diff_ids: Option<Vec<String>>,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    /// An image without layers, for linux/amd64.
    #[must_use]
    pub fn new() -> Self {
        Self {
            layers: Vec::new(),
            media: MediaTypes::Oci,
            architecture: "amd64".into(),
            config: serde_json::Map::new(),
            diff_ids: None,
        }
    }

    /// Puts a layer on top.
    #[must_use]
    pub fn layer(mut self, source: impl Into<LayerSource>, compression: Compression) -> Self {
        self.layers.push((source.into(), compression));
        self
    }

    /// Sets the names of the manifest.
    #[must_use]
    pub fn media_types(mut self, media: MediaTypes) -> Self {
        self.media = media;
        self
    }

    /// Sets the architecture, by Go's names (`arm64`).
    #[must_use]
    pub fn architecture(mut self, name: &str) -> Self {
        name.clone_into(&mut self.architecture);
        self
    }

    /// Sets a field of the config's `config`, e.g. `Volumes`.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// Sets the entrypoint.
    #[must_use]
    pub fn entrypoint(self, words: &[&str]) -> Self {
        self.config("Entrypoint", json!(words))
    }

    /// Sets the command.
    #[must_use]
    pub fn cmd(self, words: &[&str]) -> Self {
        self.config("Cmd", json!(words))
    }

    /// Sets the environment, as `NAME=value`.
    #[must_use]
    pub fn env(self, variables: &[&str]) -> Self {
        self.config("Env", json!(variables))
    }

    /// Lies about the diff IDs: the config holds these and not the true ones.
    #[must_use]
    pub fn diff_ids(mut self, diff_ids: &[&str]) -> Self {
        self.diff_ids = Some(diff_ids.iter().map(|id| (*id).to_owned()).collect());
        self
    }

    /// Makes the image and pushes it as `name`, e.g. `app:1`.
    ///
    /// # Panics
    /// Where skopeo fails; its output is shown.
    pub fn push(&self, registry: &Registry, name: &str) -> Pushed {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let pushed = self.write(dir.path(), &registry.reference(name));
        push::copy(dir.path(), registry, &pushed.reference, false);
        pushed
    }

    /// Writes the image as a `dir:` layout.
    pub(super) fn write(&self, dir: &Path, reference: &str) -> Pushed {
        let blobs: Vec<Blob> = self
            .layers
            .iter()
            .map(|(source, compression)| layer::write(source, *compression, dir))
            .collect();
        let true_ids: Vec<String> = blobs.iter().map(|blob| blob.diff_id.clone()).collect();
        let config = json!({
            "created": "2023-11-14T22:13:20Z",
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids.as_ref().unwrap_or(&true_ids) },
            "history": blobs.iter().map(|_| json!({ "created_by": "uimgacc-testkit" })).collect::<Vec<_>>(),
        });
        let config = serde_json::to_vec(&config).expect("JSON");
        let config_digest = write_blob(dir, &config);
        let layers: Vec<Value> = self
            .layers
            .iter()
            .zip(&blobs)
            .map(|((_, compression), blob)| json!({ "mediaType": self.media.layer(*compression), "digest": blob.digest, "size": blob.stored_bytes }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.media.manifest(),
            "config": { "mediaType": self.media.config(), "digest": config_digest, "size": config.len() },
            "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).expect("JSON");
        fs::write(dir.join("manifest.json"), &manifest).expect("the manifest can be written");
        fs::write(dir.join("version"), "Directory Transport Version: 1.1\n")
            .expect("the version can be written");
        let chain_ids = chain_ids(&true_ids);
        Pushed {
            reference: reference.to_owned(),
            media: self.media,
            architecture: self.architecture.clone(),
            manifest_digest: digest(&manifest),
            manifest,
            config_digest,
            layers: blobs
                .into_iter()
                .zip(chain_ids)
                .map(|(blob, chain_id)| PushedLayer {
                    digest: blob.digest,
                    diff_id: blob.diff_id,
                    chain_id,
                    stored_bytes: blob.stored_bytes,
                })
                .collect(),
        }
    }
}

fn write_blob(dir: &Path, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    fs::write(dir.join(digest.trim_start_matches("sha256:")), bytes)
        .expect("a blob can be written");
    digest
}
