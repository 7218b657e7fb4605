//! A value that is read once for all who ask at about the same time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

/// The last value that was read. One read at a time (single flight).
#[derive(Debug)]
pub(crate) struct Cached<T> {
    /// How old a fresh value may be.
    age: Duration,
    /// How long after a failure the value is not read again.
    pause: Duration,
    state: Mutex<State<T>>,
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State<T> {
    /// The value, and when its read began.
    last: Option<(Instant, Arc<T>)>,
    /// When a read failed after the last value, and why.
    failed: Option<(Instant, String)>,
}

impl<T: PartialEq> Cached<T> {
    /// Without a value. Fresh values are at most `age` old; after a failure there is a `pause`.
    pub(crate) fn new(age: Duration, pause: Duration) -> Self {
        Self {
            age,
            pause,
            state: Mutex::new(State {
                last: None,
                failed: None,
            }),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// The last value, however old.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        let state = self.state.lock();
        state.last.as_ref().map(|(_, value)| value.clone())
    }

    /// The value as `read` returned it in a call that began at most `age` before this one. Equal
    /// values are one `Arc`.
    ///
    /// # Errors
    /// `read` fails, or does not return `within` this time, or did so less than `pause` ago.
    pub(crate) async fn fresh<R>(
        &self,
        within: Duration,
        read: impl FnOnce() -> R,
    ) -> Result<Arc<T>, String>
    where
        R: Future<Output = Result<T, String>>,
    {
        let asked = Instant::now();
        let deadline = asked + within;
        if let Some(known) = self.known(asked) {
            return known;
        }
        let late = || format!("no answer in {} ms", within.as_millis());
        let Ok(_reading) = timeout_at(deadline, self.reading.lock()).await else {
            return Err(late());
        };
        // Another request may have read it meanwhile.
        if let Some(known) = self.known(asked) {
            return known;
        }
        let began = Instant::now();
        let outcome = timeout_at(deadline, read()).await;
        let had_time = began.duration_since(asked) < within / 4;
        let mut state = self.state.lock();
        match outcome.unwrap_or_else(|_| Err(late())) {
            // It waited for another read, and proves nothing of the source.
            Err(why) if Instant::now() >= deadline && !had_time => Err(why),
            Ok(value) => {
                let old = state.last.take().map(|(_, old)| old);
                let value = old
                    .filter(|old| **old == value)
                    .unwrap_or_else(|| Arc::new(value));
                state.last = Some((began, value.clone()));
                state.failed = None;
                Ok(value)
            }
            Err(why) => {
                state.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    /// The answer to a request of that time, where none must be read for it.
    fn known(&self, asked: Instant) -> Option<Result<Arc<T>, String>> {
        let state = self.state.lock();
        if let Some((at, why)) = &state.failed
            && at.elapsed() < self.pause
        {
            return Some(Err(why.clone()));
        }
        let (began, value) = state.last.as_ref()?;
        (*began + self.age >= asked).then(|| Ok(value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// Longer than any test.
    const HOUR: Duration = Duration::from_secs(3600);
    const NONE: Duration = Duration::ZERO;

    /// How many reads 50 requests lead to that all came before the first read ended.
    async fn reads_of_fifty(age: Duration) -> u32 {
        let cached = Arc::new(Cached::new(age, NONE));
        let (reads, gate) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(tokio::sync::Semaphore::new(0)),
        );
        let asked: Vec<_> = (0..50)
            .map(|_| {
                let (cached, reads, gate) = (cached.clone(), reads.clone(), gate.clone());
                let read = async move || {
                    let _open = gate.acquire().await.unwrap();
                    Ok(reads.fetch_add(1, Relaxed))
                };
                tokio::spawn(async move { cached.fresh(HOUR, read).await.unwrap() })
            })
            .collect();
        // One thread: each has asked now, and waits.
        tokio::task::yield_now().await;
        gate.add_permits(1);
        for one in asked {
            one.await.unwrap();
        }
        reads.load(Relaxed)
    }

    #[tokio::test]
    async fn one_read_for_all_who_ask_while_it_is_young() {
        assert_eq!(reads_of_fifty(HOUR).await, 1);
    }

    #[tokio::test]
    async fn a_read_that_began_too_early_is_not_shared() {
        // The second of them began after all had asked.
        assert_eq!(reads_of_fifty(NONE).await, 2);
    }

    #[tokio::test]
    async fn a_source_that_hangs_is_left_alone_for_a_while() {
        let hang = std::future::pending::<Result<u32, String>>;
        let short = Duration::from_millis(10);
        for (pause, again) in [(HOUR, Err("no answer in 10 ms".to_owned())), (NONE, Ok(8))] {
            let cached = Cached::new(NONE, pause);
            assert_eq!(*cached.fresh(HOUR, async || Ok(7)).await.unwrap(), 7);
            assert!(cached.fresh(short, hang).await.is_err());
            assert_eq!(cached.last().as_deref(), Some(&7));
            let answer = cached.fresh(HOUR, async || Ok(8)).await;
            assert_eq!(answer.map(|value| *value), again);
        }
    }

    #[tokio::test]
    async fn a_reader_that_leaves_delays_no_other() {
        let cached = Cached::new(NONE, HOUR);
        let hang = std::future::pending::<Result<u32, String>>;
        let left = tokio::time::timeout(Duration::from_millis(10), cached.fresh(HOUR, hang));
        assert!(left.await.is_err());
        assert_eq!(*cached.fresh(HOUR, async || Ok(1)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn equal_values_are_one() {
        let cached = Cached::new(NONE, NONE);
        let first = cached.fresh(HOUR, async || Ok(1)).await.unwrap();
        let again = cached.fresh(HOUR, async || Ok(1)).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = cached.fresh(HOUR, async || Ok(2)).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
    }
}
