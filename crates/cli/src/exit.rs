//! Failures with an exit code of their own.

use uimgacc_control::Kind;
use uimgacc_node::NodeError;

/// A failure that scripts tell apart; others exit with 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// `store verify`, `store repair` or `get` found damage.
    #[error("the store is damaged: {0} problems (listed above)")]
    Damaged(usize),
    /// `node check` found what keeps accelerated images from running.
    #[error("accelerated images do not run on this node: {0} problems (listed above)")]
    Unfit(usize),
    /// The image is in use.
    #[error("{0}")]
    InUse(String),
    /// `check` or `status` found something wrong.
    #[error("{0}")]
    Unwell(String),
    /// Stopped by a signal while the cluster works.
    #[error("interrupted; the work goes on in the cluster (`uimgacc status` shows it)")]
    Left,
    /// Stopped by a signal while the service works.
    #[error("interrupted; the work goes on (`uimgacc get` shows it)")]
    LeftRemote,
    /// Stopped by a signal before anything was changed.
    #[error("interrupted")]
    Stopped,
    /// Stopped by a signal while asking.
    #[error("interrupted; nothing was written")]
    NothingWritten,
    /// Stopped by a signal.
    #[error("interrupted; what was unfinished is removed, run the same command again to go on")]
    Interrupted,
}

impl Refused {
    fn code(&self) -> u8 {
        match self {
            Self::Unfit(_) | Self::Unwell(_) => 1,
            Self::Damaged(_) => 3,
            Self::InUse(_) => 4,
            Self::Interrupted
            | Self::Left
            | Self::LeftRemote
            | Self::Stopped
            | Self::NothingWritten => 130,
        }
    }
}

/// The exit code of a failure.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if let Some(refused) = error.downcast_ref::<Refused>() {
        return refused.code();
    }
    if let Some(error) = error.downcast_ref::<NodeError>() {
        return match error {
            NodeError::Busy { .. } => 4,
            NodeError::RolledBack { .. } | NodeError::Down { .. } => 5,
            _ => 1,
        };
    }
    if let Some(error) = error.downcast_ref::<uimgacc_remote::Error>() {
        return match error.kind() {
            uimgacc_remote::Kind::InUse => 4,
            uimgacc_remote::Kind::Timeout => 5,
            uimgacc_remote::Kind::Failed => 1,
        };
    }
    match error
        .downcast_ref::<uimgacc_control::Error>()
        .map(uimgacc_control::Error::kind)
    {
        Some(Kind::InUse) => 4,
        Some(Kind::Timeout) => 5,
        _ => 1,
    }
}
