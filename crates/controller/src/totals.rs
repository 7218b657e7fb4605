//! Counts over the whole world.

use std::collections::BTreeSet;

use uimgacc_objects::{NodeTotals, Phase, find_condition, names};

use super::decide::deletion::is_released;
use super::decide::nodes::{Standing, is_true, is_uninstalled};
use super::decide::restarts;
use super::view::{AccelerationNodeView, JobEnd, PodView};
use super::world::{World, is_same};

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
            .filter(|pod| !pod.ready && !pod.finished && self.is_installer(pod))
            .filter_map(|pod| pod.node.as_deref())
            .collect();
        let mut totals = NodeTotals::default();
        for node in self.nodes.all().values() {
            if !node.is_selected(&cluster.spec.node_selector) {
                continue;
            }
            totals.total += 1;
            let name = node.meta.name.as_str();
            let reported = self.acceleration_nodes.get(name);
            if reported.is_some_and(|node| is_true(node, "Ready")) && !silent.contains(name) {
                totals.ready += 1;
            }
        }
        totals
    }

    /// How the Node of that object stands.
    #[must_use]
    pub fn standing(&self, reported: &AccelerationNodeView) -> Standing {
        let name = reported.meta.name.as_str();
        let (Some(cluster), Some(node)) = (self.cluster(), self.nodes.get(name)) else {
            return Standing::Gone;
        };
        if node.is_selected(&cluster.spec.node_selector) {
            return Standing::Selected;
        }
        // What a node holds may be swept once its object is gone.
        let holds = !reported.status.chains.is_empty() || is_true(reported, "Installed");
        let has_installer = node.labels.contains_key(names::INSTALLED_LABEL)
            || self.pods_on(name).any(|pod| self.is_installer(pod));
        if !has_installer && (is_uninstalled(reported) || !holds) {
            return Standing::Left;
        }
        let mut labels = names::NODE_LABELS.iter();
        let mut held = reported.status.chains.iter();
        Standing::Leaving {
            labelled: labels.any(|label| node.labels.contains_key(*label)),
            used: held.any(|held| held.containers > 0)
                || self.pods_on(name).any(|pod| self.has_target(pod)),
        }
    }

    /// Nodes that exist, and what each needs containerd to be restarted for.
    #[must_use]
    pub fn restarts(&self) -> Vec<restarts::Candidate<'_>> {
        let nodes = self.acceleration_nodes.all().values();
        nodes
            .filter_map(|node| {
                let uid = self.node_uid(&node.meta.name)?;
                let name = node.meta.name.as_str();
                let need = restarts::Need::of(node, self.standing(node));
                Some(restarts::Candidate { name, uid, need })
            })
            .collect()
    }

    fn is_installer(&self, pod: &PodView) -> bool {
        let at_home = pod.id.split('/').next() == Some(self.namespace.as_str());
        at_home && pod.ours.as_ref().is_some_and(|our| our.component == "node")
    }

    fn has_target(&self, pod: &PodView) -> bool {
        self.images.all().values().any(|image| {
            let digest = image.status.target_digest.as_deref();
            let target = image.target.as_ref();
            target.is_ok_and(|target| pod.images.iter().any(|used| is_same(used, target, digest)))
        })
    }

    /// Nodes that reach the store, and nodes that do not.
    #[must_use]
    pub fn reach(&self) -> (u32, u32) {
        let mut reach = (0, 0);
        for node in self.acceleration_nodes.all().values() {
            if self.nodes.get(&node.meta.name).is_none() {
                continue;
            }
            let condition = find_condition(&node.status.conditions, "StoreReachable");
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

    /// Tokens of the chains that nodes are to give back now.
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
            .filter_map(|image| image.status.chain_token.clone())
            .collect()
    }
}
