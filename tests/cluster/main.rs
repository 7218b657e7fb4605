//! The verbs against a real kube-apiserver, etcd and kube-controller-manager. The agent is played
//! by the tests: what it writes into the status is written by `kubectl`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests; the times are told"
)]

mod access;
mod check;
mod images;
mod manifests;
mod setup;
mod support;
