//! `uimgacc store`.

mod gc;
mod init;
mod lease;
mod repair;
mod stat;
mod verify;

use std::time::Instant;

use clap::Subcommand;
use uimgacc_console::{Printer, bytes};

/// Make, measure, check or clean a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Make a store in a folder; does nothing where there is one.
    Init(init::Init),
    /// Show how large the store is, and what for.
    Stat(stat::Stat),
    /// Read the whole store again and check every hash.
    Verify(verify::Verify),
    /// Repair what is damaged, with the help of the registry.
    Repair(repair::Repair),
    /// Remove what no image refers to.
    Gc(gc::Gc),
    /// Show who uses what of a store, or drop the lease of a holder that is gone.
    #[command(subcommand)]
    Lease(lease::Lease),
}

impl Store {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self {
            Self::Init(verb) => verb.run(printer),
            Self::Stat(verb) => verb.run(printer),
            Self::Verify(verb) => verb.run(printer),
            Self::Repair(verb) => verb.run(printer),
            Self::Gc(verb) => verb.run(printer),
            Self::Lease(verb) => verb.run(printer),
        }
    }
}

/// Shows every five seconds how many bytes were checked.
fn show_checked(printer: Printer) -> impl FnMut(u64) + Send + 'static {
    let mut last = Instant::now();
    move |done| {
        if last.elapsed().as_secs() >= 5 {
            last = Instant::now();
            printer.say(&format!("{} checked", bytes(done)));
        }
    }
}
