//! `uimgacc store verify`.

use clap::Args;
use uimgacc_console::{Printer, bytes};
use uimgacc_store::{DeleteError, VerifyOptions};
use uimgacc_types::ImageReference;

use crate::arguments::{StoreArgument, TextOrJson};
use crate::exit::Refused;
use crate::store::show_checked;

/// Read the store again and check every hash. Exits with 3 where something is wrong.
///
/// `uimgacc store repair` brings back what is damaged.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    store: StoreArgument,
    /// Check records, tables and indexes only, not the contents themselves.
    #[arg(long)]
    metadata_only: bool,
    /// Check the contents only of so many in a hundred parts of the packs, chosen by chance.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "metadata_only")]
    sample: Option<f64>,
    /// Check only what this accelerated image needs.
    #[arg(long, value_name = "TARGET")]
    image: Option<ImageReference>,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Verify {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let image = match &self.image {
            None => None,
            Some(target) => {
                let target = target.to_string();
                let image = reader.image(&target)?;
                Some(image.ok_or(DeleteError::NoImage(target))?)
            }
        };
        let options = VerifyOptions {
            metadata_only: self.metadata_only,
            sample_percent: self.sample,
            image,
        };
        let report = uimgacc_store::verify(&reader, &options, &mut show_checked(printer))?;
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

/// More than 0 and at most 100; a percent sign may follow.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    match number {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("a number above 0 and up to 100 is needed".to_owned()),
    }
}
