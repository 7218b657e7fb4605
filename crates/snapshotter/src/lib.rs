//! The containerd snapshotter: gRPC daemon of a node.
//!
//! Layers of images in the store become committed snapshots without a download, all else is as
//! with containerd's overlayfs snapshotter. The parts, from the inside out: [`state`] (the rules,
//! pure), [`database`] and [`disk`] (where they are kept), [`chains`] and [`store`] (mounts of
//! images), [`node`] (all of it together), [`service`] and [`server`] (gRPC), [`status`] and [`metrics`]
//! (what it says of itself), [`supervise`] (hosts without systemd).
//!
//! Guarantees: containers never depend on this process; what it mounts stays when it stops or is
//! killed, and is found again when it starts. A store that hangs never hangs containerd.

mod chains;
mod circuit_breaker;
mod config;
mod database;
mod disk;
mod error;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lease;
mod metrics;
mod mounts;
mod node;
mod options;
mod promise;
mod server;
mod service;
mod starts;
mod state;
mod status;
mod store;
mod supervise;
mod trial;
mod usage;

pub use config::{Config, ConfigError, DEFAULT_PATH};
pub use node::NodeSettings;
pub use options::{DEFAULT_ADDRESS, Options, Settings};
pub use server::{inherited, serve};
pub use supervise::{Supervised, supervise};
