//! `uimgacc profile drop`.

use clap::Args;
use uimgacc_console::Printer;
use uimgacc_store::Session;

use crate::arguments::StoreArgument;
use crate::images::find;

/// Remove the profile of an image: nodes read nothing of it ahead any more.
#[derive(Debug, Args)]
pub(crate) struct Drop {
    /// Target (or original) image.
    image: String,
    #[command(flatten)]
    store: StoreArgument,
}

impl Drop {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let store = self.store.open()?;
        let image = find(&store, &self.image)?;
        let was_there = Session::begin(store)?.drop_profile(image.chain_id)?;
        printer.say(&if was_there {
            format!("the profile of {} is removed", image.target)
        } else {
            format!("{} has no profile", image.target)
        });
        Ok(())
    }
}
