//! What the server measures of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::clusters::Clusters;

/// The labels `action` and `code`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answer {
    /// The action; empty where there was none.
    pub action: &'static str,
    /// `RetCode`.
    pub code: u32,
}

/// The label `action`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Asked {
    /// The action.
    pub action: &'static str,
}

/// The label `cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfCluster {
    /// Its ID.
    pub cluster: String,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests that were answered.
    pub requests: Family<Answer, Counter>,
    /// Seconds from the end of a request's head to its answer.
    pub seconds: Family<Asked, Histogram, fn() -> Histogram>,
    /// Connections that are open.
    pub connections: Gauge,
    /// Those that wait for their turn.
    pub waiting: Gauge,
    /// Connections that were closed at once, for there were too many.
    pub turned_away: Counter,
    /// Requests that nobody signed, beyond what an address may send of them.
    pub strangers_throttled: Counter,
    /// Lines of the audit log that were left out.
    pub audit_dropped: Counter,
    reachable: Family<OfCluster, Gauge>,
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 4.0, 8))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("uimgacc_api"),
            requests: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            connections: Gauge::default(),
            waiting: Gauge::default(),
            turned_away: Counter::default(),
            strangers_throttled: Counter::default(),
            audit_dropped: Counter::default(),
            reachable: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "request_seconds",
            "Time for a request",
            metrics.seconds.clone(),
        );
        registry.register(
            "connections",
            "Connections that are open",
            metrics.connections.clone(),
        );
        registry.register(
            "connections_waiting",
            "Connections that wait for their turn",
            metrics.waiting.clone(),
        );
        registry.register(
            "connections_turned_away",
            "Connections closed at once because there were too many",
            metrics.turned_away.clone(),
        );
        registry.register(
            "strangers_throttled",
            "Requests without a right signature beyond what an address may send, which are not in the audit log",
            metrics.strangers_throttled.clone(),
        );
        registry.register(
            "audit_dropped",
            "Lines of the audit log that were left out",
            metrics.audit_dropped.clone(),
        );
        registry.register(
            "cluster_reachable",
            "Whether a cluster answered when it was last asked",
            metrics.reachable.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// All as Prometheus' text.
    #[must_use]
    pub fn text(&self, clusters: &Clusters) -> String {
        self.reachable.clear();
        for (id, cluster) in clusters.iter() {
            let of = OfCluster {
                cluster: id.to_owned(),
            };
            let is_reachable = i64::from(cluster.is_reachable());
            self.reachable.get_or_create(&of).set(is_reachable);
        }
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}
