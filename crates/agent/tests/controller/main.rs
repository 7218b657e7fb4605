//! The controller against a real etcd, kube-apiserver and kube-controller-manager.
//!
//! There are no nodes, so no Pod runs: the tests play the kubelet, the conversion and the node by
//! writing the statuses that those would write. Everything else is real, and the controller has
//! the rights of `rbac.yaml` only.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "tests; numbers are told"
)]

mod access;
mod audit;
mod deletion;
mod disable;
mod images;
mod leaders;
mod restarts;
mod scale;
mod stage;
