//! `delete`: frees what only this image needs in the store.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use uimgacc_objects::{AcceleratedImage, Phase, names};
use uimgacc_types::ImageReference;

use crate::error::Error;
use crate::images::{ImageView, phase};
use crate::{Cluster, Progress, observe};

/// What is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRequest {
    /// The target image, or the original where it has one target.
    pub image: ImageReference,
    /// Although Pods use it: they then fail to read.
    pub force: bool,
}

impl Cluster {
    /// Begins to delete an image and returns at once; its status is `Deleting` by then. The target
    /// image in the registry stays.
    ///
    /// # Errors
    /// There is no such image, or Pods use it: nothing is changed then.
    pub async fn delete(&self, request: &DeleteRequest) -> Result<ImageView, Error> {
        let image = self.find_image(&request.image).await?;
        let target = &image.spec.target_image;
        let images = self.all::<AcceleratedImage>();
        let name = image.name_any();
        if request.force {
            self.force(&image).await?;
        } else if image.metadata.deletion_timestamp.is_none() {
            // The agent refuses too; but a deletion that has begun cannot be taken back.
            let holders = self.holders_of(&image).await?;
            if !holders.is_empty() {
                return Err(Error::InUse {
                    what: target.clone(),
                    holders,
                });
            }
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: image.uid(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        if phase(&image) == Phase::DeleteError {
            self.ask_again(&image).await?;
        }
        match images.delete(&name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(self.failed(&format!("delete {target}"))(error)),
        }
        let mut view = ImageView::new(&image);
        view.status = Phase::Deleting;
        Ok(view)
    }

    /// Lets the agent delete an image although Pods use it.
    pub(crate) async fn force(&self, image: &AcceleratedImage) -> Result<(), Error> {
        let patch = json!({"metadata": {"annotations": {names::FORCE_ANNOTATION: "true"}}});
        let patched = self
            .all::<AcceleratedImage>()
            .patch(
                &image.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        match patched {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(self.failed(&format!("force {}", image.spec.target_image))(
                error,
            )),
        }
    }

    /// Waits until an image is gone and its space is freed.
    ///
    /// # Errors
    /// The agent cannot delete it, or it did not come about in time.
    pub async fn wait_deleted(
        &self,
        image: &ImageView,
        within: Duration,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let mut last = None;
        let mut error = None;
        let gone = observe::until(
            self,
            self.all::<AcceleratedImage>(),
            &image.name,
            within,
            "watch the image",
            |now: Option<&AcceleratedImage>| {
                let Some(now) = now.filter(|now| now.metadata.deletion_timestamp.is_some()) else {
                    return Some(Ok(()));
                };
                let view = ImageView::new(now);
                if last.as_ref() != Some(&view) {
                    progress.image(&view);
                }
                if view.status == Phase::DeleteError {
                    error = Some(view.error.clone());
                    return Some(Err(Error::DeleteFailed {
                        target: view.target_image,
                        message: view.error,
                    }));
                }
                last = Some(view);
                None
            },
        )
        .await;
        match gone {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(Error::Timeout {
                what: format!("{} is not deleted", image.target_image),
                after: within,
                missing: last
                    .filter(|view| !view.error.is_empty())
                    .map(|view| view.error)
                    .into_iter()
                    .collect(),
            }),
            // Pods that came since: say who.
            Err(failed @ Error::DeleteFailed { .. }) => {
                let object = self.find_image(&image.target_image.parse()?).await?;
                let holders = self.holders_of(&object).await?;
                if holders.is_empty() {
                    Err(failed)
                } else {
                    Err(Error::InUse {
                        what: image.target_image.clone(),
                        holders,
                    })
                }
            }
            Err(other) => Err(other),
        }
    }
}
