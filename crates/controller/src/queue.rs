//! The work queue: each key is in it once, waits until it is due, and is worked on by one worker
//! at a time.
//!
//! **Guarantees.** A key that is added while it is worked on is given out again afterwards. A key
//! that fails comes back with a growing pause (0.2 s to 2 minutes), and so does one of which another
//! wrote the object first, unless that change is seen earlier; one that succeeds starts anew.
//! Of the keys that are due, urgent ones come first: what concerns the whole cluster does not wait
//! behind a thousand images. The queue is as long as there are keys, and keys are objects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use uimgacc_types::backoff;

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What can wait in a [`Queue`].
pub trait QueueKey: Clone + Ord + Hash {
    /// Whether it goes before others that are due too.
    fn is_urgent(&self) -> bool;
}

#[derive(Debug)]
struct State<K> {
    urgent: BTreeSet<(Instant, K)>,
    others: BTreeSet<(Instant, K)>,
    when: HashMap<K, Instant>,
    // Being worked on, and whether it is to come back at once and when.
    busy: BTreeMap<K, Option<Instant>>,
    failures: HashMap<K, u32>,
}

/// Keys that wait for a worker.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

impl<K: QueueKey> Default for Queue<K> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                urgent: BTreeSet::new(),
                others: BTreeSet::new(),
                when: HashMap::new(),
                busy: BTreeMap::new(),
                failures: HashMap::new(),
            }),
            changed: Notify::new(),
        }
    }
}

impl<K: QueueKey> Queue<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock()
    }

    /// Adds a key that is due after `pause`; one that waits already keeps its earlier time.
    pub fn add(&self, key: K, pause: Duration) {
        let at = Instant::now() + pause;
        let mut state = self.state();
        if let Some(again) = state.busy.get_mut(&key) {
            *again = Some(again.map_or(at, |old| old.min(at)));
            return;
        }
        state.push(key, at);
        drop(state);
        self.changed.notify_one();
    }

    /// The next key that is due; waits for it. It must be given back by [`Self::done`] or
    /// [`Self::failed`].
    pub async fn next(&self) -> K {
        loop {
            let wait = {
                let mut state = self.state();
                if let Some(key) = state.pop(Instant::now()) {
                    if !state.when.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.first_due()
            };
            match wait {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// The work on that key was done; it is due again after `again`, if that is given.
    pub fn done(&self, key: &K, again: Option<Duration>) {
        self.state().failures.remove(key);
        self.finish(key, again, true);
    }

    /// The work on that key failed: it is due again after its pause.
    pub fn failed(&self, key: &K) -> Duration {
        let pause = self.growing(key);
        self.finish(key, Some(pause), false);
        pause
    }

    /// What was decided on that key was outdated: it is due again when it changes, or after a pause
    /// as that of failures.
    pub fn outdated(&self, key: &K) -> Duration {
        let pause = self.growing(key);
        self.finish(key, Some(pause), true);
        pause
    }

    fn growing(&self, key: &K) -> Duration {
        let mut state = self.state();
        let failures = state.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        backoff(FIRST_PAUSE, *failures, LONGEST_PAUSE)
    }

    fn finish(&self, key: &K, again: Option<Duration>, changes_count: bool) {
        let mut state = self.state();
        let wanted = state.busy.remove(key).flatten();
        let again = again.map(|pause| Instant::now() + pause);
        // What changed meanwhile does not shorten the pause after a failure.
        let at = match (wanted, again, changes_count) {
            (Some(wanted), Some(again), true) => Some(wanted.min(again)),
            (wanted, None, _) => wanted,
            (_, again, _) => again,
        };
        if let Some(at) = at {
            state.push(key.clone(), at);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Forgets everything that waits.
    pub fn clear(&self) {
        let mut state = self.state();
        state.urgent.clear();
        state.others.clear();
        state.when.clear();
        state.busy.clear();
        state.failures.clear();
    }

    /// How many keys are due and wait for a worker.
    #[must_use]
    pub fn due(&self) -> usize {
        let now = Instant::now();
        let state = self.state();
        state.when.values().filter(|at| **at <= now).count()
    }

    /// Whether no key waits, not even for its time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().when.is_empty()
    }
}

impl<K: QueueKey> State<K> {
    fn waiting(&mut self, key: &K) -> &mut BTreeSet<(Instant, K)> {
        if key.is_urgent() {
            &mut self.urgent
        } else {
            &mut self.others
        }
    }

    fn push(&mut self, key: K, at: Instant) {
        if let Some(old) = self.when.get(&key).copied() {
            if old <= at {
                return;
            }
            self.waiting(&key).remove(&(old, key.clone()));
        }
        self.when.insert(key.clone(), at);
        self.waiting(&key).insert((at, key));
    }

    /// Takes out the key that comes next, if one is due.
    fn pop(&mut self, now: Instant) -> Option<K> {
        let firsts = [self.urgent.first(), self.others.first()];
        let due = firsts.into_iter().flatten().find(|(at, _)| *at <= now)?;
        let (at, key) = due.clone();
        self.waiting(&key).remove(&(at, key.clone()));
        self.when.remove(&key);
        self.busy.insert(key.clone(), None);
        Some(key)
    }

    /// When the next key is due.
    fn first_due(&self) -> Option<Instant> {
        let firsts = [self.urgent.first(), self.others.first()];
        firsts.into_iter().flatten().map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    impl QueueKey for &str {
        fn is_urgent(&self) -> bool {
            self.starts_with('!')
        }
    }

    impl QueueKey for u32 {
        fn is_urgent(&self) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn urgent_keys_that_are_due_come_first() {
        let queue = Queue::default();
        queue.add("a", NOW);
        queue.add("b", NOW);
        queue.add("!later", Duration::from_secs(1));
        queue.add("!now", NOW);
        assert_eq!(queue.next().await, "!now");
        assert_eq!(queue.next().await, "a");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(queue.next().await, "!later");
        assert_eq!(queue.next().await, "b");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_come_once_and_in_the_order_of_their_time() {
        let queue = Queue::default();
        queue.add("late", Duration::from_secs(5));
        queue.add("soon", Duration::from_secs(1));
        queue.add("late", Duration::from_secs(3));
        queue.add("soon", Duration::from_secs(9));
        let start = Instant::now();
        assert_eq!(queue.due(), 0);
        assert_eq!(queue.next().await, "soon");
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(queue.next().await, "late");
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_in_work_is_not_given_to_another_worker() {
        let queue = Queue::default();
        queue.add("a", NOW);
        assert_eq!(queue.next().await, "a");
        queue.add("a", NOW);
        let other = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(other.is_err());
        queue.done(&"a", None);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", None);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_make_pauses_that_grow_and_success_ends_them() {
        let queue = Queue::default();
        queue.add("a", NOW);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert_eq!(queue.next().await, "a");
            queue.add("a", NOW);
            pauses.push(queue.failed(&"a"));
        }
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert_eq!(pauses[3], FIRST_PAUSE * 8);
        assert_eq!(pauses[11], LONGEST_PAUSE);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Some(NOW));
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.failed(&"a"), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_outdated_waits_for_its_change_but_not_for_ever() {
        let queue = Queue::default();
        queue.add("a", NOW);
        assert_eq!(queue.next().await, "a");
        queue.add("a", NOW);
        assert_eq!(queue.outdated(&"a"), FIRST_PAUSE);
        let start = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), NOW);
        assert_eq!(queue.outdated(&"a"), FIRST_PAUSE * 2);
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), FIRST_PAUSE * 2);
        queue.done(&"a", Some(NOW));
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.outdated(&"a"), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn two_workers_share_the_keys() {
        let queue = std::sync::Arc::new(Queue::default());
        let worker = |queue: std::sync::Arc<Queue<u32>>| async move {
            let mut mine = Vec::new();
            while let Ok(key) = tokio::time::timeout(Duration::from_secs(1), queue.next()).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
                queue.done(&key, None);
                mine.push(key);
            }
            mine
        };
        let one = tokio::spawn(worker(queue.clone()));
        let other = tokio::spawn(worker(queue.clone()));
        for key in 0..10 {
            queue.add(key, NOW);
        }
        let (mut one, other) = (
            one.await.unwrap_or_default(),
            other.await.unwrap_or_default(),
        );
        assert!(!one.is_empty() && !other.is_empty());
        one.extend(other);
        one.sort_unstable();
        assert_eq!(one, (0..10).collect::<Vec<_>>());
    }
}
