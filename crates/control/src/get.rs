//! `get`: the images and the state of the cluster in the shape of the API.

use kube::ResourceExt as _;
use serde::Serialize;
use uimgacc_objects::{
    AcceleratedImage, ImageAcceleration, ImageAccelerationStatus, Phase, find_condition, names,
};
use uimgacc_types::ImageReference;

use crate::error::Error;
use crate::images::{ImageView, phase};
use crate::{Cluster, observe};

/// `Status` of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ClusterStatus {
    /// All images are ready.
    Ready,
    /// An image is being made.
    Creating,
    /// An image could not be made.
    CreateError,
    /// An image is being deleted.
    Deleting,
    /// An image cannot be deleted.
    DeleteError,
    /// Not enabled, the agent does not run, or the store cannot be used.
    Unknown,
}

/// What `get` answers: the API's fields, then ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterImages {
    /// The cluster is enabled.
    pub enable: bool,
    /// The store can be written.
    pub nfs_ready: bool,
    /// The agent and the node installer run.
    pub agent_ready: bool,
    /// Of all images together.
    pub status: ClusterStatus,
    /// The first error there is; empty where there is none.
    pub error: String,
    /// All images, by target. (The API's own answer leaves them out while `status` is not at rest.)
    pub images: Vec<ImageView>,
    /// The subnet of the store, as `enable` was told; empty where it was not.
    pub subnet_id: String,
    /// `server:/path`; empty where the store is not on NFS.
    pub nfs_addr: String,
    /// Nodes that can run accelerated images.
    pub ready_nodes: u32,
    /// Nodes that are to.
    pub nodes: u32,
    /// Bytes of the store, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_bytes: Option<u64>,
}

/// Whether a condition is true.
pub(crate) fn holds(status: &ImageAccelerationStatus, kind: &str) -> bool {
    find_condition(&status.conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// What of all images together is to be told: work that goes on first, then errors.
fn overall(agent_ready: bool, nfs_ready: bool, phases: &[Phase]) -> ClusterStatus {
    let any = |phase: Phase| phases.contains(&phase);
    if !agent_ready {
        ClusterStatus::Unknown
    } else if any(Phase::Deleting) {
        ClusterStatus::Deleting
    } else if any(Phase::Creating) {
        ClusterStatus::Creating
    } else if !nfs_ready {
        ClusterStatus::Unknown
    } else if any(Phase::DeleteError) {
        ClusterStatus::DeleteError
    } else if any(Phase::CreateError) {
        ClusterStatus::CreateError
    } else {
        ClusterStatus::Ready
    }
}

fn is_current(acceleration: &ImageAcceleration, status: &ImageAccelerationStatus) -> bool {
    acceleration.metadata.deletion_timestamp.is_none()
        && status.observed_generation == acceleration.metadata.generation
}

pub(crate) fn view(
    acceleration: Option<&ImageAcceleration>,
    images: &[AcceleratedImage],
) -> ClusterImages {
    let mut status = acceleration
        .and_then(|acceleration| acceleration.status.clone())
        .unwrap_or_default();
    // What was said of other settings, or before it was to go, counts for nothing.
    if acceleration.is_some_and(|acceleration| !is_current(acceleration, &status)) {
        status.conditions.clear();
    }
    let nfs_ready = holds(&status, "NfsReady");
    let agent_ready = holds(&status, "AgentReady");
    let phases: Vec<Phase> = images.iter().map(phase).collect();
    let mut views: Vec<ImageView> = images.iter().map(ImageView::new).collect();
    views.sort_by(|a, b| a.target_image.cmp(&b.target_image));
    let error = views
        .iter()
        .find(|view| matches!(view.status, Phase::CreateError | Phase::DeleteError))
        .map(|view| view.error.clone())
        .or_else(|| {
            status
                .conditions
                .iter()
                .find(|condition| condition.status == "False")
                .map(|condition| condition.message.clone())
        })
        .unwrap_or_default();
    ClusterImages {
        enable: acceleration.is_some(),
        nfs_ready,
        agent_ready,
        status: overall(agent_ready, nfs_ready, &phases),
        error,
        images: views,
        subnet_id: acceleration
            .and_then(|acceleration| acceleration.annotations().get(names::SUBNET_ANNOTATION))
            .cloned()
            .unwrap_or_default(),
        nfs_addr: acceleration
            .and_then(|acceleration| acceleration.spec.store.nfs.as_ref())
            .map(|nfs| nfs.address().to_string())
            .unwrap_or_default(),
        ready_nodes: status.nodes.ready,
        nodes: status.nodes.total,
        store_bytes: status.store_bytes,
    }
}

impl Cluster {
    /// The images, or one of them (by target, else by original), and the state of the cluster.
    /// A cluster that is not enabled has none.
    ///
    /// # Errors
    /// The API does not answer, or there is no such image.
    pub async fn get(&self, image: Option<&ImageReference>) -> Result<ClusterImages, Error> {
        let (acceleration, images) = tokio::join!(self.acceleration(), async {
            match image {
                Some(image) => self.find_image(image).await.map(|image| vec![image]),
                None => match self.list_images().await {
                    Err(Error::NotEnabled) => Ok(Vec::new()),
                    other => other,
                },
            }
        });
        Ok(view(acceleration?.as_ref(), &images?))
    }

    /// As [`Self::get`], all images; a cluster counts as enabled until its `disable` has ended.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn get_all(&self) -> Result<ClusterImages, Error> {
        let (images, mark) = tokio::try_join!(self.get(None), self.removal_mark())?;
        Ok(ClusterImages {
            enable: images.enable || mark.is_some(),
            ..images
        })
    }

    /// Calls `show` with an image each time that it has changed, first with all that there are;
    /// the flag says that it is gone. Ends when `show` says so.
    ///
    /// # Errors
    /// The API refuses; outages are waited for.
    pub async fn watch(
        &self,
        image: Option<&ImageReference>,
        mut show: impl FnMut(&ImageView, bool) -> std::ops::ControlFlow<()>,
    ) -> Result<(), Error> {
        use kube::runtime::watcher::{Config, Event};
        let config = match image {
            Some(image) => {
                let name = self.find_image(image).await?.name_any();
                Config::default().fields(&format!("metadata.name={name}"))
            }
            None => Config::default(),
        };
        let mut events = observe::events(
            self,
            self.all::<AcceleratedImage>(),
            config,
            "watch the accelerated images",
        );
        // Far away: a watch of this kind has no deadline.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(86_400 * 365);
        let mut last: std::collections::BTreeMap<String, ImageView> =
            std::collections::BTreeMap::new();
        while let Some(event) = observe::next_before(&mut events, deadline)
            .await
            .map_err(crate::images::not_enabled)?
        {
            let flow = match event {
                Event::Apply(image) | Event::InitApply(image) => {
                    let view = ImageView::new(&image);
                    if last.get(&view.name) == Some(&view) {
                        continue;
                    }
                    let flow = show(&view, false);
                    last.insert(view.name.clone(), view);
                    flow
                }
                Event::Delete(image) => {
                    let view = ImageView::new(&image);
                    last.remove(&view.name);
                    show(&view, true)
                }
                Event::Init | Event::InitDone => continue,
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The one `ImageAcceleration`; `None` where the cluster is not enabled.
    pub(crate) async fn acceleration(&self) -> Result<Option<ImageAcceleration>, Error> {
        let api = self.all::<ImageAcceleration>();
        self.find(&api, names::DEFAULT, "read how the cluster is accelerated")
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_images_together() {
        use Phase::{CreateError, Creating, DeleteError, Deleting, Ready};
        for (phases, status) in [
            (vec![], ClusterStatus::Ready),
            (vec![Ready, Ready], ClusterStatus::Ready),
            (vec![Ready, Creating], ClusterStatus::Creating),
            (vec![CreateError, Creating], ClusterStatus::Creating),
            (vec![Deleting, Creating], ClusterStatus::Deleting),
            (vec![Ready, CreateError], ClusterStatus::CreateError),
            (vec![DeleteError, CreateError], ClusterStatus::DeleteError),
        ] {
            assert_eq!(overall(true, true, &phases), status, "{phases:?}");
            assert_eq!(overall(false, true, &phases), ClusterStatus::Unknown);
        }
        assert_eq!(overall(true, false, &[Ready]), ClusterStatus::Unknown);
        assert_eq!(overall(true, false, &[Creating]), ClusterStatus::Creating);
    }

    #[test]
    fn nothing_enabled() {
        let view = serde_json::to_value(view(None, &[])).unwrap();
        assert_eq!(
            view,
            serde_json::json!({
                "Enable": false, "NfsReady": false, "AgentReady": false, "Status": "Unknown",
                "Error": "", "Images": [], "SubnetId": "", "NfsAddr": "", "ReadyNodes": 0, "Nodes": 0,
            })
        );
    }
}
