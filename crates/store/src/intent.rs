//! Intents: sessions and gc say in `tmp/` that they live, so that none works under the other.
//!
//! A session makes its folder `tmp/create-<id>/` with `intent.json` *before* it reads any table
//! of contents, and sets the file's time anew every 10 seconds. gc makes `tmp/gc-<id>/` in the
//! same way. Each makes its own first and looks for the others' then, so at least one of two sees
//! the other: gc gives way to sessions, sessions wait for gc (see [`crate::exclusive`]).
//!
//! Dead is: the process is gone (same machine, boot and pid namespace), or the file's time stood still
//! for ten minutes by the file server's clock. Who is dead is cleared away ([`crate::clearing`]) by
//! whoever needs to know that it does nothing any more: before a session counts on anything, and before
//! gc decides anything. What has not yet said who it is, which takes a moment, is dead
//! after 30 seconds, and fails when it goes on. Who knows more, as an agent of Kubernetes does of its Pods,
//! need not wait for that: [`clear_gone`].

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use serde::{Deserialize, Serialize};

use crate::clearing::{OVER, clear, clear_away};
use crate::clock::server_now;
use crate::commit::{
    CommitError, encode, failed, make_directory, replace, sync_directory, write_synced,
};
use crate::error::SessionError;
use crate::path::StorePath;
use crate::reader::{ReadError, list, read_json};
use crate::workspace::Workspace;
use crate::{Layout, machine};

const HEARTBEAT: Duration = Duration::from_secs(10);
const DEAD_AFTER: Duration = Duration::from_secs(600);
/// Three beats: so long even somebody must be silent who is said to be gone, or has said nothing yet.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// What an intent is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A session, which adds to the store.
    Create,
    /// gc or delete, which take from it.
    Gc,
    /// Not yet: it looks for the others only after it has got its name.
    Starting,
}

impl Role {
    fn prefix(self) -> &'static str {
        match self {
            Self::Create => "create-",
            Self::Gc => "gc-",
            Self::Starting => "new-",
        }
    }
}

/// `tmp/create-<id>/intent.json`.
#[derive(Debug, Serialize, Deserialize)]
struct IntentRecord {
    host: String,
    /// As in leases; `None` where the machine has none, and in records of version 0.3 and before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
    boot_id: String,
    /// Pids mean something only inside their namespace.
    pid_namespace: String,
    pid: u32,
    process_start: u64,
    started: String,
    /// A name that says more to whoever gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
}

impl IntentRecord {
    fn of_this_process(actor: Option<&str>) -> Self {
        let pid = std::process::id();
        Self {
            host: machine::host_name(),
            machine: machine::machine_id(),
            boot_id: machine::boot_id(),
            pid_namespace: machine::pid_namespace(),
            pid,
            process_start: machine::process_start(pid).unwrap_or_default(),
            started: machine::rfc3339_now(),
            actor: actor.map(str::to_owned),
        }
    }

    /// Whether its pid is one of those that `own` sees: what a machine cannot tell of itself never
    /// makes two of them one.
    fn is_of_the_same_machine(&self, own: &Self) -> bool {
        let same = |one: &str, other: &str| !one.is_empty() && one == other;
        let same_machine = match (&self.machine, &own.machine) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        same_machine
            && same(&self.host, &own.host)
            && same(&self.boot_id, &own.boot_id)
            && same(&self.pid_namespace, &own.pid_namespace)
    }
}

/// The word of a living session or gc. Dropping it removes its directory with all that is in it.
#[derive(Debug)]
pub(crate) struct Intent {
    layout: Layout,
    workspace: Workspace,
    stop: Option<mpsc::Sender<()>>,
    beat: Option<JoinHandle<()>>,
}

impl Intent {
    /// Says that a session (or gc) lives. Directories of dead ones are cleared away first.
    pub(crate) fn declare(layout: &Layout, role: Role) -> Result<Self, SessionError> {
        make_directory(&layout.tmp())?;
        clear_dead(layout)?;
        let id = machine::random_id().map_err(failed("name a directory in", &layout.tmp()))?;
        // Renamed once the intent is in it, so that no session's directory is ever without one.
        let new = layout
            .tmp()
            .join(format!("{}{id}", Role::Starting.prefix()));
        let dir = layout.tmp().join(format!("{}{id}", role.prefix()));
        make_directory(&new)?;
        let path = new.join("intent.json");
        let text = encode(&path, &IntentRecord::of_this_process(layout.actor()))?;
        // After a standstill of half a minute here, all of it may be cleared away already.
        let file = write_synced(&path, &text)
            .and_then(|file| {
                sync_directory(&new)?;
                replace(&new, &dir)?;
                Ok(file)
            })
            .map_err(|error| {
                if new.exists().unwrap_or(true) {
                    error
                } else {
                    let dir = new.on_host();
                    CommitError::TakenForDead { dir }
                }
            })?;
        let (stop, stopped) = mpsc::channel();
        let beat = std::thread::Builder::new()
            .name("intent".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                    // A beat that fails is made up for by the next one.
                    let _ = futimens(&file, &NOW);
                }
            })
            .map_err(failed("start a thread for", &path))?;
        Ok(Self {
            layout: layout.clone(),
            workspace: Workspace::new(dir),
            stop: Some(stop),
            beat: Some(beat),
        })
    }

    /// The session's own directory.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }
}

const NOW: Timestamps = {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    Timestamps {
        last_access: now,
        last_modification: now,
    }
};

impl Drop for Intent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(beat) = self.beat.take() {
            let _ = beat.join();
        }
        let dir = self.workspace.dir();
        if let Err(error) = clear_away(&self.layout, dir) {
            // The next one completes it.
            tracing::warn!(%dir, %error, "cannot remove the session's directory");
        }
    }
}

/// A session or gc found in `tmp/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundIntent {
    pub(crate) dir: StorePath,
    pub(crate) role: Role,
    /// Shown to people.
    pub(crate) who: String,
    pub(crate) alive: bool,
    /// The name it works under.
    actor: Option<String>,
    /// Since when it gave no sign of life, where that can be told.
    silent: Option<Duration>,
}

/// Every session's directory in `tmp/`.
pub(crate) fn found(layout: &Layout) -> Result<Vec<FoundIntent>, ReadError> {
    let now = server_now(layout);
    let own = IntentRecord::of_this_process(None);
    let mut found = Vec::new();
    for dir in list(&layout.tmp())? {
        let name = dir.name().unwrap_or_default().to_owned();
        let has = |prefix| name.starts_with(prefix);
        // Something else of that name is nobody's: `verify` reports it.
        let is_directory = || dir.facts().is_ok_and(|facts| facts.is_directory);
        if has(OVER) {
            if !is_directory() {
                continue;
            }
            found.push(FoundIntent {
                who: dir.to_string(),
                dir,
                role: Role::Create,
                alive: false,
                actor: None,
                silent: None,
            });
            continue;
        }
        let roles = [Role::Create, Role::Gc, Role::Starting];
        let role = roles.into_iter().find(|role| has(role.prefix()));
        let Some(role) = role.filter(|_| is_directory()) else {
            continue;
        };
        let path = dir.join("intent.json");
        let age = |path: &StorePath| {
            let modified = path.facts().ok()?.modified;
            // A time ahead of the server's clock counts as fresh.
            Some(now?.duration_since(modified).unwrap_or_default())
        };
        // Without a whole intent it is a session about to start, or one that died then.
        let record = read_json::<IntentRecord>(&path).ok().flatten();
        if record.is_none() && dir.exists().is_ok_and(|is_there| !is_there) {
            // It ended since the listing.
            continue;
        }
        let silent = age(&path).or_else(|| age(&dir));
        let limit = match (role, &record) {
            (Role::Starting, None) => GONE_AFTER,
            _ => DEAD_AFTER,
        };
        let fresh = silent.is_none_or(|silent| silent < limit);
        let actor = record.as_ref().and_then(|record| record.actor.clone());
        let (who, alive) = match record {
            None => (dir.to_string(), fresh),
            Some(record) => {
                let alive = if record.is_of_the_same_machine(&own) {
                    machine::process_start(record.pid) == Some(record.process_start)
                } else {
                    fresh
                };
                (
                    format!(
                        "process {} on {}, since {}",
                        record.pid, record.host, record.started
                    ),
                    alive,
                )
            }
        };
        found.push(FoundIntent {
            dir,
            role,
            who,
            alive,
            actor,
            silent,
        });
    }
    Ok(found)
}

/// Clears away what dead ones left, completely, so that they change nothing any more; gives those
/// that live.
pub(crate) fn clear_dead(layout: &Layout) -> Result<Vec<FoundIntent>, SessionError> {
    let (alive, dead): (Vec<_>, Vec<_>) = found(layout)?.into_iter().partition(|found| found.alive);
    for dead in dead {
        clear(layout, &dead.dir, &dead.who)?;
    }
    Ok(alive)
}

/// Clears away what sessions and gcs left that work under a name ([`Layout::acting_as`]) which
/// `is_gone` knows to be gone, and that were silent for 30 seconds; gives how many there were. So the
/// store is free sooner than after the ten minutes that others have to wait.
///
/// # Errors
/// The file system's error.
pub fn clear_gone(layout: &Layout, is_gone: impl Fn(&str) -> bool) -> Result<usize, SessionError> {
    let mut cleared = 0;
    for intent in found(layout)? {
        let is_silent = intent.silent.is_some_and(|silent| silent >= GONE_AFTER);
        if is_silent && intent.actor.as_deref().is_some_and(&is_gone) {
            clear(layout, &intent.dir, &intent.who)?;
            cleared += 1;
        }
    }
    Ok(cleared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_killed_before_it_said_who_it_is_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let new = layout.tmp().join("new-0123");
        std::fs::create_dir_all(new.on_host()).unwrap();
        let other = || drop(Intent::declare(&layout, Role::Gc).unwrap());
        other();
        assert!(new.exists().unwrap(), "it may be about to start");
        let long_ago = std::time::SystemTime::now() - GONE_AFTER - HEARTBEAT;
        std::fs::File::open(new.on_host())
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        other();
        assert!(!new.exists().unwrap());
    }

    #[test]
    fn who_is_gone_and_silent_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let as_actor = |name: &str| {
            let intent = Intent::declare(&layout.clone().acting_as(name), Role::Gc).unwrap();
            (intent.workspace().path("intent.json"), intent)
        };
        let (nameless, (gone, gone_intent), (there, there_intent)) = (
            Intent::declare(&layout, Role::Create).unwrap(),
            as_actor("gone"),
            as_actor("there"),
        );
        let clear = || clear_gone(&layout, |actor| actor == "gone").unwrap();
        assert_eq!(clear(), 0, "it gave a sign of life just now");
        let long_ago = std::time::SystemTime::now() - GONE_AFTER - HEARTBEAT;
        for path in [&gone, &there, &nameless.workspace().path("intent.json")] {
            let path = path.on_host();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        assert_eq!(clear(), 1);
        assert_eq!(
            (
                gone.exists().unwrap(),
                there.exists().unwrap(),
                nameless.workspace().stands()
            ),
            (false, true, true)
        );
        drop((gone_intent, there_intent));
    }

    #[test]
    fn only_what_says_that_it_is_this_machine_is() {
        let own = || IntentRecord {
            host: "h".to_owned(),
            machine: Some("m".to_owned()),
            boot_id: "b".to_owned(),
            pid_namespace: "n".to_owned(),
            pid: 1,
            process_start: 1,
            started: String::new(),
            actor: None,
        };
        let is_same = |change: &dyn Fn(&mut IntentRecord), both: bool| {
            let (mut one, mut other) = (own(), own());
            change(&mut one);
            if both {
                change(&mut other);
            }
            one.is_of_the_same_machine(&other)
        };
        assert!(is_same(&|_| {}, false));
        // A record of an older version has no machine.
        assert!(is_same(&|record| record.machine = None, false));
        assert!(!is_same(
            &|record| record.machine = Some("x".to_owned()),
            false
        ));
        assert!(!is_same(&|record| record.host = "x".to_owned(), false));
        assert!(!is_same(&|record| record.boot_id = "x".to_owned(), false));
        assert!(!is_same(
            &|record| record.pid_namespace = "x".to_owned(),
            false
        ));
        // Two that cannot tell are not therefore one.
        assert!(!is_same(&|record| record.boot_id = String::new(), true));
        assert!(!is_same(
            &|record| record.pid_namespace = String::new(),
            true
        ));
    }

    #[test]
    fn something_else_under_the_name_of_a_session_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::create_dir_all(layout.tmp().on_host()).unwrap();
        for name in ["create-0", "gc-0", "over-0", "new-0"] {
            std::os::unix::fs::symlink("/", layout.tmp().join(name).on_host()).unwrap();
        }
        let intent = Intent::declare(&layout, Role::Gc).unwrap();
        assert_eq!(found(&layout).unwrap().len(), 1);
        drop(intent);
    }
}
