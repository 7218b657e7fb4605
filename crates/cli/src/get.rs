//! `uimgacc get`.

mod cluster;
mod remote;

use std::ops::ControlFlow;

use clap::Args;
use comfy_table::Table;
use serde::Serialize;
use uimgacc_console::{Printer, bytes};
use uimgacc_control::ImageProfile;
use uimgacc_types::with_causes;

use crate::arguments::{StoreArgument, TableFormat, print};
use crate::backend::{Backend, BackendArguments};
use crate::exit::Refused;
use crate::images::{ImageView, find};

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
    backend: BackendArguments,
}

impl Get {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self.backend.backend()? {
            Backend::Local(store) => self.run_local(&store, printer),
            Backend::Cluster(connect) => self.run_cluster(&connect, printer),
            Backend::Remote(remote) => self.run_remote(&remote, printer),
        }
    }

    fn run_local(&self, store: &StoreArgument, printer: Printer) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.watch,
            "--watch needs a cluster or the HTTP API, not a local store"
        );
        let reader = store.open()?;
        let images = reader.all_images()?;
        let records = match &self.image {
            Some(image) => vec![find(&reader, image)?],
            None => images.readable.clone(),
        };
        if records.is_empty() && images.broken.is_empty() && self.output == TableFormat::Table {
            printer.say("no images; `uimgacc create` makes one");
            return Ok(());
        }
        let views: Vec<_> = records
            .iter()
            .map(|record| ImageView::new(&reader, record))
            .collect();
        let problems = images.broken.iter();
        let problems: Vec<String> = problems.map(|error| with_causes(error)).collect();
        let mut all = serde_json::json!({ "Images": views });
        if !problems.is_empty() {
            all["Problems"] = serde_json::json!(problems);
        }
        print(printer, self.output, &all, || {
            let mut table = Table::new();
            table.load_style(comfy_table::presets::NOTHING).set_header([
                "ORIGINAL IMAGE",
                "TARGET IMAGE",
                "SIZE",
                "LAYERS",
                "PROFILE",
                "PUSHED",
                "CREATED",
            ]);
            for (record, view) in records.iter().zip(&views) {
                table.add_row([
                    record.original.clone(),
                    record.target.clone(),
                    bytes(record.size),
                    record.diff_ids.len().to_string(),
                    profile(view.profile.as_ref()),
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
        })?;
        // An image that was asked for by its name is there all the same.
        if problems.is_empty() || self.image.is_some() {
            return Ok(());
        }
        for problem in &problems {
            printer.complain(problem);
        }
        Err(Refused::Damaged(problems.len()).into())
    }
}

/// How much a start is known to read.
fn profile(profile: Option<&ImageProfile>) -> String {
    profile.map_or_else(|| "-".to_owned(), |profile| bytes(profile.bytes))
}

/// A change of an image, as a line of `--watch`.
struct Line<'l> {
    image: &'l str,
    state: &'l str,
    error: &'l str,
    is_gone: bool,
}

impl Line<'_> {
    /// In that format; of `view` where it is for machines.
    fn of(&self, view: &impl Serialize, output: TableFormat) -> anyhow::Result<String> {
        if output == TableFormat::Table {
            let state = if self.is_gone { "Deleted" } else { self.state };
            let line = format!("{state:<20} {} {}", self.image, self.error);
            return Ok(line.trim_end().to_owned());
        }
        let whole = Whole {
            view,
            deleted: self.is_gone,
        };
        Ok(match output {
            TableFormat::Yaml => format!("---\n{}", serde_norway::to_string(&whole)?),
            _ => serde_json::to_string(&whole)?,
        })
    }
}

#[derive(Serialize)]
struct Whole<'l, V: Serialize> {
    #[serde(flatten)]
    view: &'l V,
    #[serde(rename = "Deleted", skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

/// Prints a line of a watch, which ends where that fails.
fn show(
    printer: Printer,
    line: anyhow::Result<String>,
    failure: &mut Option<anyhow::Error>,
) -> ControlFlow<()> {
    match line.and_then(|line| Ok(printer.data(&line)?)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *failure = Some(error);
            ControlFlow::Break(())
        }
    }
}
