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

pub mod chains;
pub mod circuit_breaker;
pub mod config;
pub mod database;
pub mod disk;
pub mod error;
pub mod filter;
pub mod lease;
pub mod metrics;
pub mod mounts;
pub mod node;
pub mod options;
pub mod promise;
pub mod server;
pub mod service;
pub mod starts;
pub mod state;
pub mod status;
pub mod store;
pub mod supervise;
pub mod trial;
pub mod usage;
