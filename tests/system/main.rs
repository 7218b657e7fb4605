//! The whole system on a real cluster: enable, create, Pods, delete, disable, by the CLI and by `kubectl`, and through the death of
//! every part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests; clippy knows only functions marked as tests; times are told"
)]

mod access;
mod api;
mod failures;
mod fixture;
mod kills;
mod parts;
mod starts;
mod steady;
mod upgrade;
mod verbs;
