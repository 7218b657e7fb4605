//! What the controller measures of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use uimgacc_objects::Phase;

use super::world::World;

/// The label `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// Of what.
    pub kind: &'static str,
}

/// The labels `kind` and `result`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// Of what.
    pub kind: &'static str,
    /// `done`, `failed`.
    pub result: &'static str,
}

/// The label `phase`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PhaseLabel {
    /// A phase.
    pub phase: String,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// 1 where this process leads.
    pub leader: Gauge,
    /// Keys that were worked on.
    pub reconciles: Family<Outcome, Counter>,
    /// Seconds that took.
    pub seconds: Family<Kind, Histogram, fn() -> Histogram>,
    /// Jobs that were made.
    pub jobs: Family<Kind, Counter>,
    /// Watches that broke and were begun again.
    pub watch_errors: Family<Kind, Counter>,
    queue: Gauge,
    objects: Family<Kind, Gauge>,
    images: Family<PhaseLabel, Gauge>,
    nodes: Family<Kind, Gauge>,
    store_bytes: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 8))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("uimgacc_controller"),
            leader: Gauge::default(),
            reconciles: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            jobs: Family::default(),
            watch_errors: Family::default(),
            queue: Gauge::default(),
            objects: Family::default(),
            images: Family::default(),
            nodes: Family::default(),
            store_bytes: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("leader", "Whether this process leads", self.leader.clone());
        registry.register("reconciles", "Keys worked on", self.reconciles.clone());
        registry.register("reconcile_seconds", "Time for a key", self.seconds.clone());
        registry.register("jobs", "Jobs made", self.jobs.clone());
        registry.register(
            "watch_errors",
            "Watches that broke",
            self.watch_errors.clone(),
        );
        registry.register("queue_length", "Keys that are due", self.queue.clone());
        registry.register("cached_objects", "Objects in memory", self.objects.clone());
        registry.register("images", "AcceleratedImages by phase", self.images.clone());
        registry.register(
            "nodes",
            "AccelerationNodes, ready and all",
            self.nodes.clone(),
        );
        registry.register(
            "store_bytes",
            "Bytes in the store",
            self.store_bytes.clone(),
        );
    }

    /// All as Prometheus' text.
    #[must_use]
    pub fn text(&self, world: &World, queue: usize) -> String {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.queue.set(number(queue));
        for (kind, count) in [
            ("AcceleratedImage", world.images.all().len()),
            ("AccelerationNode", world.acceleration_nodes.all().len()),
            ("Node", world.nodes.all().len()),
            ("Pod", world.pods.all().len()),
            ("Job", world.jobs.all().len()),
        ] {
            self.objects
                .get_or_create(&Kind { kind })
                .set(number(count));
        }
        for phase in [
            Phase::Creating,
            Phase::Ready,
            Phase::CreateError,
            Phase::Deleting,
            Phase::DeleteError,
        ] {
            let images = world.images.all().values();
            let count = images.filter(|image| image.status.phase == phase).count();
            let phase = format!("{phase:?}");
            self.images
                .get_or_create(&PhaseLabel { phase })
                .set(number(count));
        }
        let totals = world.node_totals();
        for (kind, count) in [("ready", totals.ready), ("total", totals.total)] {
            self.nodes
                .get_or_create(&Kind { kind })
                .set(i64::from(count));
        }
        let bytes = world.cluster().and_then(|one| one.status.store_bytes);
        let bytes = bytes.and_then(|bytes| i64::try_from(bytes).ok());
        self.store_bytes.set(bytes.unwrap_or_default());
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}
