//! `uimgacc node uninstall`.

use std::time::Duration;

use clap::Args;
use uimgacc_console::Printer;

use super::{NodeChangeArguments, PathArguments, watch};
use crate::arguments::TextOrJson;

/// Between two looks whether the data are used.
const PAUSE: Duration = Duration::from_secs(5);

/// Take away what `node install` brought.
///
/// containerd's configuration is what it was before, byte for byte where nobody has edited it since;
/// else only our lines are taken out. Interrupted at any point, the same command goes on.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 failed; 4 containers use the snapshotter's data, so these stay."
)]
pub(crate) struct Uninstall {
    /// Remove the snapshotter's data too; refused while containers use them.
    #[arg(long)]
    purge: bool,
    /// Wait until no container uses the snapshotter's data, and remove them then.
    #[arg(long, requires = "purge")]
    when_unused: bool,
    /// Change nothing where containers run on the snapshotter's data.
    #[arg(long)]
    unless_used: bool,
    /// Take places and commands from the record of the install instead of the options below.
    #[arg(long)]
    as_installed: bool,
    #[command(flatten)]
    paths: PathArguments,
    #[command(flatten)]
    means: NodeChangeArguments,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Uninstall {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        // The store plays no part in taking away.
        let mut settings = self.paths.settings(String::new())?;
        self.means.put_into(&mut settings)?;
        if self.as_installed {
            settings = uimgacc_node::as_installed(&settings.state)?;
        }
        if self.unless_used {
            uimgacc_node::refuse_used(&settings)?;
        }
        if self.when_unused {
            uimgacc_node::uninstall(&settings, false, &mut watch(printer))?;
            if !uimgacc_node::purge_when_unused(&settings, PAUSE)? {
                printer.say("installed anew meanwhile, so the data stay");
            }
            return Ok(());
        }
        let done = uimgacc_node::uninstall(&settings, self.purge, &mut watch(printer))?;
        if self.output == TextOrJson::Json {
            let view = serde_json::json!({
                "wasInstalled": done.was_installed,
                "configChanged": done.config_changed,
                "restarted": done.restarted,
                "purged": done.purged,
            });
            printer.data(&serde_json::to_string_pretty(&view)?)?;
        } else if done.was_installed {
            printer.data(&format!("the snapshotter {} is gone", settings.name))?;
        } else {
            printer.say("nothing was installed");
        }
        Ok(())
    }
}
