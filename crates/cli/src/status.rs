//! `uimgacc status`.

mod render;

use std::time::Duration;

use clap::Args;
use uimgacc_console::Printer;

use crate::arguments::{ClusterArguments, TextFormat, parse_duration, print};
use crate::cluster::{ClusterProgress, run};
use crate::exit::Refused;

/// Show components, nodes, images and errors of a cluster.
///
/// Ends with 1 where something is wrong or nothing is enabled.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Wait until all is ready.
    #[arg(long)]
    wait: bool,
    /// How long to wait: seconds, or such as 90s, 5m, 2h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m", requires = "wait")]
    timeout: Duration,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,
    #[command(flatten)]
    cluster: ClusterArguments,
}

impl Status {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let (wait, timeout) = (self.wait, self.timeout);
        let status = run(&self.cluster.connect(), |cluster| async move {
            if wait {
                cluster
                    .wait_enabled(timeout, &ClusterProgress::new(printer))
                    .await?;
            }
            Ok(cluster.status().await?)
        })?;
        print(printer, self.output, &status, || {
            render::render(&status, printer.shows_colours())
        })?;
        if !status.enable {
            let hint = "`uimgacc enable --nfs ADDR` enables it";
            return Err(
                Refused::Unwell(format!("image acceleration is not enabled ({hint})")).into(),
            );
        }
        if !status.errors.is_empty() {
            let count = status.errors.len();
            return Err(Refused::Unwell(format!("not all is well: {count} problems")).into());
        }
        Ok(())
    }
}
