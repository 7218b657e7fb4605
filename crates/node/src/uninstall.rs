//! `uninstall`: containerd first, then the daemon, so that containerd never calls into nothing.

use std::path::Path;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use crate::containerd;
use crate::error::NodeError;
use crate::files;
use crate::install::{Former, Step, Watch, former};
use crate::service::Manager;
use crate::settings::Settings;
use crate::state::{Phase, StateFolder};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uninstalled {
    /// Whether anything had been installed.
    pub was_installed: bool,
    /// Whether containerd's configuration was changed.
    pub config_changed: bool,
    /// Whether containerd was restarted.
    pub restarted: bool,
    /// Whether the daemon's data are gone too.
    pub purged: bool,
}

/// Settings for [`uninstall`] with what the install was told, as far as its record `state` says so.
///
/// # Errors
/// The record cannot be read.
pub fn as_installed(state: &Path) -> Result<Settings, NodeError> {
    // The store plays no part in taking away.
    let mut settings = Settings::new(String::new());
    settings.state = state.to_owned();
    let Some(record) = crate::state::load(state)? else {
        return Ok(settings);
    };
    if let Some([root, run_dir]) = record.folders {
        settings.root = root;
        settings.run_dir = run_dir;
    }
    if let Some(config) = record.config {
        settings.config = config.path;
    }
    if let Some(means) = record.means {
        settings.containerd = means.containerd;
        settings.containerd_socket = means.containerd_socket;
        settings.restart = means.restart;
        settings.log = means.log;
        settings.log_dir = means.log_dir;
    }
    Ok(settings)
}

/// Refuses where containers run on the daemon's data.
///
/// # Errors
/// [`NodeError::Busy`], with one of them.
pub fn refuse_used(settings: &Settings) -> Result<(), NodeError> {
    refuse_users(&settings.root, &mount_table()?)
}

/// Takes everything away that [`crate::install`] brought. containerd's configuration is what it was
/// before, byte for byte where nobody has edited it since.
///
/// The daemon's data and mounts stay, because containers may use them, unless `purge`, which is
/// refused while they do.
///
/// # Errors
/// See [`NodeError`]. Running it again goes on where it was.
pub fn uninstall(
    settings: &Settings,
    purge: bool,
    watch: Watch<'_>,
) -> Result<Uninstalled, NodeError> {
    let folder = StateFolder::lock(&settings.state)?;
    let mut done = Uninstalled::default();
    if let Some(mut state) = folder.load()? {
        done.was_installed = true;
        state.phase = Phase::Uninstalling;
        if let Some(record) = state.config.clone() {
            let former = former(&folder, &record)?;
            done.config_changed = !matches!(former, Former::Same);
            let is_gone = containerd::is_gone(settings);
            done.restarted = !is_gone && (done.config_changed || record.restart_pending);
            if let Some(record) = &mut state.config {
                record.restart_pending = done.restarted;
            }
            folder.save(&state)?;
            if done.config_changed {
                replace(settings, &record.path, former, is_gone, watch)?;
            }
            if done.restarted {
                watch(Step::RestartContainerd);
                containerd::restart_as_it_was(settings).map_err(|reason| NodeError::Down {
                    reason: "containerd's former configuration is back".to_owned(),
                    then: reason,
                    log: containerd::log(settings),
                })?;
            }
            state.config = None;
        }
        folder.save(&state)?;
        let manager = state.manager.unwrap_or_else(|| Manager::of(settings));
        watch(Step::StopDaemon);
        manager.stop(settings)?;
        watch(Step::RemoveDaemon);
        for file in &state.files {
            files::remove(file)?;
            files::remove(&files::waiting(file))?;
        }
        manager.forget()?;
        folder.clear()?;
    }
    files::remove(&files::waiting(&files::resolve(&settings.config)))?;
    if purge {
        remove_data(&settings.root)?;
        done.purged = true;
    }
    watch(Step::Finish);
    Ok(done)
}

/// After an [`uninstall`] that left the daemon's data because containers used them: waits until none
/// does, and removes them. Returns whether they were removed; they are not where the node was
/// installed anew meanwhile.
///
/// # Errors
/// See [`NodeError`].
pub fn purge_when_unused(settings: &Settings, pause: Duration) -> Result<bool, NodeError> {
    loop {
        let folder = StateFolder::lock(&settings.state)?;
        if folder.load()?.is_some() {
            return Ok(false);
        }
        match remove_data(&settings.root) {
            Err(NodeError::Busy { .. }) => {}
            other => return other.map(|()| true),
        }
        drop(folder);
        std::thread::sleep(pause);
    }
}

fn replace(
    settings: &Settings,
    path: &Path,
    former: Former,
    is_gone: bool,
    watch: Watch<'_>,
) -> Result<(), NodeError> {
    match former {
        Former::Same => Ok(()),
        Former::Missing => {
            watch(Step::ReplaceConfig);
            files::remove(path)
        }
        Former::Text(bytes) => {
            if !is_gone {
                watch(Step::ProveConfig);
            }
            let new = files::prepare(path, &bytes, 0o644)?;
            if !is_gone && let Err(message) = containerd::dump(settings, &new)? {
                files::remove(&new)?;
                return Err(NodeError::Refused {
                    path: path.to_owned(),
                    message,
                });
            }
            watch(Step::ReplaceConfig);
            files::commit(&new, path)
        }
    }
}

/// Unmounts what is mounted below the daemon's folder, and removes that.
fn remove_data(root: &Path) -> Result<(), NodeError> {
    let text = mount_table()?;
    refuse_users(root, &text)?;
    // proc_pid_mountinfo(5): field 5 is the mount point; the last mount lies on top.
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let below: Vec<&Path> = points
        .map(Path::new)
        .filter(|point| point.starts_with(root))
        .collect();
    for point in below.into_iter().rev() {
        unmount(point, UnmountFlags::empty()).map_err(|error| NodeError::Busy {
            path: point.to_owned(),
            source: error.into(),
        })?;
    }
    match std::fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(NodeError::file("remove", root)(error))
        }
        _ => Ok(()),
    }
}

fn mount_table() -> Result<String, NodeError> {
    let table = "/proc/self/mountinfo";
    std::fs::read_to_string(table).map_err(NodeError::file("read", Path::new(table)))
}

fn refuse_users(root: &Path, mountinfo: &str) -> Result<(), NodeError> {
    match overlay_on(root, mountinfo) {
        None => Ok(()),
        Some(user) => Err(NodeError::Busy {
            path: user.to_owned(),
            source: std::io::ErrorKind::ResourceBusy.into(),
        }),
    }
}

/// Where an overlay is mounted whose folders lie below `root`. The kernel does not count these as
/// uses of a mount there, so unmounting would not be refused.
fn overlay_on<'t>(root: &Path, mountinfo: &'t str) -> Option<&'t Path> {
    let below = format!("{}/", root.display());
    mountinfo.lines().find_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let point = Path::new(place.split(' ').nth(4)?);
        let is_user = system.starts_with("overlay ") && system.contains(&below);
        (is_user && !point.starts_with(root)).then_some(point)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlays_of_containers_are_found() {
        let root = Path::new("/var/lib/x");
        let line = |point: &str, kind: &str, options: &str| {
            format!("1 2 0:3 / {point} rw,relatime shared:1 - {kind} {kind} rw,{options}\n")
        };
        let ours = "lowerdir=/var/lib/x/mounts/1,upperdir=/var/lib/x/snapshots/2/fs";
        let others = "lowerdir=/var/lib/xy/1,upperdir=/var/lib/xy/2";
        for (table, found) in [
            (
                line("/run/c/rootfs", "overlay", ours),
                Some("/run/c/rootfs"),
            ),
            (line("/run/c/rootfs", "overlay", others), None),
            (line("/var/lib/x/view", "overlay", ours), None),
            (line("/run/c/rootfs", "erofs", ours), None),
            (String::new(), None),
        ] {
            assert_eq!(overlay_on(root, &table), found.map(Path::new), "{table}");
        }
    }
}
