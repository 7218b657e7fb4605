//! `uimgacc config ...`.

mod ask;
mod init;
mod path;
mod show;

use clap::Subcommand;
use uimgacc_console::Printer;

/// Tell the verbs where the HTTP API is, and who you are there.
#[derive(Debug, Subcommand)]
#[command(after_help = VARIABLES)]
pub(crate) enum Config {
    Init(init::Init),
    Show(show::Show),
    Path(path::Path),
}

pub(crate) const VARIABLES: &str = "\
The file is UIMGACC_CONFIG, else $XDG_CONFIG_HOME/uimgacc/config.toml, else
~/.config/uimgacc/config.toml. Variables go before it: UIMGACC_REGION, UIMGACC_PROJECT_ID,
UIMGACC_PUBLIC_KEY, UIMGACC_PRIVATE_KEY, UIMGACC_CLUSTER_ID, UIMGACC_SUBNET_ID, UIMGACC_NFS_ADDR,
UIMGACC_UHUB_USERNAME, UIMGACC_UHUB_PASSWORD, UIMGACC_BASE_URL.";

impl Config {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self {
            Self::Init(verb) => verb.run(printer),
            Self::Show(verb) => verb.run(printer),
            Self::Path(verb) => verb.run(printer),
        }
    }
}
