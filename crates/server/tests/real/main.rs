//! The server as a process, with a real control plane behind it, and clients that mean no good.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "helpers of tests; clippy knows only functions marked as tests; numbers are told"
)]

mod clusters;
mod codes;
mod configuration;
mod flood;
mod hostile;
mod recut;
mod stage;
