//! `uimgacc delete`.

use std::time::Duration;

use clap::Args;
use uimgacc_console::{Printer, bytes};
use uimgacc_store::DeleteError;

use crate::arguments::StoreArgument;
use crate::exit::Refused;
use crate::images::find;

/// Delete an accelerated image from the store and free what only it needs.
///
/// The target image in the registry stays: it is a normal image and goes on working without the
/// store. An image that a node has mounted is refused, with the names of who holds it.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Target image.
    image: String,
    #[command(flatten)]
    store: StoreArgument,
    /// Delete even if somebody has it mounted: their containers then fail to read.
    #[arg(long)]
    force: bool,
    /// Leave the space to the next `store gc`.
    #[arg(long)]
    no_gc: bool,
}

impl Delete {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let target = find(&reader, &self.image)?.target;
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
        let swept = uimgacc_store::sweep(&reader, Duration::ZERO, false)?;
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
