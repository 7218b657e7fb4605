//! The `uimgacc` command: parses arguments, runs one verb, renders its error.

mod arguments;
mod backend;
mod check;
mod cluster;
mod colour;
mod completion;
mod config;
mod create;
mod delete;
mod disable;
mod enable;
mod exit;
mod get;
mod hint;
mod images;
mod man;
mod mount;
mod mount_state;
mod node;
mod profile;
mod registry;
mod remote;
mod status;
mod store;
mod umount;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use uimgacc_console::{Printer, render};

/// Starts containers from huge images in seconds.
///
/// `enable` sets up a cluster; `create` unpacks an image once into a store on a shared file system
/// and pushes a target image; nodes run the target image from the store, without download or unpack.
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
Examples, on a Kubernetes cluster:
  uimgacc enable --nfs 10.0.0.1:/export
  uimgacc create pytorch/pytorch:latest registry.example.com/pytorch:fast
  uimgacc get
  uimgacc status
Examples, on a store of this machine:
  uimgacc store init --store /mnt/store
  uimgacc create pytorch/pytorch:latest registry.local/pytorch:fast --store /mnt/store
  uimgacc mount registry.local/pytorch:fast /mnt/image --store /mnt/store

Examples, through the HTTP API:
  uimgacc config init
  uimgacc create pytorch/pytorch:latest registry.example.com/pytorch:fast
  uimgacc get --cluster-id uk8s-abc123

Where the verbs enable, create, get, delete and disable work: with --kubeconfig or --context on that
cluster; with --config or --cluster-id through the HTTP API; with --store (not enable, disable) on
that store. Without these the variables decide: UIMGACC_STORE a store, UIMGACC_CONFIG or
UIMGACC_BASE_URL the API; then the file of `uimgacc config path`, where it is there: the API; else
the cluster is that of KUBECONFIG, of ~/.kube/config, or of the Pod this runs in.

Exit codes: 0 done; 1 failed, or `check` and `status` found something wrong; 2 wrong usage;
3 `store verify`, `store repair` or `get` found a damaged store; 4 refused because somebody uses the
image; 5 not done in time; 130 interrupted.";

// A comment on a variant would stand in for all that its verb says of itself in --help.
#[derive(Debug, Subcommand)]
enum Verb {
    Enable(Box<enable::Enable>),
    Create(create::Create),
    Get(get::Get),
    Delete(delete::Delete),
    Disable(disable::Disable),
    Status(status::Status),
    Check(check::Check),
    /// Mount an accelerated image on a folder.
    Mount(mount::Mount),
    /// Undo `mount`.
    Umount(umount::Umount),
    /// Make, measure, check or clean a store.
    #[command(subcommand)]
    Store(store::Store),
    /// Record, show or drop what starts of an image read, so that nodes read it ahead.
    #[command(subcommand)]
    Profile(profile::Profile),
    /// Make this node use the snapshotter, or look what is wrong with it.
    #[command(subcommand)]
    Node(node::Node),
    #[command(subcommand)]
    Config(config::Config),
    /// Print a completion script for a shell.
    Completion(completion::Completion),
    /// Print the manual page, or write all of them to a folder.
    Man(man::Man),
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let printer = Printer::new(arguments.quiet);
    match arguments.verb {
        Verb::Enable(verb) => verb.run(printer),
        Verb::Create(verb) => verb.run(printer),
        Verb::Get(verb) => verb.run(printer),
        Verb::Delete(verb) => verb.run(printer),
        Verb::Disable(verb) => verb.run(printer),
        Verb::Status(verb) => verb.run(printer),
        Verb::Check(verb) => verb.run(printer),
        Verb::Mount(verb) => verb.run(printer),
        Verb::Umount(verb) => verb.run(printer),
        Verb::Store(verb) => verb.run(printer),
        Verb::Profile(verb) => verb.run(printer),
        Verb::Node(verb) => verb.run(printer),
        Verb::Config(verb) => verb.run(printer),
        Verb::Completion(verb) => verb.run(printer),
        Verb::Man(verb) => verb.run(printer),
    }
}

fn main() -> ExitCode {
    // That one repeats as a log line what is returned as an error.
    let filter = tracing_subscriber::EnvFilter::try_from_env("UIMGACC_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new("warn,rustls_platform_verifier=off")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let printer = Printer::new(false);
            printer.complain(&render(&error));
            if let Some(hint) = hint::hint(&error) {
                printer.complain(&format!("  hint: {hint}"));
            }
            ExitCode::from(exit::code(&error))
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
