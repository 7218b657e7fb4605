//! `uimgacc store gc`.

use std::time::Duration;

use clap::Args;
use uimgacc_console::{Printer, bytes};
use uimgacc_store::{Outcome, SweepOptions};

use crate::arguments::{StoreArgument, TextOrJson};

/// Remove what no image refers to, and give back the space of files that no image has any more.
///
/// Files of several images lie together in packs. Those that no image has any more become holes in their
/// pack, once at least a quarter of it or 256 MiB can be given back.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    #[command(flatten)]
    store: StoreArgument,
    /// Leave alone what is younger than so many seconds.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    grace: u64,
    /// Look at all packs, and give back whatever can be given back, however little it is.
    #[arg(long)]
    all: bool,
    /// Only show what would be removed and given back, by pack.
    #[arg(long)]
    dry_run: bool,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Gc {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let options = SweepOptions {
            grace: Duration::from_secs(self.grace),
            dry_run: self.dry_run,
            all: self.all,
        };
        let swept = uimgacc_store::sweep(&reader, &options)?;
        if self.output == TextOrJson::Json {
            printer.data(&serde_json::to_string_pretty(&swept)?)?;
            return Ok(());
        }
        if !swept.waiting_for.is_empty() {
            printer.say(&format!(
                "gc is not finished: {} is at work on the store; run gc again after it",
                swept.waiting_for.join(", ")
            ));
        }
        if !swept.kept_for.is_empty() {
            printer.say(&format!(
                "no space of single files was given back: they may still be read by {}",
                swept.kept_for.join("; ")
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
        for space in &swept.dead {
            let what = match space.outcome {
                Outcome::Freed => format!("{would}given back"),
                Outcome::TooLittle => "left, as it is too little (--all gives it back)".to_owned(),
                Outcome::Unsupported => "left, as the file system cannot give it back".to_owned(),
                Outcome::Damaged => {
                    "left, as an index names what is given up: run `uimgacc store verify`"
                        .to_owned()
                }
            };
            let line = format!("pack {}: {} {what}", space.pack, bytes(space.bytes));
            if self.dry_run {
                printer.data(&line)?;
            } else {
                printer.say(&line);
            }
        }
        printer.data(&format!(
            "{} files {would}removed, {} {would}freed",
            swept.files,
            bytes(swept.bytes)
        ))?;
        Ok(())
    }
}
