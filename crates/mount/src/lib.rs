//! Mounts of indexes and their packs, one module per method.
//!
//! Owns: how an index (an EROFS image on the node's own disk) and its packs (files of the store)
//! become a mount, the node's copy of an index ([`index_cache`]), the store's own mount where it lies
//! on NFS ([`nfs`]); what a start reads of a mount ([`Opens`]), and reading that ahead ([`Fetch`]).
//!
//! Guarantees: a mount is complete before it becomes visible at its target; an error carries what
//! the kernel said. Nothing is unmounted unless asked.
//!
//! Assumptions: root, Linux 5.8 or later (mount API, `STATX_ATTR_MOUNT_ROOT`).

mod beneath;
mod context;
mod fetch;
pub mod index_cache;
mod method;
pub mod nfs;
mod opens;
mod overlay;
mod read_ahead;
mod target;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use uimgacc_store::StoreFile;

pub use fetch::{Fetch, FetchSettings, Fetched, Lead};
pub use method::{Method, Methods, ParseMethodsError};
pub use opens::Opens;
pub use overlay::{OverlayRequest, bind_read_only, mount_overlay};
pub use read_ahead::ReadAhead;
pub use target::{is_mount_point, is_mounted, unmount, unmount_all};

/// What to mount, and where.
#[derive(Debug)]
pub struct MountRequest {
    /// The index, on a local disk.
    pub index: PathBuf,
    /// Its packs, in the order of its device table.
    pub packs: Vec<StoreFile>,
    /// A folder that is there.
    pub target: PathBuf,
    /// What to try, in this order.
    pub methods: Methods,
    /// How far the kernel reads ahead, in KiB; `None` for the kernel's choice (128).
    pub read_ahead_kb: Option<u32>,
}

/// A mount that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// How.
    pub method: Method,
    /// Where its read-ahead is set; `None` where that was not found.
    pub read_ahead: Option<ReadAhead>,
}

/// One method that did not work.
#[derive(Debug)]
pub struct Attempt {
    /// Which.
    pub method: Method,
    /// Why not.
    pub error: AttemptError,
}

/// Why one method did not work.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// A system call failed.
    #[error("{step}: {error}{}", kernel_text(.messages))]
    Kernel {
        /// Which call, and on what.
        step: String,
        /// What the kernel said on the way.
        messages: Vec<String>,
        /// The call's error; in the message, because several attempts stand in one line.
        error: std::io::Error,
    },
}

fn kernel_text(messages: &[String]) -> String {
    if messages.is_empty() {
        String::new()
    } else {
        format!(" (kernel: {})", messages.join("; "))
    }
}

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum MountError {
    /// No method worked.
    #[error("cannot mount {index} at {target}: {}", attempts_text(.attempts))]
    NoMethod {
        /// The index.
        index: PathBuf,
        /// The folder.
        target: PathBuf,
        /// What was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// A system call failed.
    #[error("cannot {action} {path}")]
    System {
        /// In a word or two.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The call's error.
        source: std::io::Error,
    },
    /// An overlay was refused.
    #[error("cannot mount an overlay at {target}")]
    Overlay {
        /// The folder.
        target: PathBuf,
        source: AttemptError,
    },
}

fn attempts_text(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "no method is allowed; name at least one".to_owned();
    }
    let texts: Vec<String> = attempts
        .iter()
        .map(|attempt| format!("method {}: {}", attempt.method, attempt.error))
        .collect();
    texts.join("; ")
}

impl MountError {
    pub(crate) fn system(
        action: &'static str,
        path: &Path,
        source: impl Into<std::io::Error>,
    ) -> Self {
        Self::System {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// Which of [`Method::ALL`] worked last in this process: what one kernel refuses once it refuses
/// each time. The number is an index into it; out of range at first.
static LAST_METHOD: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Mounts an index with its packs, read-only, at `request.target`.
///
/// The mount itself is `nosuid,nodev`. In overlays on it, and in binds of it that are remounted
/// read-only, set-user-id programs and device nodes of the image work all the same, as they do with
/// containerd's overlayfs. The method that worked last is tried first, then the others in their order.
///
/// # Errors
/// What each method failed with.
pub fn mount_image(request: &MountRequest) -> Result<Mounted, MountError> {
    let last = Method::ALL.get(LAST_METHOD.load(Ordering::Relaxed));
    let mut attempts = Vec::new();
    for method in request.methods.starting_with(last.copied()) {
        match method::mount(method, request) {
            Ok(read_ahead) => {
                if let (Some(read_ahead), Some(kb)) = (&read_ahead, request.read_ahead_kb)
                    && let Err(error) = read_ahead.set(kb)
                {
                    tracing::debug!(%error, "read-ahead not set");
                }
                let number = Method::ALL.iter().position(|known| *known == method);
                LAST_METHOD.store(number.unwrap_or(usize::MAX), Ordering::Relaxed);
                return Ok(Mounted { method, read_ahead });
            }
            Err(error) => {
                tracing::debug!(%method, %error, "mount method failed");
                attempts.push(Attempt { method, error });
            }
        }
    }
    Err(MountError::NoMethod {
        index: request.index.clone(),
        target: request.target.clone(),
        attempts,
    })
}
