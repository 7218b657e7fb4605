//! The guide's commands, run by a shell on a real cluster.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod playground;
mod quick_start;
mod tour;
