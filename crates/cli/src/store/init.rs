//! `uimgacc store init`.

use clap::Args;
use uimgacc_console::Printer;

use crate::arguments::StoreArgument;

/// Make a store in a directory; where there is one, it stays as it is.
#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    store: StoreArgument,
    /// Let nodes that cannot write to the store use it.
    ///
    /// Such a node cannot say which images it has in use. So `delete` does not refuse to delete them, and only
    /// whole packs are removed: the space of single files in packs that other images share is never given back.
    /// Can be set on a store that is there. Before it is unset by =false, no such node may have an image of the
    /// store mounted: its containers would read zeros.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    unleased_readers: Option<bool>,
}

impl Init {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let (reader, is_new) = uimgacc_store::init(&self.store.root)?;
        if let Some(allow) = self.unleased_readers {
            uimgacc_store::allow_unleased_readers(&reader, allow)?;
        }
        let how = if is_new { "is ready" } else { "was there" };
        printer.data(&format!(
            "store {} {how} in {}",
            reader.store_id(),
            self.store.root.display()
        ))?;
        Ok(())
    }
}
