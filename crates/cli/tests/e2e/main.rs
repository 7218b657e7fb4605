//! The command from end to end: real registry, real store, real mounts, and the real containerd
//! to compare with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod commands;
mod crash;
mod equality;
mod hostile;
mod run;
mod sharing;
mod support;
