//! Gives chains back: removes images that lie on them where no container reads the store by any of
//! their chains. Their snapshots go with containerd's next collection of garbage, and then the
//! chains are held no more.
//!
//! Which containers read the store the daemon knows, not CRI: a container that was started before
//! the node was set up has the same image and reads nothing of it. It goes on without its image.
//!
//! At the uninstallation all images on chains of the store are removed, used or not: of their layers
//! containerd may have nothing, so nobody could start them again. They are pulled when they are next
//! asked for; containers that run go on.
//!
//! Only images that Kubernetes sees (containerd's namespace `k8s.io`) are removed; what somebody
//! keeps in another namespace stays, and is told by the chains that stay.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::Deserialize;
use uimgacc_objects::HeldChain;
use uimgacc_types::{ChainToken, DiffId, chain_ids};

use super::cri::Cri;

/// Removes what can be removed of the images on `chains` (tokens), and returns the names of what it
/// has removed. `held` is what the daemon says of all chains.
pub(super) async fn release(
    cri: &Cri,
    chains: &[String],
    held: &[HeldChain],
) -> anyhow::Result<Vec<String>> {
    let read = held.iter().filter(|held| held.containers > 0);
    let read: Vec<String> = read.map(|held| held.token.clone()).collect();
    remove(cri, chains, &read).await
}

/// Removes all images on `chains` (tokens), used or not, and returns the names of what it has removed.
pub(super) async fn remove_all(cri: &Cri, chains: &[String]) -> anyhow::Result<Vec<String>> {
    remove(cri, chains, &[]).await
}

async fn remove(cri: &Cri, chains: &[String], read: &[String]) -> anyhow::Result<Vec<String>> {
    let parsed = |all: &[String]| -> BTreeSet<ChainToken> {
        all.iter().filter_map(|one| one.parse().ok()).collect()
    };
    let (wanted, read) = (parsed(chains), parsed(read));
    let images = cri.images().await.context("cannot list images")?;
    let mut removed = Vec::new();
    for image in images.iter().filter(|image| !image.pinned) {
        let info = cri.image_info(&image.id).await;
        let info = info.with_context(|| format!("cannot look at image {}", image.id))?;
        if may_go(&info, &wanted, &read) {
            let done = cri.remove_image(&image.id).await;
            done.with_context(|| format!("cannot remove image {}", image.id))?;
            removed.push(image.repo_tags.first().unwrap_or(&image.id).clone());
        }
    }
    Ok(removed)
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

/// Whether an image lies on one of the wanted chains and no container reads one of its chains.
fn may_go(info: &str, wanted: &BTreeSet<ChainToken>, read: &BTreeSet<ChainToken>) -> bool {
    let Ok(info) = serde_json::from_str::<Info>(info) else {
        return false;
    };
    let diff_ids = info.image_spec.rootfs.diff_ids;
    let diff_ids: Result<Vec<DiffId>, _> = diff_ids.iter().map(|one| one.parse()).collect();
    diff_ids.is_ok_and(|diff_ids| {
        let chains: Vec<ChainToken> = chain_ids(&diff_ids)
            .into_iter()
            .map(ChainToken::of)
            .collect();
        let is_on = |set: &BTreeSet<ChainToken>| chains.iter().any(|chain| set.contains(chain));
        is_on(wanted) && !is_on(read)
    })
}

#[cfg(test)]
mod tests {
    use uimgacc_types::ChainId;

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
        let set = |chain: ChainId| BTreeSet::from([ChainToken::of(chain)]);
        let none = BTreeSet::new();
        for chain in &chains {
            assert!(may_go(&info, &set(*chain), &none), "{chain}");
            // A container reads the image, or one that its layers are the base of.
            for read in &chains {
                assert!(!may_go(&info, &set(*chain), &set(*read)), "{chain} {read}");
            }
        }
        // The second layer alone is another image's.
        let other: ChainId = diff("b").parse().unwrap();
        assert!(!may_go(&info, &set(other), &none));
        assert!(may_go(&info, &set(chains[0]), &set(other)));
        assert!(!may_go("", &set(other), &none));
    }
}
