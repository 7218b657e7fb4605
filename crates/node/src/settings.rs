//! Where everything is on a node. Every path is a setting, so that tests and other distributions work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Wanted;

/// Name of the daemon's binary, unit and socket.
pub(crate) const DAEMON: &str = "uimgacc-snapshotter";

/// Where a package puts our programs.
pub const PACKAGED_BIN_DIR: &str = "/usr/bin";

/// What keeps the daemon running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ManagerChoice {
    /// systemd where it runs, else the supervisor.
    #[default]
    Auto,
    /// Units of systemd.
    Systemd,
    /// `uimgacc-snapshotter supervise`, detached.
    Supervisor,
}

/// How the daemon is told its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DaemonOptions {
    /// By flags.
    Flags,
    /// By `--config` and the file that is installed anyway.
    #[default]
    ConfigFile,
}

/// Everything that [`crate::install`], [`crate::uninstall`] and [`crate::check`] need to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The snapshotter's name in containerd.
    pub name: String,
    /// The store: a folder, or an address that the daemon mounts itself (`nfs://…`).
    pub store: String,
    /// containerd's configuration file.
    pub config: PathBuf,
    /// containerd's binary, found in `PATH` where it is a bare name.
    pub containerd: PathBuf,
    /// containerd's socket.
    pub containerd_socket: PathBuf,
    /// What restarts containerd, word by word.
    pub restart: Vec<String>,
    /// What prints the end of containerd's log, for errors.
    pub log: Vec<String>,
    /// The daemon's binary to install; `None` where it is in `bin_dir` already.
    pub binary: Option<PathBuf>,
    /// Folder for the daemon's binary.
    pub bin_dir: PathBuf,
    /// The daemon's own data, on a local disk.
    pub root: PathBuf,
    /// Folder of its socket, and of its process ID where no systemd is.
    pub run_dir: PathBuf,
    /// Folder of its log where no systemd is.
    pub log_dir: PathBuf,
    /// The daemon's configuration file.
    pub daemon_config: PathBuf,
    /// How it is told its options.
    pub daemon_options: DaemonOptions,
    /// More flags for it.
    pub daemon_flags: Vec<String>,
    /// More keys of its configuration file: each a number, true, false, or a text without quotes.
    pub daemon_keys: Vec<(String, String)>,
    /// Folder of systemd's units.
    pub unit_dir: PathBuf,
    /// Folder of the units that packages bring. One that says what ours would is not written again.
    pub packaged_unit_dir: PathBuf,
    /// What keeps it running.
    pub manager: ManagerChoice,
    /// The record of what was installed; backups lie beside it.
    pub state: PathBuf,
    /// How long containerd, and the daemon, may take to answer after a start.
    pub patience: Duration,
    /// Whether an install may restart containerd. Where not, and that is needed, everything before it
    /// is done and containerd's configuration stays as it is.
    pub may_restart: bool,
}

impl Settings {
    /// The defaults of a standard host.
    #[must_use]
    pub fn new(store: impl Into<String>) -> Self {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        Self {
            name: "uimgacc".to_owned(),
            store: store.into(),
            config: "/etc/containerd/config.toml".into(),
            containerd: "containerd".into(),
            containerd_socket: "/run/containerd/containerd.sock".into(),
            restart: words("systemctl restart containerd"),
            log: words("journalctl --unit containerd --lines 20 --no-pager --output cat"),
            binary: None,
            bin_dir: "/usr/local/bin".into(),
            root: "/var/lib/uimgacc-snapshotter".into(),
            run_dir: "/run/uimgacc-snapshotter".into(),
            log_dir: "/var/log".into(),
            daemon_config: "/etc/uimgacc/snapshotter.toml".into(),
            daemon_options: DaemonOptions::default(),
            daemon_flags: Vec::new(),
            daemon_keys: Vec::new(),
            unit_dir: "/etc/systemd/system".into(),
            packaged_unit_dir: "/usr/lib/systemd/system".into(),
            manager: ManagerChoice::Auto,
            state: "/var/lib/uimgacc/node.json".into(),
            patience: Duration::from_secs(60),
            may_restart: true,
        }
    }

    /// The daemon's socket.
    #[must_use]
    pub fn address(&self) -> PathBuf {
        self.run_dir.join("snapshotter.sock")
    }

    /// The installed binary of the daemon.
    #[must_use]
    pub fn installed_binary(&self) -> PathBuf {
        self.bin_dir.join(DAEMON)
    }

    /// What containerd is to be told.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            name: self.name.clone(),
            address: text(&self.address()),
            root: text(&self.root),
        }
    }

    /// The words after the daemon's name.
    #[must_use]
    pub fn daemon_arguments(&self) -> Vec<String> {
        let address = ["--address".to_owned(), text(&self.address())];
        [self.supervised_arguments(), address.to_vec()].concat()
    }

    /// The same for a supervisor, which says to the daemon itself where it listens.
    pub(crate) fn supervised_arguments(&self) -> Vec<String> {
        let flag = |name: &str, value: String| [name.to_owned(), value];
        let mut words = match self.daemon_options {
            DaemonOptions::ConfigFile => flag("--config", text(&self.daemon_config)).to_vec(),
            DaemonOptions::Flags => [
                flag("--store", self.store.clone()),
                flag("--root", text(&self.root)),
            ]
            .concat(),
        };
        words.extend(self.daemon_flags.iter().cloned());
        words
    }

    /// The text of the daemon's configuration file.
    #[must_use]
    pub fn daemon_toml(&self) -> String {
        let mut document = toml_edit::DocumentMut::new();
        document.insert("store", toml_edit::value(&self.store));
        document.insert("root", toml_edit::value(text(&self.root)));
        document.insert("address", toml_edit::value(text(&self.address())));
        for (key, value) in &self.daemon_keys {
            document.insert(key, toml_edit::value(value_of(value)));
        }
        format!("# Made by `uimgacc node install`.\n{document}")
    }
}

/// What no number and no truth value is, is a text.
fn value_of(text: &str) -> toml_edit::Value {
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    text.parse::<bool>()
        .map_or_else(|_| text.into(), Into::into)
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_their_kind() {
        for (text, toml) in [
            ("1024", "1024"),
            ("true", "true"),
            ("false", "false"),
            ("fail", "\"fail\""),
            ("a \"b\"", "'a \"b\"'"),
            ("", "\"\""),
        ] {
            assert_eq!(value_of(text).to_string(), toml);
        }
    }
}
