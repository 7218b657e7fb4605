//! The daemon with the real containerd, the real kernel and containerd's own tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests; clippy knows only functions marked as tests"
)]

mod conformance;
mod daemon;
mod ordinary;
mod remote;
mod store_maker;
