//! Accelerated images as people name and see them.

use kube::ResourceExt as _;
use kube::api::ListParams;
use serde::Serialize;
use uimgacc_objects::{AcceleratedImage, Phase, names};
use uimgacc_types::{Digest, ImageReference, Meant, meant, normalised};

use crate::Cluster;
use crate::error::Error;

/// An image as `get -o json` prints it: the API's fields, then ours. Lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageView {
    /// Normalised reference of the original.
    pub original_image: String,
    /// Normalised reference of the accelerated image.
    pub target_image: String,
    /// Bytes of all files; unknown before it is ready.
    pub size: Option<u64>,
    /// Layers; unknown before it is ready.
    pub layers: Option<u32>,
    /// Where it stands.
    pub status: Phase,
    /// What holds it up.
    pub error: String,
    /// How often the conversion has failed in a row.
    pub failures: u32,
    /// Name of the `AcceleratedImage`.
    pub name: String,
    /// How far the conversion is, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ImageProgress>,
    /// Bytes in the store that only this image needed when it was made.
    #[serde(rename = "UniquePackBytes", skip_serializing_if = "Option::is_none")]
    pub unique_bytes: Option<u64>,
    /// `os/arch[/variant]`; empty: that of the nodes.
    pub platform: String,
    /// When it was asked for, RFC 3339.
    pub created: String,
    /// What is known of its starts, so that nodes read it ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<ImageProfile>,
    /// Digest of the original's manifest when it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_digest: Option<String>,
    /// Digest of the target's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_digest: Option<String>,
}

/// An image's profile, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageProfile {
    /// When the newest of its starts was recorded, RFC 3339.
    pub recorded: String,
    /// Which start that was.
    pub origin: String,
    /// How many starts it merges.
    pub starts: u32,
    /// Read-ahead in KiB when it was recorded.
    pub read_ahead_kb: u32,
    /// Files of which something is read.
    pub files: u64,
    /// Bytes that are read of them.
    pub bytes: u64,
}

/// How far a conversion is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageProgress {
    /// Compressed bytes that were read.
    pub done_bytes: u64,
    /// Compressed bytes to read.
    pub total_bytes: u64,
    /// 0 to 100.
    pub percent: u32,
    /// What is being done, in a few words.
    pub stage: String,
}

/// The name of the object for a target.
pub(crate) fn object_name(target: &ImageReference) -> String {
    let text = target.to_string();
    names::image_name(&text, &Digest::of(text.as_bytes()).hex())
}

/// Where an image stands: one that has an end is being deleted, and one that was asked for again is
/// being made again, whatever the agent has written yet.
pub(crate) fn phase(image: &AcceleratedImage) -> Phase {
    let phase = image.status.as_ref().map_or(Phase::Creating, |s| s.phase);
    let is_again = is_asked_again(image);
    if image.metadata.deletion_timestamp.is_some() {
        match phase {
            Phase::DeleteError if !is_again => phase,
            _ => Phase::Deleting,
        }
    } else if phase == Phase::CreateError && is_again {
        Phase::Creating
    } else {
        phase
    }
}

/// Whether another attempt was asked for of which the agent has not taken notice yet.
fn is_asked_again(image: &AcceleratedImage) -> bool {
    let asked = image.annotations().get(names::RETRY_ANNOTATION);
    let observed = image
        .status
        .as_ref()
        .and_then(|s| s.observed_retry.as_ref());
    asked.is_some() && asked != observed
}

impl ImageView {
    pub(crate) fn new(image: &AcceleratedImage) -> Self {
        let status = image.status.clone().unwrap_or_default();
        let phase = phase(image);
        Self {
            original_image: normalised(&image.spec.original_image),
            target_image: normalised(&image.spec.target_image),
            size: status.size,
            layers: status.layers,
            status: phase,
            error: status.error.unwrap_or_default(),
            failures: status.failures,
            name: image.name_any(),
            progress: status
                .progress
                .filter(|_| phase == Phase::Creating)
                .map(|progress| ImageProgress {
                    done_bytes: progress.done_bytes,
                    total_bytes: progress.total_bytes,
                    percent: progress.percent,
                    stage: progress.stage,
                }),
            unique_bytes: status.unique_bytes,
            platform: image.spec.platform.clone(),
            created: image
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0.to_string())
                .unwrap_or_default(),
            profile: status.profile.map(|profile| ImageProfile {
                recorded: profile.recorded,
                origin: profile.origin,
                starts: profile.starts,
                read_ahead_kb: profile.read_ahead_kb,
                files: profile.files,
                bytes: profile.bytes,
            }),
            original_digest: status.original_digest,
            target_digest: status.target_digest,
        }
    }
}

/// The one among `images` that `name` means.
pub(crate) fn find<'a>(
    images: &'a [AcceleratedImage],
    name: &ImageReference,
) -> Result<&'a AcceleratedImage, Error> {
    let wanted = name.to_string();
    let meant = meant(&wanted, images, |image| {
        let spec = &image.spec;
        (spec.original_image.as_str(), spec.target_image.as_str())
    });
    match meant {
        Meant::One(image) => Ok(image),
        Meant::None => Err(Error::NotFound { image: wanted }),
        Meant::Several(several) => Err(Error::Ambiguous {
            image: wanted,
            targets: several
                .iter()
                .map(|image| normalised(&image.spec.target_image))
                .collect(),
        }),
    }
}

impl Cluster {
    /// All images; [`Error::NotEnabled`] where the cluster does not know the kind.
    pub(crate) async fn list_images(&self) -> Result<Vec<AcceleratedImage>, Error> {
        self.list(
            &self.all::<AcceleratedImage>(),
            ListParams::default(),
            "the accelerated images",
        )
        .await
        .map_err(not_enabled)
    }

    /// The image that `reference` means.
    pub(crate) async fn find_image(
        &self,
        reference: &ImageReference,
    ) -> Result<AcceleratedImage, Error> {
        let by_name = self
            .find(
                &self.all::<AcceleratedImage>(),
                &object_name(reference),
                &format!("get the image {reference}"),
            )
            .await?;
        match by_name {
            Some(image) if normalised(&image.spec.target_image) == reference.to_string() => {
                Ok(image)
            }
            _ => find(&self.list_images().await?, reference).cloned(),
        }
    }
}

/// A kind that the server does not know is one that `enable` has not brought yet.
pub(crate) fn not_enabled(error: Error) -> Error {
    match error {
        Error::Api { code: 404, .. } => Error::NotEnabled,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uimgacc_objects::AcceleratedImageSpec;

    fn image(original: &str, target: &str) -> AcceleratedImage {
        let reference: ImageReference = target.parse().unwrap();
        AcceleratedImage::new(
            &object_name(&reference),
            AcceleratedImageSpec {
                original_image: original.to_owned(),
                target_image: target.to_owned(),
                platform: String::new(),
                pull_secret: None,
                profile: None,
            },
        )
    }

    #[test]
    fn by_target_or_original() {
        let images = [
            image("nginx", "r.io/nginx:fast"),
            image("docker.io/library/redis:latest", "r.io/redis:a"),
            image("redis", "r.io/redis:b"),
        ];
        let find = |name: &str| find(&images, &name.parse().unwrap());
        for name in ["r.io/nginx:fast", "docker.io/library/nginx"] {
            assert_eq!(find(name).unwrap().spec, images[0].spec);
        }
        assert!(
            matches!(find("redis"), Err(Error::Ambiguous { targets, .. }) if targets.len() == 2)
        );
        assert!(matches!(find("mongo"), Err(Error::NotFound { .. })));
    }

    #[test]
    fn one_name_for_all_forms_of_a_reference() {
        let name = |text: &str| object_name(&text.parse().unwrap());
        assert_eq!(name("nginx"), name("docker.io/library/nginx:latest"));
        assert_ne!(name("nginx"), name("nginx:1"));
        assert!(
            name("nginx").starts_with("nginx-latest-"),
            "{}",
            name("nginx")
        );
    }

    #[test]
    fn an_image_with_an_end_is_deleting() {
        let mut one = image("a", "b");
        assert_eq!(phase(&one), Phase::Creating);
        one.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            ));
        assert_eq!(phase(&one), Phase::Deleting);
    }

    #[test]
    fn what_was_asked_for_again_is_no_failure() {
        let mut one = image("a", "b");
        let mut status = uimgacc_objects::AcceleratedImageStatus {
            phase: Phase::CreateError,
            ..Default::default()
        };
        one.status = Some(status.clone());
        assert_eq!(phase(&one), Phase::CreateError);
        one.annotations_mut()
            .insert(names::RETRY_ANNOTATION.to_owned(), "7".to_owned());
        assert_eq!(phase(&one), Phase::Creating);
        one.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            ));
        status.phase = Phase::DeleteError;
        one.status = Some(status.clone());
        assert_eq!(phase(&one), Phase::Deleting);
        status.observed_retry = Some("7".to_owned());
        one.status = Some(status);
        assert_eq!(phase(&one), Phase::DeleteError);
    }
}
