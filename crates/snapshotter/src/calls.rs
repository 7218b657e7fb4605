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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many calls into the store may be under way.
const MAX_CALLS: usize = 16;
/// How long a store that was late counts as down.
const HOLD_OFF: Duration = Duration::from_secs(15);
/// The same, once it was late many times in a row.
const LONGEST_HOLD_OFF: Duration = Duration::from_secs(240);

/// The calls into one store.
#[derive(Debug)]
pub struct Calls {
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
    down_until: Option<Instant>,
    /// The one that was let through after the store was down.
    trying: Option<u64>,
}

/// A call that may start. Its end is told by [`Calls::ended`], also where it was late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    id: u64,
    is_trial: bool,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_CALLS)),
            inner: Mutex::default(),
        }
    }
}

impl Calls {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the store still counts as down at `now`, if it does.
    #[must_use]
    pub fn down_for(&self, now: Instant) -> Option<Duration> {
        self.inner().rest(now)
    }

    /// Lets a call start.
    ///
    /// # Errors
    /// The store counts as down, and for how long still.
    pub fn admit(&self, now: Instant) -> Result<Call, Duration> {
        let mut inner = self.inner();
        if let Some(rest) = inner.rest(now) {
            return Err(rest);
        }
        let id = inner.next;
        inner.next += 1;
        let is_trial = inner.down_until.is_some();
        if is_trial {
            inner.trying = Some(id);
        }
        inner.running.insert(id);
        Ok(Call { id, is_trial })
    }

    /// Waits until there is room for the call; a trial needs none.
    pub async fn room(&self, call: Call) -> Option<OwnedSemaphorePermit> {
        if call.is_trial {
            return None;
        }
        // It is never closed.
        self.slots.clone().acquire_owned().await.ok()
    }

    /// The call is not waited for any more: the store counts as down. Nothing where it ended.
    pub fn late(&self, call: Call, now: Instant) {
        let mut inner = self.inner();
        if !inner.running.contains(&call.id) {
            return;
        }
        inner.late.insert(call.id);
        if inner.trying == Some(call.id) {
            inner.trying = None;
        } else if inner.rest(now).is_some() {
            // Several that started together are late together.
            return;
        }
        let doublings = inner.late_in_a_row.min(8);
        let wait = HOLD_OFF
            .saturating_mul(1 << doublings)
            .min(LONGEST_HOLD_OFF);
        inner.late_in_a_row += 1;
        inner.down_until = Some(now + wait);
        let hung = inner.late.len();
        drop(inner);
        tracing::warn!(hung, again_in = ?wait, "the store does not answer; {hung} calls hang");
    }

    /// The call never started.
    pub fn withdrawn(&self, call: Call) {
        self.inner().forget(call);
    }

    /// The call ended. It was answered, so the store is there, however late.
    pub fn ended(&self, call: Call) {
        let mut inner = self.inner();
        inner.forget(call);
        inner.down_until = None;
        inner.late_in_a_row = 0;
        inner.trying = None;
    }

    /// Calls that hang.
    #[must_use]
    pub fn hung(&self) -> usize {
        self.inner().late.len()
    }
}

impl Inner {
    fn rest(&self, now: Instant) -> Option<Duration> {
        let rest = self.down_until?.saturating_duration_since(now);
        if !rest.is_zero() {
            return Some(rest);
        }
        // One call is trying; the others need not wait for the same.
        self.trying.map(|_| Duration::from_secs(1))
    }

    fn forget(&mut self, call: Call) {
        self.running.remove(&call.id);
        self.late.remove(&call.id);
        if self.trying == Some(call.id) {
            self.trying = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_late_call_one_trial_at_a_time_with_growing_pauses() {
        let calls = Calls::default();
        let mut now = Instant::now();
        let first = [calls.admit(now).unwrap(), calls.admit(now).unwrap()];
        for call in first {
            calls.late(call, now);
        }
        assert_eq!(calls.hung(), 2);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let rest = calls.admit(now).unwrap_err();
            pauses.push(rest.as_secs());
            now += rest;
            let trial = calls.admit(now).unwrap();
            assert!(trial.is_trial);
            assert!(calls.admit(now).is_err(), "a second trial");
            calls.late(trial, now);
        }
        assert_eq!(pauses, [15, 30, 60, 120, 240, 240, 240]);
        assert_eq!(calls.hung(), 9);

        // One of those that hung comes back.
        calls.ended(first[0]);
        assert_eq!(calls.hung(), 8);
        assert!(!calls.admit(now).unwrap().is_trial);
        // Late after its end: nothing of it stays.
        calls.late(first[0], now);
        assert_eq!(calls.hung(), 8);
        assert!(calls.admit(now).is_ok());
    }

    #[tokio::test]
    async fn calls_that_hang_take_no_room_from_others() {
        let calls = Calls::default();
        let now = Instant::now();
        let admitted: Vec<Call> = (0..MAX_CALLS).map(|_| calls.admit(now).unwrap()).collect();
        for call in admitted {
            let permit = calls.room(call).await;
            assert!(permit.is_some());
            calls.late(call, now);
        }
        assert_eq!(calls.hung(), MAX_CALLS);
        let now = now + HOLD_OFF;
        let trial = calls.admit(now).unwrap();
        assert!(calls.room(trial).await.is_none());
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
