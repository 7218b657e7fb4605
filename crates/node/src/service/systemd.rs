//! systemd's units. The socket unit holds the listening socket, so containerd's calls wait while the
//! daemon is restarted instead of failing.
//!
//! Nothing ties them to containerd but the order at boot: neither may take the other down. Their text
//! is `deploy/systemd/`, which our package has as it stands. Where that is installed and says the
//! same, it is used, so that an upgrade of the package brings its units too.

use std::path::PathBuf;
use std::process::Command;

use crate::command;
use crate::error::NodeError;
use crate::settings::{DAEMON, Settings};

const SOCKET: &str = "uimgacc-snapshotter.socket";
const SERVICE: &str = "uimgacc-snapshotter.service";

const SOCKET_TEXT: &str = include_str!("../../../../deploy/systemd/uimgacc-snapshotter.socket");
const SERVICE_TEXT: &str = include_str!("../../../../deploy/systemd/uimgacc-snapshotter.service");

/// The units, but for those that a package brought.
pub(super) fn files(settings: &Settings) -> Vec<(PathBuf, String)> {
    let units = [
        (SOCKET, socket_unit(settings)),
        (SERVICE, service_unit(settings)),
    ];
    let packaged = |name: &str| std::fs::read_to_string(settings.packaged_unit_dir.join(name)).ok();
    units
        .into_iter()
        .filter(|(name, text)| packaged(name).as_ref() != Some(text))
        .map(|(name, text)| (settings.unit_dir.join(name), text))
        .collect()
}

/// The text of the socket unit.
#[must_use]
pub fn socket_unit(settings: &Settings) -> String {
    let address = escape(&settings.address().display().to_string());
    with(
        SOCKET_TEXT,
        &[
            ("ConditionPathExists", condition(settings)),
            ("ListenStream", address),
        ],
    )
}

/// The text of the service unit.
#[must_use]
pub fn service_unit(settings: &Settings) -> String {
    let mut start = quote(&settings.installed_binary().display().to_string());
    for word in settings.daemon_arguments() {
        start = start + " " + &quote(&word);
    }
    with(
        SERVICE_TEXT,
        &[
            ("ConditionPathExists", condition(settings)),
            ("ExecStart", start),
        ],
    )
}

/// The daemon's configuration, without which there is nothing to start.
fn condition(settings: &Settings) -> String {
    escape(&settings.daemon_config.display().to_string())
}

/// A unit with these keys set to other values.
fn with(unit: &str, values: &[(&str, String)]) -> String {
    let mut text = String::new();
    for line in unit.lines() {
        let key = line.split_once('=').map_or("", |(key, _)| key);
        match values.iter().find(|(name, _)| *name == key) {
            Some((_, value)) => text = text + key + "=" + value,
            None => text += line,
        }
        text.push('\n');
    }
    text
}

/// `%` begins a specifier in units.
fn escape(text: &str) -> String {
    text.replace('%', "%%")
}

/// One word of `ExecStart=`.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = escape(word)
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('$', "$$");
    format!("\"{escaped}\"")
}

fn systemctl(words: &[&str]) -> Result<(), NodeError> {
    command::run(Command::new("systemctl").args(words)).map(|_| ())
}

pub(super) fn reload() -> Result<(), NodeError> {
    systemctl(&["daemon-reload"])
}

pub(super) fn start(is_changed: bool) -> Result<(), NodeError> {
    reload()?;
    systemctl(&["enable", SOCKET, SERVICE])?;
    systemctl(&["start", SOCKET])?;
    // The socket stays, so nobody's call fails.
    systemctl(&[if is_changed { "restart" } else { "start" }, SERVICE])
}

pub(super) fn stop() -> Result<(), NodeError> {
    let known = command::output(Command::new("systemctl").args(["cat", SERVICE]))?;
    if !known.status.success() {
        return Ok(());
    }
    systemctl(&["disable", "--now", SOCKET, SERVICE])
}

pub(super) fn log() -> String {
    let words = [
        "--unit",
        DAEMON,
        "--lines",
        "10",
        "--no-pager",
        "--output",
        "cat",
    ];
    command::run(Command::new("journalctl").args(words)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line() {
        assert_eq!(quote("/usr/bin/a"), "/usr/bin/a");
        assert_eq!(quote("a b"), "\"a b\"");
        assert_eq!(quote("50%\"$\\"), "\"50%%\\\"$$\\\\\"");
        assert_eq!(quote(""), "\"\"");
    }

    #[test]
    fn no_mounts_of_its_own_and_no_tie_to_containerd() {
        let unit = service_unit(&Settings::new("nfs://10.0.0.1/x?vers=3&nolock"));
        let forbidden = [
            "Protect",
            "Private",
            "ReadOnly",
            "Requires",
            "BindsTo",
            "PartOf",
            "RequiredBy",
        ];
        for line in unit.lines() {
            assert!(
                !forbidden.iter().any(|word| line.starts_with(word)),
                "{line}"
            );
        }
        assert!(
            unit.contains("--config /etc/uimgacc/snapshotter.toml"),
            "{unit}"
        );
        let mut settings = Settings::new("nfs://10.0.0.1/x?vers=3&nolock");
        settings.daemon_options = crate::DaemonOptions::Flags;
        let unit = service_unit(&settings);
        assert!(
            unit.contains("--store \"nfs://10.0.0.1/x?vers=3&nolock\""),
            "{unit}"
        );
    }

    #[test]
    fn the_units_of_the_package_are_those_of_an_install_from_it() {
        let mut settings = Settings::new("/store");
        settings.bin_dir = crate::settings::PACKAGED_BIN_DIR.into();
        assert_eq!(service_unit(&settings), SERVICE_TEXT);
        assert_eq!(socket_unit(&settings), SOCKET_TEXT);

        let package = tempfile::tempdir().unwrap();
        settings.packaged_unit_dir = package.path().to_owned();
        assert_eq!(files(&settings).len(), 2);
        std::fs::write(package.path().join(SOCKET), SOCKET_TEXT).unwrap();
        std::fs::write(package.path().join(SERVICE), SERVICE_TEXT).unwrap();
        assert_eq!(files(&settings), []);
        settings.daemon_config = "/etc/other.toml".into();
        let own = files(&settings);
        assert_eq!(own.len(), 2);
        for (_, text) in own {
            assert!(text.contains("\nConditionPathExists=/etc/other.toml\n"));
        }
    }
}
