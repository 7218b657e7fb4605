//! The Debian package on real machines of both releases, with their own systemd and containerd.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy knows only functions marked as tests"
)]

mod life;
mod node;
