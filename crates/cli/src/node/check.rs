//! `uimgacc node check`.

use std::time::Duration;

use clap::Args;
use uimgacc_console::Printer;
use uimgacc_node::check::{Level, Report};

use super::PathArguments;
use crate::arguments::TextOrJson;
use crate::exit::Refused;

/// Find what is wrong on this node, and how to mend it. Changes nothing.
///
/// Looks at the kernel and its file systems, containerd and its configuration, the snapshotter, the
/// store and the disk. A store that hangs does not hang this command.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all is well, or worth a warning; 1 accelerated images do not run here."
)]
pub(crate) struct Check {
    /// The store: a folder, or an address that the snapshotter mounts itself.
    #[arg(long, value_name = "STORE", env = "UIMGACC_STORE")]
    store: String,
    /// Seconds after which a store counts as not there.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    store_timeout: u64,
    #[command(flatten)]
    paths: PathArguments,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Check {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let settings = self.paths.settings(self.store)?;
        let report = uimgacc_node::check(&settings, Duration::from_secs(self.store_timeout));
        let count = |level| {
            let findings = report.findings.iter();
            findings.filter(|finding| finding.level == level).count()
        };
        match self.output {
            TextOrJson::Text => printer.data(&text(&report))?,
            TextOrJson::Json => printer.data(&serde_json::to_string_pretty(&report)?)?,
        }
        match count(Level::Fail) {
            0 => Ok(()),
            bad => Err(Refused::Unfit(bad).into()),
        }
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let mark = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        text += &format!("{mark}  {}: {}\n", finding.id, finding.what);
        if !finding.mend.is_empty() {
            text += &format!("      -> {}\n", finding.mend);
        }
    }
    text
}
