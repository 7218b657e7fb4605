//! `uimgacc store stat`.

use std::fmt::Write as _;

use clap::Args;
use uimgacc_console::{Printer, bytes};

use crate::arguments::{StoreArgument, TextOrJson};

/// Show how large the store is, and what for.
///
/// Reads all tables and indexes. *Dead* is what files take that no image has any more, in packs with files of
/// other images; `uimgacc store gc` gives it back once it is enough, `gc --all` at once.
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
            TextOrJson::Text => printer.data(&text(&stat))?,
        }
        for error in &stat.unreadable {
            printer.say(&format!("not counted: {error}"));
        }
        Ok(())
    }
}

fn text(stat: &uimgacc_store::Stat) -> String {
    let physical = stat.physical_bytes.map(bytes);
    let mut text = format!(
        "store          {}\n\
         images         {} ({} unpacked)\n\
         layers         {}\n\
         packs          {} ({})\n\
         contents       {} ({}), each stored once\n\
         dead           {} (`uimgacc store gc` gives it back)\n\
         given back     {}\n\
         unreferenced   {} (`uimgacc store gc` frees it)\n\
         metadata       {}\n\
         on the disk    {}\n\
         leases         {}",
        stat.store_id,
        stat.images,
        bytes(stat.logical_bytes),
        stat.layers,
        stat.packs,
        bytes(stat.pack_bytes),
        stat.contents,
        bytes(stat.content_bytes),
        bytes(stat.dead_bytes),
        bytes(stat.freed_bytes),
        bytes(stat.unreferenced_pack_bytes),
        bytes(stat.metadata_bytes),
        physical
            .as_deref()
            .unwrap_or("unknown: the file system does not say"),
        stat.leases,
    );
    for image in &stat.image_space {
        let _ = write!(
            text,
            "\n{}: {} of its own, {} shared",
            image.target,
            bytes(image.own_bytes),
            bytes(image.shared_bytes)
        );
    }
    text
}
