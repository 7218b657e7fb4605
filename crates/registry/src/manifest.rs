//! Manifests, indexes and descriptors (OCI image spec; Docker image manifest v2 schema 2). Pure.
//!
//! Only what is used is taken out; the bytes stay beside it (`FetchedManifest`, `ResolvedImage`), so
//! whoever rewrites a manifest works on those as JSON and loses no field.

use std::collections::BTreeMap;

use serde::Deserialize;
use uimgacc_types::Digest;

use crate::Platform;
use crate::limits::MAX_LAYERS;

/// The media types that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaType {
    /// `application/vnd.oci.image.manifest.v1+json`
    OciManifest,
    /// `application/vnd.oci.image.index.v1+json`
    OciIndex,
    /// `application/vnd.docker.distribution.manifest.v2+json`
    DockerManifest,
    /// `application/vnd.docker.distribution.manifest.list.v2+json`
    DockerList,
    /// The config of a runnable image, of OCI or of Docker.
    ImageConfig,
    /// A layer.
    Layer(LayerEncoding),
    /// A layer that may not be pushed to other registries; its bytes are often not in this one.
    ForeignLayer,
}

/// How the tar of a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerEncoding {
    /// A bare tar.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl MediaType {
    /// What `text` means, parameters after `;` left aside.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split(';').next().unwrap_or_default().trim();
        Some(match text {
            "application/vnd.oci.image.manifest.v1+json" => Self::OciManifest,
            "application/vnd.oci.image.index.v1+json" => Self::OciIndex,
            "application/vnd.docker.distribution.manifest.v2+json" => Self::DockerManifest,
            "application/vnd.docker.distribution.manifest.list.v2+json" => Self::DockerList,
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => Self::ImageConfig,
            _ => return Self::parse_layer(text),
        })
    }

    fn parse_layer(text: &str) -> Option<Self> {
        if text.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
            || text.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
        {
            return Some(Self::ForeignLayer);
        }
        let encoding = match text {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => LayerEncoding::Plain,
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => LayerEncoding::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => LayerEncoding::Zstd,
            _ => return None,
        };
        Some(Self::Layer(encoding))
    }

    /// Whether it lists manifests of several platforms.
    #[must_use]
    pub const fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }

    /// Whether it is the manifest of one image.
    #[must_use]
    pub const fn is_manifest(self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }
}

/// What is asked for when a manifest is fetched.
pub(crate) const ACCEPTED_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A reference to a blob or manifest (OCI image spec, "Descriptor").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// As written in the manifest; see [`MediaType::parse`].
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// May be empty.
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// How the layer is packed; `None` where this is no layer that can be unpacked.
    #[must_use]
    pub fn layer_encoding(&self) -> Option<LayerEncoding> {
        match MediaType::parse(&self.media_type) {
            Some(MediaType::Layer(encoding)) => Some(encoding),
            _ => None,
        }
    }
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The config, whose digest is the image ID.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
    /// May be empty.
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// One manifest of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) descriptor: Descriptor,
    /// `None` where the index does not say.
    pub(crate) platform: Option<Platform>,
}

/// A manifest or an index, told apart.
#[derive(Debug)]
pub(crate) enum Document {
    Image(Manifest),
    Index(Vec<IndexEntry>),
}

/// Why bytes are no manifest that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not JSON, or fields are missing or of the wrong type.
    #[error("it is no valid manifest")]
    Json(#[source] serde_json::Error),
    /// Docker's first format.
    #[error("it has Docker's old schema 1, push the image again with a current tool")]
    SchemaOne,
    /// Both an index and an image (CVE-2021-41190).
    #[error("it is an index and an image at once")]
    Ambiguous,
    /// The header and the document disagree.
    #[error("the registry calls it {header:?}, it calls itself {document:?}")]
    TypeMismatch {
        /// From `Content-Type`.
        header: String,
        /// From `mediaType`.
        document: String,
    },
    /// Not an image.
    #[error("media type {0:?} is no container image")]
    NotAnImage(String),
    /// Too many layers.
    #[error("it has {0} layers, {MAX_LAYERS} are allowed")]
    TooManyLayers(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<RawEntry>>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// The media type of a fetched document: its own word first, the header's second, its shape last.
pub(crate) fn media_type_of(header: Option<&str>, bytes: &[u8]) -> Result<String, ManifestError> {
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    if envelope.schema_version == Some(1) && envelope.fs_layers.is_some() {
        return Err(ManifestError::SchemaOne);
    }
    let is_index = envelope.manifests.is_some();
    if is_index && (envelope.config.is_some() || envelope.layers.is_some()) {
        return Err(ManifestError::Ambiguous);
    }
    let header = header.map(|text| text.split(';').next().unwrap_or_default().trim());
    // A header such as text/plain says nothing about the document.
    let header = header.filter(|text| MediaType::parse(text).is_some());
    let document = envelope.media_type.filter(|text| !text.is_empty());
    let media_type = match (header, document) {
        (Some(header), Some(document)) if header != document => {
            return Err(ManifestError::TypeMismatch {
                header: header.to_owned(),
                document,
            });
        }
        (_, Some(document)) => document,
        (Some(header), None) => header.to_owned(),
        (None, None) if is_index => "application/vnd.oci.image.index.v1+json".to_owned(),
        (None, None) => "application/vnd.oci.image.manifest.v1+json".to_owned(),
    };
    match MediaType::parse(&media_type) {
        Some(kind) if kind.is_index() == is_index && (is_index || kind.is_manifest()) => {
            Ok(media_type)
        }
        _ => Err(ManifestError::NotAnImage(media_type)),
    }
}

/// Parses a document whose media type [`media_type_of`] gave.
pub(crate) fn parse(media_type: &str, bytes: &[u8]) -> Result<Document, ManifestError> {
    if MediaType::parse(media_type).is_some_and(MediaType::is_index) {
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        let entries = envelope.manifests.unwrap_or_default();
        return Ok(Document::Index(
            entries.into_iter().map(IndexEntry::from).collect(),
        ));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers(manifest.layers.len()));
    }
    if MediaType::parse(&manifest.config.media_type) != Some(MediaType::ImageConfig) {
        return Err(ManifestError::NotAnImage(manifest.config.media_type));
    }
    Ok(Document::Image(manifest))
}

impl From<RawEntry> for IndexEntry {
    fn from(raw: RawEntry) -> Self {
        let platform = raw
            .platform
            .filter(|p| !(p.os.is_empty() && p.architecture.is_empty()))
            .map(|p| Platform::new(&p.os, &p.architecture, p.variant.as_deref()));
        Self {
            descriptor: raw.descriptor,
            platform,
        }
    }
}

/// Takes `null` for empty, as Go writes it.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
