//! `uimgacc-agent work`: one Job's work on the store.
//!
//! The controller never touches the store; it starts a Job for each piece of work. A Job says how
//! far it is, and what came of it, in the status of the object that it works for; why it failed
//! stands in its termination message (see [`failure`]). It never writes phases or conditions: these
//! are the controller's.
//!
//! Guarantees: every piece of work can be repeated, and goes on where one that was killed ended.

mod cluster_id;
mod convert;
mod delete;
pub mod failure;
mod hint;
mod init;
mod leases;
mod presence;
mod profiles;
mod progress;
mod report;
mod retry;
mod sweep;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use uimgacc_mount::nfs::{DetachedMount, MountTimeouts};
use uimgacc_store::StoreReader;
use uimgacc_types::StoreSource;

use failure::Failure;
use presence::Presence;

/// Options.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    work: JobCommand,
    /// The store: a folder, or nfs://SERVER[,SERVER]/PATH?OPTIONS, which is mounted in no folder
    #[arg(
        long,
        global = true,
        env = "UIMGACC_STORE",
        value_name = "STORE",
        default_value = "/store"
    )]
    store: String,
    /// Where the reason of a failure is written for the controller
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/dev/termination-log"
    )]
    termination_log: PathBuf,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// Bring an image into the store and push its target image
    Convert(convert::Options),
    /// Delete an image from the store and free its space
    Delete(delete::Options),
    /// Free the space of what nothing refers to, and count the store
    Sweep(sweep::Options),
    /// Take what nodes recorded of first starts, and write the profiles of their images
    Profiles,
    /// Write what nodes hold as leases into the store, and remove those of nodes that hold nothing
    Leases,
    /// Make the store, and prove that it can be written
    Init,
}

/// Does the work.
///
/// # Errors
/// What could not be done; also written as the termination message.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let done = tokio::select! {
        done = work(&options) => done,
        // No termination message: the controller then knows that the Job was cut short.
        _ = terminate.recv() => anyhow::bail!("stopped; the same work goes on where it was"),
    };
    done.map_err(|failure| {
        if let Err(error) = std::fs::write(&options.termination_log, failure.message()) {
            tracing::warn!(path = %options.termination_log.display(), %error, "cannot tell the controller why");
        }
        failure.into()
    })
}

async fn work(options: &Options) -> Result<(), Failure> {
    let folder = folder(&options.store).await?;
    let root = folder.path();
    if matches!(options.work, JobCommand::Init) {
        let store = blocking(move || init::run(&root)).await?;
        let client = client().await?;
        // Before any node takes something.
        leases::write(&client, &store).await?;
        return report::store(&client, &store).await;
    }
    let store = blocking(move || StoreReader::open(&root).map_err(Failure::retried)).await?;
    let client = client().await?;
    let presence = Presence::new(&client).await?;
    let store = match presence.actor() {
        Some(actor) => store.acting_as(&actor),
        None => store,
    };
    let work = async {
        match &options.work {
            JobCommand::Convert(options) => convert::run(&client, &store, options).await,
            JobCommand::Delete(options) => delete::run(&client, &store, options).await,
            JobCommand::Sweep(options) => sweep::run(&client, &store, options).await,
            JobCommand::Profiles => profiles::run(&client, &store).await,
            JobCommand::Leases => leases::release(&client, &store).await,
            JobCommand::Init => Ok(()),
        }
    };
    tokio::select! {
        done = work => done,
        () = presence.clear_gone(&client, &store) => Ok(()),
    }
}

/// Where the store is for this process, as long as this value lives.
enum Folder {
    Path(PathBuf),
    Mounted(DetachedMount),
}

impl Folder {
    fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Mounted(mount) => mount.path(),
        }
    }
}

/// The store's folder; an NFS export is mounted for this process alone.
async fn folder(store: &str) -> Result<Folder, Failure> {
    match store.parse::<StoreSource>().map_err(Failure::final_)? {
        StoreSource::Folder(path) => Ok(Folder::Path(path)),
        StoreSource::Nfs(source) => {
            let mounted = blocking(move || {
                DetachedMount::make_writable(&source, MountTimeouts::default())
                    .map_err(Failure::retried)
            });
            Ok(Folder::Mounted(mounted.await?))
        }
    }
}

async fn client() -> Result<Client, Failure> {
    Client::try_default().await.map_err(Failure::retried)
}

/// Runs work that waits for disks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|lost| Err(Failure::retried(lost)))
}
