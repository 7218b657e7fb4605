//! `uimgacc delete`.

mod remote;

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use uimgacc_console::{Printer, bytes};
use uimgacc_control::{Connect, DeleteRequest};
use uimgacc_store::{DeleteError, ReadError, SessionError, SweepOptions};

use crate::arguments::{StoreArgument, WaitArguments};
use crate::backend::{Backend, BackendArguments};
use crate::cluster::{ClusterProgress, reference, run};
use crate::exit::Refused;
use crate::images::find;

/// Delete an accelerated image from the store and free what only it needs.
///
/// The target image in the registry stays: it is a normal image and goes on working without the
/// store. An image that a node has mounted, or that Pods use, is refused, with the names of who
/// holds it.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Target image.
    image: String,
    /// Delete even if somebody has it mounted: their containers then fail to read.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArguments,
    #[command(flatten)]
    backend: BackendArguments,
    /// Leave the space to the next `store gc`.
    #[arg(long, help_heading = "On a local store")]
    no_gc: bool,
    /// Delete nothing; show how much space would be given back.
    #[arg(long, help_heading = "On a local store", conflicts_with_all = ["force", "no_gc"])]
    dry_run: bool,
}

/// How long the agent and the nodes may take to let go of an image.
const PATIENCE: Duration = Duration::from_secs(600);

impl Delete {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self.backend.backend()? {
            Backend::Local(store) => self.run_local(&store, printer),
            Backend::Cluster(connect) => self.run_cluster(&connect, printer),
            Backend::Remote(remote) => self.run_remote(&remote, printer),
        }
    }

    fn run_cluster(&self, connect: &Connect, printer: Printer) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.no_gc,
            "--no-gc is for local stores: the agent frees the space"
        );
        anyhow::ensure!(
            !self.dry_run,
            "--dry-run is for local stores: `uimgacc get -o json` shows what an image of a cluster has for itself"
        );
        let request = DeleteRequest {
            image: reference(&self.image)?,
            force: self.force,
        };
        let within = self.wait.within(PATIENCE);
        let text = run(connect, |cluster| async move {
            let image = cluster.delete(&request).await?;
            let Some(within) = within else {
                return Ok(format!("{} is being deleted", image.target_image));
            };
            let talk = ClusterProgress::new(printer);
            cluster.wait_deleted(&image, within, &talk).await?;
            Ok(match image.unique_bytes {
                Some(count) => format!(
                    "{} is deleted, about {} freed",
                    image.target_image,
                    bytes(count)
                ),
                None => format!("{} is deleted", image.target_image),
            })
        })?;
        printer.data(&text)?;
        Ok(())
    }

    fn run_local(&self, store: &StoreArgument, printer: Printer) -> anyhow::Result<()> {
        let reader = store.open()?;
        let image = find(&reader, &self.image)?;
        let target = image.target.clone();
        if self.dry_run {
            let freed = uimgacc_store::freed_by_deleting(&reader, &image)?;
            printer.data(&format!(
                "deleting {target} would give back {} of {}; others use the rest",
                bytes(freed),
                bytes(image.size)
            ))?;
            return Ok(());
        }
        let deleted = match uimgacc_store::delete(&reader, &target, self.force) {
            Err(error @ DeleteError::InUse { .. }) => {
                return Err(Refused::InUse(error.to_string()).into());
            }
            other => other?,
        };
        if self.no_gc {
            printer.data(&format!("{} is deleted", deleted.target))?;
            return Ok(());
        }
        let swept = match uimgacc_store::sweep(&reader, &SweepOptions::older_than(Duration::ZERO)) {
            // The image is gone, as was asked; what the lease holds is not known and stays.
            Err(SessionError::Read(error @ ReadError::BrokenLease { .. })) => {
                printer.data(&format!("{} is deleted", deleted.target))?;
                printer.say(&format!("its space is not freed: {error}"));
                return Ok(());
            }
            other => other.with_context(|| {
                format!("{} is deleted, but its space is not freed", deleted.target)
            })?,
        };
        printer.data(&format!(
            "{} is deleted, {} freed",
            deleted.target,
            bytes(swept.bytes)
        ))?;
        if !swept.held_by.is_empty() {
            printer.say(&format!(
                "space is freed later: {} took it into use just before (run `uimgacc store gc` when that has ended)",
                swept.held_by.join(", ")
            ));
        }
        if !swept.waiting_for.is_empty() {
            printer.say(&format!(
                "space is freed later: {} is at work on the store (run `uimgacc store gc` after it)",
                swept.waiting_for.join(", ")
            ));
        }
        Ok(())
    }
}
