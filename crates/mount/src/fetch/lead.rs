//! How far a list is ahead of the container.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How often who waits looks whether it is to stop.
const STEP: Duration = Duration::from_millis(100);

/// How many bytes of a list may be fetched, counted from its beginning: all, until somebody says
/// otherwise. A container that runs another program than the list was recorded with must not wait
/// behind what it does not need.
#[derive(Debug, Default)]
pub struct Lead {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// `None` for all.
    limit: Option<u64>,
    waiting: usize,
    is_over: bool,
}

impl Lead {
    /// Fetch so far and no further; `None` for all.
    pub fn set(&self, limit: Option<u64>) {
        self.lock().limit = limit;
        self.changed.notify_all();
    }

    /// Fetch no more.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Whether readers wait until they may go on.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.lock().waiting > 0
    }

    /// Waits until what begins at `start` may be fetched; `false` where that is not to be any more.
    pub(super) fn wait(&self, start: u64, end: Instant, stop: &AtomicBool) -> bool {
        let mut state = self.lock();
        state.waiting += 1;
        let may = loop {
            if state.is_over || stop.load(Ordering::Relaxed) || Instant::now() >= end {
                break false;
            }
            if state.limit.is_none_or(|limit| start < limit) {
                break true;
            }
            self.changed.wait_for(&mut state, STEP);
        };
        state.waiting -= 1;
        may
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
