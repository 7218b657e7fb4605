//! What all tasks of the controller share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::metrics::Metrics;
use super::queue::Queue;
use super::term::Term;
use super::world::{Key, World};

/// How many keys are worked on at once.
pub const WORKERS: usize = 4;
/// Keys of everything wait a little, so that many changes are looked at once.
const GATHER: Duration = Duration::from_millis(100);
/// How long a watch may be broken before the process is not ready.
const BROKEN_TOO_LONG: Duration = Duration::from_secs(60);

/// What all tasks share.
#[derive(Debug)]
pub struct Shared {
    /// Namespace of our parts.
    pub namespace: String,
    /// The queue; keys get in only while this process leads.
    pub queue: Queue<Key>,
    /// Until when this process leads.
    pub term: Term,
    /// The metrics.
    pub metrics: Metrics,
    world: Mutex<World>,
    leading: AtomicBool,
    workers: AtomicUsize,
    broken: Mutex<BTreeMap<&'static str, Instant>>,
}

impl Shared {
    /// Nothing known yet.
    #[must_use]
    pub fn new(namespace: &str, term: Term) -> Self {
        Self {
            namespace: namespace.to_owned(),
            queue: Queue::default(),
            term,
            metrics: Metrics::default(),
            world: Mutex::new(World::new(namespace)),
            leading: AtomicBool::new(false),
            workers: AtomicUsize::new(0),
            broken: Mutex::default(),
        }
    }

    /// All that is known. Held for a look or a change only, never over an await.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    /// Changes the world and queues what that concerns.
    pub fn change(&self, change: impl FnOnce(&mut World) -> BTreeSet<Key>) {
        let keys = change(&mut self.world());
        if self.leads() {
            self.enqueue(keys);
        }
    }

    /// Queues keys.
    pub fn enqueue(&self, keys: BTreeSet<Key>) {
        for key in keys {
            let pause = match key {
                Key::Image(_) => Duration::ZERO,
                _ => GATHER,
            };
            self.queue.add(key, pause);
        }
    }

    /// Whether this process leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leading.load(Ordering::SeqCst)
    }

    /// This process leads from now on, or does no more.
    pub fn set_leads(&self, leads: bool) {
        self.leading.store(leads, Ordering::SeqCst);
        self.metrics.leader.set(i64::from(leads));
        self.queue.clear();
        if leads {
            let keys = self.world().all_keys();
            self.enqueue(keys);
        }
    }

    /// A worker started; it ends when what this returns is dropped.
    pub fn worker(&self) -> WorkerGuard<'_> {
        self.workers.fetch_add(1, Ordering::SeqCst);
        WorkerGuard(&self.workers)
    }

    /// A watch works, or is broken.
    pub fn watch_is(&self, kind: &'static str, works: bool) {
        let mut broken = self.broken.lock();
        if works {
            broken.remove(kind);
        } else {
            broken.entry(kind).or_insert_with(Instant::now);
        }
    }

    /// Why this process is not ready.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self
            .world()
            .unsynced()
            .into_iter()
            .map(|kind| format!("no list of kind {kind} yet"))
            .collect();
        let broken = self.broken.lock();
        for (kind, since) in broken.iter() {
            if since.elapsed() > BROKEN_TOO_LONG {
                let seconds = since.elapsed().as_secs();
                problems.push(format!("kind {kind} cannot be watched for {seconds} s"));
            }
        }
        let workers = self.workers.load(Ordering::SeqCst);
        if self.leads() && workers < WORKERS {
            problems.push(format!("{workers} of {WORKERS} workers run"));
        }
        problems
    }

    /// The metrics as text.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let queue = self.queue.due();
        self.metrics.text(&self.world(), queue)
    }
}

/// A worker that runs.
#[derive(Debug)]
pub struct WorkerGuard<'a>(&'a AtomicUsize);

impl Drop for WorkerGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
