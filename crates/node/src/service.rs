//! What keeps the daemon running: systemd, or the daemon's own supervisor where there is none.

mod supervisor;
mod systemd;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::NodeError;
use crate::settings::{ManagerChoice, Settings};

pub use systemd::{service_unit, socket_unit};

/// What keeps the daemon running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Units of systemd, with the socket held by systemd.
    Systemd,
    /// `uimgacc-snapshotter supervise`, which holds the socket.
    Supervisor,
}

impl Manager {
    /// The one to use on this host.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        match settings.manager {
            ManagerChoice::Systemd => Self::Systemd,
            ManagerChoice::Supervisor => Self::Supervisor,
            // The mark that sd_booted(3) looks for.
            ManagerChoice::Auto if Path::new("/run/systemd/system").is_dir() => Self::Systemd,
            ManagerChoice::Auto => Self::Supervisor,
        }
    }

    /// Files that it needs, with their text.
    pub(crate) fn files(self, settings: &Settings) -> Vec<(PathBuf, String)> {
        match self {
            Self::Systemd => systemd::files(settings),
            Self::Supervisor => Vec::new(),
        }
    }

    /// Makes the daemon run, and at boot; `is_changed` where one that runs is out of date.
    pub(crate) fn start(self, settings: &Settings, is_changed: bool) -> Result<(), NodeError> {
        match self {
            Self::Systemd => systemd::start(is_changed),
            Self::Supervisor => supervisor::start(settings, is_changed),
        }
    }

    /// Ends the daemon, and does not start it at boot any more. Mounts and containers stay.
    pub(crate) fn stop(self, settings: &Settings) -> Result<(), NodeError> {
        match self {
            Self::Systemd => systemd::stop(),
            Self::Supervisor => supervisor::stop(settings),
        }
    }

    /// After its files are gone.
    pub(crate) fn forget(self) -> Result<(), NodeError> {
        match self {
            Self::Systemd => systemd::reload(),
            Self::Supervisor => Ok(()),
        }
    }

    /// The end of the daemon's log.
    pub(crate) fn log(self, settings: &Settings) -> String {
        match self {
            Self::Systemd => systemd::log(),
            Self::Supervisor => supervisor::log(settings),
        }
    }
}
