//! Gives chains back: removes images that lie on them and that no container uses. Their snapshots go
//! with containerd's next collection of garbage, and then the chains are held no more.
//!
//! Only images that Kubernetes sees (containerd's namespace `k8s.io`) are removed; what somebody
//! keeps in another namespace stays, and is told by the chains that stay.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::Deserialize;
use uimgacc_types::{ChainId, DiffId, chain_ids};

use super::cri::{Container, Cri, Image};

/// Removes what can be removed, and returns the names of what it has removed.
pub(super) async fn release(cri: &Cri, chains: &[String]) -> anyhow::Result<Vec<String>> {
    let wanted: BTreeSet<ChainId> = chains.iter().filter_map(|one| one.parse().ok()).collect();
    let containers = cri.containers().await.context("cannot list containers")?;
    let images = cri.images().await.context("cannot list images")?;
    let mut removed = Vec::new();
    for image in images.iter().filter(|image| may_go(image, &containers)) {
        let info = cri.image_info(&image.id).await;
        let info = info.with_context(|| format!("cannot look at image {}", image.id))?;
        if lies_on(&info, &wanted) {
            let done = cri.remove_image(&image.id).await;
            done.with_context(|| format!("cannot remove image {}", image.id))?;
            removed.push(image.repo_tags.first().unwrap_or(&image.id).clone());
        }
    }
    Ok(removed)
}

/// Whether nothing keeps an image from being removed.
fn may_go(image: &Image, containers: &[Container]) -> bool {
    let is_name = |name: &str| {
        let names = image.repo_tags.iter().chain(&image.repo_digests);
        name == image.id || names.into_iter().any(|one| one == name)
    };
    let uses = |container: &Container| {
        let spec = container.image.as_ref();
        is_name(&container.image_ref) || spec.is_some_and(|spec| is_name(&spec.image))
    };
    !image.pinned && !containers.iter().any(uses)
}

/// What of containerd's words about an image we read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    image_spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Rootfs {
    diff_ids: Vec<String>,
}

/// Whether an image has one of the chains as its own, or as the chain of its lower layers.
fn lies_on(info: &str, wanted: &BTreeSet<ChainId>) -> bool {
    let Ok(info) = serde_json::from_str::<Info>(info) else {
        return false;
    };
    let diff_ids = info.image_spec.rootfs.diff_ids;
    let diff_ids: Result<Vec<DiffId>, _> = diff_ids.iter().map(|one| one.parse()).collect();
    diff_ids.is_ok_and(|diff_ids| chain_ids(&diff_ids).iter().any(|one| wanted.contains(one)))
}

#[cfg(test)]
mod tests {
    use super::super::cri::ImageSpec;
    use super::*;

    #[test]
    fn images_lie_on_the_chains_of_all_their_layers() {
        let diff = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let ids: Vec<DiffId> = ["a", "b"]
            .iter()
            .map(|one| diff(one).parse().unwrap())
            .collect();
        let chains = chain_ids(&ids);
        let info = format!(
            r#"{{"chainID":"x","imageSpec":{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}}}"#,
            ids[0], ids[1]
        );
        for chain in chains {
            assert!(lies_on(&info, &BTreeSet::from([chain])), "{chain}");
        }
        // The second layer alone is another image's.
        let other: ChainId = diff("b").parse().unwrap();
        assert!(!lies_on(&info, &BTreeSet::from([other])));
        assert!(!lies_on("", &BTreeSet::from([other])));
    }

    #[test]
    fn used_and_pinned_images_stay() {
        let image = |pinned| Image {
            id: "sha256:1".to_owned(),
            repo_tags: vec!["r/a:1".to_owned()],
            repo_digests: vec!["r/a@sha256:2".to_owned()],
            pinned,
        };
        let container = |image: &str, image_ref: &str| Container {
            image: Some(ImageSpec {
                image: image.to_owned(),
            }),
            image_ref: image_ref.to_owned(),
        };
        assert!(may_go(&image(false), &[]));
        assert!(!may_go(&image(true), &[]));
        for (name, reference, may) in [
            ("sha256:1", "", false),
            ("", "sha256:1", false),
            ("r/a:1", "sha256:9", false),
            ("", "r/a@sha256:2", false),
            ("r/a:2", "sha256:9", true),
            ("", "", true),
        ] {
            let containers = [container(name, reference)];
            assert_eq!(
                may_go(&image(false), &containers),
                may,
                "{name} {reference}"
            );
        }
    }
}
