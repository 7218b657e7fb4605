//! `install`: the daemon first, then containerd's configuration, then containerd.
//!
//! Steps, each written down in [`NodeState`](crate::NodeState) before it is taken, so that a crash
//! anywhere is mended by the next install or uninstall:
//! 1. binary, configuration and units of the daemon; it is started and must answer
//! 2. the edited configuration is written under another name, and containerd must accept it
//! 3. backup, record, rename
//! 4. containerd is restarted, only where it does not run with that configuration already, and must
//!    answer with our snapshotter; where it does not, the backup goes back and it is restarted again

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use uimgacc_types::Digest;

use crate::config::{self, Changes, Note};
use crate::containerd;
use crate::error::NodeError;
use crate::files;
use crate::grpc;
use crate::lost;
use crate::service::Manager;
use crate::settings::Settings;
use crate::state::{ConfigRecord, InstallRecord, NodeState, Phase, STATE_FORMAT, StateFolder};
use crate::version::ContainerdVersion;

/// A step that is about to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Binary, configuration and units of the daemon.
    WriteDaemon,
    /// Start of the daemon.
    StartDaemon,
    /// containerd looks at the edited configuration.
    ProveConfig,
    /// Backup and record.
    RecordConfig,
    /// The edited configuration gets its name.
    ReplaceConfig,
    /// Restart of containerd.
    RestartContainerd,
    /// containerd forgets snapshots whose data are lost.
    ForgetLost,
    /// The record that all is done.
    Finish,
    /// The former configuration goes back.
    RollBack,
    /// End of the daemon.
    StopDaemon,
    /// The daemon's files go.
    RemoveDaemon,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WriteDaemon => "writing the snapshotter's files",
            Self::StartDaemon => "starting the snapshotter",
            Self::ProveConfig => "letting containerd check its new configuration",
            Self::RecordConfig => "keeping the old configuration",
            Self::ReplaceConfig => "replacing containerd's configuration",
            Self::RestartContainerd => "restarting containerd",
            Self::ForgetLost => "looking for snapshots whose data are lost",
            Self::Finish => "done",
            Self::RollBack => "putting the former configuration back",
            Self::StopDaemon => "stopping the snapshotter",
            Self::RemoveDaemon => "removing the snapshotter's files",
        })
    }
}

/// Is told of each [`Step`] before it is taken.
pub type Watch<'w> = &'w mut dyn FnMut(Step);

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// containerd's version.
    pub containerd: ContainerdVersion,
    /// Whether its configuration was changed.
    pub config_changed: bool,
    /// Whether it was restarted.
    pub restarted: bool,
    /// Whether it must be restarted, which [`Settings::may_restart`] forbids. Nothing of it was
    /// changed then.
    pub restart_needed: bool,
    /// Whether the containerd that runs knows the snapshotter.
    pub runs: bool,
    /// What keeps the daemon running.
    pub manager: Manager,
    /// What to know of the edit.
    pub notes: Vec<Note>,
}

/// What an install would do to containerd's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// containerd's version.
    pub containerd: ContainerdVersion,
    /// The file.
    pub path: PathBuf,
    /// The difference as `diff -u` shows it; empty where there is none.
    pub diff: String,
    /// What to know of it.
    pub notes: Vec<Note>,
}

/// An edit, worked out and not yet written.
struct Edit {
    path: PathBuf,
    /// What the file was before us.
    original: Option<String>,
    /// What it is.
    current: Option<String>,
    /// What it is to be.
    new: String,
    changes: Changes,
    notes: Vec<Note>,
}

/// Works out what [`install`] would write, and changes nothing.
///
/// # Errors
/// As [`install`], up to the point where it would write.
pub fn plan(settings: &Settings) -> Result<Plan, NodeError> {
    let containerd = containerd::version(settings)?;
    let state = crate::state::load(&settings.state)?;
    let record = state.and_then(|state| state.config);
    let edit = work_out(settings, containerd, record.as_ref(), None)?;
    Ok(Plan {
        containerd,
        diff: diff(
            &edit.path,
            edit.current.as_deref().unwrap_or_default(),
            &edit.new,
        ),
        path: edit.path,
        notes: edit.notes,
    })
}

pub(crate) fn diff(path: &Path, old: &str, new: &str) -> String {
    let name = path.display().to_string();
    similar::TextDiff::from_lines(old, new)
        .unified_diff()
        .header(&name, &name)
        .to_string()
}

/// Makes containerd use the snapshotter.
///
/// # Errors
/// See [`NodeError`]. Where containerd does not come back, its former configuration is put back and
/// containerd restarted with it.
pub fn install(settings: &Settings, watch: Watch<'_>) -> Result<Installed, NodeError> {
    let folder = StateFolder::lock(&settings.state)?;
    let mut state = folder.load()?.unwrap_or(NodeState {
        format: STATE_FORMAT,
        phase: Phase::Installing,
        manager: None,
        folders: None,
        files: Vec::new(),
        restart_due: false,
        config: None,
        means: None,
    });
    let before = state.config.clone();
    let folders = [settings.root.clone(), settings.run_dir.clone()];
    if let Some([root, run_dir]) = state.folders.clone().filter(|old| *old != folders) {
        return Err(NodeError::Moved { root, run_dir });
    }
    let containerd = containerd::version(settings)?;
    let edit = work_out(settings, containerd, state.config.as_ref(), Some(&folder))?;
    let manager = Manager::of(settings);

    state.phase = Phase::Installing;
    if let Some(other) = state.manager.filter(|other| *other != manager) {
        other.stop(settings)?;
    }
    state.manager = Some(manager);
    state.folders = Some(folders);
    state.means = Some(InstallRecord::of(settings));
    install_daemon(settings, manager, &folder, &mut state, watch)?;

    let plugins = containerd::plugins(settings);
    let runs = plugins
        .as_ref()
        .is_ok_and(|plugins| containerd::has_snapshotter(plugins, &settings.name));
    let broken_before = plugins.map(|plugins| containerd::broken_cri(&plugins));
    let is_pending = state
        .config
        .as_ref()
        .is_some_and(|record| record.restart_pending);
    let config_changed = edit.current.as_ref() != Some(&edit.new);
    let must_restart = config_changed || is_pending || !runs;
    if must_restart && !settings.may_restart {
        if config_changed {
            // A configuration that is refused is better known before containerd is to be restarted.
            files::remove(&prove(settings, containerd, &edit, watch)?)?;
        }
        return Ok(Installed {
            containerd,
            config_changed: false,
            restarted: false,
            restart_needed: true,
            runs,
            manager,
            notes: edit.notes,
        });
    }
    if config_changed {
        put_in_place(settings, containerd, &edit, &folder, &mut state, watch)?;
    } else if let Some(record) = &mut state.config {
        record.restart_pending = must_restart;
        folder.save(&state)?;
    }
    if must_restart {
        watch(Step::RestartContainerd);
        let result = containerd::restart(settings, true, &broken_before.unwrap_or_default());
        if let Err(reason) = result {
            let former = if config_changed {
                // The one that it ran with, which may be of an earlier install.
                edit.current
                    .clone()
                    .map_or(Former::Missing, |text| Former::Text(text.into_bytes()))
            } else {
                former_of(&folder, state.config.as_ref())?
            };
            let record = before.filter(|_| config_changed);
            let path = edit.path;
            return Err(roll_back(
                settings, reason, &path, former, record, &folder, state, watch,
            ));
        }
    }
    watch(Step::ForgetLost);
    // Not worth a failure: what is left says so when a container is to start on it.
    match lost::forget(&settings.containerd_socket, &settings.name) {
        Ok(0) => {}
        Ok(count) => tracing::warn!(count, "containerd forgot snapshots whose data are lost"),
        Err(error) => tracing::warn!(error, "cannot look for snapshots whose data are lost"),
    }
    watch(Step::Finish);
    if let Some(record) = &mut state.config {
        record.restart_pending = false;
    }
    state.phase = Phase::Installed;
    folder.save(&state)?;
    Ok(Installed {
        containerd,
        config_changed,
        restarted: must_restart,
        restart_needed: false,
        runs: true,
        manager,
        notes: edit.notes,
    })
}

fn work_out(
    settings: &Settings,
    containerd: ContainerdVersion,
    record: Option<&ConfigRecord>,
    folder: Option<&StateFolder>,
) -> Result<Edit, NodeError> {
    let path = files::resolve(&settings.config);
    if let Some(other) = record.filter(|record| record.path != path) {
        return Err(NodeError::OtherConfig {
            state: settings.state.clone(),
            installed: other.path.clone(),
        });
    }
    let failed = |source| NodeError::Config {
        path: path.clone(),
        source,
    };
    let current = read_text(&path)?;
    if let Some(distribution) = config::distribution(&path, current.as_deref().unwrap_or_default())
    {
        return Err(NodeError::Generated {
            template: distribution.template(&path, containerd),
            distribution: distribution.name(),
            path,
        });
    }
    let wanted = settings.wanted();
    let edit = |text: Option<&str>| config::edit(text, containerd, &wanted).map_err(failed);
    let digest = current.as_ref().map(|text| Digest::of(text.as_bytes()));
    let Some(record) = record.filter(|record| record.original != digest) else {
        let edited = edit(current.as_deref())?;
        return Ok(Edit {
            path,
            original: current.clone(),
            current,
            new: edited.text,
            changes: edited.changes,
            notes: edited.notes,
        });
    };
    // An install was here. What the file would be without it is where this one starts from.
    let original = if digest.is_some_and(|digest| record.edited.contains(&digest)) {
        let kept = record
            .original
            .map(|digest| folder.and_then(|folder| folder.kept(digest)));
        match kept {
            None => Some(None),
            Some(bytes) => bytes
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(Some),
        }
    } else {
        None
    };
    let original = match (original, &current) {
        (Some(original), _) => original,
        (None, None) => None,
        (None, Some(text)) => Some(config::undo(text, &record.changes).map_err(failed)?.text),
    };
    let again = edit(current.as_deref())?;
    // Where it says all already, it stays as it is, whatever the order of its lines.
    if again.changes.is_empty() {
        return Ok(Edit {
            path,
            original,
            current,
            new: again.text,
            changes: record.changes.clone(),
            notes: again.notes,
        });
    }
    let edited = edit(original.as_deref())?;
    Ok(Edit {
        path,
        original,
        current,
        new: edited.text,
        changes: edited.changes,
        notes: edited.notes,
    })
}

pub(crate) fn read_text(path: &Path) -> Result<Option<String>, NodeError> {
    let Some(bytes) = files::read(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|_| NodeError::Config {
        path: path.to_owned(),
        source: config::ConfigError::Syntax("not UTF-8".to_owned()),
    })?;
    Ok(Some(text))
}

/// Step 1. Nothing here touches containerd.
fn install_daemon(
    settings: &Settings,
    manager: Manager,
    folder: &StateFolder,
    state: &mut NodeState,
    watch: Watch<'_>,
) -> Result<(), NodeError> {
    let binary = settings.installed_binary();
    let mut wanted: Vec<(PathBuf, Vec<u8>, u32)> = Vec::new();
    if let Some(source) = settings.binary.as_ref().filter(|source| **source != binary) {
        let bytes = std::fs::read(source).map_err(NodeError::file("read", source))?;
        wanted.push((binary.clone(), bytes, 0o755));
    }
    let text = settings.daemon_toml().into_bytes();
    wanted.push((settings.daemon_config.clone(), text, 0o600));
    for (path, text) in manager.files(settings) {
        wanted.push((path, text.into_bytes(), 0o644));
    }
    // Of an earlier install with other paths, or from before there was a package.
    let is_wanted =
        |path: &PathBuf| *path == binary || wanted.iter().any(|(name, ..)| name == path);
    let outdated: Vec<PathBuf> = state
        .files
        .iter()
        .filter(|path| !is_wanted(path))
        .cloned()
        .collect();
    for (path, _, _) in &wanted {
        if !state.files.contains(path) {
            state.files.push(path.clone());
        }
    }
    // Before the first of them, so that one that is killed in between is followed by the restart too.
    state.restart_due |= !outdated.is_empty();
    for (path, bytes, _) in &wanted {
        state.restart_due |= files::differs(path, bytes)?;
    }
    folder.save(state)?;
    watch(Step::WriteDaemon);
    for (path, bytes, mode) in wanted {
        files::replace(&path, &bytes, mode)?;
    }
    for path in &outdated {
        files::remove(path)?;
    }
    state.files.retain(|path| !outdated.contains(path));
    watch(Step::StartDaemon);
    manager.start(settings, state.restart_due)?;
    state.restart_due = false;
    folder.save(state)?;
    let address = settings.address();
    let deadline = Instant::now() + settings.patience;
    while let Err(reason) = grpc::snapshotter_answers(&address, Duration::from_secs(5)) {
        if Instant::now() > deadline {
            return Err(NodeError::Silent {
                address,
                reason,
                log: manager.log(settings),
            });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Step 2: returns the file that waits under another name.
fn prove(
    settings: &Settings,
    containerd: ContainerdVersion,
    edit: &Edit,
    watch: Watch<'_>,
) -> Result<PathBuf, NodeError> {
    watch(Step::ProveConfig);
    let new = files::prepare(&edit.path, edit.new.as_bytes(), 0o644)?;
    let proved = containerd::prove(settings, containerd, &edit.path, &new, &edit.new);
    if let Err(error) = proved {
        files::remove(&new)?;
        return Err(error);
    }
    Ok(new)
}

/// Steps 2 and 3.
fn put_in_place(
    settings: &Settings,
    containerd: ContainerdVersion,
    edit: &Edit,
    folder: &StateFolder,
    state: &mut NodeState,
    watch: Watch<'_>,
) -> Result<(), NodeError> {
    let new = prove(settings, containerd, edit, watch)?;
    watch(Step::RecordConfig);
    let original = match &edit.original {
        Some(text) => Some(folder.keep(text.as_bytes())?),
        None => None,
    };
    let mut edited = match &state.config {
        Some(record) if record.original == original => record.edited.clone(),
        _ => Vec::new(),
    };
    let new_digest = Digest::of(edit.new.as_bytes());
    edited.retain(|digest| *digest != new_digest);
    edited.push(new_digest);
    state.config = Some(ConfigRecord {
        path: edit.path.clone(),
        original,
        edited,
        changes: edit.changes.clone(),
        restart_pending: true,
    });
    folder.save(state)?;
    watch(Step::ReplaceConfig);
    files::commit(&new, &edit.path)
}

/// Puts the former configuration back, restarts containerd and says how that went. `record` is
/// what is known of that configuration.
#[allow(
    clippy::too_many_arguments,
    reason = "everything that a failed install holds"
)]
fn roll_back(
    settings: &Settings,
    reason: String,
    path: &Path,
    former: Former,
    record: Option<ConfigRecord>,
    folder: &StateFolder,
    mut state: NodeState,
    watch: Watch<'_>,
) -> NodeError {
    let log = containerd::log(settings);
    watch(Step::RollBack);
    let back = put_back(path, former).map_err(|error| error.to_string());
    let back = back.and_then(|()| {
        watch(Step::RestartContainerd);
        containerd::restart_as_it_was(settings)
    });
    if let Err(then) = back {
        return NodeError::Down { reason, then, log };
    }
    state.config = record;
    match folder.save(&state) {
        Ok(()) => NodeError::RolledBack { reason, log },
        Err(error) => error,
    }
}

fn put_back(path: &Path, former: Former) -> Result<(), NodeError> {
    match former {
        Former::Same => Ok(()),
        Former::Missing => files::remove(path),
        Former::Text(bytes) => files::commit(&files::prepare(path, &bytes, 0o644)?, path),
    }
}

/// What a configuration is without us.
pub(crate) enum Former {
    /// What it is already.
    Same,
    /// Not there.
    Missing,
    /// This.
    Text(Vec<u8>),
}

fn former_of(folder: &StateFolder, record: Option<&ConfigRecord>) -> Result<Former, NodeError> {
    record.map_or(Ok(Former::Same), |record| former(folder, record))
}

pub(crate) fn former(folder: &StateFolder, record: &ConfigRecord) -> Result<Former, NodeError> {
    let Some(current) = read_text(&record.path)? else {
        return Ok(Former::Same);
    };
    let digest = Digest::of(current.as_bytes());
    if record.original == Some(digest) {
        return Ok(Former::Same);
    }
    if record.edited.contains(&digest) {
        let kept = record.original.map(|digest| folder.kept(digest));
        match kept {
            None => return Ok(Former::Missing),
            Some(Some(bytes)) => return Ok(Former::Text(bytes)),
            // Without the copy, our lines are taken out one by one.
            Some(None) => {}
        }
    }
    let undone = config::undo(&current, &record.changes).map_err(|source| NodeError::Config {
        path: record.path.clone(),
        source,
    })?;
    Ok(if undone.text == current {
        Former::Same
    } else {
        Former::Text(undone.text.into_bytes())
    })
}
