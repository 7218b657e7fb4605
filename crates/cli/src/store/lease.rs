//! `uimgacc store lease`.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Serialize;
use uimgacc_console::Printer;
use uimgacc_store::{ImageRecord, LeaseFile, drop_lease, lease_files};
use uimgacc_types::{ChainId, chain_ids, with_causes};

use crate::arguments::{StoreArgument, TableFormat, print};

/// Show who uses what of a store, or drop the lease of a holder that is gone.
#[derive(Debug, Subcommand)]
pub(crate) enum Lease {
    List(List),
    Drop(Drop),
}

/// Show the leases of a store, also those that cannot be read.
///
/// A lease keeps `delete` and `store gc` from removing what its holder uses. It ends when the holder
/// takes it away, or when it is dropped.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    store: StoreArgument,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TableFormat::Table)]
    output: TableFormat,
}

/// Remove a lease whose holder is gone, or that cannot be read.
///
/// Afterwards `delete` and `store gc` may remove what it held: containers that still use it fail to
/// read.
#[derive(Debug, Args)]
pub(crate) struct Drop {
    /// The lease, as `store lease list` names it.
    name: String,
    /// Drop it even if it was renewed within the last ten minutes.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    store: StoreArgument,
}

impl Lease {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self {
            Self::List(verb) => verb.run(printer),
            Self::Drop(verb) => verb.run(printer),
        }
    }
}

/// A lease as people and machines see it.
#[derive(Debug, Serialize)]
struct View {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// Seconds since the last renewal.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Whether it keeps anything: one that cannot be read keeps all.
    holds: bool,
    chains: Vec<String>,
    images: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl View {
    fn new(file: LeaseFile, images: &[ImageRecord]) -> Self {
        let age = file.written.map(|written| {
            SystemTime::now()
                .duration_since(written)
                .unwrap_or_default()
        });
        let mut view = Self {
            name: file.name,
            holder: None,
            host: None,
            pid: None,
            age_seconds: age.map(|age| age.as_secs()),
            holds: true,
            chains: Vec::new(),
            images: Vec::new(),
            error: None,
        };
        match file.lease {
            Ok(lease) => {
                view.holds = lease.holds();
                view.chains = lease.chains.iter().map(ChainId::to_string).collect();
                view.images = images
                    .iter()
                    .filter(|image| {
                        let chains = chain_ids(&image.diff_ids);
                        chains.iter().any(|chain| lease.chains.contains(chain))
                    })
                    .map(|image| image.target.clone())
                    .collect();
                view.holder = Some(lease.holder);
                view.host = Some(lease.host).filter(|host| !host.is_empty());
                view.pid = lease.pid;
            }
            Err(error) => view.error = Some(causes(&error)),
        }
        view
    }

    fn what(&self) -> String {
        if self.error.is_some() {
            return "unknown: it cannot be read".to_owned();
        }
        if self.images.is_empty() {
            return format!("{} chains of no image", self.chains.len());
        }
        self.images.join(", ")
    }

    fn row(&self) -> [String; 5] {
        [
            self.name.clone(),
            self.holder.clone().unwrap_or_else(|| "unknown".to_owned()),
            self.age_seconds
                .map_or_else(|| "unknown".to_owned(), |age| format!("{} ago", rough(age))),
            if self.holds { "yes" } else { "no" }.to_owned(),
            self.what(),
        ]
    }
}

/// An age in its largest unit.
fn rough(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86400, "d"),
    };
    format!("{count} {unit}")
}

/// What made it unreadable; the error itself says what to do, for those who were not looking.
fn causes(error: &uimgacc_store::ReadError) -> String {
    let error: &dyn std::error::Error = error;
    error.source().map(with_causes).unwrap_or_default()
}

impl List {
    fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let files = lease_files(reader.layout())?;
        let images = reader.images().unwrap_or_else(|error| {
            printer.say(&format!("images are not shown: {error}"));
            Vec::new()
        });
        let views: Vec<View> = files
            .into_iter()
            .map(|file| View::new(file, &images))
            .collect();
        if views.is_empty() && self.output == TableFormat::Table {
            printer.say("no leases: nobody uses an image of this store");
            return Ok(());
        }
        print(
            printer,
            self.output,
            &serde_json::json!({ "leases": views }),
            || {
                let mut table = Table::new();
                table
                    .load_style(comfy_table::presets::NOTHING)
                    .set_header(["NAME", "HOLDER", "RENEWED", "HOLDS", "IMAGES"]);
                for view in &views {
                    table.add_row(view.row());
                }
                table.trim_fmt()
            },
        )?;
        for view in &views {
            if let Some(error) = &view.error {
                printer.say(&format!(
                    "{}: {error}. Once nothing uses it: `uimgacc store lease drop {}`",
                    view.name, view.name
                ));
            }
        }
        Ok(())
    }
}

impl Drop {
    fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let images = reader.images().unwrap_or_default();
        let dropped = drop_lease(reader.layout(), &self.name, self.force)?;
        let view = View::new(dropped, &images);
        let holder = view.holder.as_deref().unwrap_or("an unknown holder");
        printer.data(&format!(
            "dropped the lease {} of {holder}; it {} {}",
            view.name,
            if view.holds { "held" } else { "no longer held" },
            view.what()
        ))?;
        Ok(())
    }
}
