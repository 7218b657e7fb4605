//! `uimgacc profile export`.

use clap::Args;
use uimgacc_console::Printer;

use super::existing;
use crate::arguments::StoreArgument;
use crate::images::find;

/// Print the profile of an image as JSON: each file, and which of its pages a start reads.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Target (or original) image.
    image: String,
    #[command(flatten)]
    store: StoreArgument,
}

impl Export {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let store = self.store.open()?;
        let image = find(&store, &self.image)?;
        let profile = existing(&store, &image)?;
        printer.data(&serde_json::to_string(&profile)?)?;
        Ok(())
    }
}
