//! Everything that is known of the cluster, and which objects a change concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::runtime::watcher::Event;
use uimgacc_objects::{AcceleratedImage, ImageAcceleration, Originals, Phase, names};
use uimgacc_types::ImageReference;

use super::cache::{Cache, Change};
use super::decide::cluster::is_store_ready;
use super::queue::QueueKey;
use super::view::{
    AccelerationNodeView, ClusterView, ImageView, InstallerView, JobView, MetaView, NodeView,
    OurPod, PodView,
};
use super::wire::WireJob;

/// What is worked on at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The `ImageAcceleration`.
    Cluster,
    /// What is asked of all nodes.
    Nodes,
    /// Which work starts.
    Jobs,
    /// An `AcceleratedImage`.
    Image(String),
}

impl Key {
    /// One word, for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Nodes => "nodes",
            Self::Jobs => "jobs",
            Self::Image(_) => "image",
        }
    }
}

impl QueueKey for Key {
    fn is_urgent(&self) -> bool {
        !matches!(self, Self::Image(_))
    }
}

/// All caches.
#[derive(Debug, Default)]
pub struct World {
    /// `AcceleratedImage`s.
    pub images: Cache<ImageView>,
    /// The `ImageAcceleration`.
    pub clusters: Cache<ClusterView>,
    /// `AccelerationNode`s.
    pub acceleration_nodes: Cache<AccelerationNodeView>,
    /// `Node`s.
    pub nodes: Cache<NodeView>,
    /// Pods of all namespaces.
    pub pods: Cache<PodView>,
    /// Our Jobs.
    pub jobs: Cache<JobView>,
    /// Our DaemonSet.
    pub installers: Cache<InstallerView>,
    /// Secrets of our namespace with the label that lets images name them.
    pub pull_secrets: Cache<MetaView>,
    /// `StartRecord`s. Nothing waits for their listing: an older cluster has no such definition.
    pub records: Cache<MetaView>,
    /// Where our parts run.
    pub(super) namespace: String,
    targets: HashMap<ImageReference, BTreeSet<String>>,
    deleting: BTreeSet<String>,
    job_pods: BTreeMap<String, String>,
    // Pods by repository, and nodes by chain: a thousand images may be deleted at once.
    by_repository: HashMap<String, BTreeSet<String>>,
    // Pods by node: a thousand nodes may leave at once.
    by_node: HashMap<String, BTreeSet<String>>,
    by_chain: HashMap<String, BTreeSet<String>>,
    images_by_chain: HashMap<String, BTreeSet<String>>,
    images_by_base: HashMap<String, BTreeSet<String>>,
}

impl World {
    /// An empty one; `namespace` is where our parts run.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..Self::default()
        }
    }

    /// Whether all first listings are complete; else which are not.
    #[must_use]
    pub fn unsynced(&self) -> Vec<&'static str> {
        [
            ("AcceleratedImage", self.images.is_synced()),
            ("ImageAcceleration", self.clusters.is_synced()),
            ("AccelerationNode", self.acceleration_nodes.is_synced()),
            ("Node", self.nodes.is_synced()),
            ("Pod", self.pods.is_synced()),
            ("Job", self.jobs.is_synced()),
            ("DaemonSet", self.installers.is_synced()),
            ("Secret", self.pull_secrets.is_synced()),
        ]
        .into_iter()
        .filter_map(|(kind, synced)| (!synced).then_some(kind))
        .collect()
    }

    /// The `ImageAcceleration`.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<ClusterView>> {
        self.clusters.get(names::DEFAULT)
    }

    /// Every key there is, for a new leader.
    #[must_use]
    pub fn all_keys(&self) -> BTreeSet<Key> {
        let images = self.images.all().keys().cloned().map(Key::Image);
        images
            .chain([Key::Cluster, Key::Nodes, Key::Jobs])
            .collect()
    }

    /// What our Pod of that Job says.
    #[must_use]
    pub fn pod_of(&self, job: &str) -> Option<&OurPod> {
        let pod = self.pods.get(self.job_pods.get(job)?)?;
        pod.ours.as_deref()
    }

    /// The object that has the same target as `image` and goes before it.
    #[must_use]
    pub fn twin(&self, image: &ImageView) -> Option<&str> {
        let target = image.target.as_ref().ok()?;
        let others = self.targets.get(target)?;
        others
            .iter()
            .filter(|name| **name != image.meta.name)
            .filter_map(|name| self.images.get(name))
            .find(|other| super::decide::image::goes_before(other, image))
            .map(|other| other.meta.name.as_str())
    }

    /// Whether an image that stays has the same chain, or lies on it.
    #[must_use]
    pub fn is_shared(&self, image: &ImageView) -> bool {
        let Some(chain) = &image.status.chain_token else {
            return false;
        };
        let same = self.images_by_chain.get(chain).into_iter().flatten();
        let others = same.chain(self.images_by_base.get(chain).into_iter().flatten());
        others
            .filter(|name| **name != image.meta.name)
            .filter_map(|name| self.images.get(name))
            .any(|other| other.meta.deleting.is_none())
    }

    /// The uid of a `Node`, where it exists.
    #[must_use]
    pub fn node_uid(&self, name: &str) -> Option<&str> {
        self.nodes.get(name).map(|node| node.meta.uid.as_str())
    }

    /// Nodes that exist and have the image's chain.
    #[must_use]
    pub fn holders(&self, image: &ImageView) -> Vec<(String, u32)> {
        let Some(chain) = &image.status.chain_token else {
            return Vec::new();
        };
        let nodes = self.by_chain.get(chain).into_iter().flatten();
        nodes
            .filter(|node| self.nodes.get(node).is_some())
            .filter_map(|node| {
                let chains = &self.acceleration_nodes.get(node)?.status.chains;
                let held = chains.iter().find(|held| held.token == *chain)?;
                Some((node.clone(), held.containers))
            })
            .collect()
    }

    /// Pods that use the image, as `namespace/name on node`.
    ///
    /// The original counts too where nodes start originals from the store, on nodes where containers
    /// lie on the image's chain: one that was started before the node was set up reads nothing of
    /// the store.
    #[must_use]
    pub fn users(&self, image: &ImageView, with_original: bool) -> Vec<String> {
        let (Ok(target), Ok(original)) = (&image.target, &image.original) else {
            return Vec::new();
        };
        let accelerated = self
            .cluster()
            .is_some_and(|cluster| cluster.spec.originals == Originals::Accelerate);
        let target_digest = image.status.target_digest.as_deref();
        let original_digest = image.status.original_digest.as_deref();
        let pods = |image: &ImageReference| self.by_repository.get(&repository(image));
        let candidates: BTreeSet<&String> = [pods(target), pods(original)]
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        candidates
            .into_iter()
            .filter_map(|pod| self.pods.get(pod))
            .filter(|pod| !pod.finished)
            .filter(|pod| {
                let from_store = || {
                    let node = pod
                        .node
                        .as_ref()
                        .and_then(|node| self.acceleration_nodes.get(node));
                    let chain = image.status.chain_token.as_ref();
                    node.is_some_and(|node| {
                        let mut chains = node.status.chains.iter();
                        chains.any(|held| Some(&held.token) == chain && held.containers > 0)
                    })
                };
                pod.images.iter().any(|used| {
                    is_same(used, target, target_digest)
                        || (with_original
                            && accelerated
                            && is_same(used, original, original_digest)
                            && from_store())
                })
            })
            .map(|pod| match &pod.node {
                Some(node) => format!("{} on {node}", pod.id),
                None => format!("{} on no node yet", pod.id),
            })
            .collect()
    }

    /// Pods on a node that have not ended.
    pub(super) fn pods_on(&self, node: &str) -> impl Iterator<Item = &PodView> {
        let names = self.by_node.get(node).into_iter().flatten();
        let pods = names.filter_map(|name| self.pods.get(name));
        pods.map(|pod| &**pod).filter(|pod| !pod.finished)
    }

    /// A change of an image, told by the watch or by the answer to our own write.
    pub fn image(&mut self, event: Event<AcceleratedImage>) -> BTreeSet<Key> {
        let changes = self.images.apply(event);
        let mut keys = BTreeSet::new();
        for change in changes {
            self.image_changed(&change, &mut keys);
        }
        keys
    }

    fn image_changed(&mut self, change: &Change<ImageView>, keys: &mut BTreeSet<Key>) {
        let (old, new) = (change.old.as_deref(), change.new.as_deref());
        let target = |image: Option<&ImageView>| image.and_then(|one| one.target.clone().ok());
        for (image, is_new) in [(target(old), false), (target(new), true)] {
            let Some(target) = image else { continue };
            let names = self.targets.entry(target.clone()).or_default();
            if is_new {
                names.insert(change.key.clone());
            } else {
                names.remove(&change.key);
            }
            keys.extend(names.iter().cloned().map(Key::Image));
            if names.is_empty() {
                self.targets.remove(&target);
            }
        }
        if new.is_some_and(|image| image.meta.deleting.is_some()) {
            self.deleting.insert(change.key.clone());
        } else {
            self.deleting.remove(&change.key);
        }
        let chain = |image: Option<&ImageView>| -> BTreeSet<String> {
            let chain = image.and_then(|one| one.status.chain_token.clone());
            chain.into_iter().collect()
        };
        let (old_chain, new_chain) = (chain(old), chain(new));
        keys.extend(self.deleting_with(old_chain.union(&new_chain)));
        index(&mut self.images_by_chain, &change.key, old_chain, new_chain);
        let base = |image: Option<&ImageView>| -> BTreeSet<String> {
            let base = image
                .into_iter()
                .flat_map(|one| &one.status.base_chain_tokens);
            base.cloned().collect()
        };
        let (old_base, new_base) = (base(old), base(new));
        keys.extend(self.deleting_with(old_base.union(&new_base)));
        index(&mut self.images_by_base, &change.key, old_base, new_base);
        let ready =
            |image: Option<&ImageView>| image.is_some_and(|one| one.status.phase == Phase::Ready);
        if ready(old) != ready(new) {
            keys.insert(Key::Cluster);
        }
        let is_deleting =
            |image: Option<&ImageView>| image.is_some_and(|one| one.meta.deleting.is_some());
        if is_deleting(old) || is_deleting(new) {
            keys.insert(Key::Nodes);
        }
        if self.is_disabling() {
            keys.insert(Key::Cluster);
        }
        keys.insert(Key::Image(change.key.clone()));
        keys.insert(Key::Jobs);
    }

    fn is_disabling(&self) -> bool {
        self.cluster()
            .is_some_and(|cluster| cluster.meta.deleting.is_some())
    }

    /// Images with one of these chains that are being deleted.
    fn deleting_with<'a>(&self, chains: impl Iterator<Item = &'a String>) -> BTreeSet<Key> {
        if self.deleting.is_empty() {
            return BTreeSet::new();
        }
        chains
            .filter_map(|chain| self.images_by_chain.get(chain))
            .flatten()
            .filter(|name| self.deleting.contains(*name))
            .cloned()
            .map(Key::Image)
            .collect()
    }

    /// Images of these repositories that are being deleted.
    fn deleting_of(&self, repositories: &BTreeSet<String>) -> BTreeSet<Key> {
        let concerns = |image: &Result<ImageReference, String>| {
            let image = image.as_ref();
            image.is_ok_and(|image| repositories.contains(&repository(image)))
        };
        self.deleting
            .iter()
            .filter_map(|name| self.images.get(name))
            .filter(|image| concerns(&image.target) || concerns(&image.original))
            .map(|image| Key::Image(image.meta.name.clone()))
            .collect()
    }

    /// A change of the `ImageAcceleration`.
    pub fn cluster_event(&mut self, event: Event<ImageAcceleration>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for change in self.clusters.apply(event) {
            keys.insert(Key::Cluster);
            let matters = |view: Option<&Arc<ClusterView>>| {
                view.map(|one| {
                    let deleting = one.meta.deleting.is_some();
                    (one.spec.clone(), deleting, is_store_ready(one))
                })
            };
            if matters(change.old.as_ref()) != matters(change.new.as_ref()) {
                keys.extend(self.all_keys());
            }
        }
        keys
    }

    /// A change of an `AccelerationNode`.
    pub fn acceleration_node(
        &mut self,
        event: Event<uimgacc_objects::AccelerationNode>,
    ) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for change in self.acceleration_nodes.apply(event) {
            let chains = |node: &Option<Arc<AccelerationNodeView>>| -> BTreeMap<String, u32> {
                let held = node.iter().flat_map(|node| &node.status.chains);
                held.map(|held| (held.token.clone(), held.containers))
                    .collect()
            };
            let (old, new) = (chains(&change.old), chains(&change.new));
            let both = old.keys().chain(new.keys());
            keys.extend(self.deleting_with(both.filter(|one| old.get(*one) != new.get(*one))));
            let (old, new) = (old.into_keys().collect(), new.into_keys().collect());
            index(&mut self.by_chain, &change.key, old, new);
            let told = |node: &Option<Arc<AccelerationNodeView>>| {
                let node = node.as_ref();
                node.map(|node| (node.spec.uninstall, node.status.clone()))
            };
            if told(&change.old) != told(&change.new) || self.is_disabling() {
                keys.insert(Key::Cluster);
            }
            keys.insert(Key::Nodes);
        }
        keys
    }

    /// A change of a `Node`.
    pub fn node(&mut self, event: Event<NodeView>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for change in self.nodes.apply(event) {
            if let Some(node) = self.acceleration_nodes.get(&change.key) {
                let chains = node.status.chains.iter().map(|held| &held.token);
                keys.extend(self.deleting_with(chains));
            }
            keys.extend([Key::Nodes, Key::Cluster]);
        }
        keys
    }

    /// A change of a Pod.
    pub fn pod(&mut self, event: Event<PodView>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for change in self.pods.apply(event) {
            let repositories = |pod: &Option<Arc<PodView>>| -> BTreeSet<String> {
                let images = pod.as_ref().map(|pod| pod.images.iter()).into_iter();
                images.flatten().map(repository).collect()
            };
            let (old, new) = (repositories(&change.old), repositories(&change.new));
            let concerned = self.deleting_of(&old.union(&new).cloned().collect());
            index(&mut self.by_repository, &change.key, old, new);
            let node = |pod: &Option<Arc<PodView>>| -> BTreeSet<String> {
                let node = pod.as_ref().and_then(|pod| pod.node.clone());
                node.into_iter().collect()
            };
            let (old, new) = (node(&change.old), node(&change.new));
            index(&mut self.by_node, &change.key, old, new);
            if !concerned.is_empty() {
                keys.extend(concerned);
                keys.insert(Key::Nodes);
            }
            if self.is_disabling() {
                keys.insert(Key::Cluster);
            }
            let ours = |pod: &Option<Arc<PodView>>| pod.as_ref().and_then(|pod| pod.ours.clone());
            let at_home = change.key.split('/').next() == Some(self.namespace.as_str());
            let Some(our) = ours(&change.new).or_else(|| ours(&change.old)) else {
                continue;
            };
            if !at_home {
                continue;
            }
            if let Some(job) = our.job {
                if change.new.is_some() {
                    self.job_pods.insert(job.clone(), change.key.clone());
                } else if self.job_pods.get(&job) == Some(&change.key) {
                    self.job_pods.remove(&job);
                }
                let image = self.jobs.get(&job).and_then(|job| job.image.clone());
                keys.insert(image.map_or(Key::Cluster, Key::Image));
            } else {
                // An installer that ends lets a node's object go.
                keys.extend([Key::Cluster, Key::Nodes]);
            }
        }
        keys
    }

    /// A change of a Job.
    pub fn job(&mut self, event: Event<WireJob>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for change in self.jobs.apply(event) {
            let job = change.new.or(change.old);
            match job.and_then(|job| job.image.clone()) {
                Some(image) => {
                    keys.insert(Key::Image(image));
                    keys.insert(Key::Jobs);
                }
                None => {
                    keys.insert(Key::Cluster);
                }
            }
            if self.is_disabling() {
                keys.insert(Key::Cluster);
            }
        }
        keys
    }

    /// A change of a Secret that has the label, or had it.
    pub fn pull_secret(&mut self, event: Event<MetaView>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for change in self.pull_secrets.apply(event) {
            // Another version of a Secret that stays labelled concerns nobody.
            if change.old.is_some() == change.new.is_some() {
                continue;
            }
            let names = |image: &ImageView| {
                let secret = image.spec.pull_secret.as_ref();
                secret.is_some_and(|secret| secret.name == change.key)
            };
            let images = self.images.all().values();
            let images = images.filter(|image| names(image));
            keys.extend(images.map(|image| Key::Image(image.meta.name.clone())));
            keys.insert(Key::Jobs);
        }
        keys
    }

    /// A change of a `StartRecord`.
    pub fn record(&mut self, event: Event<MetaView>) -> BTreeSet<Key> {
        let changed = !self.records.apply(event).is_empty();
        changed.then_some(Key::Cluster).into_iter().collect()
    }

    /// A change of the DaemonSet.
    pub fn installer(&mut self, event: Event<super::wire::WireDaemonSet>) -> BTreeSet<Key> {
        let changed = !self.installers.apply(event).is_empty();
        changed.then_some(Key::Cluster).into_iter().collect()
    }
}

fn repository(image: &ImageReference) -> String {
    format!("{}/{}", image.registry(), image.repository())
}

/// Brings an index to where `key` is found by `new` instead of `old`.
fn index(
    index: &mut HashMap<String, BTreeSet<String>>,
    key: &str,
    old: BTreeSet<String>,
    new: BTreeSet<String>,
) {
    for gone in old.difference(&new) {
        if let Some(keys) = index.get_mut(gone) {
            keys.remove(key);
            if keys.is_empty() {
                index.remove(gone);
            }
        }
    }
    for added in new {
        index.entry(added).or_default().insert(key.to_owned());
    }
}

/// Whether a Pod's reference means that image.
#[must_use]
pub(crate) fn is_same(used: &ImageReference, image: &ImageReference, digest: Option<&str>) -> bool {
    if used.registry() != image.registry() || used.repository() != image.repository() {
        return false;
    }
    // With a digest the tag says nothing.
    match used.digest() {
        Some(used) => {
            digest.is_some_and(|digest| digest == used.to_string()) || image.digest() == Some(used)
        }
        None => used.tag() == image.tag() && image.digest().is_none(),
    }
}

#[cfg(test)]
mod tests;
