//! `uimgacc node install`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use uimgacc_console::Printer;
use uimgacc_node::Settings;

use super::{NodeChangeArguments, PathArguments, watch};
use crate::arguments::TextOrJson;

/// Make containerd on this node use the snapshotter.
///
/// Installs and starts the snapshotter as a service, edits containerd's configuration (keeping a
/// backup), lets containerd check the new one, and restarts containerd only where it has changed.
/// Where containerd does not come back, it gets its former configuration again. Running it again
/// does nothing; interrupted at any point, the same command goes on.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 done; 1 failed; 5 containerd did not work with its new configuration, and has the former one again.

Examples:
  uimgacc node install --store /mnt/store --dry-run
  uimgacc node install --store /mnt/store

k3s makes its file anew at each start from a template, and a copy of that file is one:
  cd /var/lib/rancher/k3s/agent/etc/containerd && cp config.toml config-v3.toml.tmpl
  uimgacc node install --store /mnt/store --restart 'systemctl restart k3s' --config $PWD/config-v3.toml.tmpl \\
      --containerd /var/lib/rancher/k3s/data/current/bin/containerd \\
      --containerd-socket /run/k3s/containerd/containerd.sock")]
pub(crate) struct Install {
    /// The store: a folder, or an address that the snapshotter mounts itself.
    #[arg(long, value_name = "STORE", env = "UIMGACC_STORE")]
    store: String,
    /// The snapshotter's binary to install; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Only show what would change in containerd's configuration.
    #[arg(long)]
    dry_run: bool,
    /// Do everything but what needs a restart of containerd, and say whether one is needed.
    #[arg(long, conflicts_with = "dry_run")]
    no_restart: bool,
    /// One more key of the snapshotter's configuration file (may be repeated): a number, true, false, or
    /// a text without quotes.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key)]
    snapshotter_key: Vec<(String, String)>,
    #[command(flatten)]
    paths: PathArguments,
    #[command(flatten)]
    means: NodeChangeArguments,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Install {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let mut settings = self.paths.settings(self.store)?;
        self.means.put_into(&mut settings)?;
        settings.daemon_keys = self.snapshotter_key;
        settings.may_restart = !self.no_restart;
        if self.dry_run {
            return show(&settings, self.output, printer);
        }
        settings.binary = match self.binary {
            Some(binary) => Some(binary),
            None => beside_us(&settings)?,
        };
        let done = uimgacc_node::install(&settings, &mut watch(printer))?;
        let notes: Vec<String> = done.notes.iter().map(ToString::to_string).collect();
        if self.output == TextOrJson::Json {
            let view = serde_json::json!({
                "containerd": done.containerd.to_string(),
                "configChanged": done.config_changed,
                "restarted": done.restarted,
                "restartNeeded": done.restart_needed,
                "runs": done.runs,
                "notes": notes,
            });
            printer.data(&serde_json::to_string_pretty(&view)?)?;
            return Ok(());
        }
        for note in notes {
            printer.say(&format!("note: {note}"));
        }
        if done.restart_needed {
            printer.data(&format!(
                "the snapshotter {} runs; containerd {} must be restarted to use it: run this without --no-restart",
                settings.name, done.containerd
            ))?;
            return Ok(());
        }
        printer.data(&format!(
            "containerd {} uses the snapshotter {}{}",
            done.containerd,
            settings.name,
            if done.restarted {
                ""
            } else {
                ", as before; nothing was restarted"
            }
        ))?;
        Ok(())
    }
}

fn key(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The snapshotter's binary in the folder of this program; `None` where only the installed one is.
fn beside_us(settings: &Settings) -> anyhow::Result<Option<PathBuf>> {
    let us = std::env::current_exe().context("cannot find this program's own folder")?;
    let beside = us.with_file_name("uimgacc-snapshotter");
    if beside.exists() {
        return Ok(Some(beside));
    }
    anyhow::ensure!(
        settings.installed_binary().exists(),
        "there is no {}: name the snapshotter's binary by --binary",
        beside.display()
    );
    Ok(None)
}

fn show(settings: &Settings, output: TextOrJson, printer: Printer) -> anyhow::Result<()> {
    let plan = uimgacc_node::plan(settings)?;
    let notes: Vec<String> = plan.notes.iter().map(ToString::to_string).collect();
    match output {
        TextOrJson::Json => {
            let view = serde_json::json!({
                "containerd": plan.containerd.to_string(),
                "config": plan.path,
                "diff": plan.diff,
                "notes": notes,
            });
            printer.data(&serde_json::to_string_pretty(&view)?)?;
        }
        TextOrJson::Text => {
            for note in notes {
                printer.say(&format!("note: {note}"));
            }
            if plan.diff.is_empty() {
                printer.say(&format!("{} stays as it is", plan.path.display()));
            } else {
                printer.data(&plan.diff)?;
            }
        }
    }
    Ok(())
}
