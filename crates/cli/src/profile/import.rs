//! `uimgacc profile import`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use uimgacc_console::Printer;
use uimgacc_store::Session;

use super::{ProfileView, publish, read_file};
use crate::arguments::StoreArgument;
use crate::images::find;

/// Give an image the profile that `profile export` wrote, in place of its own.
///
/// It may come from another image: files that are the same in both are taken over.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Target (or original) image.
    image: String,
    /// What `profile export` wrote.
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgument,
}

impl Import {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let store = self.store.open()?;
        let image = find(&store, &self.image)?;
        let session = Session::begin(store)?;
        let profile = publish(&session, read_file(&session, &image, &self.file)?, true)?;
        printer.say(&ProfileView::new(&image, &profile).text());
        Ok(())
    }
}
