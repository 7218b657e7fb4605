//! Keeping apart who adds to the store (sessions) and who takes from it (gc, delete).
//!
//! Guarantees: while an [`Exclusive`] is held no session reads the store or counts on anything in
//! it, and no other gc runs. Whoever dies gives way: see [`crate::intent`] for who counts as dead. It is
//! cleared away completely before anybody goes on without it, so this holds also where the dead one
//! only stood still: it changes nothing any more ([`crate::workspace`]).

use std::time::{Duration, Instant};

use crate::Layout;
use crate::error::SessionError;
use crate::intent::{FoundIntent, Intent, Role, clear_dead};
use crate::path::StorePath;

/// How long gc waits for another gc.
const GC_PATIENCE: Duration = Duration::from_secs(60);
/// How long a session waits for gc: longer than a dead one counts as alive.
const SESSION_PATIENCE: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(100);

/// The word of the only gc, no session living. Given up when dropped.
#[derive(Debug)]
pub(crate) struct Exclusive(pub(crate) Intent);

/// Whether a store could be had alone.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Nobody else works on it, and nobody begins to.
    Alone(Exclusive),
    /// Others live.
    Busy {
        /// Who, for people.
        who: Vec<String>,
        /// One's own word: it stands among theirs and keeps nobody out, but fences.
        intent: Intent,
    },
}

impl Exclusive {
    /// Tries to have the store alone. Does not wait for sessions, but a while for another gc.
    pub(crate) fn acquire(layout: &Layout) -> Result<Attempt, SessionError> {
        Self::acquire_within(layout, GC_PATIENCE, None)
    }

    /// The same for somebody with a session of his own: no other one lives then, and none begins.
    pub(crate) fn acquire_beside(
        layout: &Layout,
        own: &StorePath,
    ) -> Result<Attempt, SessionError> {
        Self::acquire_within(layout, GC_PATIENCE, Some(own))
    }

    fn acquire_within(
        layout: &Layout,
        patience: Duration,
        own: Option<&StorePath>,
    ) -> Result<Attempt, SessionError> {
        let start = Instant::now();
        let mut intent = Intent::declare(layout, Role::Gc)?;
        loop {
            let (sessions, others): (Vec<_>, Vec<_>) = living(layout)?
                .into_iter()
                .filter(|found| found.dir != *intent.workspace().dir() && Some(&found.dir) != own)
                .partition(|found| found.role == Role::Create);
            if !sessions.is_empty() {
                let who = names(sessions);
                return Ok(Attempt::Busy { who, intent });
            }
            if others.is_empty() {
                return Ok(Attempt::Alone(Self(intent)));
            }
            if start.elapsed() >= patience {
                let who = names(others);
                return Ok(Attempt::Busy { who, intent });
            }
            if others
                .iter()
                .any(|other| other.dir.name() < intent.workspace().dir().name())
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
}

/// Who lives; who is dead is cleared away. Who starts looks for others only later.
fn living(layout: &Layout) -> Result<Vec<FoundIntent>, SessionError> {
    let mut found = clear_dead(layout)?;
    found.retain(|found| found.role != Role::Starting);
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
        let Attempt::Busy { who, .. } = Exclusive::acquire(&layout).unwrap() else {
            panic!("a session lives");
        };
        assert_eq!(who.len(), 1);
        drop(session);
        let Attempt::Alone(first) = Exclusive::acquire(&layout).unwrap() else {
            panic!("nobody lives");
        };
        let second = Exclusive::acquire_within(&layout, Duration::from_millis(300), None).unwrap();
        assert!(matches!(second, Attempt::Busy { .. }));
        drop((first, second));
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
            Attempt::Busy { .. }
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
    fn nobody_goes_on_beside_what_a_dead_one_left() {
        let (_folder, layout) = store();
        std::fs::create_dir_all(layout.tmp().on_host()).unwrap();
        // Its pid is that of nobody; a gc and a session each find it only after they began.
        let record = |host: &str| {
            format!(
                r#"{{"host":"{host}","boot_id":"","pid_namespace":"","pid":1,"process_start":1,"started":"s"}}"#
            )
        };
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(601);
        let attempts: [(_, &dyn Fn()); 2] = [
            ("gc-0", &|| wait_for_gc(&layout).unwrap()),
            ("create-0", &|| drop(Exclusive::acquire(&layout).unwrap())),
        ];
        for (name, attempt) in attempts {
            let dir = layout.tmp().join(name);
            dir.create_directory().unwrap();
            let path = dir.join("intent.json").on_host();
            std::fs::write(&path, record("elsewhere")).unwrap();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(long_ago).unwrap();
            attempt();
            assert_eq!(layout.tmp().list().unwrap(), Vec::new());
        }
    }
}
