//! `uimgacc get`.

use clap::Args;
use comfy_table::Table;
use uimgacc_console::{Printer, bytes};

use crate::arguments::{StoreArgument, TableOrJson};
use crate::images::{ImageView, find};

/// Show the accelerated images, or one of them.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Target (or original) image; all where left out.
    image: Option<String>,
    #[command(flatten)]
    store: StoreArgument,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TableOrJson::Table)]
    output: TableOrJson,
}

impl Get {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let records = match &self.image {
            Some(image) => vec![find(&reader, image)?],
            None => reader.images()?,
        };
        match self.output {
            TableOrJson::Json => {
                let views = records
                    .iter()
                    .map(|record| ImageView::new(&reader, record))
                    .collect::<anyhow::Result<Vec<_>>>()?;
                printer.data(&serde_json::to_string_pretty(
                    &serde_json::json!({ "Images": views }),
                )?)?;
            }
            TableOrJson::Table => {
                if records.is_empty() {
                    printer.say("no images; `uimgacc create` makes one");
                    return Ok(());
                }
                let mut table = Table::new();
                table.load_style(comfy_table::presets::NOTHING).set_header([
                    "ORIGINAL IMAGE",
                    "TARGET IMAGE",
                    "SIZE",
                    "LAYERS",
                    "PUSHED",
                    "CREATED",
                ]);
                for record in &records {
                    table.add_row([
                        record.original.clone(),
                        record.target.clone(),
                        bytes(record.size),
                        record.diff_ids.len().to_string(),
                        if record.target_digest.is_some() {
                            "yes"
                        } else {
                            "no"
                        }
                        .to_owned(),
                        record.created.clone(),
                    ]);
                }
                printer.data(&table.trim_fmt())?;
            }
        }
        Ok(())
    }
}
