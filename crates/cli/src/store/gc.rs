//! `uimgacc store gc`.

use std::time::Duration;

use clap::Args;
use uimgacc_console::{Printer, bytes};

use crate::arguments::{StoreArgument, TextOrJson};

/// Remove what no image refers to.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    #[command(flatten)]
    store: StoreArgument,
    /// Leave alone what is younger than so many seconds.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    grace: u64,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Gc {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let swept = uimgacc_store::sweep(&reader, Duration::from_secs(self.grace), self.dry_run)?;
        if self.output == TextOrJson::Json {
            printer.data(&serde_json::to_string_pretty(&swept)?)?;
            return Ok(());
        }
        if !swept.waiting_for.is_empty() {
            printer.say(&format!(
                "nothing was removed: {} is at work on the store; run gc again after it",
                swept.waiting_for.join(", ")
            ));
        }
        if !swept.held_by.is_empty() {
            printer.say(&format!(
                "what {} still uses stays, though no image needs it",
                swept.held_by.join(", ")
            ));
        }
        for path in &swept.left_alone {
            printer.say(&format!(
                "{} is not a regular file, so it is not the store's: it stays; move it away",
                path.display()
            ));
        }
        let would = if self.dry_run { "would be " } else { "" };
        printer.data(&format!(
            "{} files {would}removed, {} {would}freed",
            swept.files,
            bytes(swept.bytes)
        ))?;
        Ok(())
    }
}
