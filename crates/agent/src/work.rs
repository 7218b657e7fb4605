//! `uimgacc-agent work`.

use clap::Args;

/// Options.
#[derive(Debug, Args)]
pub struct Options {}

/// Runs until it is told to stop.
///
/// # Errors
/// What could not be done.
pub async fn run(_: Options) -> anyhow::Result<()> {
    Ok(())
}
