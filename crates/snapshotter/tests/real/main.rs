//! The daemon with the real containerd, the real kernel and containerd's own tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests; clippy knows only functions marked as tests"
)]

mod client;
mod conformance;
mod daemon;
mod disk_full;
mod ordinary;
mod possession;
mod promises;
mod remote;
mod slow_store;
mod status;
mod store_maker;
