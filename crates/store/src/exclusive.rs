//! Keeping apart who adds to the store (sessions) and who takes from it (gc, delete).
//!
//! Guarantees: while an [`Exclusive`] is held no session reads the store or counts on anything in
//! it, and no other gc runs. Whoever dies gives way: see [`crate::intent`] for who counts as dead.

use std::time::{Duration, Instant};

use crate::Layout;
use crate::commit::CommitError;
use crate::intent::{self, FoundIntent, Intent, Role};
use crate::reader::ReadError;
use crate::session::SessionError;

/// How long gc waits for another gc.
const GC_PATIENCE: Duration = Duration::from_secs(60);
/// How long a session waits for gc: longer than a dead one counts as alive.
const SESSION_PATIENCE: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(100);

/// The word of the only gc, no session living. Given up when dropped.
#[derive(Debug)]
pub(crate) struct Exclusive {
    intent: Intent,
    checked: Instant,
}

/// Whether a store could be had alone.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Nobody else works on it, and nobody begins to.
    Alone(Exclusive),
    /// Who lives, for people.
    Busy(Vec<String>),
}

impl Exclusive {
    /// Tries to have the store alone. Does not wait for sessions, but a while for another gc.
    pub(crate) fn acquire(layout: &Layout) -> Result<Attempt, SessionError> {
        Self::acquire_within(layout, GC_PATIENCE)
    }

    fn acquire_within(layout: &Layout, patience: Duration) -> Result<Attempt, SessionError> {
        let start = Instant::now();
        let mut intent = Intent::declare(layout, Role::Gc)?;
        loop {
            let (sessions, others): (Vec<_>, Vec<_>) = living(layout)?
                .into_iter()
                .filter(|found| found.dir != *intent.dir())
                .partition(|found| found.role == Role::Create);
            if !sessions.is_empty() {
                return Ok(Attempt::Busy(names(sessions)));
            }
            if others.is_empty() {
                return Ok(Attempt::Alone(Self {
                    intent,
                    checked: Instant::now(),
                }));
            }
            if start.elapsed() >= patience {
                return Ok(Attempt::Busy(names(others)));
            }
            if others
                .iter()
                .any(|other| other.dir.name() < intent.dir().name())
            {
                // Of two that begin at once the one with the lesser name stays.
                drop(intent);
                std::thread::sleep(POLL);
                intent = Intent::declare(layout, Role::Gc)?;
            } else {
                std::thread::sleep(POLL);
            }
        }
    }

    /// To be asked before something goes: fails where the word was taken away meanwhile, as after
    /// a standstill of many minutes.
    pub(crate) fn check(&mut self) -> Result<(), CommitError> {
        if self.checked.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
        self.checked = Instant::now();
        if self.intent.stands() {
            return Ok(());
        }
        Err(CommitError::TakenForDead {
            dir: self.intent.dir().on_host(),
        })
    }
}

fn living(layout: &Layout) -> Result<Vec<FoundIntent>, ReadError> {
    let mut found = intent::found(layout)?;
    found.retain(|found| found.alive && found.role != Role::Starting);
    Ok(found)
}

fn names(found: Vec<FoundIntent>) -> Vec<String> {
    found.into_iter().map(|found| found.who).collect()
}

/// Waits, with an intent of one's own declared, until no gc lives.
pub(crate) fn wait_for_gc(layout: &Layout) -> Result<(), SessionError> {
    wait_for_gc_within(layout, SESSION_PATIENCE)
}

fn wait_for_gc_within(layout: &Layout, patience: Duration) -> Result<(), SessionError> {
    let start = Instant::now();
    let mut is_told = false;
    loop {
        let gc = living(layout)?
            .into_iter()
            .find(|found| found.role == Role::Gc);
        let Some(gc) = gc else {
            return Ok(());
        };
        if start.elapsed() >= patience {
            return Err(SessionError::GcRuns { who: gc.who });
        }
        if !is_told && start.elapsed() >= Duration::from_secs(2) {
            tracing::warn!("waiting for `store gc` or `delete` to end: {}", gc.who);
            is_told = true;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        (folder, layout)
    }

    #[test]
    fn gc_gives_way_to_sessions_and_to_another_gc() {
        let (_folder, layout) = store();
        let session = Intent::declare(&layout, Role::Create).unwrap();
        let Attempt::Busy(who) = Exclusive::acquire(&layout).unwrap() else {
            panic!("a session lives");
        };
        assert_eq!(who.len(), 1);
        drop(session);
        let Attempt::Alone(mut first) = Exclusive::acquire(&layout).unwrap() else {
            panic!("nobody lives");
        };
        first.check().unwrap();
        let second = Exclusive::acquire_within(&layout, Duration::from_millis(300)).unwrap();
        assert!(matches!(second, Attempt::Busy(_)));
        drop(first);
        assert!(matches!(
            Exclusive::acquire(&layout).unwrap(),
            Attempt::Alone(_)
        ));
    }

    #[test]
    fn a_session_waits_for_gc() {
        let (_folder, layout) = store();
        let Attempt::Alone(alone) = Exclusive::acquire(&layout).unwrap() else {
            panic!("nobody lives");
        };
        let refused = wait_for_gc_within(&layout, Duration::from_millis(150)).unwrap_err();
        assert!(refused.to_string().contains("gc"), "{refused}");
        let (store, _) = crate::init(layout.root()).unwrap();
        let waiting = std::thread::spawn(move || crate::Session::begin(store).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        drop(alone);
        let session = waiting.join().unwrap();
        assert!(matches!(
            Exclusive::acquire(&layout).unwrap(),
            Attempt::Busy(_)
        ));
        drop(session);
    }

    #[test]
    fn many_at_once_are_alone_one_after_the_other() {
        let (_folder, layout) = store();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..3 {
                        let Attempt::Alone(_alone) = Exclusive::acquire(&layout).unwrap() else {
                            panic!("the others are done soon");
                        };
                        use std::sync::atomic::Ordering::SeqCst;
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        std::thread::sleep(Duration::from_millis(5));
                        inside.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_word_that_was_cleared_away_is_noticed() {
        let (_folder, layout) = store();
        let Attempt::Alone(mut alone) = Exclusive::acquire(&layout).unwrap() else {
            panic!("nobody lives");
        };
        alone.intent.dir().remove_tree().unwrap();
        alone.checked = Instant::now() - Duration::from_secs(5);
        assert!(alone.check().is_err());
    }
}
