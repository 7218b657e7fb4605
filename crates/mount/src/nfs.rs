//! NFS exports, mounted in no folder.
//!
//! The mount is made with the kernel's mount API and never attached: it is reached through a
//! descriptor, `/proc/self/fd/N/…`. So it stands in no mount table, and no `df`, `find` or disk
//! statistics of a kubelet ever walks into it. EROFS mounts on its files hold its file system
//! themselves and live on when the descriptor is closed.
//!
//! Guarantees: [`DetachedMount::make`] returns in bounded time, whatever the servers do. Each
//! server is asked by a plain TCP connection first, all at once, so that a wrong address is told
//! in seconds and clearly; then they are tried in their order. Errors carry what the kernel said.
//!
//! Assumptions: Linux 5.6 or later (NFS in the new mount API). A call into the kernel that hangs
//! keeps its thread; at most [`MAX_HANGING`] do.

mod reach;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use uimgacc_types::NfsSource;
use uimgacc_types::source::{MountParameter, NfsServer, NfsVersion};

use self::reach::Reached;
pub use self::reach::UnreachableError;
use crate::AttemptError;
use crate::context::Context;

/// How many mounts that hang in the kernel there may be.
pub const MAX_HANGING: usize = 4;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// How long the steps of a mount may take.
#[derive(Debug, Clone, Copy)]
pub struct MountTimeouts {
    /// Name resolution and connection, for all servers together.
    pub reach: Duration,
    /// The kernel's mount, for each server.
    pub mount: Duration,
}

impl Default for MountTimeouts {
    fn default() -> Self {
        Self {
            reach: Duration::from_secs(3),
            mount: Duration::from_secs(20),
        }
    }
}

/// Why one server gave no mount.
#[derive(Debug, thiserror::Error)]
pub enum ServerProblem {
    /// No connection.
    #[error(transparent)]
    Unreachable(UnreachableError),
    /// The mount was refused.
    #[error("NFS {version} at {address}: {error}{}", advice(.error))]
    Refused {
        /// The version that was tried last.
        version: NfsVersion,
        /// The server.
        address: SocketAddr,
        /// The kernel's answer.
        error: AttemptError,
    },
    /// The kernel is still waiting for the server.
    #[error(
        "{address} takes connections but did not answer a mount in {seconds} s; look after the NFS service there"
    )]
    Silent {
        /// The server.
        address: SocketAddr,
        /// How long it had.
        seconds: u64,
    },
    /// No thread is left to try with.
    #[error(
        "{MAX_HANGING} earlier mounts still wait for a server that does not answer; they end when it is back"
    )]
    Exhausted,
}

/// What to do about an error of the mount itself.
fn advice(error: &AttemptError) -> &'static str {
    let AttemptError::Kernel { error, .. } = error;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NODEV) => {
            "; this kernel has no NFS: load the module nfs, or install the package that has it"
        }
        Some(Errno::PROTONOSUPPORT) => {
            "; the server (or this kernel) lacks that version: leave out vers, or name another"
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            "; the server does not export that path to this node: look into its export list"
        }
        Some(Errno::NOENT) => "; the server exports no such path (NFSv4 paths start at its root)",
        _ => "",
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {store}: {}", problems_text(.problems))]
pub struct NfsError {
    /// What was to be mounted.
    pub store: String,
    /// What each server failed with, in their order.
    pub problems: Vec<(NfsServer, ServerProblem)>,
}

fn problems_text(problems: &[(NfsServer, ServerProblem)]) -> String {
    let texts = problems
        .iter()
        .map(|(server, problem)| format!("{server}: {problem}"));
    texts.collect::<Vec<_>>().join("; ")
}

/// A mount in no folder.
///
/// It goes with this value, but for what other mounts hold of it.
#[derive(Debug)]
pub struct DetachedMount {
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    address: SocketAddr,
    version: NfsVersion,
}

impl DetachedMount {
    /// Mounts an export, read-only and without set-user-id programs, devices and execution: it
    /// holds packs, which are nothing of that. What the images in it may do is up to the mounts
    /// on top.
    ///
    /// # Errors
    /// What each server failed with.
    pub fn make(source: &NfsSource, patience: MountTimeouts) -> Result<Self, NfsError> {
        Self::make_for(source, Access::ReadOnly, patience)
    }

    /// The same, for those who also write the store.
    ///
    /// # Errors
    /// What each server failed with.
    pub fn make_writable(source: &NfsSource, patience: MountTimeouts) -> Result<Self, NfsError> {
        Self::make_for(source, Access::Writable, patience)
    }

    fn make_for(
        source: &NfsSource,
        access: Access,
        patience: MountTimeouts,
    ) -> Result<Self, NfsError> {
        let mut problems = Vec::new();
        // Those that cannot be reached are told too, where no other works.
        for (server, reached) in reach::all(source.servers(), patience.reach) {
            let made = match reached {
                Ok(reached) => mount(source, &server, reached, access, patience.mount),
                Err(error) => Err(ServerProblem::Unreachable(error)),
            };
            match made {
                Ok(mount) => return Ok(mount),
                Err(problem) => problems.push((server, problem)),
            }
        }
        Err(NfsError {
            store: source.to_string(),
            problems,
        })
    }

    /// Its root folder, for this process alone and as long as this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let number = self.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        PathBuf::from(format!("/proc/self/fd/{number}"))
    }

    /// The server's address that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The version that was agreed on.
    #[must_use]
    pub fn version(&self) -> NfsVersion {
        self.version
    }
}

impl Drop for DetachedMount {
    fn drop(&mut self) {
        let fd = self.fd.take();
        // The last user of a file system takes leave of its server, which may be gone.
        let closing = thread::Builder::new().name("nfs-close".to_owned());
        if let Err(error) = closing.spawn(move || drop(fd)) {
            tracing::debug!(%error, "no thread to close a mount with");
        }
    }
}

/// Mounts from one server, on a thread that is left behind where it hangs.
fn mount(
    source: &NfsSource,
    server: &NfsServer,
    reached: Reached,
    access: Access,
    deadline: Duration,
) -> Result<DetachedMount, ServerProblem> {
    let permit = Permit::take().ok_or(ServerProblem::Exhausted)?;
    let name = Arc::new(source.kernel_source(server));
    let options = source.options().clone();
    let (done, result) = mpsc::channel();
    let work = move || {
        let _permit = permit;
        let mut last = None;
        for version in options.versions() {
            let parameters = options.parameters(
                version,
                reached.server.ip(),
                reached.server.port(),
                reached.client,
            );
            match mount_now(&name, version, access, &parameters) {
                Ok(fd) => {
                    last = Some(Ok((fd, version)));
                    break;
                }
                Err(error) => {
                    let next = is_about_the_version(&error);
                    last = Some(Err((version, error)));
                    if !next {
                        break;
                    }
                }
            }
        }
        // Nobody waits any more: a mount that was made all the same is closed with the value.
        let _ = done.send(last);
    };
    let address = reached.server;
    let silent = || ServerProblem::Silent {
        address,
        seconds: deadline.as_secs(),
    };
    thread::Builder::new()
        .name("nfs-mount".to_owned())
        .spawn(work)
        .map_err(|_| ServerProblem::Exhausted)?;
    match result.recv_timeout(deadline) {
        Ok(Some(Ok((fd, version)))) => Ok(DetachedMount {
            fd: Some(fd),
            address,
            version,
        }),
        Ok(Some(Err((version, error)))) => Err(ServerProblem::Refused {
            version,
            address,
            error,
        }),
        Ok(None) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(silent()),
    }
}

/// Whether an older version may work: the server said that it has none of this one.
fn is_about_the_version(error: &AttemptError) -> bool {
    let AttemptError::Kernel { error, .. } = error;
    error.raw_os_error() == Some(Errno::PROTONOSUPPORT.raw_os_error())
}

fn mount_now(
    name: &str,
    version: NfsVersion,
    access: Access,
    parameters: &[MountParameter],
) -> Result<OwnedFd, AttemptError> {
    // The type also loads the kernel's module for that version.
    let file_system = if version == NfsVersion::V3 {
        "nfs"
    } else {
        "nfs4"
    };
    let context = Context::open(file_system)?;
    context.set_string("source", name)?;
    if access == Access::ReadOnly {
        context.set_flag("ro")?;
    }
    for parameter in parameters {
        match parameter {
            MountParameter::Flag(key) => context.set_flag(key)?,
            MountParameter::Value(key, value) => context.set_string(key, value)?,
        }
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if access == Access::ReadOnly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    context.mount_detached_without_links(attributes)
}

/// What a mount is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    Writable,
}

/// One of the mounts that may be under way.
struct Permit;

impl Permit {
    fn take() -> Option<Self> {
        let more = |count: usize| (count < MAX_HANGING).then_some(count + 1);
        UNDER_WAY
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok()
            .then_some(Self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
    }
}
