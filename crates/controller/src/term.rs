//! The term: until when this process leads.
//!
//! A leader whose term is over writes nothing more. That is a courtesy to the API server, and nothing
//! depends on it: a process can be stopped between its last look and the kernel, and a network may
//! deliver late. What protects the cluster is that each write names uid and version of what it was
//! decided on, so that the API server refuses it where another has written since. What is created names
//! no version: a Job names the uid of its image, the installer is created only where there is none, and
//! the leader of the day deletes both where they are not to be.
//!
//! The time is that of `CLOCK_BOOTTIME`, which goes on while the process is stopped and while the
//! machine sleeps, and jumps with no clock of the day.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point in time of `CLOCK_BOOTTIME`, as the time since the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// The moment that is `later`.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }

    /// How long it is from `earlier` until this; zero where it was before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Now.
#[must_use]
pub fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Moment(Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    ))
}

/// Until when this process leads; shared by all that ask.
#[derive(Debug, Clone, Default)]
pub struct Term {
    // Nanoseconds since the boot; 0 is never.
    until: Arc<AtomicU64>,
}

impl Term {
    /// It lasts until that moment.
    pub fn extend(&self, until: Moment) {
        let nanos = u64::try_from(until.0.as_nanos()).unwrap_or(u64::MAX);
        self.until.store(nanos, Ordering::SeqCst);
    }

    /// It is over.
    pub fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    /// Whether it lasts now.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.lasts_at(now())
    }

    /// Whether it lasts at that moment.
    #[must_use]
    pub fn lasts_at(&self, moment: Moment) -> bool {
        moment.0.as_nanos() < u128::from(self.until.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_the_moment_and_not_at_it() {
        let term = Term::default();
        let moment = Moment(Duration::from_secs(10));
        assert!(!term.lasts_at(Moment::default()));
        term.extend(moment);
        assert!(term.lasts_at(Moment(Duration::from_nanos(9_999_999_999))));
        assert!(!term.lasts_at(moment));
        term.end();
        assert!(!term.lasts_at(Moment::default()));
    }
}
