//! What nodes hold, as leases in the store: a sweep from elsewhere (another cluster on the same
//! store, a person with `uimgacc store gc`) honours them too.
//!
//! Nodes report tokens, leases name chains: the store's own records say which chain a token stands
//! for. A token that no record of the store has is counted in the lease: as long as somebody reads what nobody knows,
//! no space of single contents is given back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kube::Client as Kube;
use kube::api::{Api, ListParams};
use uimgacc_objects::AccelerationNode;
use uimgacc_store::{Lease, StoreReader, remove_lease, write_lease};
use uimgacc_types::{ChainId, ChainToken};

use super::blocking;
use super::cluster_id::cluster_id;
use super::failure::Failure;
use super::retry::retrying;

/// Writes the leases of this cluster and of its nodes, and removes those of nodes that are gone.
pub(super) async fn write(kube: &Kube, store: &StoreReader) -> Result<(), Failure> {
    update(kube, store, true).await
}

/// Removes them: this cluster leaves the store. What nodes still hold stays, with the lease of the cluster.
pub(super) async fn release(kube: &Kube, store: &StoreReader) -> Result<(), Failure> {
    update(kube, store, false).await
}

async fn update(kube: &Kube, store: &StoreReader, stays: bool) -> Result<(), Failure> {
    let cluster = cluster_id(kube).await?;
    // Before the nodes are asked: what they take afterwards is not in the leases.
    let as_of = {
        let layout = store.layout().clone();
        blocking(move || Ok(uimgacc_store::server_time(&layout))).await?
    };
    let nodes: Api<AccelerationNode> = Api::all(kube.clone());
    let all = ListParams::default();
    let nodes = retrying(|| nodes.list(&all))
        .await
        .map_err(Failure::retried)?;
    let held: BTreeMap<String, Vec<Option<ChainToken>>> = nodes
        .into_iter()
        .filter_map(|node| {
            let chains = node.status.unwrap_or_default().chains;
            // What a node says that makes no sense counts as something that nobody knows.
            let chains = chains.iter().map(|held| held.token.parse().ok());
            Some((node.metadata.name?, chains.collect()))
        })
        .collect();
    let store = store.clone();
    blocking(move || replace(&store, &cluster, &held, (as_of, stays))).await
}

/// The chains of the store that these tokens stand for.
pub(super) fn chains(
    store: &StoreReader,
    tokens: &BTreeSet<ChainToken>,
) -> Result<HashMap<ChainToken, ChainId>, Failure> {
    let mut found = HashMap::new();
    // Twice where one is missing: a record that is renamed meanwhile may hide from a listing.
    for _ in 0..2 {
        if tokens.iter().all(|token| found.contains_key(token)) {
            break;
        }
        for chain in uimgacc_store::known_chains(store.layout()).map_err(Failure::retried)? {
            let token = ChainToken::of(chain);
            if tokens.contains(&token) {
                found.insert(token, chain);
            }
        }
    }
    Ok(found)
}

fn replace(
    store: &StoreReader,
    cluster: &str,
    tokens: &BTreeMap<String, Vec<Option<ChainToken>>>,
    (as_of, stays): (u64, bool),
) -> Result<(), Failure> {
    let layout = store.layout();
    let own = format!("cluster-{cluster}");
    let prefix = format!("{own}-");
    let known = chains(
        store,
        &tokens.values().flatten().flatten().copied().collect(),
    )?;
    let held: BTreeMap<&str, Lease> = tokens
        .iter()
        .filter(|(_, tokens)| !tokens.is_empty())
        .map(|(node, tokens)| {
            let chains = tokens
                .iter()
                .flatten()
                .filter_map(|token| known.get(token).copied());
            let chains: Vec<ChainId> = chains.collect();
            let unknown = tokens.len().saturating_sub(chains.len()) as u64;
            (
                node.as_str(),
                Lease::of_a_node(node, chains, unknown, as_of),
            )
        })
        .collect();
    let needs_own = stays || !held.is_empty();
    if needs_own {
        let lease = Lease::of_a_cluster(cluster, as_of);
        write_lease(layout, &own, &lease).map_err(Failure::retried)?;
    }
    for (node, lease) in &held {
        write_lease(layout, &format!("{prefix}{node}"), lease).map_err(Failure::retried)?;
    }
    for lease in layout.leases().list().map_err(Failure::retried)? {
        let node = lease
            .name()
            .and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".json"));
        if let Some(node) = node
            && !held.contains_key(node)
        {
            remove_lease(layout, &format!("{prefix}{node}")).map_err(Failure::retried)?;
        }
    }
    // Last: as long as one of a node is there, it is too.
    if !needs_own {
        remove_lease(layout, &own).map_err(Failure::retried)?;
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
        let gone: ChainId = format!("sha256:{}", "b".repeat(64)).parse().unwrap();
        let record = store.layout().chain(chain).on_host();
        std::fs::create_dir_all(record.parent().unwrap()).unwrap();
        std::fs::write(&record, "{}").unwrap();
        let (chain, gone) = (ChainToken::of(chain), ChainToken::of(gone));
        let held = BTreeMap::from([
            ("node-1".to_owned(), vec![Some(chain), Some(gone)]),
            ("node-2.example".to_owned(), vec![Some(chain)]),
            ("node-3".to_owned(), Vec::new()),
            ("node-4".to_owned(), vec![None]),
        ]);
        replace(&store, "one", &held, (7, true)).unwrap();
        replace(&store, "other", &held, (8, true)).unwrap();
        let holders = || -> Vec<String> {
            let leases = uimgacc_store::leases(store.layout()).unwrap();
            assert!(leases.iter().all(Lease::holds));
            leases.into_iter().map(|lease| lease.holder).collect()
        };
        // One of which nothing is known as well; and of each cluster.
        assert_eq!(holders().len(), 8);
        // A chain that is only retired is held as before.
        std::fs::rename(&record, record.with_extension("retired")).unwrap();
        replace(&store, "one", &held, (7, true)).unwrap();
        assert_eq!(holders().len(), 8);
        for lease in uimgacc_store::leases(store.layout()).unwrap() {
            let chains: Vec<ChainToken> =
                lease.chains.iter().map(|id| ChainToken::of(*id)).collect();
            let expected = match lease.holder.as_str() {
                "cluster one" | "cluster other" => (vec![], 0),
                "node node-1" => (vec![chain], 1),
                "node node-4" => (vec![], 1),
                _ => (vec![chain], 0),
            };
            assert_eq!((chains, lease.unknown), expected, "{lease:?}");
        }
        replace(&store, "one", &BTreeMap::new(), (9, false)).unwrap();
        assert_eq!(
            holders(),
            [
                "cluster other",
                "node node-1",
                "node node-2.example",
                "node node-4"
            ]
        );
    }
}
