//! What a node needs so that containerd uses our snapshotter.
//!
//! Owns: containerd's configuration file as far as it is about us ([`config`], pure), the daemon's
//! binary, configuration and service, and the record of what was done. [`install`] and
//! [`uninstall`] change a node, [`check()`] looks at one.
//!
//! Guarantees: containerd is restarted only where it does not run with the wanted configuration
//! already, and only after it has accepted that; where it does not come back it gets the former one
//! again. A crash at any point is mended by the next install or uninstall. Uninstall leaves the
//! configuration byte for byte as it was, where nobody has edited it in between.
//!
//! Assumptions: root; one host, whose paths are [`Settings`].

pub mod check;
mod command;
pub mod config;
mod containerd;
mod error;
mod files;
mod grpc;
mod install;
mod lost;
mod service;
mod settings;
mod state;
mod uninstall;
mod version;

pub use check::check;
pub use error::NodeError;
pub use install::{Installed, Plan, Step, Watch, install, plan};
pub use service::{Manager, service_unit, socket_unit};
pub use settings::{DaemonOptions, ManagerChoice, PACKAGED_BIN_DIR, Settings};
pub use state::{ConfigRecord, InstallRecord, NodeState, Phase, STATE_FORMAT};
pub use uninstall::{Uninstalled, as_installed, purge_when_unused, refuse_used, uninstall};
pub use version::{ContainerdVersion, VersionError};
