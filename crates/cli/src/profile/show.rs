//! `uimgacc profile show`.

use clap::Args;
use uimgacc_console::Printer;

use super::{ProfileView, existing};
use crate::arguments::{StoreArgument, TextFormat, print};
use crate::images::find;

/// Show what is known of the starts of an image.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Target (or original) image.
    image: String,
    #[command(flatten)]
    store: StoreArgument,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,
}

impl Show {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let store = self.store.open()?;
        let image = find(&store, &self.image)?;
        let view = ProfileView::new(&image, &existing(&store, &image)?);
        print(printer, self.output, &view, || view.text())
    }
}
