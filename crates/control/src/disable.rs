//! `disable`: takes everything away again, node by node.
//!
//! Order: Pods that use target images are looked for; with `purge` the images are deleted; the
//! `ImageAcceleration` is deleted, upon which the agent uninstalls the nodes one by one and lets it
//! go; agent, roles and Secret are deleted; the definitions too, where no image is left. The store
//! keeps its data unless `purge` is asked for. The same again goes on where it was cut short.

pub(crate) mod removal;

use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;
use uimgacc_objects::{AcceleratedImage, ImageAcceleration, find_condition, names};

use crate::cluster_state::{ClusterState, SAID};
use crate::error::Error;
use crate::find_holders::references;
use crate::images::ImageView;
use crate::observe::next_before;
use crate::{Cluster, Progress};

/// How to disable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisableRequest {
    /// Although Pods use target images.
    pub force: bool,
    /// Delete all images too, and what they have in the store.
    pub purge: bool,
    /// How long it may take.
    pub within: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisableReport {
    /// It was enabled before.
    pub was_enabled: bool,
    /// Images that stay in the store; their objects and the definitions stay too.
    pub images_left: usize,
}

/// How long after a Pod's end its node may still tell of its containers: the kubelet removes dead
/// ones once a minute.
const SETTLE: Duration = Duration::from_secs(90);

impl Cluster {
    /// Disables the cluster.
    ///
    /// # Errors
    /// Pods use target images (nothing is changed then), an image cannot be deleted, or nodes do
    /// not come to an end in time; the error names them.
    pub async fn disable(
        &self,
        request: &DisableRequest,
        progress: &dyn Progress,
    ) -> Result<DisableReport, Error> {
        let deadline = Instant::now() + request.within;
        let acceleration = self.acceleration().await?;
        let images = match self.list_images().await {
            Err(Error::NotEnabled) => Vec::new(),
            other => other?,
        };
        if !request.force {
            self.refuse_in_use(&images).await?;
        }
        if request.purge && !images.is_empty() {
            if acceleration.is_none() {
                return Err(Error::Invalid {
                    message: format!(
                        "{} images are left, and there is no agent to delete them",
                        images.len()
                    ),
                    hint: "`uimgacc enable` again, then disable with --purge".to_owned(),
                });
            }
            self.purge(request, deadline, progress).await?;
        }
        if let Some(acceleration) = &acceleration {
            self.mark_removal().await?;
            if self
                .delete_acceleration(acceleration, request.force)
                .await?
            {
                self.wait_removed(acceleration, request, deadline, progress)
                    .await?;
            }
        }
        let images_left = self.remove_all(None).await?;
        progress.say("agent, roles and Secret are deleted");
        if images_left == 0 {
            progress.say("definitions are deleted");
        }
        Ok(DisableReport {
            was_enabled: acceleration.is_some(),
            images_left,
        })
    }

    /// Begins to disable the cluster and returns at once: the agent goes on with it on the nodes,
    /// and [`Self::finish_disable`] takes away the rest. Images stay in the store. Whether there was
    /// anything to disable.
    ///
    /// # Errors
    /// Pods use target images; nothing is changed then.
    pub async fn begin_disable(&self) -> Result<bool, Error> {
        let images = match self.list_images().await {
            // What an `enable` that was cut short may have left.
            Err(Error::NotEnabled) => {
                self.remove_all(None).await?;
                return Ok(false);
            }
            other => other?,
        };
        self.refuse_in_use(&images).await?;
        self.mark_removal().await?;
        if let Some(acceleration) = self.acceleration().await? {
            self.delete_acceleration(&acceleration, false).await?;
        }
        // An `enable` in between has taken the mark away.
        self.mark_removal().await?;
        Ok(true)
    }

    async fn refuse_in_use(&self, images: &[AcceleratedImage]) -> Result<(), Error> {
        let holders = self.holders(&references(images, false)).await?;
        if holders.is_empty() {
            return Ok(());
        }
        Err(Error::InUse {
            what: "image acceleration".to_owned(),
            holders,
        })
    }

    async fn purge(
        &self,
        request: &DisableRequest,
        deadline: Instant,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let images = self.list_images().await?;
        for image in &images {
            if request.force {
                self.force(image).await?;
            }
            let deleted = self
                .all::<AcceleratedImage>()
                .delete(&image.name_any(), &DeleteParams::background())
                .await;
            match deleted {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => {
                    let action = format!("delete {}", image.spec.target_image);
                    return Err(self.failed(&action)(error));
                }
            }
        }
        let settled = Instant::now() + SETTLE;
        for image in &images {
            let view = ImageView::new(image);
            loop {
                let rest = deadline.saturating_duration_since(Instant::now());
                match self.wait_deleted(&view, rest, &crate::Silent).await {
                    // Its last Pod may be gone, and its node not have said so yet.
                    Err(Error::InUse { .. } | Error::DeleteFailed { .. })
                        if Instant::now() < settled =>
                    {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    other => break other?,
                }
            }
            progress.say(&format!("{} is deleted from the store", view.target_image));
        }
        Ok(())
    }

    /// Whether it was there still; the agent then takes things off the nodes.
    async fn delete_acceleration(
        &self,
        acceleration: &ImageAcceleration,
        force: bool,
    ) -> Result<bool, Error> {
        let api = self.all::<ImageAcceleration>();
        if force {
            let patch = json!({"metadata": {"annotations": {names::FORCE_ANNOTATION: "true"}}});
            api.patch(
                names::DEFAULT,
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .map_err(self.failed("force the end of the ImageAcceleration"))?;
        }
        if acceleration.metadata.deletion_timestamp.is_none() {
            match api
                .delete(names::DEFAULT, &DeleteParams::background())
                .await
            {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(false),
                Err(error) => return Err(self.failed("delete the ImageAcceleration")(error)),
            }
        }
        Ok(true)
    }

    async fn wait_removed(
        &self,
        acceleration: &ImageAcceleration,
        request: &DisableRequest,
        deadline: Instant,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let mut changes = ClusterState::watch(self);
        let mut state = ClusterState::default();
        let mut said: Vec<String> = Vec::new();
        while let Some(change) = next_before(&mut changes, deadline).await? {
            state.apply(change);
            if !state.is_listed() {
                continue;
            }
            let is_gone = state
                .enabled()
                .is_none_or(|now| now.metadata.uid != acceleration.metadata.uid);
            if is_gone {
                progress.say("all nodes are as they were");
                return Ok(());
            }
            let left = left(&state);
            for line in left.iter().filter(|line| !said.contains(line)).take(SAID) {
                progress.say(&format!("waiting: {line}"));
            }
            said = left;
        }
        Err(Error::Timeout {
            what: "image acceleration is not disabled".to_owned(),
            after: request.within,
            missing: said,
        })
    }
}

/// What holds up the end of the `ImageAcceleration`.
fn left(state: &ClusterState) -> Vec<String> {
    let mut left = Vec::new();
    let (ready, _) = state
        .agent
        .get(names::AGENT)
        .map_or((0, 0), crate::cluster_state::replicas);
    if ready == 0 {
        // Nobody else takes things off nodes.
        left.push("the agent does not run, so nodes cannot be uninstalled".to_owned());
        left.extend(state.pod_problems(names::AGENT));
    }
    let status = state.status();
    // What was said before the deletion is of no interest.
    let is_current = state
        .enabled()
        .is_some_and(|now| now.metadata.generation == status.observed_generation);
    if let Some(condition) = find_condition(&status.conditions, "Ready")
        && is_current
        && condition.status != "True"
        && !condition.message.is_empty()
    {
        left.push(condition.message.clone());
    }
    for node in state.nodes.iter() {
        let status = node.status.clone().unwrap_or_default();
        let installed = find_condition(&status.conditions, "Installed");
        if installed.is_some_and(|condition| condition.reason == "Uninstalled") {
            continue;
        }
        let why = match (node.spec.uninstall, status.error) {
            (_, Some(error)) => error,
            (true, None) => "is being uninstalled".to_owned(),
            (false, None) => "waits for its turn".to_owned(),
        };
        left.push(format!("node {}: {why}", node.name_any()));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Table;

    #[test]
    fn what_holds_it_up() {
        let node = |name: &str, uninstall: bool, status: serde_json::Value| {
            serde_json::from_value(json!({
                "apiVersion": "uimgacc.io/v1", "kind": "AccelerationNode",
                "metadata": {"name": name}, "spec": {"uninstall": uninstall}, "status": status,
            }))
            .unwrap()
        };
        let state = ClusterState {
            nodes: Table::of(vec![
                node(
                    "a",
                    true,
                    json!({"conditions": [{"type": "Installed", "status": "False",
                    "reason": "Uninstalled", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
                ),
                node("b", true, json!({})),
                node("c", true, json!({"error": "containerd does not come back"})),
                node("d", false, json!({})),
            ]),
            ..ClusterState::default()
        };
        assert_eq!(
            left(&state),
            [
                "the agent does not run, so nodes cannot be uninstalled",
                "node b: is being uninstalled",
                "node c: containerd does not come back",
                "node d: waits for its turn",
            ]
        );
    }
}
