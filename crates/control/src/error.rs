//! Why a verb failed, and what to do.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use uimgacc_objects::access::AccessRefused;
use uimgacc_types::{NfsAddressError, ParseReferenceError, root_cause};

use crate::hints;
use crate::holder::Holder;

/// What callers tell apart: exit codes and HTTP answers hang from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// What was asked for makes no sense as it stands.
    Invalid,
    /// There is no such object.
    NotFound,
    /// Something else stands under that name.
    Conflict,
    /// Pods use it.
    InUse,
    /// It did not come about in time.
    Timeout,
    /// The API server cannot be reached or refuses the user.
    Cluster,
    /// The agent tried and failed.
    Failed,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// No kubeconfig was found, and this is no Pod.
    #[error("found no cluster: there is no kubeconfig, and this is no Pod")]
    NoCluster,
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig{}", .path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    Kubeconfig {
        /// The file, where it was named.
        path: Option<PathBuf>,
        #[source]
        source: Cause,
    },
    /// The API server does not answer.
    #[error("cannot {action}: no answer from the Kubernetes API at {server}")]
    Unreachable {
        action: String,
        /// Address of the server.
        server: String,
        #[source]
        source: Cause,
    },
    /// The API server refuses.
    #[error("cannot {action}: {message}")]
    Api {
        action: String,
        /// HTTP status.
        code: u16,
        /// One word of Kubernetes', such as `Forbidden`.
        reason: String,
        /// What the server said.
        message: String,
    },
    /// The cluster is too old.
    #[error(
        "Kubernetes {found} is too old: uimgacc needs 1.{} or later",
        crate::MIN_MINOR
    )]
    TooOld {
        /// Its version.
        found: String,
    },
    /// No image reference.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// The image may not be pushed there.
    #[error(transparent)]
    Access(#[from] AccessRefused),
    /// No address of an NFS server.
    #[error(transparent)]
    NfsAddress(#[from] NfsAddressError),
    /// The request makes no sense.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The cluster is not enabled.
    #[error("image acceleration is not enabled in this cluster")]
    NotEnabled,
    /// There is no such image.
    #[error("there is no accelerated image {image} in this cluster")]
    NotFound {
        /// Its normalised reference.
        image: String,
    },
    /// An original has several targets.
    #[error("{image} was accelerated as several images: {}", targets.join(", "))]
    Ambiguous {
        /// The original.
        image: String,
        /// Its targets.
        targets: Vec<String>,
    },
    /// The target is that of another original.
    #[error("{target} is the target of {other} already, not of {original}")]
    TargetTaken {
        /// The target.
        target: String,
        /// What was asked for.
        original: String,
        /// Whose target it is.
        other: String,
    },
    /// The cluster is being disabled just now.
    #[error("image acceleration is being disabled")]
    BeingDisabled,
    /// It is being deleted just now.
    #[error("{target} is being deleted")]
    BeingDeleted {
        /// The target.
        target: String,
    },
    /// The image could not be made.
    #[error("cannot accelerate {target}: {message}")]
    CreateFailed {
        /// The target.
        target: String,
        /// What the agent says.
        message: String,
    },
    /// The image cannot be deleted.
    #[error("cannot delete {target}: {message}")]
    DeleteFailed {
        /// The target.
        target: String,
        /// What the agent says.
        message: String,
    },
    /// Pods use it.
    #[error("{what} is in use by {}", crate::holder::list(holders))]
    InUse {
        /// What is.
        what: String,
        /// By whom.
        holders: Vec<Holder>,
    },
    /// It did not come about in time.
    #[error("{what} after {} s{}", after.as_secs(), bullets(missing))]
    Timeout {
        /// What did not, such as `not ready`.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// What is missing, one line each.
        missing: Vec<String>,
    },
}

/// Lines that a message lists at most.
const LISTED: usize = 20;

fn bullets(lines: &[String]) -> String {
    let mut text: String = lines
        .iter()
        .take(LISTED)
        .map(|line| format!("\n  - {line}"))
        .collect();
    if lines.len() > LISTED {
        text.push_str(&format!("\n  - and {} more", lines.len() - LISTED));
    }
    text
}

impl Error {
    /// What callers tell apart.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Reference(_) | Self::Access(_) | Self::NfsAddress(_) | Self::Invalid { .. } => {
                Kind::Invalid
            }
            Self::NotEnabled | Self::NotFound { .. } => Kind::NotFound,
            Self::Ambiguous { .. }
            | Self::TargetTaken { .. }
            | Self::BeingDeleted { .. }
            | Self::BeingDisabled => Kind::Conflict,
            Self::InUse { .. } => Kind::InUse,
            Self::Timeout { .. } => Kind::Timeout,
            Self::CreateFailed { .. } | Self::DeleteFailed { .. } => Kind::Failed,
            Self::NoCluster
            | Self::Kubeconfig { .. }
            | Self::Unreachable { .. }
            | Self::Api { .. }
            | Self::TooOld { .. } => Kind::Cluster,
        }
    }

    /// What to do about it, one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoCluster => {
                "name a kubeconfig by --kubeconfig or KUBECONFIG, or a local store by --store"
            }
            Self::Kubeconfig { .. } => "`kubectl config get-contexts` lists what there is",
            Self::Unreachable { .. } => {
                "see whether `kubectl version` reaches the same cluster; --context chooses another"
            }
            Self::Api {
                code,
                reason,
                message,
                ..
            } => return hints::api(*code, reason, message),
            Self::TooOld { .. } => {
                "upgrade the cluster; older ones can only use local stores (--store)"
            }
            Self::Reference(_)
            | Self::Access(AccessRefused::Reference(_))
            | Self::NfsAddress(_) => return None,
            Self::Access(refused) => refused.hint(),
            Self::Invalid { hint, .. } => {
                return Some(hint.clone()).filter(|hint| !hint.is_empty());
            }
            Self::NotEnabled => "`uimgacc enable --nfs ADDR` enables it",
            Self::NotFound { .. } => "`uimgacc get` lists the images",
            Self::Ambiguous { .. } => "name the target image",
            Self::TargetTaken { .. } => {
                "choose another target, or delete that image first (`uimgacc delete`)"
            }
            Self::BeingDisabled => {
                "wait for it (`uimgacc disable` again shows how far it is), then `uimgacc enable` again"
            }
            Self::BeingDeleted { .. } => {
                "wait until it is gone (`uimgacc get -w`), then create it again"
            }
            // The agent has said it in the text.
            Self::CreateFailed { .. } => return None,
            Self::DeleteFailed { .. } => {
                "the agent tries again by itself; `uimgacc status` shows what holds it up"
            }
            Self::InUse { .. } => "end these Pods first, or use --force",
            Self::Timeout { .. } => {
                "the work goes on in the cluster; `uimgacc status` and `uimgacc check` show how far it is"
            }
        };
        Some(hint.to_owned())
    }
}

/// The innermost reason of an error of the client, without what its outer layers repeat.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl Cause {
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        Self(root_cause(error))
    }
}

/// Ours, of the client's.
pub(crate) fn of_client(server: &str, action: &str, error: &kube::Error) -> Error {
    let action = action.to_owned();
    match error {
        kube::Error::Api(status) => Error::Api {
            action,
            code: status.code,
            reason: status.reason.clone(),
            message: one_line(&status.message),
        },
        kube::Error::SerdeError(_) => Error::Api {
            action,
            code: 0,
            reason: "Decode".to_owned(),
            message: format!(
                "the API answered what this version does not understand: {}",
                error.source().map(ToString::to_string).unwrap_or_default()
            ),
        },
        other => Error::Unreachable {
            action,
            server: server.to_owned(),
            source: Cause::of(other),
        },
    }
}

/// Ours, of a watch's.
pub(crate) fn of_watch(server: &str, action: &str, error: &kube::runtime::watcher::Error) -> Error {
    use kube::runtime::watcher::Error as Watch;
    match error {
        Watch::InitialListFailed(error)
        | Watch::WatchStartFailed(error)
        | Watch::WatchFailed(error) => of_client(server, action, error),
        Watch::WatchError(status) => Error::Api {
            action: action.to_owned(),
            code: status.code,
            reason: status.reason.clone(),
            message: one_line(&status.message),
        },
        other => Error::Unreachable {
            action: action.to_owned(),
            server: server.to_owned(),
            source: Cause::of(other),
        },
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether asking again may help.
pub(crate) fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Api { code, .. } => matches!(code, 410 | 429 | 500..),
        _ => false,
    }
}
