//! The socket, and a life from start to stop.
//!
//! Guarantees: one process at a time works on a folder (an exclusive lock on `root/lock`); a
//! socket that a dead process left is replaced. A socket that systemd or our supervisor hands down
//! is used as it is and stays theirs. The service answers before anything is recovered.
//! When it stops, requests under way get [`DRAIN`] to finish; nothing is unmounted or deleted.

use std::fs::{self, File, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use uimgacc_types::with_causes;

use crate::chains::Busy;
use crate::error::Error;
use crate::node::{Node, NodeSettings};
use crate::service::Service;
use crate::status;
use uimgacc_containerd_api::snapshots::snapshots_server::SnapshotsServer;

/// How long requests may go on after a stop was asked for.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// Why the daemon could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process has the folder.
    #[error("another snapshotter works in {0}; stop it first, or name another --root")]
    Locked(PathBuf),
    /// The folder or its database cannot be used.
    #[error(transparent)]
    Node(#[from] Error),
    /// No socket.
    #[error("cannot listen on {address}")]
    Listen {
        /// The socket's path.
        address: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The database failed and cannot be opened again: a new process may be able to.
    #[error("the database of snapshots is lost for this process; see the log")]
    Broken,
    /// The server failed.
    #[error("the gRPC server failed")]
    Server(#[from] tonic::transport::Error),
}

/// Serves until `stop` is done, on the socket that was handed down if one was. The status is served at
/// `status_address`, where that socket can be made: containers matter more. `ready` is called when
/// requests can come.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    settings: NodeSettings,
    address: &Path,
    inherited: Option<StdUnixListener>,
    status_address: &Path,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let _lock = lock(&settings.root)?;
    let node = Arc::new(Node::open(settings)?);
    // Ends all of them with this function.
    let mut background = JoinSet::new();
    // First: who sees the other socket finds this one too.
    let has_status = match bind(status_address).and_then(into_tokio) {
        Ok(listener) => {
            let node = node.clone();
            background.spawn(async move {
                if let Err(error) = status::serve(listener, node).await {
                    tracing::error!(%error, "the status is served no longer");
                }
            });
            true
        }
        Err(error) => {
            let address = status_address.display();
            tracing::error!(%address, %error, "the status is not served");
            false
        }
    };
    let failed = |source| ServeError::Listen {
        address: address.to_owned(),
        source,
    };
    let is_inherited = inherited.is_some();
    let listener = match inherited {
        Some(listener) => listener,
        None => bind(address).map_err(failed)?,
    };
    let listener = into_tokio(listener).map_err(failed)?;
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = SnapshotsServer::new(Service::new(node.clone()));
    let requests = UnixListenerStream::new(listener);
    let serving = Server::builder().serve_with_incoming_shutdown(service, requests, async {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopped.await;
    });
    let mut serving = std::pin::pin!(serving);
    ready();
    background.spawn(node.clone().keep_lease());
    background.spawn(node.store().clone().keep_checking());
    let trying = node.clone();
    background.spawn(async move { trying.try_mounting().await });
    let sweeping = node.clone();
    background.spawn(async move {
        if let Err(error) = sweeping.cleanup(Busy::Wait).await {
            tracing::warn!(error = with_causes(&error), "cannot clean up");
        }
    });
    let result = tokio::select! {
        result = &mut serving => result.map_err(ServeError::from),
        // At once: what is under way cannot end well.
        () = node.broken() => Err(ServeError::Broken),
        () = stop => {
            tracing::info!("stopping; mounts and containers stay");
            // The receiver is there as long as the server.
            let _ = stopping.send(());
            match tokio::time::timeout(DRAIN, serving).await {
                Ok(result) => result.map_err(ServeError::from),
                Err(_) => {
                    tracing::warn!("some requests did not end in time");
                    Ok(())
                }
            }
        }
    };
    if has_status {
        let _ = fs::remove_file(status_address);
    }
    if !is_inherited {
        // Ours as long as the lock is.
        let _ = fs::remove_file(address);
    }
    result
}

fn into_tokio(listener: StdUnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Takes the folder; it is free again when the file is closed, also by a kill.
fn lock(root: &Path) -> Result<File, ServeError> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(root).map_err(Error::io("make", root))?;
    let path = root.join("lock");
    let file = File::create(&path).map_err(Error::io("open", &path))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ServeError::Locked(root.to_owned()))?;
    Ok(file)
}

/// The socket that was handed down by systemd's protocol (`sd_listen_fds(3)`), if one was. Taken
/// first of all: until then the processes that this one starts would have it too.
///
/// # Errors
/// Something else was handed down.
pub fn inherited() -> io::Result<Option<StdUnixListener>> {
    let mut handed = ListenFd::from_env();
    if handed.len() > 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} sockets were handed down instead of one", handed.len()),
        ));
    }
    handed.take_unix_listener(0)
}

/// Makes the socket.
pub(crate) fn bind(address: &Path) -> io::Result<StdUnixListener> {
    if let Some(folder) = address.parent() {
        fs::create_dir_all(folder)?;
    }
    // A socket that someone answers is not ours to take.
    if std::os::unix::net::UnixStream::connect(address).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    // Under its name from the moment on when it answers, and to root alone.
    let mut new = address.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdUnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, address)?;
    Ok(listener)
}
