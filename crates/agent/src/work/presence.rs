//! Who works on the store, and who is gone though the store does not know it yet.
//!
//! A Job that is killed leaves its word in the store that it works there, which others honour for
//! ten minutes. The API server knows better: a Pod that is gone or has ended works no more. So each
//! Job works under a name that tells cluster and Pod, and clears away what such Pods left.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client as Kube;
use kube::api::{Api, ListParams};
use uimgacc_objects::names;
use uimgacc_store::StoreReader;

use super::blocking;
use super::cluster_id::cluster_id;
use super::failure::Failure;

/// How often it is looked for those that are gone.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// This Job's Pod, among those of its cluster.
#[derive(Debug)]
pub(super) struct Presence {
    /// What the names of all Pods of this cluster begin with: clusters may share a store.
    prefix: String,
    namespace: String,
    pod: String,
}

impl Presence {
    /// Of this process.
    pub(super) async fn new(kube: &Kube) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Ok(Self {
            prefix: prefix(&cluster_id(kube).await?),
            namespace: variable("POD_NAMESPACE").unwrap_or_else(|| names::NAMESPACE.to_owned()),
            pod: variable("POD_NAME").unwrap_or_default(),
        })
    }

    /// The name this process works under; `None` where it runs in no Pod.
    pub(super) fn actor(&self) -> Option<String> {
        (!self.pod.is_empty()).then(|| format!("{}{}", self.prefix, self.pod))
    }

    /// Clears away what Pods left that are gone, again and again, for ever.
    pub(super) async fn clear_gone(&self, kube: &Kube, store: &StoreReader) {
        loop {
            if let Err(failure) = self.clear_once(kube, store).await {
                tracing::warn!(failure = %failure.message(), "cannot clear away what killed Jobs left");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn clear_once(&self, kube: &Kube, store: &StoreReader) -> Result<(), Failure> {
        let pods: Api<Pod> = Api::namespaced(kube.clone(), &self.namespace);
        let ours =
            ListParams::default().labels(&format!("app.kubernetes.io/part-of={}", names::PART_OF));
        let pods = pods.list(&ours).await.map_err(Failure::retried)?;
        let alive = alive(pods.items);
        let (layout, prefix) = (store.layout().clone(), self.prefix.clone());
        let cleared = blocking(move || {
            uimgacc_store::clear_gone(&layout, |actor| is_gone(actor, &prefix, &alive))
                .map_err(Failure::retried)
        })
        .await?;
        if cleared > 0 {
            tracing::info!(cleared, "cleared away what killed Jobs left");
        }
        Ok(())
    }
}

fn prefix(cluster: &str) -> String {
    format!("cluster-{cluster}/pod/")
}

/// The names of Pods that may work.
fn alive(pods: Vec<Pod>) -> BTreeSet<String> {
    let has_ended = |pod: &Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    pods.into_iter()
        .filter(|pod| !has_ended(pod))
        .filter_map(|pod| pod.metadata.name)
        .collect()
}

/// Whether that is the name of a Pod of this cluster, and none that may work.
fn is_gone(actor: &str, prefix: &str, alive: &BTreeSet<String>) -> bool {
    let pod = actor.strip_prefix(prefix);
    pod.is_some_and(|pod| !alive.contains(pod))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_gone() {
        let pod = |name: &str, phase: &str| -> Pod {
            serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        let alive = alive(vec![
            pod("waits", "Pending"),
            pod("runs", "Running"),
            pod("lost", "Unknown"),
            pod("done", "Succeeded"),
            pod("failed", "Failed"),
        ]);
        let here = prefix("1");
        for (pod, expected) in [
            ("waits", false),
            ("runs", false),
            ("lost", false),
            ("done", true),
            ("failed", true),
            ("vanished", true),
        ] {
            let actor = format!("{here}{pod}");
            assert_eq!(is_gone(&actor, &here, &alive), expected, "{pod}");
            assert!(!is_gone(&actor, &prefix("2"), &alive), "{pod} elsewhere");
        }
    }
}
