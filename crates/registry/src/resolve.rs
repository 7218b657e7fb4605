//! From a name to the manifest and config of one platform.

use bytes::Bytes;
use serde::Deserialize;
use uimgacc_types::{DiffId, Digest, ImageReference};

use crate::client::{Client, FetchedManifest, check_digest};
use crate::error::{Error, Task};
use crate::http::host_of;
use crate::limits::{MAX_CONFIG_BYTES, MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES};
use crate::manifest::{self, Descriptor, Document, Manifest, MediaType};
use crate::{Platform, select};

/// What is used of an image's config (OCI image spec, "Image Configuration").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What the config says the image runs on; `None` where it says nothing.
    pub platform: Option<Platform>,
    /// Digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<DiffId>,
}

/// An image for one platform, all digests checked.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// The manifest exactly as the registry sent it.
    pub manifest_bytes: Bytes,
    /// Its media type, never that of an index.
    pub manifest_media_type: String,
    /// Its digest.
    pub manifest_digest: Digest,
    /// What is used of it. Every layer is a tar that can be unpacked.
    pub manifest: Manifest,
    /// The config exactly as the registry sent it; its digest is `manifest.config.digest`.
    pub config_bytes: Bytes,
    /// What is used of it. As many diff IDs as the manifest has layers.
    pub config: ImageConfig,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<DiffId>>,
}

impl Client {
    /// Fetches the manifest and config of `image` for `platform`, through an index where there is
    /// one.
    pub async fn resolve(
        &self,
        image: &ImageReference,
        platform: &Platform,
    ) -> Result<ResolvedImage, Error> {
        let (fetched, manifest) = self.find_manifest(image, platform).await?;
        check_layers(image, &manifest)?;
        let config_bytes = self
            .pull_blob_bytes(image, &manifest.config, MAX_CONFIG_BYTES)
            .await?;
        let config = parse_config(image, &manifest.config, &config_bytes)?;
        if config.diff_ids.len() != manifest.layers.len() {
            return Err(Error::LayerCount {
                image: image.to_string(),
                layers: manifest.layers.len(),
                diff_ids: config.diff_ids.len(),
            });
        }
        if let Some(found) = &config.platform
            && !platform.accepted().contains(found)
        {
            return Err(no_platform(image, platform, vec![found.clone()]));
        }
        Ok(ResolvedImage {
            manifest_bytes: fetched.bytes,
            manifest_media_type: fetched.media_type,
            manifest_digest: fetched.digest,
            manifest,
            config_bytes,
            config,
        })
    }

    /// Walks down the indexes, the first of which `image` names.
    async fn find_manifest(
        &self,
        image: &ImageReference,
        platform: &Platform,
    ) -> Result<(FetchedManifest, Manifest), Error> {
        let mut fetched = self.pull_manifest(image).await?;
        for _ in 0..MAX_INDEX_DEPTH {
            let document =
                manifest::parse(&fetched.media_type, &fetched.bytes).map_err(|source| {
                    Error::Manifest {
                        image: image.to_string(),
                        source,
                    }
                })?;
            let entries = match document {
                Document::Image(manifest) => return Ok((fetched, manifest)),
                Document::Index(entries) => entries,
            };
            let Some(entry) = select::choose(&entries, platform) else {
                return Err(no_platform(image, platform, select::available(&entries)));
            };
            let child = image.with_digest(entry.descriptor.digest);
            fetched = self.pull_manifest(&child).await?;
            self.check_size(&child, &entry.descriptor, &fetched)?;
        }
        Err(Error::IndexDepth {
            image: image.to_string(),
        })
    }

    fn check_size(
        &self,
        image: &ImageReference,
        descriptor: &Descriptor,
        fetched: &FetchedManifest,
    ) -> Result<(), Error> {
        let found = u64::try_from(fetched.bytes.len()).unwrap_or(MAX_MANIFEST_BYTES);
        if found == descriptor.size {
            return Ok(());
        }
        Err(Error::Size {
            task: Task::new(format!("pull the manifest of {image}")),
            host: image.registry().to_owned(),
            expected: descriptor.size,
            found,
        })
    }

    /// A blob as a whole, checked against its digest.
    pub async fn pull_blob_bytes(
        &self,
        image: &ImageReference,
        descriptor: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Bytes, Error> {
        let task = crate::blob::pull_task(image, descriptor);
        if descriptor.size > limit_bytes {
            let url = self.url(image, &task, "")?;
            return Err(Error::TooLarge {
                task,
                host: host_of(&url),
                limit_bytes,
            });
        }
        let mut stream = self.blob(image, descriptor, 0).await?;
        let mut bytes = bytes::BytesMut::new();
        while let Some(chunk) = stream.next_chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        let bytes = bytes.freeze();
        check_digest(&task, descriptor.digest, Digest::of(&bytes))?;
        Ok(bytes)
    }
}

fn no_platform(image: &ImageReference, wanted: &Platform, available: Vec<Platform>) -> Error {
    Error::NoPlatform {
        image: image.to_string(),
        wanted: wanted.to_string(),
        available,
    }
}

fn check_layers(image: &ImageReference, manifest: &Manifest) -> Result<(), Error> {
    for layer in &manifest.layers {
        let image = image.to_string();
        let digest = layer.digest;
        let media_type = layer.media_type.clone();
        match MediaType::parse(&layer.media_type) {
            Some(MediaType::Layer(_)) => {}
            Some(MediaType::ForeignLayer) => {
                return Err(Error::ForeignLayer {
                    image,
                    digest,
                    media_type,
                });
            }
            _ => {
                return Err(Error::LayerMediaType {
                    image,
                    digest,
                    media_type,
                });
            }
        }
    }
    Ok(())
}

fn parse_config(
    image: &ImageReference,
    descriptor: &Descriptor,
    bytes: &[u8],
) -> Result<ImageConfig, Error> {
    let raw: RawConfig = serde_json::from_slice(bytes).map_err(|source| Error::Config {
        image: image.to_string(),
        digest: descriptor.digest,
        source,
    })?;
    let os = raw.os.filter(|text| !text.is_empty());
    let architecture = raw.architecture.filter(|text| !text.is_empty());
    let platform = os
        .zip(architecture)
        .map(|(os, architecture)| Platform::new(&os, &architecture, raw.variant.as_deref()));
    Ok(ImageConfig {
        platform,
        diff_ids: raw.rootfs.diff_ids.unwrap_or_default(),
    })
}
