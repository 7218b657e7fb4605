//! `uimgacc umount`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use uimgacc_console::Printer;
use uimgacc_store::Layout;

use crate::mount::clear;
use crate::mount_state::StateArgument;

/// Undo `uimgacc mount`; changes of a --read-write mount are dropped.
#[derive(Debug, Args)]
pub(crate) struct Umount {
    /// The folder.
    dir: PathBuf,
    #[command(flatten)]
    state: StateArgument,
}

impl Umount {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let target = std::fs::canonicalize(&self.dir)
            .with_context(|| format!("cannot find {}", self.dir.display()))?;
        let folder = self.state.folder(&target);
        let record = folder.load()?.with_context(|| {
            format!(
                "{} was not mounted by `uimgacc mount` (or with another --state)",
                target.display()
            )
        })?;
        // Whatever lies there: only then may the folder with the changes go.
        uimgacc_mount::unmount_all(&target)?;
        clear(&folder)?;
        if let Err(error) = uimgacc_store::remove_lease(&Layout::new(&record.store), &record.lease)
        {
            printer.say(&format!("the lease in the store stays: {error}"));
        }
        printer.say(&format!(
            "{} is no longer mounted at {}",
            record.image,
            target.display()
        ));
        Ok(())
    }
}
