//! The `uimgacc` command: parses arguments, runs one verb, renders its error.

mod arguments;
mod completion;
mod create;
mod delete;
mod exit;
mod get;
mod images;
mod mount;
mod mount_state;
mod node;
mod store;
mod umount;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use uimgacc_console::{Printer, render};

use crate::exit::Refused;

/// Starts containers from huge images in seconds.
///
/// `create` unpacks an image once into a store on a shared file system and pushes a target image;
/// nodes with the snapshotter run the target image from the store, without download or unpack.
#[derive(Debug, Parser)]
#[command(name = "uimgacc", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Print data and errors only.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  uimgacc store init --store /mnt/store
  uimgacc create pytorch/pytorch:latest registry.local/pytorch:fast --store /mnt/store
  uimgacc get --store /mnt/store
  uimgacc mount registry.local/pytorch:fast /mnt/image --store /mnt/store

UIMGACC_STORE stands in for --store.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 `store verify` found damage; 4 refused because
somebody uses the image; 130 interrupted.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring an image into the store and push its target image.
    Create(create::Create),
    /// Show the accelerated images, or one of them.
    Get(get::Get),
    /// Delete an accelerated image from the store.
    Delete(delete::Delete),
    /// Mount an accelerated image on a folder.
    Mount(mount::Mount),
    /// Undo `mount`.
    Umount(umount::Umount),
    /// Make, measure, check or clean a store.
    #[command(subcommand)]
    Store(store::Store),
    /// Make this node use the snapshotter, or look what is wrong with it.
    #[command(subcommand)]
    Node(node::Node),
    /// Print a completion script for a shell.
    Completion(completion::Completion),
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let printer = Printer::new(arguments.quiet);
    match arguments.verb {
        Verb::Create(verb) => verb.run(printer),
        Verb::Get(verb) => verb.run(printer),
        Verb::Delete(verb) => verb.run(printer),
        Verb::Mount(verb) => verb.run(printer),
        Verb::Umount(verb) => verb.run(printer),
        Verb::Store(verb) => verb.run(printer),
        Verb::Node(verb) => verb.run(printer),
        Verb::Completion(verb) => verb.run(printer),
    }
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("UIMGACC_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Printer::new(false).complain(&render(&error));
            error
                .downcast_ref::<Refused>()
                .map_or(ExitCode::FAILURE, |refused| ExitCode::from(refused.code()))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_sound() {
        super::Arguments::command().debug_assert();
    }
}
