//! The store on a real folder.
#![allow(clippy::unwrap_used, reason = "a test")]

mod deleting;
mod fencing;
mod sessions;
mod strays;
mod support;
mod sweeping;
