//! Pods that use images.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use uimgacc_objects::{AcceleratedImage, AccelerationNode};
use uimgacc_types::normalised;

use crate::Cluster;
use crate::error::Error;
use crate::holder::Holder;

/// How a Pod uses one of `images` (normalised); `None` where it does not or has ended.
fn holder(pod: &Pod, images: &BTreeSet<String>) -> Option<Holder> {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let image = spec
        .containers
        .iter()
        .chain(init)
        .filter_map(|container| container.image.clone())
        .chain(ephemeral.filter_map(|container| container.image.clone()))
        .find(|image| images.contains(&normalised(image)))?;
    Some(Holder {
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        node: spec.node_name.clone().unwrap_or_default(),
        image,
    })
}

/// The references by which Pods use these images; the originals too where `originals` says so.
pub(crate) fn references<'a>(
    images: impl IntoIterator<Item = &'a AcceleratedImage>,
    originals: bool,
) -> BTreeSet<String> {
    let mut references = BTreeSet::new();
    for image in images {
        references.insert(normalised(&image.spec.target_image));
        if originals {
            references.insert(normalised(&image.spec.original_image));
        }
    }
    references
}

impl Cluster {
    /// The Pods that use this image: its target, and its original where containers of the Pod's
    /// node lie on the image's chain. One that was started before the node was set up does not.
    pub(crate) async fn holders_of(&self, image: &AcceleratedImage) -> Result<Vec<Holder>, Error> {
        let targets = references([image], false);
        let mut holders = self.holders(&references([image], true)).await?;
        if holders
            .iter()
            .all(|holder| targets.contains(&normalised(&holder.image)))
        {
            return Ok(holders);
        }
        let nodes = self.nodes_that_read(image).await?;
        holders.retain(|holder| {
            targets.contains(&normalised(&holder.image)) || nodes.contains(&holder.node)
        });
        Ok(holders)
    }

    /// The nodes whose containers lie on the image's chain.
    async fn nodes_that_read(&self, image: &AcceleratedImage) -> Result<BTreeSet<String>, Error> {
        let chain = image
            .status
            .as_ref()
            .and_then(|status| status.chain_token.as_ref());
        let nodes = self
            .list(
                &self.all::<AccelerationNode>(),
                ListParams::default(),
                "what nodes hold",
            )
            .await?;
        let reads = |node: &AccelerationNode| {
            let mut chains = node.status.iter().flat_map(|status| &status.chains);
            chains.any(|held| Some(&held.token) == chain && held.containers > 0)
        };
        Ok(nodes
            .iter()
            .filter(|node| reads(node))
            .map(kube::ResourceExt::name_any)
            .collect())
    }

    /// The Pods that use one of these references (normalised) and have not ended.
    pub(crate) async fn holders(
        &self,
        references: &BTreeSet<String>,
    ) -> Result<Vec<Holder>, Error> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        let unfinished =
            ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        let what = "the Pods of all namespaces";
        let choose = |pod: Pod| holder(&pod, references);
        let mut holders = self
            .list_some(&self.all::<Pod>(), unfinished, what, choose)
            .await?;
        holders.sort();
        Ok(holders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn who_uses_what() {
        let images = BTreeSet::from(["docker.io/library/nginx:fast".to_owned()]);
        let running = pod(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "redis"}],
                     "initContainers": [{"name": "b", "image": "nginx:fast"}]},
        }));
        let found = holder(&running, &images).unwrap();
        assert_eq!(found.to_string(), "shop/web on n1");
        assert_eq!(found.image, "nginx:fast");
        let mut ended = running.clone();
        ended.status = Some(k8s_openapi::api::core::v1::PodStatus {
            phase: Some("Succeeded".to_owned()),
            ..Default::default()
        });
        assert_eq!(holder(&ended, &images), None);
        let other = pod(serde_json::json!({
            "metadata": {"name": "web"}, "spec": {"containers": [{"name": "a", "image": "nginx"}]},
        }));
        assert_eq!(holder(&other, &images), None);
    }
}
