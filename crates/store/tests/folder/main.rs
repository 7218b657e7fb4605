//! The store on a real folder.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test looks from outside")]

mod deleting;
mod fencing;
mod freeing;
mod repairing;
mod sessions;
mod strays;
mod support;
mod sweeping;
