//! `uimgacc get`.

mod cluster;
mod remote;

use clap::Args;
use comfy_table::Table;
use uimgacc_console::{Printer, bytes};

use crate::arguments::{StoreArgument, TableFormat, print};
use crate::images::{ImageView, find};
use crate::place::{Place, PlaceArguments};

/// Show the accelerated images, or one of them.
///
/// On a cluster -o json and yaml also say how the cluster is: Enable, NfsReady, AgentReady, Status,
/// Error, Images and NfsAddr, as the API has them, and more; through the HTTP API its answer is printed
/// as it came.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Target (or original) image; all where left out.
    image: Option<String>,
    /// Go on and show each change; not of a local store. With -o json one object a line.
    ///
    /// The HTTP API is asked every two seconds.
    #[arg(long, short)]
    watch: bool,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TableFormat::Table)]
    output: TableFormat,
    #[command(flatten)]
    place: PlaceArguments,
}

impl Get {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self.place.place()? {
            Place::Local(store) => self.run_local(&store, printer),
            Place::Cluster(connect) => self.run_cluster(&connect, printer),
            Place::Remote(remote) => self.run_remote(&remote, printer),
        }
    }

    fn run_local(&self, store: &StoreArgument, printer: Printer) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.watch,
            "--watch needs a cluster or the HTTP API, not a local store"
        );
        let reader = store.open()?;
        let records = match &self.image {
            Some(image) => vec![find(&reader, image)?],
            None => reader.images()?,
        };
        if records.is_empty() && self.output == TableFormat::Table {
            printer.say("no images; `uimgacc create` makes one");
            return Ok(());
        }
        let views = records
            .iter()
            .map(|record| ImageView::new(&reader, record))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let all = serde_json::json!({ "Images": views });
        print(printer, self.output, &all, || {
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
            table.trim_fmt()
        })
    }
}
