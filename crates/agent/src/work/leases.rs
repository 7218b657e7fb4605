//! What nodes hold, as leases in the store: a sweep from elsewhere (another cluster on the same
//! store, a person with `uimgacc store gc`) honours them too.

use std::collections::BTreeMap;

use kube::Client as Kube;
use kube::api::{Api, ListParams};
use uimgacc_objects::{AccelerationNode, ImageAcceleration, names};
use uimgacc_store::{Lease, StoreReader, remove_lease, write_lease};
use uimgacc_types::ChainId;

use super::blocking;
use super::failure::Failure;
use super::patience::{patiently, read};

/// Writes the leases of this cluster's nodes, and removes those of nodes that are gone.
pub(super) async fn write(kube: &Kube, store: &StoreReader) -> Result<(), Failure> {
    // Tells the leases of several clusters on one store apart.
    let accelerations: Api<ImageAcceleration> = Api::all(kube.clone());
    let acceleration = read(&accelerations, names::DEFAULT).await?;
    let cluster = acceleration.metadata.uid.unwrap_or_default();
    let nodes: Api<AccelerationNode> = Api::all(kube.clone());
    let all = ListParams::default();
    let nodes = patiently(|| nodes.list(&all))
        .await
        .map_err(Failure::retried)?;
    let held: BTreeMap<String, Vec<ChainId>> = nodes
        .into_iter()
        .filter_map(|node| {
            let chains = node.status.unwrap_or_default().chains;
            // A node that says nonsense holds what of it makes sense.
            let chains = chains.iter().filter_map(|held| held.chain_id.parse().ok());
            Some((node.metadata.name?, chains.collect()))
        })
        .collect();
    let store = store.clone();
    blocking(move || replace(&store, &cluster, &held)).await
}

fn replace(
    store: &StoreReader,
    cluster: &str,
    held: &BTreeMap<String, Vec<ChainId>>,
) -> Result<(), Failure> {
    let layout = store.layout();
    let prefix = format!("cluster-{cluster}-");
    for (node, chains) in held.iter().filter(|(_, chains)| !chains.is_empty()) {
        let lease = Lease::of_a_node(node, chains.clone());
        write_lease(layout, &format!("{prefix}{node}"), &lease).map_err(Failure::retried)?;
    }
    for lease in layout.leases().list().map_err(Failure::retried)? {
        let node = lease
            .name()
            .and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".json"));
        if let Some(node) = node
            && held.get(node).is_none_or(Vec::is_empty)
        {
            remove_lease(layout, &format!("{prefix}{node}")).map_err(Failure::retried)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_follow_the_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = uimgacc_store::init(folder.path()).unwrap();
        let chain: ChainId = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let held = BTreeMap::from([
            ("node-1".to_owned(), vec![chain]),
            ("node-2.example".to_owned(), vec![chain]),
            ("node-3".to_owned(), Vec::new()),
        ]);
        replace(&store, "one", &held).unwrap();
        replace(&store, "other", &held).unwrap();
        let holders = || -> Vec<String> {
            let leases = uimgacc_store::leases(store.layout()).unwrap();
            assert!(leases.iter().all(Lease::holds));
            leases.into_iter().map(|lease| lease.holder).collect()
        };
        assert_eq!(holders().len(), 4);
        replace(&store, "one", &BTreeMap::new()).unwrap();
        assert_eq!(holders(), ["node node-1", "node node-2.example"]);
    }
}
