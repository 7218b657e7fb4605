//! Intents: sessions and gc say in `tmp/` that they live, so that none works under the other.
//!
//! A session makes its folder `tmp/create-<id>/` with `intent.json` *before* it reads any table
//! of contents, and sets the file's time anew every 10 seconds. gc makes `tmp/gc-<id>/` in the
//! same way. Each makes its own first and looks for the others' then, so at least one of two sees
//! the other: gc gives way to sessions, sessions wait for gc (see [`crate::exclusive`]).
//!
//! Dead is: the process is gone (same boot and pid namespace), or the file's time stood still for ten
//! minutes by the file server's clock. What has not yet said who it is, which takes a moment, is dead
//! after 30 seconds, and fails when it goes on. Who knows more, as an agent of Kubernetes does of its Pods,
//! need not wait for that: [`clear_gone`].

use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use serde::{Deserialize, Serialize};

use crate::commit::{CommitError, failed, make_folder, replace, sync_folder};
use crate::path::StorePath;
use crate::reader::{ReadError, list, read_json};
use crate::{Layout, machine};

const BEAT: Duration = Duration::from_secs(10);
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

/// The word of a living session or gc. Dropping it removes its folder with all that is in it.
#[derive(Debug)]
pub(crate) struct Intent {
    dir: StorePath,
    stop: Option<mpsc::Sender<()>>,
    beat: Option<JoinHandle<()>>,
}

impl Intent {
    /// Says that a session (or gc) lives. Folders of dead ones are cleared away first.
    pub(crate) fn declare(layout: &Layout, role: Role) -> Result<Self, CommitError> {
        make_folder(&layout.tmp())?;
        // A dead session's folder costs only space: that it stays is no reason to stop.
        if let Err(error) = clear_dead(layout) {
            tracing::warn!(%error, "cannot clear away what dead sessions left");
        }
        let id = machine::random_id().map_err(failed("name a folder in", &layout.tmp()))?;
        // Renamed once the intent is in it, so that no session's folder is ever without one.
        let new = layout
            .tmp()
            .join(format!("{}{id}", Role::Starting.prefix()));
        let dir = layout.tmp().join(format!("{}{id}", role.prefix()));
        make_folder(&new)?;
        let path = new.join("intent.json");
        let pid = std::process::id();
        let record = IntentRecord {
            host: machine::host_name(),
            boot_id: machine::boot_id(),
            pid_namespace: machine::pid_namespace(),
            pid,
            process_start: machine::process_start(pid).unwrap_or_default(),
            started: machine::rfc3339_now(),
            actor: layout.actor().map(str::to_owned),
        };
        let text = serde_json::to_vec_pretty(&record).map_err(|source| CommitError::Encode {
            path: path.on_host(),
            source,
        })?;
        let mut file = path.create_new().map_err(failed("create", &path))?;
        file.write_all(&text).map_err(failed("write", &path))?;
        file.sync_all().map_err(failed("sync", &path))?;
        sync_folder(&new)?;
        replace(&new, &dir)?;
        let (stop, stopped) = mpsc::channel();
        let beat = std::thread::Builder::new()
            .name("intent".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                    // A beat that fails is made up for by the next one.
                    let _ = futimens(&file, &NOW);
                }
            })
            .map_err(failed("start a thread for", &path))?;
        Ok(Self {
            dir,
            stop: Some(stop),
            beat: Some(beat),
        })
    }

    /// The session's own folder.
    pub(crate) fn dir(&self) -> &StorePath {
        &self.dir
    }

    /// Whether nobody took it for dead and cleared it away (after a long standstill).
    pub(crate) fn stands(&self) -> bool {
        self.dir.join("intent.json").exists().unwrap_or(false)
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
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(dir = %self.dir, %error, "cannot remove the session's folder");
        }
    }
}

/// Names folders of sessions that are over, to be deleted by whoever sees them.
const OVER: &str = "over-";

/// Removes a session's folder. It gets another name first: a folder that lost its intent halfway
/// would look like a session about to start.
fn remove(dir: &StorePath) -> std::io::Result<()> {
    let over = dir
        .name()
        .and_then(|name| name.split_once('-'))
        .map(|(_, id)| dir.with_name(&format!("{OVER}{id}")));
    match over {
        Some(over) => {
            dir.rename(&over)?;
            over.remove_tree()
        }
        None => dir.remove_tree(),
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

/// Every session folder in `tmp/`.
pub(crate) fn found(layout: &Layout) -> Result<Vec<FoundIntent>, ReadError> {
    let now = server_now(layout);
    let mut found = Vec::new();
    for dir in list(&layout.tmp())? {
        let name = dir.name().unwrap_or_default().to_owned();
        let has = |prefix| name.starts_with(prefix);
        if has(OVER) {
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
        let Some(role) = roles.into_iter().find(|role| has(role.prefix())) else {
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
                let is_ours = record.boot_id == machine::boot_id()
                    && record.pid_namespace == machine::pid_namespace();
                let alive = if is_ours {
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

/// The file server's clock: the time of a file made now. `None` where none can be made.
pub(crate) fn server_now(layout: &Layout) -> Option<std::time::SystemTime> {
    let path = layout
        .tmp()
        .join(format!("clock-{}", machine::random_id().ok()?));
    let time = path
        .create_new()
        .and_then(|file| file.metadata()?.modified())
        .ok();
    let _ = path.remove_file();
    time
}

/// Removes the folders of dead sessions; gives how many there were.
pub(crate) fn clear_dead(layout: &Layout) -> Result<usize, ReadError> {
    clear(layout, |intent| !intent.alive)
}

/// Removes what sessions and gcs left that work under a name ([`Layout::acting_as`]) which `is_gone`
/// knows to be gone, and that were silent for 30 seconds; gives how many there were. So the store
/// is free sooner than after the ten minutes that others have to wait.
///
/// # Errors
/// The file system's error.
pub fn clear_gone(layout: &Layout, is_gone: impl Fn(&str) -> bool) -> Result<usize, ReadError> {
    clear(layout, |intent| {
        let is_silent = intent.silent.is_some_and(|silent| silent >= GONE_AFTER);
        is_silent && intent.actor.as_deref().is_some_and(&is_gone)
    })
}

fn clear(layout: &Layout, which: impl Fn(&FoundIntent) -> bool) -> Result<usize, ReadError> {
    let mut cleared = 0;
    for intent in found(layout)?.iter().filter(|intent| which(intent)) {
        match remove(&intent.dir) {
            Ok(()) => cleared += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(ReadError::Io {
                    path: intent.dir.on_host(),
                    source,
                });
            }
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
        let long_ago = std::time::SystemTime::now() - GONE_AFTER - BEAT;
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
            (intent.dir().join("intent.json"), intent)
        };
        let (nameless, (gone, gone_intent), (there, there_intent)) = (
            Intent::declare(&layout, Role::Create).unwrap(),
            as_actor("gone"),
            as_actor("there"),
        );
        let clear = || clear_gone(&layout, |actor| actor == "gone").unwrap();
        assert_eq!(clear(), 0, "it gave a sign of life just now");
        let long_ago = std::time::SystemTime::now() - GONE_AFTER - BEAT;
        for path in [&gone, &there, &nameless.dir().join("intent.json")] {
            let path = path.on_host();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        assert_eq!(clear(), 1);
        assert_eq!(
            (
                gone.exists().unwrap(),
                there.exists().unwrap(),
                nameless.stands()
            ),
            (false, true, true)
        );
        drop((gone_intent, there_intent));
    }
}
