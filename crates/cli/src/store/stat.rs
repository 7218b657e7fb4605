//! `uimgacc store stat`.

use clap::Args;
use uimgacc_console::{Printer, bytes};

use crate::arguments::{StoreArgument, TextOrJson};

/// Show how large the store is, and what for.
#[derive(Debug, Args)]
pub(crate) struct Stat {
    #[command(flatten)]
    store: StoreArgument,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Stat {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let stat = uimgacc_store::stat(&self.store.open()?)?;
        match self.output {
            TextOrJson::Json => printer.data(&serde_json::to_string_pretty(&stat)?)?,
            TextOrJson::Text => printer.data(&format!(
                "store          {}\n\
                 images         {} ({} unpacked)\n\
                 layers         {}\n\
                 packs          {} ({})\n\
                 contents       {} ({}), each stored once\n\
                 metadata       {}\n\
                 unreferenced   {} (`uimgacc store gc` frees it)\n\
                 leases         {}",
                stat.store_id,
                stat.images,
                bytes(stat.logical_bytes),
                stat.layers,
                stat.packs,
                bytes(stat.pack_bytes),
                stat.contents,
                bytes(stat.content_bytes),
                bytes(stat.metadata_bytes),
                bytes(stat.unreferenced_pack_bytes),
                stat.leases,
            ))?,
        }
        for error in &stat.unreadable {
            printer.say(&format!("not counted: {error}"));
        }
        Ok(())
    }
}
