//! What is counted, in Prometheus' form.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tonic::Code;
use uimgacc_mount::{Fetched, Method};

const PREFIX: &str = "uimgacc_snapshotter";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    call: &'static str,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Start {
    profile: &'static str,
}

/// The metrics of a node.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter<u64, AtomicU64>>,
    seconds: Family<Call, Histogram, fn() -> Histogram>,
    mounts: Family<By, Counter<u64, AtomicU64>>,
    starts: Family<Start, Counter<u64, AtomicU64>>,
    fetched_bytes: Counter<u64, AtomicU64>,
    fetch_seconds: Histogram,
    fetch_failures: Counter<u64, AtomicU64>,
    read_ahead_not_found: Counter<u64, AtomicU64>,
    chains: Gauge,
    reachable: Gauge,
    hung: Gauge,
}

/// What is looked up when somebody asks for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Levels {
    /// Chains of the store on this node.
    pub chains: usize,
    /// Whether the store answered last time.
    pub store_reachable: bool,
    /// Calls into the store that hang.
    pub hung_calls: usize,
}

/// From 0.5 ms to 16 s: a request takes a disk sync, or the wait for a mount.
fn request_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let requests = Family::default();
        registry.register("requests", "Requests of containerd", requests.clone());
        let seconds = Family::new_with_constructor(request_histogram as fn() -> Histogram);
        let text = "How long requests of containerd took, in seconds";
        registry.register("request_seconds", text, seconds.clone());
        let mounts = Family::default();
        registry.register("mounts", "Images that were mounted", mounts.clone());
        let starts = Family::default();
        let text = "Mounts that began to start, with or without a profile";
        registry.register("starts", text, starts.clone());
        let fetched_bytes = Counter::default();
        let text = "Bytes that were read ahead by profiles";
        registry.register("fetched_bytes", text, fetched_bytes.clone());
        let fetch_seconds = Histogram::new(exponential_buckets(0.05, 2.0, 12));
        let text = "How long it took to read ahead what a profile lists, in seconds";
        registry.register("fetch_seconds", text, fetch_seconds.clone());
        let fetch_failures = Counter::default();
        let text = "Reads by profiles that failed";
        registry.register("fetch_failures", text, fetch_failures.clone());
        let read_ahead_not_found = Counter::default();
        let text = "Mounts whose read-ahead could not be set, because its place was not found";
        registry.register("read_ahead_not_found", text, read_ahead_not_found.clone());
        let chains = Gauge::default();
        let text = "Chains of the store that this node has";
        registry.register("chains", text, chains.clone());
        let reachable = Gauge::default();
        let text = "Whether the store answered when it was last looked at";
        registry.register("store_reachable", text, reachable.clone());
        let hung = Gauge::default();
        registry.register("hung_calls", "Calls into the store that hang", hung.clone());
        Self {
            registry,
            requests,
            seconds,
            mounts,
            starts,
            fetched_bytes,
            fetch_seconds,
            fetch_failures,
            read_ahead_not_found,
            chains,
            reachable,
            hung,
        }
    }
}

impl Metrics {
    /// A request was answered.
    pub(crate) fn answered(&self, call: &'static str, code: Code, took: Duration) {
        let code = format!("{code:?}");
        self.requests.get_or_create(&Request { call, code }).inc();
        let seconds = self.seconds.get_or_create(&Call { call });
        seconds.observe(took.as_secs_f64());
    }

    /// An image was mounted.
    pub(crate) fn mounted(&self, method: Method) {
        let method = method.name();
        self.mounts.get_or_create(&By { method }).inc();
    }

    /// A new mount begins to start.
    pub(crate) fn started(&self, has_profile: bool) {
        let profile = if has_profile { "yes" } else { "no" };
        self.starts.get_or_create(&Start { profile }).inc();
    }

    /// What a profile lists was read ahead.
    pub(crate) fn fetched(&self, fetched: &Fetched) {
        self.fetched_bytes.inc_by(fetched.bytes);
        self.fetch_failures.inc_by(fetched.failed);
        self.fetch_seconds.observe(fetched.took.as_secs_f64());
    }

    /// Nothing tells where a mount's read-ahead is set.
    pub(crate) fn read_ahead_not_found(&self) {
        self.read_ahead_not_found.inc();
    }

    /// The text of all.
    ///
    /// # Errors
    /// None comes from a string.
    pub(crate) fn text(&self, levels: Levels) -> Result<String, fmt::Error> {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.chains.set(number(levels.chains));
        self.reachable.set(i64::from(levels.store_reachable));
        self.hung.set(number(levels.hung_calls));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
