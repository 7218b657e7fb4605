//! The daemon mounts the store itself: a real NFS server and client, in a kernel of our own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of tests are tests too"
)]

mod failures;
mod links;
mod support;
mod versions;
