//! The command from end to end: real registry, real store, real mounts, and the real containerd
//! to compare with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests; clippy knows only functions marked as tests"
)]

mod commands;
mod crash;
mod equality;
mod hostile;
mod memory;
mod mounting;
mod node;
mod possession;
mod profiles;
mod repair;
mod run;
mod sharing;
mod snapshotter;
mod space;
mod strays;
mod support;
