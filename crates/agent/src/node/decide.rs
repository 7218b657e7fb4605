//! What is to be done, and what is to be said: from what was seen, without I/O.

use std::time::Duration;

use uimgacc_objects::{AccelerationNodeSpec, HeldChain};
use uimgacc_types::backoff;

use super::daemon::DaemonStatus;

/// After so long without a change the installation is looked at again, for whoever changed the host.
const RECHECK: Duration = Duration::from_secs(300);
/// A daemon that is silent for so long is looked after.
const SILENCE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long all must be well before it counts as well again.
const SETTLE: Duration = Duration::from_secs(3);

/// What the last piece of work on the host came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There was none since this program began.
    None,
    /// All is in place but what needs a restart of containerd.
    RestartNeeded {
        containerd: String,
        /// The containerd that runs knows the snapshotter all the same.
        runs: bool,
    },
    Installed {
        containerd: String,
    },
    /// containerd did not work with the new configuration, and has the former one.
    RolledBack(String),
    Failed(String),
    /// All is gone; what goes later stands in `left`.
    Uninstalled {
        left: Option<String>,
    },
    UninstallFailed(String),
}

/// What was seen. Times are since this program began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed<'s> {
    pub(super) now: Duration,
    pub(super) spec: &'s AccelerationNodeSpec,
    pub(super) outcome: &'s Outcome,
    /// When that was.
    pub(super) outcome_at: Duration,
    /// How often it was a failure in a row.
    pub(super) failures: u32,
    /// The daemon, or why it does not answer.
    pub(super) daemon: Result<&'s DaemonStatus, &'s str>,
    /// Since when it does not.
    pub(super) silent_since: Option<Duration>,
    /// Whether the node has a label.
    pub(super) labelled: bool,
    /// Whether containerd may be restarted now.
    pub(super) may_restart: bool,
}

/// A piece of work on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostWork {
    /// Install everything but what needs a restart of containerd.
    Prepare,
    /// Install everything.
    Install,
    Uninstall,
}

/// The piece of work to do next.
pub(super) fn work(seen: &Observed<'_>) -> Option<HostWork> {
    let age = seen.now.saturating_sub(seen.outcome_at);
    if waits_for_restart(seen) && seen.may_restart {
        return Some(if seen.spec.uninstall {
            HostWork::Uninstall
        } else {
            HostWork::Install
        });
    }
    if seen.spec.uninstall || seen.spec.leaving {
        return None;
    }
    let is_due = match seen.outcome {
        Outcome::None | Outcome::Uninstalled { .. } => true,
        Outcome::RestartNeeded { .. } => age >= RECHECK,
        Outcome::Installed { .. } => {
            let silent = seen
                .silent_since
                .map(|since| seen.now.saturating_sub(since));
            age >= RECHECK || (silent.is_some_and(|silent| silent >= SILENCE) && age >= SILENCE)
        }
        // Once more would take containerd down once more.
        Outcome::RolledBack(_) => false,
        Outcome::Failed(_) | Outcome::UninstallFailed(_) => age >= pause(seen.failures),
    };
    // What is in place is only looked at; a restart has to be asked for first.
    is_due.then_some(HostWork::Prepare)
}

/// Whether containerd is to be restarted as soon as the cluster lets it.
pub(super) fn waits_for_restart(seen: &Observed<'_>) -> bool {
    let is_after_pause = || seen.now.saturating_sub(seen.outcome_at) >= pause(seen.failures);
    if seen.spec.uninstall {
        // Nobody is to be sent here any more before containerd is restarted.
        return !seen.labelled
            && match seen.outcome {
                Outcome::Uninstalled { .. } => false,
                Outcome::UninstallFailed(_) => is_after_pause(),
                _ => true,
            };
    }
    !seen.spec.leaving
        && match seen.outcome {
            Outcome::RestartNeeded { .. } => true,
            Outcome::Failed(_) => is_after_pause(),
            _ => false,
        }
}

/// How long to wait between two looks whether containerd may be restarted: all nodes of a cluster
/// together look a hundred times a second at most.
pub(super) fn restart_look_pause(nodes: u32) -> Duration {
    Duration::from_millis(u64::from(nodes) * 10).min(LONGEST_PAUSE)
}

fn pause(failures: u32) -> Duration {
    backoff(FIRST_PAUSE, failures, LONGEST_PAUSE)
}

/// Why a node cannot run accelerated images just now: a word for conditions, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// It goes by itself as the installation goes on, and is no error.
    pub(super) is_normal: bool,
    /// Nothing to wait for: the labels go at once.
    pub(super) is_final: bool,
}

/// What the installation lacks.
pub(super) fn not_installed(seen: &Observed<'_>) -> Option<Unfit> {
    let unfit = |reason, message: String, is_normal, is_final| {
        Some(Unfit {
            reason,
            message,
            is_normal,
            is_final,
        })
    };
    match seen.outcome {
        Outcome::Installed { .. } | Outcome::RestartNeeded { runs: true, .. } => None,
        Outcome::None => unfit(
            "Starting",
            "the installation begins".to_owned(),
            true,
            false,
        ),
        Outcome::RestartNeeded { .. } => unfit(
            "WaitsForRestart",
            "containerd must be restarted; maxUnavailable of the ImageAcceleration says how many nodes do that at a time".to_owned(),
            true,
            true,
        ),
        Outcome::RolledBack(error) => unfit(
            "RolledBack",
            format!("{error}\nmend that, then delete this node's Pod uimgacc-node to try again"),
            false,
            true,
        ),
        Outcome::Failed(error) => unfit("InstallFailed", error.clone(), false, false),
        Outcome::Uninstalled { left: None } => {
            unfit("Uninstalled", "all is as it was".to_owned(), true, true)
        }
        Outcome::Uninstalled { left: Some(left) } => unfit("Uninstalled", left.clone(), true, true),
        Outcome::UninstallFailed(error) => unfit("UninstallFailed", error.clone(), false, true),
    }
}

/// Why a node cannot run accelerated images just now; `None` where it can.
pub(super) fn unfit(seen: &Observed<'_>) -> Option<Unfit> {
    if let Some(unfit) = not_installed(seen) {
        return Some(unfit);
    }
    let (reason, message) = if seen.spec.uninstall {
        return Some(Unfit {
            reason: "Uninstalling",
            message: "everything is being taken off this node".to_owned(),
            is_normal: true,
            is_final: true,
        });
    } else if seen.spec.leaving {
        return Some(Unfit {
            reason: "NotSelected",
            message: "the node selector leaves this node out; everything is taken off it once no Pod here reads the store"
                .to_owned(),
            is_normal: true,
            is_final: true,
        });
    } else {
        match seen.daemon {
            Err(silence) => (
                "SnapshotterSilent",
                format!("the snapshotter does not answer: {silence}; look at its log on the node"),
            ),
            Ok(daemon) if !daemon.store.reachable => ("StoreUnreachable", store_message(daemon)),
            Ok(daemon) if daemon.mount_method.is_none() => (
                "NoMountMethod",
                "no way to mount images works here; `uimgacc node check` on the node says why"
                    .to_owned(),
            ),
            Ok(_) => return None,
        }
    };
    Some(Unfit {
        reason,
        message,
        is_normal: false,
        is_final: false,
    })
}

/// Why the store cannot be reached.
pub(super) fn store_message(daemon: &DaemonStatus) -> String {
    let error = daemon.store.error.as_deref().unwrap_or("no answer");
    format!(
        "the store {} cannot be reached: {error}",
        daemon.store.source
    )
}

/// The tokens of the chains to be given back that the node holds.
pub(super) fn to_release(spec: &AccelerationNodeSpec, held: &[HeldChain]) -> Vec<String> {
    let is_held = |chain: &&String| held.iter().any(|one| one.token == **chain);
    spec.release.iter().filter(is_held).cloned().collect()
}

/// Whether the node is to have the label that keeps the installer on it; `None`: as it is.
pub(super) fn keeps_installer(spec: &AccelerationNodeSpec, outcome: &Outcome) -> Option<bool> {
    match (spec.uninstall, outcome) {
        (true, Outcome::Uninstalled { .. }) => Some(false),
        (true, _) => None,
        // Set before anything else is done: where it is not there nothing was done.
        (false, _) => (!spec.leaving).then_some(true),
    }
}

/// Whether the node counts as fit: what is short does not count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fitness {
    is_fit: bool,
    /// Since when it is otherwise.
    otherwise_since: Option<Duration>,
    patience: Duration,
}

impl Fitness {
    /// As the node's labels have it. What is unfit for less than `patience` does not count.
    pub(super) fn new(is_fit: bool, patience: Duration) -> Self {
        Self {
            is_fit,
            otherwise_since: None,
            patience,
        }
    }

    /// Takes note of how it is now.
    pub(super) fn feed(&mut self, now: Duration, unfit: Option<&Unfit>) -> bool {
        if unfit.is_none() == self.is_fit {
            self.otherwise_since = None;
            return self.is_fit;
        }
        let since = *self.otherwise_since.get_or_insert(now);
        let wait = match unfit {
            None => SETTLE,
            Some(unfit) if unfit.is_final => Duration::ZERO,
            Some(_) => self.patience,
        };
        if now.saturating_sub(since) >= wait {
            self.is_fit = !self.is_fit;
            self.otherwise_since = None;
        }
        self.is_fit
    }
}

#[cfg(test)]
mod tests;
