//! `uimgacc store init`.

use clap::Args;
use uimgacc_console::Printer;

use crate::arguments::StoreArgument;

/// Make a store in a folder; does nothing where there is one.
#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    store: StoreArgument,
}

impl Init {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let (reader, is_new) = uimgacc_store::init(&self.store.root)?;
        let how = if is_new { "is ready" } else { "was there" };
        printer.data(&format!(
            "store {} {how} in {}",
            reader.store_id(),
            self.store.root.display()
        ))?;
        Ok(())
    }
}
