//! The verbs through the HTTP API, by the real command against a real HTTP server, which plays the
//! service: it checks signatures as the service does and answers what the test says, so that what the
//! original service may do can be seen here. Needs no root and no parts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy knows only functions marked as tests"
)]

mod config;
mod service;
mod support;
mod terminal;
mod verbs;
mod waiting;
