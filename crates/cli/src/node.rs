//! `uimgacc node`.

mod check;
mod install;
mod uninstall;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use uimgacc_console::Printer;
use uimgacc_node::{DaemonOptions, ManagerChoice, PACKAGED_BIN_DIR, Settings, Step};

/// Make this node use the snapshotter, or look what is wrong with it.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Find what is wrong on this node, and how to mend it.
    Check(check::Check),
    /// Make containerd on this node use the snapshotter.
    Install(Box<install::Install>),
    /// Take away what `node install` brought.
    Uninstall(uninstall::Uninstall),
}

impl Node {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self {
            Self::Check(verb) => verb.run(printer),
            Self::Install(verb) => verb.run(printer),
            Self::Uninstall(verb) => verb.run(printer),
        }
    }
}

/// Where things are on this node.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where things are")]
pub(crate) struct PathArguments {
    /// containerd's configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/containerd/config.toml"
    )]
    config: PathBuf,
    /// containerd's binary.
    #[arg(long, value_name = "FILE", default_value = "containerd")]
    containerd: PathBuf,
    /// containerd's socket.
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/containerd/containerd.sock"
    )]
    containerd_socket: PathBuf,
    /// The snapshotter's own data, on a local disk.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/uimgacc-snapshotter"
    )]
    root: PathBuf,
    /// Folder of the snapshotter's socket.
    #[arg(long, value_name = "DIR", default_value = "/run/uimgacc-snapshotter")]
    run_dir: PathBuf,
    /// The snapshotter's name in containerd.
    #[arg(long, value_name = "NAME", default_value = "uimgacc")]
    name: String,
}

impl PathArguments {
    fn settings(self, store: String) -> anyhow::Result<Settings> {
        let mut settings = Settings::new(store);
        settings.config = std::path::absolute(self.config)?;
        settings.containerd = self.containerd;
        settings.containerd_socket = self.containerd_socket;
        settings.root = std::path::absolute(self.root)?;
        settings.run_dir = std::path::absolute(self.run_dir)?;
        settings.name = self.name;
        Ok(settings)
    }
}

/// How to change this node.
#[derive(Debug, Args)]
#[command(next_help_heading = "How to change this node")]
pub(crate) struct NodeChangeArguments {
    /// Command that restarts containerd: words with blanks between them, or a JSON list of words.
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "systemctl restart containerd"
    )]
    restart: String,
    /// Command that prints the end of containerd's log.
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "journalctl --unit containerd --lines 20 --no-pager --output cat"
    )]
    containerd_log: String,
    /// Folder for the snapshotter's binary; by default /usr/local/bin, and where this program is from a package, the binary stays
    /// where the package has it.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Folder of systemd's units.
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    unit_dir: PathBuf,
    /// Folder of the snapshotter's log where no systemd is.
    #[arg(long, value_name = "DIR", default_value = "/var/log")]
    log_dir: PathBuf,
    /// The snapshotter's configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/uimgacc/snapshotter.toml"
    )]
    snapshotter_config: PathBuf,
    /// The record of what was installed; backups lie beside it.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/uimgacc/node.json"
    )]
    state: PathBuf,
    /// What keeps the snapshotter running.
    #[arg(long, value_enum, default_value_t = Manager::Auto)]
    manager: Manager,
    /// Seconds that containerd and the snapshotter may take to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Manager {
    /// systemd where it runs, else the supervisor.
    Auto,
    /// Units of systemd.
    Systemd,
    /// The snapshotter's own supervisor.
    Supervisor,
}

impl NodeChangeArguments {
    fn put_into(self, settings: &mut Settings) -> anyhow::Result<()> {
        settings.restart = words(&self.restart)?;
        settings.log = words(&self.containerd_log)?;
        if let Some(folder) = self.bin_dir.or_else(packaged_bin_dir) {
            settings.bin_dir = std::path::absolute(folder)?;
        }
        settings.unit_dir = self.unit_dir;
        settings.log_dir = self.log_dir;
        settings.daemon_config = std::path::absolute(self.snapshotter_config)?;
        settings.daemon_options = DaemonOptions::default();
        settings.state = std::path::absolute(self.state)?;
        settings.manager = match self.manager {
            Manager::Auto => ManagerChoice::Auto,
            Manager::Systemd => ManagerChoice::Systemd,
            Manager::Supervisor => ManagerChoice::Supervisor,
        };
        settings.patience = Duration::from_secs(self.patience);
        Ok(())
    }
}

/// The folder of this program where that is one of packages, which no install may write to.
fn packaged_bin_dir() -> Option<PathBuf> {
    let us = std::env::current_exe().ok()?;
    let folder = us.parent()?;
    (folder == Path::new(PACKAGED_BIN_DIR)).then(|| folder.to_owned())
}

/// Says each step.
fn watch(printer: Printer) -> impl FnMut(Step) {
    move |step| {
        if step != Step::Finish {
            printer.say(&step.to_string());
        }
    }
}

/// The words of a command.
fn words(text: &str) -> anyhow::Result<Vec<String>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .with_context(|| format!("{text} is no JSON list of words"));
    }
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command() {
        assert_eq!(words(" a  b ").unwrap(), ["a", "b"]);
        assert_eq!(words(r#"["a b","c"]"#).unwrap(), ["a b", "c"]);
        assert!(words("").unwrap().is_empty());
        assert!(words("[a").is_err());
    }
}
