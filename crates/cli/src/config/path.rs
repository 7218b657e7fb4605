//! `uimgacc config path`.

use anyhow::Context as _;
use clap::Args;
use uimgacc_console::Printer;

use crate::arguments::ConfigArgument;

/// Print where the configuration file is, whether it is there or not.
#[derive(Debug, Args)]
pub(crate) struct Path {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Path {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        printer.data(&path(&self.config)?.display().to_string())?;
        Ok(())
    }
}

/// Where the file is.
pub(super) fn path(config: &ConfigArgument) -> anyhow::Result<std::path::PathBuf> {
    config
        .path()
        .context("no place for the configuration: HOME is not set; name a file by --config")
}
