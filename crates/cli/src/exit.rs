//! Failures with an exit code of their own.

/// A failure that scripts tell apart; others exit with 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// `store verify` found damage.
    #[error("the store is damaged: {0} problems (listed above)")]
    Damaged(usize),
    /// `node check` found what keeps accelerated images from running.
    #[error("accelerated images do not run on this node: {0} problems (listed above)")]
    Unfit(usize),
    /// The image is in use.
    #[error("{0}")]
    InUse(String),
    /// Stopped by a signal.
    #[error("interrupted; what was unfinished is removed, run the same command again to go on")]
    Interrupted,
}

impl Refused {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Unfit(_) => 1,
            Self::Damaged(_) => 3,
            Self::InUse(_) => 4,
            Self::Interrupted => 130,
        }
    }
}
