//! Install, check and uninstall with the real containerd of every version and the real daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests; clippy knows only functions marked as tests"
)]

mod again;
mod crash;
mod failures;
mod host;
mod units;
mod versions;
