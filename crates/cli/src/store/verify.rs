//! `uimgacc store verify`.

use std::time::Instant;

use clap::Args;
use uimgacc_console::{Printer, bytes};

use crate::arguments::{StoreArgument, TextOrJson};
use crate::exit::Refused;

/// Read the whole store again and check every hash. Exits with 3 where something is wrong.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    store: StoreArgument,
    /// Check records, tables and indexes only, not the contents themselves.
    #[arg(long)]
    metadata_only: bool,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Verify {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let mut last = Instant::now();
        let report = uimgacc_store::verify(&reader, self.metadata_only, &mut |done| {
            if last.elapsed().as_secs() >= 5 {
                last = Instant::now();
                printer.say(&format!("{} checked", bytes(done)));
            }
        })?;
        match self.output {
            TextOrJson::Json => printer.data(&serde_json::to_string_pretty(&report)?)?,
            TextOrJson::Text => {
                for problem in &report.problems {
                    printer.data(&format!("{}: {}", problem.path.display(), problem.what))?;
                }
                printer.data(&format!(
                    "checked {} images, {} indexes, {} packs, {} contents ({}): {}",
                    report.images,
                    report.indexes,
                    report.packs,
                    report.contents,
                    bytes(report.bytes),
                    if report.problems.is_empty() {
                        "clean"
                    } else {
                        "DAMAGED"
                    },
                ))?;
            }
        }
        match report.problems.len() {
            0 => Ok(()),
            count => Err(Refused::Damaged(count).into()),
        }
    }
}
