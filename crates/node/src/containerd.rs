//! containerd on this host: its version, what it makes of a configuration, and whether it answers.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command;
use crate::config::{self, Wanted};
use crate::error::NodeError;
use crate::grpc::{self, Plugin};
use crate::settings::Settings;
use crate::version::ContainerdVersion;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(5);

/// containerd's binary. A bare name that is nowhere in `PATH` (k3s keeps its own elsewhere) means
/// that of the process that answers the socket.
fn program(settings: &Settings) -> PathBuf {
    let name = &settings.containerd;
    let is_found = name.components().count() > 1 || is_in_path(name);
    let of_socket = || {
        let socket = UnixStream::connect(&settings.containerd_socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
        std::fs::read_link(format!("/proc/{}/exe", peer.pid)).ok()
    };
    if is_found {
        return name.clone();
    }
    of_socket().unwrap_or_else(|| name.clone())
}

fn is_in_path(name: &Path) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// Whether there is no containerd here any more: no program, and nobody listens.
pub(crate) fn is_gone(settings: &Settings) -> bool {
    let name = &settings.containerd;
    let is_there = if name.components().count() > 1 {
        name.is_file()
    } else {
        is_in_path(name)
    };
    !is_there && UnixStream::connect(&settings.containerd_socket).is_err()
}

/// The version of the binary, or of the one that runs where there is no such binary.
pub(crate) fn version(settings: &Settings) -> Result<ContainerdVersion, NodeError> {
    let printed = command::run(Command::new(program(settings)).arg("--version"));
    let text = printed
        .or_else(|error| grpc::version(&settings.containerd_socket, CALL).map_err(|_| error))?;
    Ok(ContainerdVersion::parse(&text)?)
}

/// What containerd makes of a configuration file.
pub(crate) fn dump(settings: &Settings, file: &Path) -> Result<Result<String, String>, NodeError> {
    let mut command = Command::new(program(settings));
    command.arg("--config").arg(file).args(["config", "dump"]);
    let output = command::output(&mut command)?;
    Ok(if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(command::message(&output))
    })
}

/// Lets containerd check a configuration that waits under another name in the folder of `path`.
pub(crate) fn prove(
    settings: &Settings,
    containerd: ContainerdVersion,
    path: &Path,
    new: &Path,
    text: &str,
) -> Result<(), NodeError> {
    let refused = |message| NodeError::Refused {
        path: path.to_owned(),
        message,
    };
    let dump = dump(settings, new)?.map_err(refused)?;
    let wanted = settings.wanted();
    let keys = config::not_effective(&dump, containerd, &wanted)
        .map_err(|error| refused(format!("its dump {error}")))?;
    if keys.is_empty() {
        return Ok(());
    }
    Err(NodeError::Overridden {
        path: path.to_owned(),
        keys,
        drop_ins: overriding(path, text, containerd, &wanted),
    })
}

/// The drop-ins that set our keys to something else.
pub(crate) fn overriding(
    path: &Path,
    text: &str,
    containerd: ContainerdVersion,
    wanted: &Wanted,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut pending = imported(path, text);
    while let Some(drop_in) = pending.pop() {
        if !seen.insert(drop_in.clone()) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&drop_in) else {
            continue;
        };
        pending.extend(imported(&drop_in, &text));
        if config::overridden(&text, containerd, wanted).is_ok_and(|keys| !keys.is_empty()) {
            found.push(drop_in);
        }
    }
    found.sort();
    found
}

/// The files that `imports` of the file `path` means.
fn imported(path: &Path, text: &str) -> Vec<PathBuf> {
    let patterns = config::imports(text).unwrap_or_default();
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut files = Vec::new();
    for pattern in patterns {
        let pattern = folder.join(pattern);
        let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
            continue;
        };
        let name = name.to_string_lossy();
        if !name.contains('*') {
            files.push(pattern.clone());
            continue;
        }
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.extend(
            entries
                .filter(|entry| config::glob_matches(&name, &entry.file_name().to_string_lossy()))
                .map(|entry| entry.path()),
        );
    }
    files
}

/// The plugins of the containerd that runs.
pub(crate) fn plugins(settings: &Settings) -> Result<Vec<Plugin>, String> {
    grpc::plugins(&settings.containerd_socket, CALL)
}

/// Whether a list of plugins has our snapshotter, and it works.
pub(crate) fn has_snapshotter(plugins: &[Plugin], name: &str) -> bool {
    snapshotter(plugins, name).is_some_and(|plugin| plugin.error.is_none())
}

pub(crate) fn snapshotter<'p>(plugins: &'p [Plugin], name: &str) -> Option<&'p Plugin> {
    plugins
        .iter()
        .find(|plugin| plugin.kind == "io.containerd.snapshotter.v1" && plugin.id == name)
}

/// The plugins of CRI that do not work, with the reason.
pub(crate) fn broken_cri(plugins: &[Plugin]) -> Vec<(String, String)> {
    let cri = plugins.iter().filter(|plugin| {
        plugin.kind == "io.containerd.cri.v1"
            || (plugin.kind == "io.containerd.grpc.v1" && plugin.id == "cri")
    });
    cri.filter_map(|plugin| {
        let error = plugin.error.clone()?;
        Some((format!("{}.{}", plugin.kind, plugin.id), error))
    })
    .collect()
}

/// Restarts containerd and waits until it answers, with our snapshotter where `wants_snapshotter`,
/// and with no part of CRI broken that was not `broken_before`.
///
/// The error says in a line what is wrong.
pub(crate) fn restart(
    settings: &Settings,
    wants_snapshotter: bool,
    broken_before: &[(String, String)],
) -> Result<(), String> {
    if let Some(mut restart) = command::of(&settings.restart) {
        command::run(&mut restart).map_err(|error| match error {
            NodeError::Run { command, source } => format!("cannot run {command}: {source}"),
            other => other.to_string(),
        })?;
    }
    let deadline = Instant::now() + settings.patience;
    loop {
        let waiting_for = match plugins(settings) {
            Err(silence) => format!("containerd does not answer: {silence}"),
            Ok(plugins) => match snapshotter(&plugins, &settings.name) {
                None if wants_snapshotter => {
                    format!("containerd does not know the snapshotter {}", settings.name)
                }
                Some(plugin) if wants_snapshotter && plugin.error.is_some() => format!(
                    "containerd cannot use the snapshotter {}: {}",
                    settings.name,
                    plugin.error.clone().unwrap_or_default()
                ),
                _ => {
                    let broken = broken_cri(&plugins);
                    let mut new = broken
                        .into_iter()
                        .filter(|(name, _)| broken_before.iter().all(|(before, _)| before != name));
                    match new.next() {
                        None => return Ok(()),
                        // Plugins are started before the socket answers: this does not mend itself.
                        Some((name, error)) => return Err(format!("{name} fails: {error}")),
                    }
                }
            },
        };
        if Instant::now() > deadline {
            return Err(waiting_for);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The end of containerd's log, as far as it can be had.
pub(crate) fn log(settings: &Settings) -> String {
    command::of(&settings.log)
        .and_then(|mut log| command::run(&mut log).ok())
        .unwrap_or_default()
}

/// [`restart`] with a configuration that is not ours: whatever of CRI is broken then was so before.
pub(crate) fn restart_as_it_was(settings: &Settings) -> Result<(), String> {
    if let Some(mut restart) = command::of(&settings.restart) {
        command::run(&mut restart).map_err(|error| error.to_string())?;
    }
    let deadline = Instant::now() + settings.patience;
    while let Err(silence) = plugins(settings) {
        if Instant::now() > deadline {
            return Err(format!("containerd does not answer: {silence}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
