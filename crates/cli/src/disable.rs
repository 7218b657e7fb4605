//! `uimgacc disable`.

mod remote;

use std::time::Duration;

use clap::Args;
use uimgacc_console::Printer;
use uimgacc_control::{Connect, DisableRequest};

use crate::arguments::parse_duration;
use crate::backend::{ClusterBackend, ClusterBackendArguments};
use crate::cluster::{ClusterProgress, run};

/// Take image acceleration away from a cluster.
///
/// Nodes are set back one by one to what they were; ordinary Pods go on. Refused while Pods use
/// target images. The store keeps its data unless --purge is given; `enable` finds it again.
#[derive(Debug, Args)]
#[command(after_help = "Example: uimgacc disable --purge")]
pub(crate) struct Disable {
    /// Disable although Pods use target images: they may fail to read afterwards.
    #[arg(long)]
    force: bool,
    /// Delete all accelerated images, and what they have in the store, first.
    #[arg(long)]
    purge: bool,
    /// How long it may take: seconds, or such as 90s, 5m, 2h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    timeout: Duration,
    #[command(flatten)]
    backend: ClusterBackendArguments,
}

impl Disable {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self.backend.backend()? {
            ClusterBackend::Cluster(connect) => self.run_cluster(&connect, printer),
            ClusterBackend::Remote(remote) => self.run_remote(&remote, printer),
        }
    }

    fn run_cluster(&self, connect: &Connect, printer: Printer) -> anyhow::Result<()> {
        let request = DisableRequest {
            force: self.force,
            purge: self.purge,
            within: self.timeout,
        };
        let report = run(connect, |cluster| async move {
            Ok(cluster
                .disable(&request, &ClusterProgress::new(printer))
                .await?)
        })?;
        printer.data(if report.was_enabled {
            "image acceleration is disabled"
        } else {
            "image acceleration was not enabled; what was left of it is deleted"
        })?;
        if report.images_left > 0 {
            printer.say(&format!(
                "{} images stay in the store: `uimgacc enable` finds them again (--purge deletes them)",
                report.images_left
            ));
        }
        Ok(())
    }
}
