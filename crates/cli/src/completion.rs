//! `uimgacc completion`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use uimgacc_console::Printer;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example: source <(uimgacc completion bash)")]
pub(crate) struct Completion {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut crate::Arguments::command(),
            "uimgacc",
            &mut script,
        );
        printer.data(&String::from_utf8_lossy(&script))?;
        Ok(())
    }
}
