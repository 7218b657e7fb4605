//! Counts over the whole world.

use std::collections::BTreeSet;

use uimgacc_objects::{NodeTotals, Phase, find_condition};

use super::decide::deletion::is_released;
use super::decide::nodes::is_true;
use super::view::JobEnd;
use super::world::World;

impl World {
    /// Nodes that are to be set up, and those of them that can run accelerated images.
    ///
    /// A node whose installer's Pod is not ready counts as one that cannot: nobody would tell.
    #[must_use]
    pub fn node_totals(&self) -> NodeTotals {
        let Some(cluster) = self.cluster() else {
            return NodeTotals::default();
        };
        let silent: BTreeSet<&str> = self
            .pods
            .all()
            .values()
            .filter(|pod| !pod.ready && !pod.finished)
            .filter(|pod| pod.id.split('/').next() == Some(self.namespace.as_str()))
            .filter(|pod| pod.ours.as_ref().is_some_and(|our| our.component == "node"))
            .filter_map(|pod| pod.node.as_deref())
            .collect();
        let mut totals = NodeTotals::default();
        for node in self.nodes.all().values() {
            if !node.is_selected(&cluster.spec.node_selector) {
                continue;
            }
            totals.total += 1;
            let name = node.meta.name.as_str();
            let lease = self.leases.get(name);
            if lease.is_some_and(|lease| is_true(lease, "Ready")) && !silent.contains(name) {
                totals.ready += 1;
            }
        }
        totals
    }

    /// Nodes that reach the store, and nodes that do not.
    #[must_use]
    pub fn reach(&self) -> (u32, u32) {
        let mut reach = (0, 0);
        for lease in self.leases.all().values() {
            if self.nodes.get(&lease.meta.name).is_none() {
                continue;
            }
            let condition = find_condition(&lease.status.conditions, "StoreReachable");
            match condition.map(|one| one.status.as_str()) {
                Some("True") => reach.0 += 1,
                Some("False") => reach.1 += 1,
                _ => {}
            }
        }
        reach
    }

    /// Images that are ready.
    #[must_use]
    pub fn ready_images(&self) -> u32 {
        let images = self.images.all().values();
        let ready = images.filter(|image| image.status.phase == Phase::Ready);
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    }

    /// Jobs of that component that have not ended.
    #[must_use]
    pub fn running(&self, component: &str) -> usize {
        let jobs = self.jobs.all().values();
        jobs.filter(|job| job.component == component && job.end == JobEnd::Active)
            .count()
    }

    /// Chains that nodes are to give back now.
    #[must_use]
    pub fn released(&self) -> BTreeSet<String> {
        let disabling = |cluster: &super::view::ClusterView| cluster.meta.deleting.is_some();
        if self.cluster().is_none_or(|cluster| disabling(cluster)) {
            return BTreeSet::new();
        }
        let images = self.images.all().values();
        images
            .filter(|image| image.meta.deleting.is_some())
            .filter(|image| is_released(image, &self.users(image, true), self.is_shared(image)))
            .filter_map(|image| image.status.chain_id.clone())
            .collect()
    }
}
