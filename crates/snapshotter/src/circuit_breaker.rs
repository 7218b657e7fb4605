//! Which calls into the store may start, and which of them hang.
//!
//! A call into a dead network file system never comes back, nor does its thread.
//!
//! Guarantees: at most [`MAX_CALLS`] calls are under way that are not late; a late one is counted
//! apart and keeps nobody out. After a late call nothing starts for a while, which doubles from
//! [`HOLD_OFF`] to [`LONGEST_HOLD_OFF`] as long as nothing answers; then one single call is let
//! through, and only its answer (or that of any call, however late) opens the way again. So a
//! store that is dead for days costs a thread each few minutes and no more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uimgacc_types::backoff;

/// How many calls into the store may be under way.
const MAX_CALLS: usize = 16;
/// How long a store that was late counts as down.
const HOLD_OFF: Duration = Duration::from_secs(15);
/// The same, once it was late many times in a row.
const LONGEST_HOLD_OFF: Duration = Duration::from_secs(240);

/// The calls into one store.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    slots: Arc<Semaphore>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    running: HashSet<u64>,
    /// Those of `running` that nobody waits for any more.
    late: HashSet<u64>,
    late_in_a_row: u32,
    down: Option<Down>,
    /// The one that was let through after the store was down.
    trying: Option<u64>,
}

#[derive(Debug)]
struct Down {
    until: Instant,
    reason: String,
}

/// Why a call may not start, and when one may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitOpen {
    /// What the store failed with.
    pub reason: String,
    /// How long no call is let through.
    pub rest: Duration,
}

/// A call that may start. Its end is reported to [`CircuitBreaker::ended`], also where it was late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    id: u64,
    is_trial: bool,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_CALLS)),
            inner: Mutex::default(),
        }
    }
}

impl CircuitBreaker {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Whether the store failed so lately that nothing is to be tried at `now`.
    #[must_use]
    pub(crate) fn held_off(&self, now: Instant) -> Option<CircuitOpen> {
        let inner = self.inner();
        let down = inner.down.as_ref()?;
        let rest = down.until.saturating_duration_since(now);
        (!rest.is_zero()).then(|| down.held_off(rest))
    }

    /// Lets a call start.
    ///
    /// # Errors
    /// The store counts as down.
    pub(crate) fn admit(&self, now: Instant) -> Result<Call, CircuitOpen> {
        let mut inner = self.inner();
        if let Some(down) = &inner.down {
            let rest = down.until.saturating_duration_since(now);
            if !rest.is_zero() {
                return Err(down.held_off(rest));
            }
            if inner.trying.is_some() {
                // One call is trying it now.
                return Err(down.held_off(Duration::from_secs(1)));
            }
        }
        let id = inner.next;
        inner.next += 1;
        let is_trial = inner.down.is_some();
        if is_trial {
            inner.trying = Some(id);
        }
        inner.running.insert(id);
        Ok(Call { id, is_trial })
    }

    /// Waits until there is room for the call; a trial needs none.
    pub(crate) async fn room(&self, call: Call) -> Option<OwnedSemaphorePermit> {
        if call.is_trial {
            return None;
        }
        // It is never closed.
        self.slots.clone().acquire_owned().await.ok()
    }

    /// The call is not waited for any more: the store counts as down. Nothing where it ended.
    pub(crate) fn late(&self, call: Call, reason: String, now: Instant) {
        let mut inner = self.inner();
        if !inner.running.contains(&call.id) {
            return;
        }
        inner.late.insert(call.id);
        let is_down = inner.down.as_ref().is_some_and(|down| down.until > now);
        if inner.trying == Some(call.id) {
            inner.trying = None;
        } else if is_down {
            // Several that started together are late together.
            return;
        }
        inner.late_in_a_row = inner.late_in_a_row.saturating_add(1);
        let wait = backoff(HOLD_OFF, inner.late_in_a_row, LONGEST_HOLD_OFF);
        let until = now + wait;
        inner.down = Some(Down { until, reason });
        let hung = inner.late.len();
        drop(inner);
        tracing::warn!(again_in = ?wait, "the store does not answer; {hung} calls hang");
    }

    /// The store cannot be used at all, as a call found out: it counts as down.
    pub(crate) fn failed(&self, reason: String, now: Instant) {
        let until = now + HOLD_OFF;
        self.inner().down = Some(Down { until, reason });
    }

    /// The store answered a call, however late: it is there.
    pub(crate) fn answered(&self) {
        let mut inner = self.inner();
        inner.down = None;
        inner.late_in_a_row = 0;
        inner.trying = None;
    }

    /// The call ended, or never started.
    pub(crate) fn ended(&self, call: Call) {
        let mut inner = self.inner();
        inner.running.remove(&call.id);
        inner.late.remove(&call.id);
        if inner.trying == Some(call.id) {
            inner.trying = None;
        }
    }

    /// Calls that hang.
    #[must_use]
    pub(crate) fn hung(&self) -> usize {
        self.inner().late.len()
    }
}

impl Down {
    fn held_off(&self, rest: Duration) -> CircuitOpen {
        CircuitOpen {
            reason: self.reason.clone(),
            rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_late_call_one_trial_at_a_time_with_growing_pauses() {
        let calls = CircuitBreaker::default();
        let mut now = Instant::now();
        let first = [calls.admit(now).unwrap(), calls.admit(now).unwrap()];
        for call in first {
            calls.late(call, "late".to_owned(), now);
        }
        assert_eq!(calls.hung(), 2);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let CircuitOpen { reason, rest } = calls.admit(now).unwrap_err();
            assert_eq!(reason, "late");
            pauses.push(rest.as_secs());
            now += rest;
            let trial = calls.admit(now).unwrap();
            assert!(trial.is_trial);
            assert!(calls.admit(now).is_err(), "a second trial");
            calls.late(trial, "late".to_owned(), now);
        }
        assert_eq!(pauses, [15, 30, 60, 120, 240, 240, 240]);
        assert_eq!(calls.hung(), 9);

        // One of those that hung comes back.
        calls.answered();
        calls.ended(first[0]);
        assert_eq!(calls.hung(), 8);
        assert!(!calls.admit(now).unwrap().is_trial);
        // Late after its end: nothing of it stays.
        calls.late(first[0], "late".to_owned(), now);
        assert_eq!(calls.hung(), 8);
        assert!(calls.admit(now).is_ok());
    }

    #[test]
    fn a_store_that_cannot_be_mounted_is_tried_by_one_call_at_a_time() {
        let calls = CircuitBreaker::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            let call = calls.admit(now).unwrap();
            assert!(calls.held_off(now).is_none(), "not to itself");
            calls.failed("refused".to_owned(), now);
            calls.ended(call);
            let held_off = calls.admit(now).unwrap_err();
            assert_eq!(held_off.reason, "refused");
            assert_eq!(calls.held_off(now), Some(held_off));
            now += HOLD_OFF;
        }
        let trial = calls.admit(now).unwrap();
        assert!(calls.admit(now).is_err());
        calls.answered();
        calls.ended(trial);
        assert!(!calls.admit(now).unwrap().is_trial);
    }

    #[tokio::test]
    async fn calls_that_hang_take_no_room_from_others() {
        let calls = CircuitBreaker::default();
        let now = Instant::now();
        let admitted: Vec<Call> = (0..MAX_CALLS).map(|_| calls.admit(now).unwrap()).collect();
        for call in admitted {
            let permit = calls.room(call).await;
            assert!(permit.is_some());
            calls.late(call, "late".to_owned(), now);
        }
        assert_eq!(calls.hung(), MAX_CALLS);
        let now = now + HOLD_OFF;
        let trial = calls.admit(now).unwrap();
        assert!(calls.room(trial).await.is_none());
        calls.answered();
        calls.ended(trial);
        for _ in 0..MAX_CALLS {
            let call = calls.admit(now).unwrap();
            let room = tokio::time::timeout(Duration::from_secs(1), calls.room(call));
            assert!(room.await.unwrap().is_some());
            calls.ended(call);
        }
        assert_eq!(calls.hung(), MAX_CALLS);
    }
}
