//! `create`: asks for an accelerated image and waits for it.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use uimgacc_objects::access::access;
use uimgacc_objects::{
    AcceleratedImage, AcceleratedImageSpec, Phase, ProfileSpec, SecretReference, names,
};
use uimgacc_types::{ImageReference, normalised};

use crate::error::Error;
use crate::images::{ImageView, not_enabled, object_name, phase};
use crate::{Cluster, Progress, observe};

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// The original.
    pub original: ImageReference,
    /// The accelerated image: a tag, no digest.
    pub target: ImageReference,
    /// `os/arch[/variant]`; empty: that of the nodes.
    pub platform: String,
    /// Secret in kube-system with the credentials for both; without it the cluster's.
    pub pull_secret: Option<String>,
    /// Start it once with this command (empty: its own), so that what its start reads is known.
    pub profile: Option<Vec<String>>,
}

impl CreateRequest {
    /// Of the nodes' platform, with the cluster's credentials, without a profile.
    #[must_use]
    pub const fn new(original: ImageReference, target: ImageReference) -> Self {
        Self {
            original,
            target,
            platform: String::new(),
            pull_secret: None,
            profile: None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The image.
    pub image: ImageView,
    /// Whether the same had been asked for before.
    pub existed: bool,
}

/// The object that a request means.
fn object(request: &CreateRequest) -> Result<AcceleratedImage, Error> {
    let (original, target) = (&request.original, &request.target);
    if target.digest().is_some() {
        return Err(Error::Invalid {
            message: format!("the target {target} must have a tag, not a digest"),
            hint: "leave out the digest".to_owned(),
        });
    }
    if original == target {
        return Err(Error::Invalid {
            message: format!("the target {target} is the original itself"),
            hint: "give the target another tag or repository".to_owned(),
        });
    }
    Ok(AcceleratedImage::new(
        &object_name(target),
        AcceleratedImageSpec {
            original_image: original.to_string(),
            target_image: target.to_string(),
            platform: request.platform.clone(),
            pull_secret: request
                .pull_secret
                .clone()
                .map(|name| SecretReference { name }),
            profile: request
                .profile
                .clone()
                .map(|command| ProfileSpec { command }),
        },
    ))
}

/// Whether what stands there is what is asked for.
fn compare(new: &AcceleratedImageSpec, old: &AcceleratedImage) -> Result<(), Error> {
    let (original, other) = (&new.original_image, normalised(&old.spec.original_image));
    let target = new.target_image.clone();
    if *original != other {
        return Err(Error::TargetTaken {
            target,
            original: original.clone(),
            other,
        });
    }
    if old.metadata.deletion_timestamp.is_some() {
        return Err(Error::BeingDeleted { target });
    }
    if new.platform != old.spec.platform {
        let of = |platform: &str| match platform {
            "" => "the nodes' platform".to_owned(),
            platform => platform.to_owned(),
        };
        return Err(Error::Invalid {
            message: format!(
                "{target} was made for {}, not for {}",
                of(&old.spec.platform),
                of(&new.platform)
            ),
            hint: "delete it first, or choose another target".to_owned(),
        });
    }
    if let Some(secret) = &new.pull_secret
        && old.spec.pull_secret.as_ref() != Some(secret)
    {
        return Err(Error::Invalid {
            message: match &old.spec.pull_secret {
                Some(other) => format!("{target} was made with the Secret {}", other.name),
                None => format!("{target} was made without a Secret of its own"),
            },
            hint: "delete it first, or choose another target".to_owned(),
        });
    }
    if new.profile.is_some() && new.profile != old.spec.profile {
        let name = old.name_any();
        return Err(Error::Invalid {
            message: format!("{target} exists, and was not made with this --profile"),
            hint: format!("set spec.profile by `kubectl edit acceleratedimage {name}`"),
        });
    }
    Ok(())
}

impl Cluster {
    /// Asks for an image and returns at once; its status is `Creating` by then. The same again
    /// changes nothing, but has the agent try again at once where it had failed.
    ///
    /// # Errors
    /// The request makes no sense, the cluster is not enabled, or the target is that of another
    /// original.
    pub async fn create(&self, request: &CreateRequest) -> Result<Created, Error> {
        let new = object(request)?;
        let acceleration = self.acceleration().await?.ok_or(Error::NotEnabled)?;
        if acceleration.metadata.deletion_timestamp.is_some() {
            return Err(Error::BeingDisabled);
        }
        let images = self.all::<AcceleratedImage>();
        let action = format!("create the image {}", new.spec.target_image);
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        // One of another name may stand there, by kubectl.
        let old = match self.find_image(&request.target).await {
            Ok(old) if normalised(&old.spec.target_image) == new.spec.target_image => Some(old),
            Ok(_) | Err(Error::NotFound { .. } | Error::Ambiguous { .. }) => None,
            Err(error) => return Err(error),
        };
        let old = match old {
            Some(old) => old,
            // The agent and the admission policy would refuse it for the same reason.
            None if let Err(refused) = access(&new.spec, &acceleration.spec) => {
                return Err(refused.into());
            }
            None => match images.create(&params, &new).await {
                Ok(image) => {
                    return Ok(Created {
                        image: ImageView::new(&image),
                        existed: false,
                    });
                }
                // Somebody was quicker by a moment.
                Err(kube::Error::Api(status)) if status.is_already_exists() => images
                    .get(&new.name_any())
                    .await
                    .map_err(self.failed(&action))?,
                Err(error) => return Err(not_enabled(self.failed(&action)(error))),
            },
        };
        compare(&new.spec, &old)?;
        let image = if phase(&old) == Phase::CreateError {
            self.ask_again(&old).await?
        } else {
            old
        };
        Ok(Created {
            image: ImageView::new(&image),
            existed: true,
        })
    }

    /// Marks the image for another attempt: from then on it does not count as failed, until the
    /// agent has taken notice.
    pub(crate) async fn ask_again(
        &self,
        image: &AcceleratedImage,
    ) -> Result<AcceleratedImage, Error> {
        let version = image.resource_version().unwrap_or_default();
        // Any value does that was not there before.
        let patch = json!({"metadata": {"annotations": {names::RETRY_ANNOTATION: version}}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        self.all::<AcceleratedImage>()
            .patch(&image.name_any(), &params, &patch)
            .await
            .map_err(self.failed(&format!("try {} again", image.spec.target_image)))
    }

    /// Waits until an image is ready.
    ///
    /// # Errors
    /// The conversion failed, the image was deleted, or it did not come about in time.
    pub async fn wait_ready(
        &self,
        created: &Created,
        within: Duration,
        progress: &dyn Progress,
    ) -> Result<ImageView, Error> {
        let target = &created.image.target_image;
        let name = &created.image.name;
        let mut last: Option<ImageView> = None;
        let decide = |image: Option<&AcceleratedImage>| {
            let Some(image) = image else {
                return Some(Err(Error::CreateFailed {
                    target: target.clone(),
                    message: "somebody deleted it".to_owned(),
                }));
            };
            let view = ImageView::new(image);
            if last.as_ref() != Some(&view) {
                progress.image(&view);
                last = Some(view.clone());
            }
            match view.status {
                Phase::Ready => Some(Ok(view)),
                Phase::CreateError => Some(Err(failed(&view))),
                Phase::Deleting | Phase::DeleteError => Some(Err(Error::BeingDeleted {
                    target: target.clone(),
                })),
                Phase::Creating => None,
            }
        };
        let images = self.all::<AcceleratedImage>();
        let answer = observe::until(self, images, name, within, "watch the image", decide).await?;
        answer.ok_or_else(|| Error::Timeout {
            what: format!("{target} is not ready"),
            after: within,
            missing: last.iter().map(explain).collect(),
        })
    }
}

fn failed(view: &ImageView) -> Error {
    Error::CreateFailed {
        target: view.target_image.clone(),
        message: view.error.clone(),
    }
}

fn explain(view: &ImageView) -> String {
    match &view.progress {
        Some(progress) => format!("{}: {} %", progress.stage, progress.percent),
        None => "the conversion has not started yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(original: &str, target: &str) -> CreateRequest {
        CreateRequest::new(original.parse().unwrap(), target.parse().unwrap())
    }

    #[test]
    fn objects() {
        let image = object(&request("nginx", "r.io/a/nginx:fast")).unwrap();
        assert_eq!(image.spec.original_image, "docker.io/library/nginx:latest");
        assert_eq!(image.spec.target_image, "r.io/a/nginx:fast");
        assert!(image.name_any().starts_with("nginx-fast-"));
        for (original, target) in [
            ("nginx", "docker.io/library/nginx:latest"),
            (
                "nginx",
                "a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ),
        ] {
            assert!(
                object(&request(original, target)).is_err(),
                "{original} {target}"
            );
        }
    }

    #[test]
    fn what_stands_there() {
        let old = object(&request("nginx", "r.io/x:1")).unwrap();
        let same = object(&request("docker.io/nginx:latest", "r.io/x:1")).unwrap();
        compare(&same.spec, &old).unwrap();
        let other = object(&request("redis", "r.io/x:1")).unwrap();
        let error = compare(&other.spec, &old).unwrap_err();
        assert_eq!(
            error.to_string(),
            "r.io/x:1 is the target of docker.io/library/nginx:latest already, not of docker.io/library/redis:latest"
        );
        let mut arm = request("nginx", "r.io/x:1");
        arm.platform = "linux/arm64".to_owned();
        let error = compare(&object(&arm).unwrap().spec, &old).unwrap_err();
        assert!(error.to_string().contains("not for linux/arm64"), "{error}");
        let mut secret = request("nginx", "r.io/x:1");
        secret.pull_secret = Some("team".to_owned());
        let with = object(&secret).unwrap();
        let error = compare(&with.spec, &old).unwrap_err();
        assert!(error.to_string().contains("without a Secret"), "{error}");
        compare(&old.spec, &with).unwrap();
        let mut profile = request("nginx", "r.io/x:1");
        profile.profile = Some(Vec::new());
        let with = object(&profile).unwrap();
        let error = compare(&with.spec, &old).unwrap_err();
        assert!(error.to_string().contains("--profile"), "{error}");
        compare(&with.spec, &with).unwrap();
        compare(&old.spec, &with).unwrap();
    }
}
